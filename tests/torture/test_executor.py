"""A standalone executor is killed while its task writes: the task runs elsewhere, and its rows are there once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml

from batchscore import faults
from tests.factories.jobs import ended
from tests.torture.scenarios import IN_WORKERS, check_recovery, pids_at, wait_for

pytestmark = [pytest.mark.spark, pytest.mark.cluster]

EXECUTOR = "kill -9 of an executor of a standalone cluster: points in the worker"


@pytest.mark.parametrize("point", IN_WORKERS)
def test_an_executor_is_killed(stage, cluster, tally, tmp_path, point):
    with tally.case(EXECUTOR):
        log = tmp_path / "reached"
        _onto(stage.job, cluster, f"{point}=log:{log};{point}=sleep:5")
        run = stage.job.start("--runner", "spark")
        wait_for(lambda: bool(pids_at(log, point)), seconds=120)
        os.kill(_executor_of(pids_at(log, point)[0], cluster.folder), signal.SIGKILL)
        done = ended(run)
        assert done.code == 0, done.err
        assert stage.check_readers() == "new"
        check_recovery(stage)


def _onto(job, cluster, fault: str) -> None:
    settings = yaml.safe_load(job.settings.read_text())
    conf = {**cluster.driver_conf, f"spark.executorEnv.{faults.VARIABLE}": fault}
    settings["spark"] = {"master": cluster.master, "conf": conf}
    job.settings.write_text(yaml.safe_dump(settings))


def _executor_of(pid: int, folder: Path) -> int:
    """The JVM among the ancestors of a Python worker: the one whose folder is the cluster's."""
    while pid > 1:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"CoarseGrainedExecutorBackend" in command:
            assert str(Path(f"/proc/{pid}/cwd").readlink()).startswith(str(folder))
            return pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    raise AssertionError("no executor among the ancestors")
