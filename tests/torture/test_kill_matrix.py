"""SIGKILL at every named point: readers see the old table or the new one, and the next run mends the rest."""

from __future__ import annotations

import shutil
import signal

import pytest

from batchscore import faults
from tests.factories.jobs import ended
from tests.torture import scenarios
from tests.torture.scenarios import (
    COMMITTED,
    IN_CLEANING,
    IN_WORKERS,
    Stage,
    check_recovery,
    kill_at,
    pids_at,
    wait_for,
)

LOCAL = "kill -9 of the driver, local runner: named points"
SPARK = "kill -9 of the driver, Spark: named points"
CHILD = "kill -9 of a worker process of the local runner: points in the worker"
ORPHANED = "kill -9 of the driver while its workers write: points in the worker"
PYTHON_WORKER = "kill -9 of a Spark Python worker: points in the worker"
IN_PROCESS = tuple(point for point in faults.POINTS if point not in IN_WORKERS)


@pytest.mark.parametrize("point", IN_PROCESS)
def test_the_driver_is_killed(stage, tally, point):
    with tally.case(LOCAL):
        with scenarios.reading(stage.job, stage.judged):
            killed = kill_at(stage, point)
        assert killed.code == -signal.SIGKILL, killed.err
        assert stage.check_readers() == ("new" if point in COMMITTED else "old")
        check_recovery(stage)


@pytest.mark.parametrize("point", ["score.end", "manifest.end", "commit.looked", "commit.written", "ledger.begin"])
def test_the_driver_of_a_first_run_is_killed(stage, tally, point):
    with tally.case("kill -9 of the driver before there is a table, local runner: named points"):
        shutil.rmtree(stage.job.table.parent)
        first = Stage(stage.job, {}, stage.new, stage.oracle)
        killed = kill_at(first, point)
        assert killed.code == -signal.SIGKILL, killed.err
        assert (first.job.table / "_delta_log").exists() == (point in COMMITTED)
        check_recovery(first)


@pytest.mark.parametrize("point", IN_WORKERS)
def test_a_worker_process_is_killed(stage, tally, point):
    with tally.case(CHILD):
        failed = stage.job.run(fault=f"{point}=kill")
        assert failed.code == 7, failed.err
        assert stage.check_readers() == "old"
        check_recovery(stage)


@pytest.mark.parametrize("point", IN_WORKERS)
def test_a_worker_process_that_is_killed_once_costs_nothing(stage, tally, tmp_path, point):
    with tally.case(CHILD):
        done = stage.job.run(fault=f"{point}=kill-once:{tmp_path / 'killed'}")
        assert done.code == 0, done.err
        assert "once more" in done.err
        assert stage.check_readers() == "new"
        check_recovery(stage)


@pytest.mark.parametrize("point", IN_WORKERS)
def test_the_driver_is_killed_while_its_workers_write(stage, tally, tmp_path, point):
    with tally.case(ORPHANED):
        log = tmp_path / "reached"
        run = stage.job.start(fault=f"{point}=log:{log};{point}=sleep:60")
        wait_for(lambda: bool(pids_at(log, point)))
        run.kill()
        ended(run)
        assert stage.check_readers() == "old"
        check_recovery(stage)


@pytest.mark.spark
@pytest.mark.parametrize(
    "point",
    ["plan.made", "output.prepared", "score.end", "validate.end", "manifest.end", "commit.looked", "commit.written",
     "ledger.begin"],
)  # fmt: skip
def test_the_driver_of_spark_is_killed(stage, tally, point):
    with tally.case(SPARK):
        killed = kill_at(stage, point, "--runner", "spark", "--set", "spark.master=local[2]")
        assert killed.code == -signal.SIGKILL, killed.err
        assert stage.check_readers() == ("new" if point in COMMITTED else "old")
        check_recovery(stage)


@pytest.mark.spark
@pytest.mark.parametrize("point", IN_WORKERS)
def test_a_python_worker_of_spark_is_killed(stage, tally, point):
    with tally.case(PYTHON_WORKER):
        failed = stage.job.run("--runner", "spark", "--set", "spark.master=local[2]", fault=f"{point}=kill")
        assert failed.code == 7, failed.err
        assert stage.check_readers() == "old"
        check_recovery(stage)


def test_every_point_is_in_the_matrix():
    assert set(IN_PROCESS) | set(IN_WORKERS) == set(faults.POINTS)
    assert set(IN_CLEANING) < set(IN_PROCESS)
