from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchscore import session
from batchscore.errors import SettingsError, SetupError, UnavailableError

RUNS = """#!/bin/sh
case "$*" in *jdk.incubator.vector*) exit {with_module};; esac
echo 'openjdk version "{version}"' >&2
"""


def fake_java(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, trimmed: bool = False) -> None:
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    script = RUNS.format(version=version, with_module=1)
    if not trimmed and not version.startswith("1."):
        script = script.replace("exit 1", ":")
    java.write_text(script, encoding="utf-8")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(folder))


@pytest.mark.parametrize(
    ("version", "trimmed", "text"),
    [("1.8.0_402", False, "is Java 8"), ("11.0.2", False, "is Java 11"), ("17.0.1", True, "trimmed"),
     ("?", False, "does not say its version")],
)  # fmt: skip
def test_a_java_that_cannot_run_spark_is_named(tmp_path, monkeypatch, version, trimmed, text):
    fake_java(tmp_path, monkeypatch, version, trimmed=trimmed)
    problem = session.java_problem()
    assert problem is not None
    assert text in problem
    with pytest.raises(SetupError, match="install a full JDK"):
        session.start("local[1]", {}, on_notice=print)


@pytest.mark.parametrize("version", ["17.0.15", "21.0.2"])
def test_a_whole_java_is_fine(tmp_path, monkeypatch, version):
    fake_java(tmp_path, monkeypatch, version)
    assert session.java_problem() is None


def test_a_missing_java_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "no bin/java" in str(session.java_problem())
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not set" in str(session.java_problem())


def test_local_mode_gets_small_defaults_and_a_cluster_does_not():
    local, remote = session.session_conf("local[*]", {}), session.session_conf("spark://h:1", {})
    assert local["spark.sql.shuffle.partitions"] == "2"
    assert local["spark.ui.enabled"] == "false"
    for key in ("spark.sql.shuffle.partitions", "spark.ui.enabled", "spark.driver.host"):
        assert key not in remote
    for conf in (local, remote):
        assert conf["spark.sql.session.timeZone"] == "UTC"
        assert conf["spark.ui.showConsoleProgress"] == "false"
        assert conf["spark.jars.packages"] == session.DELTA_PACKAGE
        assert conf["spark.sql.extensions"] == session.DELTA_EXTENSION


@pytest.mark.parametrize("use", ["tasks", "sql", "delta"])
def test_nobody_has_spark_pass_over_what_it_cannot_read(use):
    given = {"spark.sql.files.ignoreCorruptFiles": "true", "spark.sql.files.ignoreMissingFiles": "TRUE"}
    conf = session.session_conf("yarn", given, use=use)
    assert {conf[name] for name in given} == {"false"}


def test_a_session_that_schedules_alone_starts_its_jvms_quickly():
    quick = session.session_conf("local[*]", {}, use="tasks")
    for who in ("driver", "executor"):
        assert "-XX:TieredStopAtLevel=1" in quick[f"spark.{who}.extraJavaOptions"]
    assert "spark.jars.packages" not in quick
    for use in ("sql", "delta"):
        assert "spark.driver.extraJavaOptions" not in session.session_conf("local[*]", {}, use=use)


@pytest.mark.parametrize(
    "name", ["spark.driver.extraJavaOptions", "spark.driver.defaultJavaOptions", "spark.executor.extraJavaOptions"]
)
def test_a_users_options_for_java_are_the_only_ones(name):
    given = {name: "-XX:+UseG1GC"}
    conf = session.session_conf("local[*]", given, use="tasks")
    assert {key: value for key, value in conf.items() if "JavaOptions" in key} == given


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"])
def test_options_for_java_in_the_environment_are_the_only_ones(monkeypatch, name):
    monkeypatch.setenv(name, "-XX:+UseParallelGC")
    assert not [key for key in session.session_conf("local[*]", {}, use="tasks") if "JavaOptions" in key]


def test_a_users_packages_and_extensions_are_kept_beside_ours():
    given = {"spark.jars.packages": "a:b:1", "spark.sql.extensions": "x.Y", "spark.sql.session.timeZone": "CET"}
    conf = session.session_conf("local[*]", given)
    assert conf["spark.jars.packages"] == f"a:b:1,{session.DELTA_PACKAGE}"
    assert conf["spark.sql.extensions"] == f"x.Y,{session.DELTA_EXTENSION}"
    assert conf["spark.sql.session.timeZone"] == "CET"


@pytest.mark.parametrize(
    "given",
    [
        {"spark.jars": "/j/delta-spark_4.2_2.13-4.4.0.jar"},
        {"spark.jars.packages": "io.delta:delta-spark_4.2_2.13:4.4.1"},
    ],
)
def test_a_delta_jar_that_the_user_gives_is_not_fetched_again(given):
    assert session.session_conf("local[*]", given).get("spark.jars.packages") == given.get("spark.jars.packages")


@pytest.mark.parametrize("master", ["locl[2]", "", "http://h:1", "spark://host"])
def test_a_wrong_master_is_refused_before_a_jvm_starts(master):
    with pytest.raises(SettingsError, match="Spark master"):
        session.start(master, {}, on_notice=print)


def test_a_master_that_does_not_answer_is_unavailable_at_once():
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        session.start("spark://127.0.0.1:1", {}, on_notice=print)
    assert "127.0.0.1:1" in caught.value.detail[0]


@pytest.mark.parametrize(
    ("lines", "kind", "text"),
    [
        (["Server access error at url https://repo/x.pom (java.net.UnknownHostException: repo)",
          "unresolved dependency: io.delta#delta-spark_4.2_2.13;4.4.0: not found"], UnavailableError, "fetched"),
        (["\t\t:: a#b;1: not found", "[unresolved dependency: a#b;1: not found]"], SetupError, "a#b;1"),
        (["Exception in thread main java.lang.IllegalArgumentException: bad option", "\tat java.base/x.y(Z.java:1)"],
         SetupError, "bad option"),
        ([], SetupError, "nothing was printed"),
    ],
)  # fmt: skip
def test_a_jvm_that_ended_is_explained_without_its_stack_trace(lines, kind, text):
    error = session.launch_error(lines)
    assert type(error) is kind
    assert text in error.text()
    assert "\tat " not in error.text()


def test_importing_the_session_loads_no_spark():
    code = (
        "import sys, batchscore.session, batchscore.runners; print('pyspark' in sys.modules, 'pyarrow' in sys.modules)"
    )
    root = str(Path(session.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
