from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from batchscore import doctor
from batchscore.config import load
from batchscore.doctor import Finding, examine

JAVA = ("JAVA_HOME", "PATH", "SPARK_HOME", "PYSPARK_PYTHON")


def job(folder: Path, **overrides: object):
    settings = {
        "model.name": "m",
        "input.path": str(folder),
        "output.path": str(folder / "out"),
        "registry.tracking_uri": f"sqlite:///{folder}/mlruns.db",
    }
    return load(None, settings | {key.replace("__", "."): value for key, value in overrides.items()})


def finding(name: str, config=None) -> Finding:
    [found] = [item for item in examine(config) if item.name == name]
    assert found.fine or found.mend, "what is not fine says how to mend it"
    return found


def test_everything_is_looked_at_in_order(tmp_path):
    names = [item.name for item in examine(job(tmp_path))]
    machine = ["python", "packages", "java", "spark", "delta jar", "executors' python"]
    assert names == [*machine, "registry", "input", "output"]
    assert [item.name for item in examine()] == machine


def test_java_that_is_not_there(monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/no/java")
    found = finding("java")
    assert not found.fine
    assert "/no/java" in found.found
    assert "JDK 17" in found.mend


@pytest.mark.parametrize(("version", "fine"), [("1.8.0_402", False), ("11.0.2", False)])
def test_java_that_is_too_old(tmp_path, monkeypatch, version, fine):
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert finding("java").fine is fine


def test_a_spark_home_of_another_version(tmp_path, monkeypatch):
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars/spark-core_2.12-3.5.1.jar").touch()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    found = finding("spark")
    assert not found.fine
    assert "3.5.1" in found.found


def test_the_delta_jar(tmp_path):
    config = job(tmp_path, **{"spark.conf.spark.jars.ivy": str(tmp_path)})
    found = finding("delta jar", config)
    assert not found.fine
    assert str(tmp_path) in found.found
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars/io.delta_delta-spark_4.2_2.13-4.4.0.jar").touch()
    assert finding("delta jar", config).fine
    assert finding("delta jar", job(tmp_path, **{"spark.conf.spark.jars": "/x/delta-spark_4.2.jar"})).fine


def test_the_executors_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    assert finding("executors' python").fine
    monkeypatch.setenv("PYSPARK_PYTHON", "/no/python")
    assert "does not run" in finding("executors' python").found
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.8\n")
    other.chmod(0o755)
    monkeypatch.setenv("PYSPARK_PYTHON", str(other))
    assert "is 3.8, the driver is" in finding("executors' python").found


def test_a_registry_that_is_not_there_is_not_made(tmp_path):
    found = finding("registry", job(tmp_path))
    assert not found.fine
    assert not (tmp_path / "mlruns.db").exists()


def test_a_registry_that_does_not_answer(tmp_path):
    found = finding("registry", job(tmp_path, registry__tracking_uri="http://u:hunter2@127.0.0.1:9/"))
    assert "does not answer" in found.found
    assert "hunter2" not in found.found


def test_a_registry_whose_address_is_none(tmp_path):
    found = finding("registry", job(tmp_path, registry__tracking_uri="postgresql://ml:hun/ter2@db/mlflow"))
    assert not found.fine
    assert "the address of the model registry is none" in found.found
    assert "hun" not in found.found


def test_input_and_output(tmp_path):
    assert finding("input", job(tmp_path)).fine
    assert not finding("input", job(tmp_path, input__path=str(tmp_path / "none"))).fine
    assert "catalog" in finding("input", job(tmp_path, input__path="sales.transactions")).found
    assert finding("output", job(tmp_path)).fine
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_is_not_writable(tmp_path):
    tmp_path.chmod(0o500)
    assert not finding("output", job(tmp_path)).fine


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 1 << 80)
    assert not finding("output", job(tmp_path)).fine


def test_a_probe_that_breaks_is_a_finding(monkeypatch):
    def broken() -> Finding:
        raise RuntimeError("s3://key:hunter2@bucket")

    monkeypatch.setattr(doctor, "_java", broken)
    found = finding("java")
    assert not found.fine
    assert "RuntimeError" in found.found
    assert "hunter2" not in found.found
