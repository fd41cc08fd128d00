"""Spark's settings: the user's, and what users forget."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from batchscore.processors import usable_cores

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
DELTA_CATALOG = "org.apache.spark.sql.delta.catalog.DeltaCatalog"
CATALOG_KEY = "spark.sql.catalog.spark_catalog"
# What Spark itself does: it schedules Python's tasks alone, or computes rows, or those of Delta tables, too.
Use: TypeAlias = Literal["tasks", "sql", "delta"]

# Spark 4's default for spark.jars.ivy.
IVY_FOLDER = "~/.ivy2.5.2"
# Properties that Spark's event log, UI and logs mask; its own default knows fewer names.
REDACTED = (
    "(?i)secret|password|passwd|pwd$|token|credential|(access|account|private|api|shared)[._-]?key|[.]sas[.]|sas$"
)
# Otherwise Spark leaves out what it cannot read, the rest of a damaged file or a file that is gone, without a word.
STRICT = {"spark.sql.files.ignoreCorruptFiles": "false", "spark.sql.files.ignoreMissingFiles": "false"}
# For a JVM that schedules tasks and computes nothing: the second compiler of HotSpot took 1.5 of 6.0 s of a session's
# start here, and a core from the first tasks.
QUICK_JVM = "-XX:+IgnoreUnrecognizedVMOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "SPARK_SUBMIT_OPTS")
DEFAULT_EXECUTORS = "2"  # YARN's and Kubernetes' own default


def is_local(master: str) -> bool:
    """Whether executors live in the driver's own JVM.

    >>> is_local("local[2]"), is_local("local-cluster[2,1,1024]"), is_local("yarn")
    (True, False, False)
    """
    return master == "local" or master.startswith("local[")


def cores(master: str, conf: Mapping[str, str]) -> int:
    """Cores that tasks will have, as far as the settings tell; no session is started to find out.

    >>> cores("local[3]", {}), cores("yarn", {"spark.executor.instances": "4", "spark.executor.cores": "2"})
    (3, 8)
    """
    machine = usable_cores()
    if is_local(master):
        threads = master.removeprefix("local").strip("[]").split(",")[0]
        return int(threads) if threads.isdigit() else (1 if master == "local" else machine)
    if "spark.cores.max" in conf:
        return int(conf["spark.cores.max"])
    executors = int(conf.get("spark.executor.instances", DEFAULT_EXECUTORS))
    return executors * int(conf.get("spark.executor.cores", "1"))


def session_conf(
    master: str, given: Mapping[str, str], *, delta_on_classpath: bool = False, use: Use = "delta"
) -> dict[str, str]:
    """Spark's settings: batchscore's defaults, overridden by ``given``; lists are joined, not replaced.

    What would leave rows out silently (:data:`STRICT`) nobody overrides.

    For ``tasks`` its JVMs are set to start quickly; Delta's jars are looked for where Spark itself reads ``delta``.

    >>> session_conf("yarn", {"spark.sql.session.timeZone": "CET"})["spark.sql.session.timeZone"]
    'CET'
    """
    conf = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.showConsoleProgress": "false",
        "spark.redaction.regex": REDACTED,
    }
    if use == "delta":
        conf[CATALOG_KEY] = DELTA_CATALOG
    if is_local(master):
        conf |= {
            "spark.ui.enabled": "false",
            # A laptop's or container's own name often resolves to nothing that can be bound.
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
            # Delta's default of 50 turns each small read of a table's log into 50 tasks.
            "spark.databricks.delta.snapshotPartitions": "2",
        }
    if use == "tasks" and not _names_java_options(given):
        conf |= {"spark.driver.extraJavaOptions": QUICK_JVM, "spark.executor.extraJavaOptions": QUICK_JVM}
    conf |= {**given, **STRICT}
    if use != "delta":
        return conf
    conf["spark.sql.extensions"] = joined(given.get("spark.sql.extensions"), DELTA_EXTENSION)
    if not delta_on_classpath and not _names_delta(given):
        conf["spark.jars.packages"] = joined(given.get("spark.jars.packages"), DELTA_PACKAGE)
    return conf


def joined(given: str | None, *ours: str) -> str:
    """A list of Spark's settings with these entries behind the user's.

    >>> joined("a:b:1, c:d:2", "c:d:2", "e:f:3")
    'a:b:1,c:d:2,e:f:3'
    """
    parts = [part.strip() for part in (given or "").split(",") if part.strip()]
    return ",".join(dict.fromkeys((*parts, *ours)))


def _names_java_options(conf: Mapping[str, str]) -> bool:
    """Whether somebody chose options for Java: two garbage collectors together keep a JVM from starting."""
    settings = (f"spark.{who}.{which}JavaOptions" for who in ("driver", "executor") for which in ("extra", "default"))
    return any(conf.get(name) for name in settings) or any(os.environ.get(name) for name in JAVA_VARIABLES)


def _names_delta(conf: Mapping[str, str]) -> bool:
    places = ("spark.jars", "spark.jars.packages", "spark.driver.extraClassPath")
    return any("delta-spark" in conf.get(place, "") for place in places)


def file_conf(text: str) -> dict[str, str]:
    r"""The settings of a ``spark-defaults.conf``: ours would otherwise win over them.

    >>> file_conf("# comment\nspark.jars.packages  a:b:1\nspark.master=yarn")
    {'spark.jars.packages': 'a:b:1', 'spark.master': 'yarn'}
    """
    lines = (line.strip() for line in text.splitlines())
    pairs = (re.split(r"\s*[=:\s]\s*", line, maxsplit=1) for line in lines if line and not line.startswith("#"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}  # noqa: PLR2004  # a key and its value


def spark_home() -> Path:
    """The Spark that will be started: SPARK_HOME's, else the one that pip installed."""
    import pyspark  # noqa: PLC0415  # light commands never load it

    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)


def conf_of_installation(home: Path) -> dict[str, str]:
    """What the installation's own ``spark-defaults.conf`` sets."""
    folder = Path(os.environ.get("SPARK_CONF_DIR") or home / "conf")
    path = folder / "spark-defaults.conf"
    return file_conf(path.read_text(encoding="utf-8")) if path.is_file() else {}


def jars_are_cached(conf: Mapping[str, str]) -> bool:
    """Whether Delta's jar was fetched before."""
    group, name, version = DELTA_PACKAGE.split(":")
    folder = Path(conf.get("spark.jars.ivy") or IVY_FOLDER).expanduser()
    return (folder / "jars" / f"{group}_{name}-{version}.jar").is_file()
