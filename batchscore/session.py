"""Builds the SparkSession and sets what users forget.

Nothing here is imported before a run needs Spark: planning, the local runner and ``--help`` start no JVM.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from batchscore.errors import BatchscoreError, SettingsError, SetupError, UnavailableError, bounded

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_log = logging.getLogger(__name__)
_jvm_log = logging.getLogger("batchscore.spark")

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
DELTA_CATALOG = "org.apache.spark.sql.delta.catalog.DeltaCatalog"
CATALOG_KEY = "spark.sql.catalog.spark_catalog"
OLDEST_JAVA = 17
MASTER_WAIT_SECONDS = 5.0
JAVA_WAIT_SECONDS = 30.0
# Spark 4's default for spark.jars.ivy.
IVY_FOLDER = "~/.ivy2.5.2"
_MASTER = re.compile(r"^(local|local\[[^\]]+\]|local-cluster\[[^\]]+\]|spark://.+|yarn|k8s://.+)$")
_MASTER_FORMS = ("local[*]", "local[4]", "spark://host:7077", "yarn", "k8s://https://host:port")
# Spark's options need this module, which trimmed Java builds leave out.
_NEEDED_MODULE = "jdk.incubator.vector"
_INSTALL_JAVA = "install a full JDK 17 or 21 and point JAVA_HOME at it, then run `batchscore doctor`"
_KEPT_LINES = 400
DEFAULT_EXECUTORS = "2"  # YARN's and Kubernetes' own default


# --- Java --------------------------------------------------------------------------------------------------


def java_problem() -> str | None:
    """Why Spark cannot run on the Java of JAVA_HOME or PATH, or None where it can (takes 0.1 s)."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        return "Java is missing: JAVA_HOME is not set and there is no java on PATH"
    if not os.access(java, os.X_OK):
        return f"Java is missing: JAVA_HOME is {home}, which has no bin/java that can be run"
    code, text = _ask_java(java, "--add-modules", _NEEDED_MODULE)
    if code == 0:
        return _version_problem(java, text)
    code, text = _ask_java(java)
    problem = _version_problem(java, text) if code == 0 else f"{java} does not run: {_readable(text.splitlines())}"
    return problem or f"{java} is a trimmed Java without the module {_NEEDED_MODULE}, which Spark needs"


def _ask_java(java: str, *options: str) -> tuple[int, str]:
    command = [java, *options, "-version"]
    try:
        answer = subprocess.run(  # noqa: S603  # the user's own Java, fixed arguments
            command, capture_output=True, text=True, errors="replace", timeout=JAVA_WAIT_SECONDS, check=False
        )
    except OSError as error:
        return 1, str(error)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {JAVA_WAIT_SECONDS:g} s"
    return answer.returncode, answer.stderr + answer.stdout


def _version_problem(java: str, text: str) -> str | None:
    major = java_major(text)
    if major is None:
        return f"{java} does not say its version: {_readable(text.splitlines())}"
    if major < OLDEST_JAVA:
        return f"{java} is Java {major}; Spark needs {OLDEST_JAVA} or newer"
    return None


def java_major(text: str) -> int | None:
    """The major version in the output of ``java -version``.

    >>> java_major('openjdk version "17.0.15" 2025-04-15'), java_major('java version "1.8.0_402"')
    (17, 8)
    """
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return None if match is None else int(match.group(1))


# --- settings ----------------------------------------------------------------------------------------------


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
    machine = os.cpu_count() or 1
    if is_local(master):
        threads = master.removeprefix("local").strip("[]").split(",")[0]
        return int(threads) if threads.isdigit() else (1 if master == "local" else machine)
    if "spark.cores.max" in conf:
        return int(conf["spark.cores.max"])
    executors = int(conf.get("spark.executor.instances", DEFAULT_EXECUTORS))
    return executors * int(conf.get("spark.executor.cores", "1"))


def session_conf(
    master: str, given: Mapping[str, str], *, delta_on_classpath: bool = False, delta: bool = True
) -> dict[str, str]:
    """Spark's settings: batchscore's defaults, overridden by ``given``; lists are joined, not replaced.

    Without ``delta`` Spark itself will read no Delta table, and its jars are not looked for.

    >>> session_conf("yarn", {"spark.sql.session.timeZone": "CET"})["spark.sql.session.timeZone"]
    'CET'
    """
    conf = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.showConsoleProgress": "false",
    }
    if delta:
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
    conf |= given
    if not delta:
        return conf
    conf["spark.sql.extensions"] = _joined(given.get("spark.sql.extensions"), DELTA_EXTENSION)
    if not delta_on_classpath and not _names_delta(given):
        conf["spark.jars.packages"] = _joined(given.get("spark.jars.packages"), DELTA_PACKAGE)
    return conf


def _joined(given: str | None, ours: str) -> str:
    parts = [part.strip() for part in (given or "").split(",") if part.strip()]
    return ",".join(parts if ours in parts else [*parts, ours])


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


def _spark_home() -> Path:
    import pyspark  # noqa: PLC0415  # light commands never load it

    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)


def _conf_of_installation(home: Path) -> dict[str, str]:
    folder = Path(os.environ.get("SPARK_CONF_DIR") or home / "conf")
    path = folder / "spark-defaults.conf"
    return file_conf(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _jars_are_cached(conf: Mapping[str, str]) -> bool:
    group, name, version = DELTA_PACKAGE.split(":")
    folder = Path(conf.get("spark.jars.ivy") or IVY_FOLDER).expanduser()
    return (folder / "jars" / f"{group}_{name}-{version}.jar").is_file()


# --- starting ----------------------------------------------------------------------------------------------


def start(
    master: str,
    conf: Mapping[str, str],
    *,
    app_name: str = "batchscore",
    delta: bool = True,
    on_notice: Callable[[str], None],
) -> SparkSession:
    """A SparkSession with what batchscore needs (7-13 s the first time).

    Under ``spark-submit``, or where the process has a session already, its master and settings are kept.

    Args:
        master: Spark's master, for example ``local[*]``.
        conf: Spark settings; they win over batchscore's defaults.
        app_name: name of the application.
        delta: whether Spark itself reads Delta tables; without, the session starts 2 s sooner and needs no jar.
        on_notice: told what a user should know, for example that jars are being fetched.

    Raises:
        SettingsError: the master is not one that Spark knows.
        SetupError: Java or a jar is missing, or the JVM refuses to start.
        UnavailableError: the cluster's master or the jar repository does not answer.
    """
    from pyspark import SparkContext  # noqa: PLC0415  # light commands never load it
    from pyspark.sql import SparkSession  # noqa: PLC0415

    if SparkContext._active_spark_context is not None:  # there is no public way to ask
        return SparkSession.builder.getOrCreate()
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return _join_submitted(conf, on_notice)
    _check_master(master)
    problem = java_problem()
    if problem is not None:
        raise SetupError(problem, hint=_INSTALL_JAVA)
    home = _spark_home()
    given = {**_conf_of_installation(home), **conf}
    on_classpath = any((home / "jars").glob("delta-spark*.jar"))
    settings = session_conf(master, given, delta_on_classpath=on_classpath, delta=delta)
    if DELTA_PACKAGE in settings.get("spark.jars.packages", "") and not _jars_are_cached(settings):
        on_notice("first use of Spark: fetching Delta's jars (about 20 MB), which takes a minute")
    _choose_python(given)
    return _launch(settings | {"spark.master": master, "spark.app.name": app_name}, master)


def _choose_python(conf: Mapping[str, str]) -> None:
    """Executors run this interpreter unless told otherwise; Spark's own default is whatever python3 is."""
    os.environ.setdefault("PYSPARK_PYTHON", conf.get("spark.pyspark.python") or sys.executable)


def _check_master(master: str) -> None:
    if not _MASTER.match(master):
        raise SettingsError("this is not a Spark master", found=master, allowed=_MASTER_FORMS)
    if not master.startswith("spark://"):
        return
    # Spark itself would try for 60 s. One of several masters (a standby set) is enough.
    failures = [_unreachable(address) for address in master.removeprefix("spark://").split(",")]
    if all(failures):
        raise UnavailableError(
            f"the Spark master {master} does not answer",
            detail=[failure for failure in failures if failure],
            hint="check that it runs and that this machine may reach it, or use --set spark.master='local[*]'",
        )


def _unreachable(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise SettingsError("a Spark master needs a host and a port", found=address, allowed=_MASTER_FORMS)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=MASTER_WAIT_SECONDS):
            return None
    except OSError as error:
        return f"{address}: {error}"


def _join_submitted(conf: Mapping[str, str], on_notice: Callable[[str], None]) -> SparkSession:
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415  # light commands never load it
    from pyspark.sql import SparkSession  # noqa: PLC0415

    SparkContext._ensure_initialized()  # connects to the JVM that spark-submit started
    jvm = SparkContext._jvm  # the class loader can only be asked through it
    submitted = SparkConf()
    given = {**conf, **dict(submitted.getAll())}
    settings = session_conf(given.get("spark.master", "local[*]"), given, delta_on_classpath=True)
    if jvm is not None and not jvm.org.apache.spark.util.Utils.classIsLoadable(DELTA_EXTENSION):
        on_notice(f"Delta's jar is not on the classpath; add --packages {DELTA_PACKAGE} to spark-submit")
        settings = {key: value for key, value in settings.items() if value not in (DELTA_CATALOG, DELTA_EXTENSION)}
    _choose_python(given)
    submitted.setAll(list(settings.items()))
    try:
        with _handlers_chained():
            return SparkSession.builder.config(conf=submitted).getOrCreate()
    except Exception as error:  # Py4J raises what the JVM raised, of any class
        raise _context_error(error, settings.get("spark.master", "")) from error


def _launch(settings: Mapping[str, str], master: str) -> SparkSession:
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415  # light commands never load it
    from pyspark.errors import PySparkRuntimeError  # noqa: PLC0415
    from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    output = _JvmOutput()
    gateway = SparkContext._gateway  # a JVM that an earlier session of this process left
    try:
        if gateway is None:
            streams = {"stdout": output.write_end, "stderr": output.write_end}
            gateway = launch_gateway(conf, streams)  # type: ignore[no-untyped-call]  # PySpark left it untyped
        with _handlers_chained():
            SparkContext(conf=conf, gateway=gateway)
        return SparkSession.builder.config(conf=conf).getOrCreate()
    except PySparkRuntimeError as error:
        output.close_write_end()
        raise launch_error(output.lines(wait_seconds=2.0)) from error
    except Exception as error:  # Py4J raises what the JVM raised, of any class
        explained = _context_error(error, master)  # asks the JVM, so before it ends
        _end_jvm()
        raise explained from error
    finally:
        output.close_write_end()


@contextlib.contextmanager
def _handlers_chained() -> Iterator[None]:
    """Keeps a handler of Ctrl-C that was there: a SparkContext puts its own, which cancels jobs, in its place."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.getsignal(signal.SIGINT)
    if not callable(before) or not callable(after) or before in (after, signal.default_int_handler):
        return

    def both(number: int, frame: FrameType | None) -> None:
        try:
            after(number, frame)
        finally:
            before(number, frame)

    signal.signal(signal.SIGINT, both)


def _end_jvm() -> None:
    """Ends a JVM whose context failed, so that a later start begins afresh."""
    from pyspark import SparkContext  # noqa: PLC0415  # light commands never load it

    gateway = SparkContext._gateway  # there is no public way to end it
    SparkContext._gateway = SparkContext._jvm = None
    process = getattr(gateway, "proc", None)
    if gateway is None or process is None:
        return
    gateway.shutdown()
    process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _JvmOutput:
    """What the JVM prints: kept while it starts, to explain a failure; then logged line by line.

    Spark prints log lines and stack traces there. On the terminal they would stand between the lines meant
    for the user, so they go to the logger ``batchscore.spark`` at INFO, which ``--verbose`` shows.
    """

    def __init__(self) -> None:
        read_end, self.write_end = os.pipe()
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._open = True
        self._reader = threading.Thread(target=self._read, args=(read_end,), name="spark-output", daemon=True)
        self._reader.start()

    def _read(self, read_end: int) -> None:
        with os.fdopen(read_end, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                self._kept.append(line.rstrip("\n"))
                _jvm_log.info("%s", line.rstrip("\n"))

    def close_write_end(self) -> None:
        """Leaves the pipe to the JVM alone, so that reading ends with it."""
        if self._open:
            self._open = False
            os.close(self.write_end)

    def lines(self, wait_seconds: float) -> list[str]:
        """The last lines, after the JVM has ended."""
        self._reader.join(timeout=wait_seconds)
        return list(self._kept)


# --- failures as errors ------------------------------------------------------------------------------------


def launch_error(lines: list[str]) -> BatchscoreError:
    """The error for a JVM that ended before it could be used, from what it printed."""
    text = "\n".join(lines)
    hint = f"give the jars by hand (spark.jars), or copy {IVY_FOLDER} from a machine that has them"
    if re.search(r"Server access error|UnknownHostException|ConnectException|timed out|download failed", text):
        unreachable = re.findall(r"Server access error at url \S+", text)[:3]
        return UnavailableError("Spark's jars could not be fetched", detail=unreachable, hint=f"try again, or {hint}")
    missing = sorted(set(re.findall(r"unresolved dependency: (\S+?):? not found", text)))
    if missing:
        return SetupError("Spark's jars were not found in any repository", found=", ".join(missing), hint=hint)
    found = _readable(lines)
    return SetupError(
        "the JVM for Spark did not start", found=found, hint="`batchscore doctor` checks Java and the jars"
    )


def _readable(lines: list[str]) -> str:
    """The lines that say something, without stack frames and log lines; bounded."""
    frame = re.compile(r"^\s*(at |\.\.\. \d+ more|WARNING: |Picked up |Setting default|To adjust)|^\d\d/\d\d/\d\d ")
    said = [line.strip() for line in lines if line.strip() and not frame.search(line)]
    return bounded(" | ".join(said[-3:])) or "nothing was printed"


def _context_error(error: Exception, master: str) -> BatchscoreError:
    """The error for a SparkContext that the JVM refused to make."""
    java = getattr(error, "java_exception", None)
    message = _readable(str(java.getMessage() if java is not None else error).splitlines())
    _log.debug("the Spark context failed", exc_info=error)
    if is_local(master) or re.search(r"ClassNotFound|must be at least|Could not parse|IllegalArgument", message):
        return SetupError("Spark did not start", found=message, hint="check spark.conf, then `batchscore doctor`")
    return UnavailableError(f"Spark did not start on {master}", found=message)
