"""A real standalone cluster on this machine, from pip's pyspark: a master and two workers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORKERS = 2
START_SECONDS = 60
# Executors must not find the checkout or the tests by accident.
_KEPT_VARIABLES = ("PATH", "JAVA_HOME", "LANG", "TMPDIR")


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        master: its ``spark://`` URL.
        folder: where the workers keep their executors' folders.
        driver_conf: settings with which a driver's executors fit the workers (one core, 1 GiB each).
    """

    master: str
    folder: Path

    @property
    def driver_conf(self) -> dict[str, str]:
        return {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": "1g",
            "spark.executor.memory": "512m",
            "spark.executor.cores": "1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "2",
            "spark.pyspark.python": str(self.folder / "python"),
            "spark.pyspark.driver.python": sys.executable,
        }


@contextlib.contextmanager
def standalone_cluster(folder: Path) -> Iterator[Cluster]:
    """Starts the master and the workers, and ends them by their process ids."""
    _write_python(folder / "python")
    port = _free_port()
    master = f"spark://127.0.0.1:{port}"
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        options = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
        daemons.append(_daemon(folder, "master.Master", options))
        _wait_for(folder / "master.Master-0.log", "I have been elected leader", 1)
        for number in range(WORKERS):
            options = ["--host", "127.0.0.1", "--webui-port", "0", "--cores", "1", "--memory", "1g"]
            options += ["--work-dir", str(folder / f"work-{number}"), master]
            daemons.append(_daemon(folder, "worker.Worker", options, number))
        _wait_for(folder / "master.Master-0.log", "Registering worker", WORKERS)
        yield Cluster(master, folder)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _write_python(path: Path) -> None:
    """The executors' Python: the same packages, but no ``.pth`` files; one of an editable install adds the checkout."""
    packages = sysconfig.get_path("purelib")
    path.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{packages}" exec {sys.executable} -S "$@"\n')
    path.chmod(0o755)


def _daemon(folder: Path, name: str, options: list[str], number: int = 0) -> subprocess.Popen[bytes]:
    import pyspark  # only cluster tests load it

    home = Path(pyspark.__file__).parent
    kept = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
    env = {**kept, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "HOME": str(folder)}
    with (folder / f"{name}-{number}.log").open("wb") as log:
        return subprocess.Popen(
            [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *options],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _wait_for(log: Path, text: str, times: int) -> None:
    end = time.monotonic() + START_SECONDS
    while log.read_text(encoding="utf-8", errors="replace").count(text) < times:
        if time.monotonic() > end:
            raise TimeoutError(f"{log.name} does not say {text!r}:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
