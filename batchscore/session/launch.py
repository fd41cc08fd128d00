"""Starts the SparkSession, or says why it cannot."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING

from batchscore.errors import SettingsError, SetupError, UnavailableError
from batchscore.session.conf import (
    DELTA_CATALOG,
    DELTA_EXTENSION,
    DELTA_PACKAGE,
    STRICT,
    Use,
    conf_of_installation,
    jars_are_cached,
    session_conf,
    spark_home,
)
from batchscore.session.failures import context_error, launch_error
from batchscore.session.java import INSTALL_JAVA, java_problem
from batchscore.session.s3_jars import S3_CLASS, S3_EXCLUDED, S3_PACKAGES, needs_s3

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

_log = logging.getLogger(__name__)
_jvm_log = logging.getLogger("batchscore.spark")

MASTER_WAIT_SECONDS = 5.0
_MASTER = re.compile(r"^(local|local\[[^\]]+\]|local-cluster\[[^\]]+\]|spark://.+|yarn|k8s://.+)$")
_MASTER_FORMS = ("local[*]", "local[4]", "spark://host:7077", "yarn", "k8s://https://host:port")
_KEPT_LINES = 400


def start(
    master: str,
    conf: Mapping[str, str],
    *,
    app_name: str = "batchscore",
    use: Use = "delta",
    on_context: Callable[[SparkContext], None] | None = None,
    on_notice: Callable[[str], None],
) -> SparkSession:
    """A SparkSession with what batchscore needs (7-13 s the first time).

    Under ``spark-submit``, or where the process has a session already, its master and settings are kept, but those by
    which Spark would pass over files that it cannot read.

    Args:
        master: Spark's master, for example ``local[*]``.
        conf: Spark settings; they win over batchscore's defaults.
        app_name: name of the application.
        use: what Spark itself does. Where it reads no ``delta``, the session starts 2 s sooner and needs no jar; where
            it schedules ``tasks`` alone, its JVMs start 1.5 s sooner, and would be slow at anything else.
        on_context: called with the context of a new session while the rest of it starts, to begin what its executors
            may do meanwhile.
        on_notice: told what a user should know, for example that jars are being fetched.

    Raises:
        SettingsError: the master is not one that Spark knows.
        SetupError: Java or a jar is missing, or the JVM refuses to start.
        UnavailableError: the cluster's master or the jar repository does not answer.
    """
    from pyspark import SparkContext  # noqa: PLC0415  # light commands never load it
    from pyspark.sql import SparkSession  # noqa: PLC0415

    if SparkContext._active_spark_context is not None:  # there is no public way to ask
        return _made_strict(SparkSession.builder.getOrCreate(), on_notice)
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return _join_submitted(conf, on_notice)
    _check_master(master)
    problem = java_problem()
    if problem is not None:
        raise SetupError(problem, hint=INSTALL_JAVA)
    home = spark_home()
    given = {**conf_of_installation(home), **conf}
    on_classpath = any((home / "jars").glob("delta-spark*.jar"))
    settings = session_conf(master, given, delta_on_classpath=on_classpath, use=use)
    if DELTA_PACKAGE in settings.get("spark.jars.packages", "") and not jars_are_cached(settings):
        on_notice("first use of Spark: fetching Delta's jars (about 20 MB), which takes a minute")
    _tell_overruled(given, on_notice)
    _choose_python(given)
    return _launch(settings | {"spark.master": master, "spark.app.name": app_name}, master, on_context)


def _made_strict(spark: SparkSession, on_notice: Callable[[str], None]) -> SparkSession:
    _tell_overruled({name: str(spark.conf.get(name)) for name in STRICT}, on_notice)
    for name, value in STRICT.items():
        spark.conf.set(name, value)
    return spark


def _tell_overruled(given: Mapping[str, str], on_notice: Callable[[str], None]) -> None:
    for name, value in STRICT.items():
        if given.get(name, value).lower() != value:
            on_notice(f"{name} is set to {value}: rows of files that cannot be read must not be left out silently")


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
    if needs_s3(conf) and jvm is not None and not jvm.org.apache.spark.util.Utils.classIsLoadable(S3_CLASS):
        raise SetupError(
            "Spark is to read from S3 and its jars are not on the classpath",
            hint=f"add --packages {','.join(S3_PACKAGES)} --exclude-packages {S3_EXCLUDED} to spark-submit",
        )
    given = {**conf, **dict(submitted.getAll())}
    settings = session_conf(given.get("spark.master", "local[*]"), given, delta_on_classpath=True)
    if jvm is not None and not jvm.org.apache.spark.util.Utils.classIsLoadable(DELTA_EXTENSION):
        on_notice(f"Delta's jar is not on the classpath; add --packages {DELTA_PACKAGE} to spark-submit")
        settings = {key: value for key, value in settings.items() if value not in (DELTA_CATALOG, DELTA_EXTENSION)}
    _tell_overruled(given, on_notice)
    _choose_python(given)
    submitted.setAll(list(settings.items()))
    try:
        with _handlers_chained():
            return SparkSession.builder.config(conf=submitted).getOrCreate()
    except Exception as error:  # Py4J raises what the JVM raised, of any class
        raise context_error(error, settings.get("spark.master", "")) from error


def _launch(
    settings: Mapping[str, str], master: str, on_context: Callable[[SparkContext], None] | None
) -> SparkSession:
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
            context = SparkContext(conf=conf, gateway=gateway)
        if on_context is not None:
            on_context(context)
        return SparkSession.builder.config(conf=conf).getOrCreate()
    except PySparkRuntimeError as error:
        output.close_write_end()
        raise launch_error(output.lines(wait_seconds=2.0)) from error
    except Exception as error:  # Py4J raises what the JVM raised, of any class
        explained = context_error(error, master)  # asks the JVM, so before it ends
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
