"""What this machine has and lacks for batchscore, and how to mend it. Writes nothing and starts no JVM but ``java``."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from batchscore.config.redaction import redact
from batchscore.errors import BatchscoreError, SettingsError, bounded
from batchscore.models.registry import address_of

if TYPE_CHECKING:
    from batchscore.config import JobConfig

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 12)
CONNECT_SECONDS = 5.0
PYTHON_SECONDS = 20.0
LEAST_FREE_BYTES = 1_000_000_000
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; ``mend`` says what to do where it is not fine."""

    name: str
    fine: bool
    found: str
    mend: str = ""


def examine(config: JobConfig | None = None) -> list[Finding]:
    """Looks at this machine, and with ``config`` at the job's registry and storage; never raises.

    Returns:
        One finding for each thing looked at, in the order in which a run would need them.
    """
    probes: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("packages", _packages),
        ("java", _java),
        ("spark", _spark),
        ("delta jar", lambda: _delta_jar(config)),
        ("executors' python", lambda: _executors_python(config)),
    ]
    if config is not None:
        probes += [
            ("registry", lambda: _registry(config.registry.tracking_uri)),
            ("input", lambda: _input(config.input.path)),
            ("output", lambda: _output(config.output.path)),
        ]
    return [_guarded(name, probe) for name, probe in probes]


def _guarded(name: str, probe: Callable[[], Finding]) -> Finding:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001  # a machine can be broken in any way; the other findings still count
        found = bounded(redact(f"{type(error).__name__}: {error}"))
        return Finding(name, fine=False, found=f"could not be looked at: {found}", mend="see the message")


def _python() -> Finding:
    running = sys.version_info[:2]
    fine = OLDEST_PYTHON <= running <= NEWEST_PYTHON
    return Finding("python", fine, f"{sys.version.split()[0]} at {sys.executable}", "use Python 3.11 or 3.12")


def _packages() -> Finding:
    """The installed distributions against what batchscore requires."""
    from packaging.requirements import Requirement  # noqa: PLC0415  # only the doctor needs it

    wrong, checked = [], 0
    for text in _requirements():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        checked += 1
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} is {installed}, not {requirement.specifier}")
    if not checked:
        return Finding("packages", fine=False, found="batchscore is not installed", mend="pip install batchscore")
    found = "; ".join(wrong) or f"{checked} requirements are met"
    return Finding(
        "packages", not wrong, bounded(found, 500), "install into a fresh environment from requirements.lock"
    )


def _requirements() -> list[str]:
    try:
        return metadata.requires("batchscore") or []
    except metadata.PackageNotFoundError:
        return []


def _java() -> Finding:
    from batchscore.session import java_problem  # noqa: PLC0415  # sibling of heavy code

    problem = java_problem()
    home = os.environ.get("JAVA_HOME")
    where = f"JAVA_HOME {home}" if home else shutil.which("java") or "PATH"
    return Finding(
        "java",
        problem is None,
        problem or f"fine, from {where}",
        "install a full JDK 17 or 21 and point JAVA_HOME at it; `--runner local` needs no Java",
    )


def _spark() -> Finding:
    installed = metadata.version("pyspark")
    home = os.environ.get("SPARK_HOME")
    if home is None:
        return Finding("spark", fine=True, found=f"pyspark {installed}")
    release = Path(home) / "RELEASE"
    jars = sorted((Path(home) / "jars").glob("spark-core_*.jar"))
    other = re.search(r"spark-core_[\d.]+-(\d+\.\d+)", jars[0].name) if jars else None
    fine = other is not None and installed.startswith(other.group(1) + ".")
    said = release.read_text().splitlines()[0] if release.is_file() else (jars[0].name if jars else "no Spark there")
    return Finding(
        "spark",
        fine,
        f"pyspark {installed}, SPARK_HOME {home}: {bounded(said, 80)}",
        "unset SPARK_HOME, or point it at the same minor version as pyspark",
    )


def _delta_jar(config: JobConfig | None) -> Finding:
    from batchscore.session import DELTA_PACKAGE, IVY_FOLDER  # noqa: PLC0415  # sibling of heavy code

    conf = {} if config is None else config.spark.conf
    group, name, version = DELTA_PACKAGE.split(":")
    cache = Path(conf.get("spark.jars.ivy") or IVY_FOLDER).expanduser() / "jars"
    home = os.environ.get("SPARK_HOME")
    places = [cache / f"{group}_{name}-{version}.jar"]
    places += sorted((Path(home) / "jars").glob("delta-spark*.jar")) if home else []
    there = [place for place in places if place.is_file()]
    given = [key for key in ("spark.jars", "spark.driver.extraClassPath") if "delta-spark" in conf.get(key, "")]
    if there or given:
        return Finding("delta jar", fine=True, found=str(there[0]) if there else f"given by {given[0]}")
    return Finding(
        "delta jar",
        fine=False,
        found=f"{DELTA_PACKAGE} is not in {cache}",
        mend="the first run with Spark fetches it where there is a network; else copy that folder from a machine "
        "that has it, or name the jar in spark.conf as spark.jars; `--runner local` needs none",
    )


def _executors_python(config: JobConfig | None) -> Finding:
    conf = {} if config is None else config.spark.conf
    named = os.environ.get("PYSPARK_PYTHON") or conf.get("spark.pyspark.python")
    if not named:
        return Finding("executors' python", fine=True, found=f"this one: {sys.executable}")
    mend = "unset PYSPARK_PYTHON, or point it at a Python of the same minor version that has batchscore's packages"
    script = "import sys, pyarrow, pandas; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(  # noqa: S603  # the interpreter that the user named
            [named, "-c", script], capture_output=True, text=True, timeout=PYTHON_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("executors' python", fine=False, found=f"{named} does not run: {bounded(error)}", mend=mend)
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if answer.returncode != 0:
        last = answer.stderr.strip().splitlines()[-1:] or ["no message"]
        return Finding("executors' python", fine=False, found=f"{named}: {bounded(last[0])}", mend=mend)
    fine = answer.stdout.strip() == own
    return Finding("executors' python", fine, f"{named} is {answer.stdout.strip()}, the driver is {own}", mend)


# --- the job's registry and storage ------------------------------------------------------------------------


def _registry(uri: str) -> Finding:
    mend = "check registry.tracking_uri (--tracking-uri), and that the server runs"
    problem = _registry_problem(uri)
    if problem is not None:
        return Finding("registry", fine=False, found=problem, mend=mend)
    from mlflow import MlflowClient  # noqa: PLC0415  # 3 s

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    models = client.search_registered_models(max_results=1)
    known = "has models" if models else "is reachable and has no models yet"
    return Finding("registry", fine=True, found=f"{redact(uri)} {known}")


def _registry_problem(uri: str) -> str | None:
    """What can be told without MLflow: it would make a missing sqlite file, and try a dead server for minutes."""
    try:
        parts = address_of(uri)
    except SettingsError as error:
        return f"{error.problem}: {error.found}"
    if parts.scheme == "sqlite":
        path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        return None if path.is_file() else f"there is no file {path.absolute()}"
    if parts.scheme in DEFAULT_PORTS and parts.hostname:
        try:
            with socket.create_connection(
                (parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]), timeout=CONNECT_SECONDS
            ):
                return None
        except OSError as error:
            return f"{redact(uri)} does not answer: {error}"
    return None


def _input(path: str) -> Finding:
    mend = "check input.path (--input) and this machine's rights"
    if _is_remote(path):
        return _remote("input", path, mend)
    path = path.removeprefix("file://")
    there = Path(path).exists()
    if not there and not any(mark in path for mark in ("/", "\\")):
        return Finding("input", fine=True, found=f"{path}: no such path; taken as a table of Spark's catalog")
    fine = there and os.access(path, os.R_OK)
    return Finding("input", fine, f"{path} {'is readable' if fine else 'is missing or not readable'}", mend)


def _output(path: str) -> Finding:
    mend = "check output.path (--output), this machine's rights and its free space"
    if _is_remote(path):
        return _remote("output", path, mend)
    folder = Path(path.removeprefix("file://")).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("output", fine=False, found=f"{folder} is not writable", mend=mend)
    free = shutil.disk_usage(folder).free
    found = f"{folder} is writable, {free / 1e9:.1f} GB free"
    return Finding("output", free >= LEAST_FREE_BYTES, found, mend)


def _is_remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def _remote(name: Literal["input", "output"], uri: str, mend: str) -> Finding:
    from batchscore.arrow.filesystem import open_filesystem  # noqa: PLC0415  # pyarrow, for remote storage alone
    from batchscore.arrow.reach import require_reachable  # noqa: PLC0415  # as above

    try:
        require_reachable(uri, name)
    except BatchscoreError as error:
        found = ": ".join(part for part in (error.problem, error.found) if part)
        return Finding(name, fine=False, found=redact(found), mend=error.hint or mend)
    filesystem, path = open_filesystem(uri)
    info = filesystem.get_file_info(path)
    return Finding(name, fine=True, found=f"{redact(uri)} answers: {info.type.name}", mend=mend)
