"""A small demo, made once, copied for each test that changes it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SECONDS = 240
ROWS = 2_800
DAYS = 14
SUITE = "conf/expectations/fraud_detection.json"
# For a case whose like is among the others: `make torture` runs it, with all the rest that takes long.
LONG = pytest.mark.torture


@dataclass(frozen=True)
class Job:
    """A folder with data, a registered model and settings, and the command run in it."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data" / "transactions"

    @property
    def table(self) -> Path:
        return self.folder / "predictions" / "fraud_detection"

    @property
    def settings(self) -> Path:
        return self.folder / "conf" / "fraud_detection.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """A cache of its own: what another test proves of the same model would change the engine here."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.folder / "cache")}

    def batchscore(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "batchscore", *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        flags = ("--model", "fraud_detection/1", "--runner", "local", "--json")
        return self.batchscore("run", *flags, *arguments, **environment)

    def history(self) -> Any:
        """What ``batchscore history --json`` prints."""
        return json.loads(self.batchscore("history", "--config", self.settings, "--json").stdout)

    def files(self) -> set[str]:
        """Everything under predictions/, to see that nothing changed."""
        root = self.folder / "predictions"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def every_core() -> frozenset[int]:
    """The cores that the tests may use; asked for before :func:`one_core` takes all but one."""
    return frozenset(os.sched_getaffinity(0))


@pytest.fixture(scope="session", autouse=True)
def one_core(every_core: frozenset[int], worker_id: str) -> Iterator[None]:
    """Of several test processes each is bound to a core, and so are the commands that it runs.

    A command that is alone on two cores starts two workers, each of which imports the model's libraries; such small
    jobs end as soon with one, at half the cost. See :func:`cores` for the tests that need more.
    """
    if worker_id != "master":
        cores = sorted(every_core)
        os.sched_setaffinity(0, {cores[int(worker_id.removeprefix("gw")) % len(cores)]})
    yield
    os.sched_setaffinity(0, every_core)


@pytest.fixture
def cores(every_core: frozenset[int]) -> Iterator[int]:
    """All cores, for a test in which workers run beside each other; their number."""
    bound = os.sched_getaffinity(0)
    os.sched_setaffinity(0, every_core)
    yield len(every_core)
    os.sched_setaffinity(0, bound)


@pytest.fixture(scope="session")
def unscored(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The demo before its first run; not to be changed, but refused runs may leave their rows in its ledger.

    It has no suite: the import of Great Expectations is a third of such a run's time. Where one is the matter,
    ``--suite`` names it.
    """
    folder = tmp_path_factory.mktemp("unscored")
    script = (
        "from pathlib import Path\n"
        "from batchscore.demo.run import _prepare\n"
        f"_prepare({ROWS}, 'local', lambda event: None)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=Job(folder).environment,
        check=True,
        timeout=SECONDS,
    )
    made = Job(folder)
    settings = made.settings.read_text()
    without = settings.replace(f"validation:\n  suite: {SUITE}\n\n", "")
    assert without != settings
    made.settings.write_text(without)
    return made


@pytest.fixture
def job(unscored: Job, tmp_path: Path) -> Job:
    """A copy of the demo before its first run."""
    shutil.copytree(unscored.folder, tmp_path / "job", ignore=shutil.ignore_patterns("predictions"))
    return Job(tmp_path / "job")


@pytest.fixture(scope="session")
def published(unscored: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The demo after its first run; not to be changed."""
    folder = tmp_path_factory.mktemp("published") / "job"
    shutil.copytree(unscored.folder, folder, ignore=shutil.ignore_patterns("predictions"))
    job = Job(folder)
    done = job.run("--suite", SUITE)
    assert done.returncode == 0, done.stderr
    return job


@pytest.fixture
def scored(published: Job, tmp_path: Path) -> Job:
    """A copy of the demo after its first run."""
    shutil.copytree(published.folder, tmp_path / "job")
    return Job(tmp_path / "job")


@pytest.fixture
def own(job: Job) -> Job:
    """The demo after its first run, with model and input in its own folder: both may be changed."""
    (folder,) = (path.parent for path in (job.folder / "models").rglob("MLmodel"))
    with sqlite3.connect(job.folder / "mlruns.db") as database:
        database.execute("UPDATE model_versions SET source = :to, storage_location = :to", {"to": folder.as_uri()})
    done = job.run()
    assert done.returncode == 0, done.stderr
    return job
