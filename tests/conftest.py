"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.object_store import Front, serving
from tests.spark_cluster import Cluster, standalone_cluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parent.parent
CLI_SECONDS = 240

# A shell starts background jobs with SIGINT ignored, which children inherit; the tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What earlier runs and other tests proved of a model would decide which engine ``auto`` takes here."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    os.environ.setdefault("UV_CACHE_DIR", str(Path(home) / "uv"))  # wheels are fetched once
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all Spark tests: two cores, 1 GiB, Delta, UTC."""
    from batchscore import session  # unit tests load no Spark

    warehouse = tmp_path_factory.mktemp("warehouse")
    conf = {
        "spark.driver.memory": "1g",
        "spark.sql.warehouse.dir": str(warehouse),
        # Spark's workers import what the tests define; an installed package needs no such help.
        "spark.executorEnv.PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }
    started = session.start("local[2]", conf, app_name="tests", on_notice=print)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A standalone master and two workers; drivers must be processes of their own (one context a process)."""
    with standalone_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A real S3 server behind a front that can fail; :func:`bucket` is what a test uses."""
    with serving(tmp_path_factory.mktemp("moto")) as front:
        yield front


@pytest.fixture
def store(object_store: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Front]:
    """The server, reached by this process' environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    object_store.clear()
    yield object_store
    object_store.clear()


@pytest.fixture
def bucket(store: Front) -> str:
    """The name of a new, empty bucket."""
    name = f"lake-{uuid.uuid4().hex[:12]}"
    store.make_bucket(name)
    return name


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Runs the command as a user would: ``run_cli("plan", "--model", "m/1", cwd=..., env=...)``."""

    def run(
        *args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = CLI_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "batchscore", *map(str, args)],
            cwd=cwd or tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
