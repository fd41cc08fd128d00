from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from batchscore.contracts import ScoringTask, TaskResult
from batchscore.errors import BadRowsError, BatchscoreError, InputError, UnavailableError
from batchscore.runners import SparkRunner
from batchscore.runners.spark import spark_error
from tests import samples

pytestmark = pytest.mark.spark


def silent(_: TaskResult) -> None:
    pass


def test_results_are_in_the_order_of_the_groups_and_heard_as_they_end(spark):
    heard: list[tuple[str, float]] = []
    began = time.monotonic()

    def hear(result: TaskResult) -> None:
        assert threading.current_thread() is threading.main_thread()
        heard.append((result.files[0].path, time.monotonic() - began))

    SparkRunner(spark).run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(1, 1), silent)
    began = time.monotonic()
    results = SparkRunner(spark).run_splits(
        samples.first_is_slow, samples.scoring_task(), samples.groups_of(5, 6, 7), hear
    )
    assert [r.files[0].path for r in results] == ["f0", "f1", "f2"]
    assert [r.rows_read for r in results] == [5, 6, 7]
    assert [name for name, _ in heard] == ["f1", "f2", "f0"]
    assert heard[-1][1] - heard[0][1] > 0.2


def test_no_groups_run_no_job(spark):
    assert SparkRunner(spark).run_splits(samples.count_rows, samples.scoring_task(), [], silent) == []


def test_a_workers_own_error_arrives_once_and_cancels_the_rest(spark, tmp_path):
    task = samples.scoring_task(staging=str(tmp_path))
    with pytest.raises(BadRowsError) as caught:
        SparkRunner(spark).run_splits(samples.bad_rows_in_second, task, samples.groups_of(*[1] * 20), silent)
    assert caught.value.detail == ("id=1",)
    calls = [path.name.split("-")[0] for path in tmp_path.iterdir()]
    assert calls.count("f1") == 1
    assert len(calls) < 10


def test_a_bug_in_a_worker_is_named_with_its_place(spark):
    with pytest.raises(BatchscoreError, match="KeyError") as caught:
        SparkRunner(spark).run_splits(samples.bug, samples.scoring_task(), samples.groups_of(1), silent)
    assert caught.value.exit_code == 1
    assert "samples.py" in caught.value.detail[-1]


def test_a_storage_error_arrives_as_itself(spark, tmp_path):
    task = samples.scoring_task(staging=str(tmp_path))
    with pytest.raises(UnavailableError, match="bucket does not answer"):
        SparkRunner(spark).run_splits(samples.unavailable, task, samples.groups_of(1), silent)


def test_a_killed_worker_is_unavailable_without_a_stack_trace(spark):
    with pytest.raises(UnavailableError, match="Spark lost a worker") as caught:
        SparkRunner(spark).run_splits(samples.killed, samples.scoring_task(), samples.groups_of(1), silent)
    assert "Python worker exited unexpectedly" in caught.value.text()
    assert "\tat " not in caught.value.text()
    assert len(caught.value.text()) < 1000


def test_an_interrupt_ends_the_tasks(spark, tmp_path):
    task = samples.scoring_task(staging=str(tmp_path))

    def interrupted(_: TaskResult) -> None:
        raise KeyboardInterrupt

    def slow_second(task: ScoringTask, group: samples.Group) -> TaskResult:
        if group[0].path == "f1":
            Path(task.staging_uri, "started").touch()
            time.sleep(20)
            Path(task.staging_uri, "finished").touch()
        return samples.count_rows(task, group)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        SparkRunner(spark).run_splits(slow_second, task, samples.groups_of(1, 1), interrupted)
    assert time.monotonic() - began < 15
    assert spark.sparkContext.statusTracker().getActiveJobsIds() == []
    assert spark.range(10).count() == 10


def test_a_frame_is_scored_partition_by_partition(spark):
    heard: list[int] = []
    frame = spark.range(1000).repartition(3)
    results = SparkRunner(spark).run_dataframe(
        samples.count_batches, samples.scoring_task(), frame, lambda result: heard.append(result.rows_read)
    )
    assert len(results) == 3
    assert sum(result.rows_read for result in results) == 1000
    assert sorted(heard) == sorted(result.rows_read for result in results)


def test_a_frames_worker_may_stop_early_with_its_error(spark):
    with pytest.raises(BadRowsError, match="3 rows"):
        SparkRunner(spark).run_dataframe(
            samples.refuse_batches, samples.scoring_task(), spark.range(200_000).repartition(2), silent
        )


def test_a_frame_without_rows_has_no_staged_rows(spark):
    results = SparkRunner(spark).run_dataframe(
        samples.count_batches, samples.scoring_task(), spark.range(10).where("id < 0"), silent
    )
    assert sum(result.rows_read for result in results) == 0


def test_a_frame_that_spark_cannot_compute_is_an_input_error(spark):
    frame = spark.range(10).selectExpr("assert_true(id < 5) AS ok", "CAST(CAST(id AS STRING) || 'x' AS INT) AS n")
    with pytest.raises(InputError, match="CAST_INVALID_INPUT"):
        SparkRunner(spark).run_dataframe(samples.count_batches, samples.scoring_task(), frame.select("n"), silent)


def test_an_input_file_that_vanished_is_an_input_error(spark, tmp_path):
    spark.range(10).write.parquet(str(tmp_path / "t"))
    frame = spark.read.parquet(str(tmp_path / "t"))
    for path in (tmp_path / "t").glob("*.parquet"):
        path.unlink()
    with pytest.raises(InputError, match="could not read"):
        SparkRunner(spark).run_dataframe(samples.count_batches, samples.scoring_task(), frame, silent)


def test_a_missing_package_names_it():
    error = spark_error(RuntimeError("Traceback...\nModuleNotFoundError: No module named 'pyarrow'\n"))
    assert error.exit_code == 2
    assert "pyarrow" in error.problem
