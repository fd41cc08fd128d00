"""Tasks of a Spark application call the worker: on this machine's cores or on a cluster."""

from __future__ import annotations

import functools
import logging
import math
import pickle
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from batchscore.contracts import ScoringTask, TaskResult
from batchscore.errors import (
    BatchscoreError,
    InputError,
    ModelError,
    OutOfMemoryError,
    SetupError,
    UnavailableError,
    bounded,
)
from batchscore.runners.base import Group, OnResult, Outcome, SplitsWorker, attempt
from batchscore.runners.shipping import ship_model, ship_package, with_shipped_model

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import SparkContext
    from pyspark.sql import DataFrame, SparkSession

_log = logging.getLogger(__name__)

FrameScoring: TypeAlias = Callable[["DataFrame", ScoringTask], "tuple[DataFrame, ScoringTask]"]
BatchesWorker: TypeAlias = Callable[[ScoringTask, "Iterator[pa.RecordBatch]"], TaskResult]
Numbered: TypeAlias = tuple[int, Outcome]

POLL_SECONDS = 0.1
CANCEL_WAIT_SECONDS = 15.0
PATIENCE_SECONDS = 20.0  # without any task under way, before the user is told
DEFAULT_MAX_FAILURES = 4
# Spark's error conditions that come from the rows or files themselves.
_OF_DATA = re.compile(
    r"\[(FAILED_READ_FILE|CANNOT_READ|CAST_|DIVIDE_BY_ZERO|ARITHMETIC_OVERFLOW|NUMERIC_VALUE_OUT_OF_RANGE"
    r"|INVALID_ARRAY_INDEX|CANNOT_PARSE|UDF_|FAILED_EXECUTE_UDF|USER_RAISED_EXCEPTION|DELTA_)"
)
# How Spark says that a worker or executor was killed for memory; a Python worker's crash is most often that.
_OF_MEMORY = re.compile(
    r"Python worker exited unexpectedly|OutOfMemoryError|exit(ed with)? code:? 137|Container killed|exceeding memory"
)
_OUTCOME_SCHEMA = "number int, outcome binary"
# Runs on several threads of one application must not ship a model twice, and PySpark numbers accumulators without a
# lock: two of one number would mix two runs' outcomes.
_ONE_SHIPS = threading.Lock()


class _Appending:
    """Accumulates lists; Spark adds the list of a task once, when the task has succeeded."""

    def zero(self, value: list[Numbered]) -> list[Numbered]:
        return value

    def addInPlace(self, value1: list[Numbered], value2: list[Numbered]) -> list[Numbered]:  # noqa: N802  # Spark's name
        value1.extend(value2)
        return value1


@dataclass(frozen=True, slots=True)
class _Shipment:
    """What travels to an executor beside the work itself."""

    task: ScoringTask
    archive: str | None
    max_failures: int
    ended: object  # the accumulator of outcomes

    def run(self, worker: Callable[..., TaskResult], number: int, work: object) -> Outcome:
        """One attempt at one task, in an executor."""
        from pyspark import TaskContext  # noqa: PLC0415  # runs in an executor

        outcome = attempt(worker, with_shipped_model(self.task, self.archive), work)
        context = TaskContext.get()
        tries = 1 if context is None else context.attemptNumber() + 1
        if isinstance(outcome, UnavailableError) and tries < self.max_failures:
            raise outcome  # Spark tries the task again, perhaps elsewhere; other errors would only repeat
        self.ended.add([(number, outcome)])  # type: ignore[attr-defined]  # an accumulator of _Appending
        return outcome


def _score_groups(
    worker: SplitsWorker, shipment: _Shipment, entries: Iterator[tuple[int, Group]]
) -> Iterator[Numbered]:
    for number, group in entries:
        yield number, shipment.run(worker, number, group)


def _score_batches(
    worker: BatchesWorker, shipment: _Shipment, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa  # noqa: PLC0415  # runs in an executor
    from pyspark import TaskContext  # noqa: PLC0415

    context = TaskContext.get()
    number = 0 if context is None else context.partitionId()
    outcome = shipment.run(worker, number, batches)
    columns = [pa.array([number], pa.int32()), pa.array([pickle.dumps(outcome)], pa.binary())]
    yield pa.RecordBatch.from_arrays(columns, names=["number", "outcome"])


class SparkRunner:
    """Runs work as tasks of a Spark application.

    Args:
        spark: the session, for example from :func:`batchscore.session.start`.
    """

    name = "spark"

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._context: SparkContext = spark.sparkContext

    def run_splits(
        self, worker: SplitsWorker, task: ScoringTask, groups: Sequence[Group], on_result: OnResult
    ) -> list[TaskResult]:
        """See :class:`batchscore.runners.base.Runner`; one task of Spark for each group."""
        if not groups:
            return []
        with _ONE_SHIPS:
            shipment = self._shipment(task)
        entries = self._context.parallelize(list(enumerate(groups)), len(groups))
        scored = entries.mapPartitions(functools.partial(_score_groups, worker, shipment))
        return self._collect(scored.collect, shipment, on_result)

    def run_dataframe(
        self, worker: BatchesWorker, task: ScoringTask, frame: DataFrame, on_result: OnResult
    ) -> list[TaskResult]:
        """The worker's results over the partitions of ``frame``, one for each partition that has rows.

        Raises:
            InputError: Spark itself could not read or compute the frame's rows.
        """
        with _ONE_SHIPS:
            shipment = self._shipment(task)
        scored = frame.mapInArrow(functools.partial(_score_batches, worker, shipment), _OUTCOME_SCHEMA)

        def collect() -> list[Numbered]:
            rows = scored.collect()
            return [(row["number"], pickle.loads(row["outcome"])) for row in rows]  # noqa: S301  # our own tasks

        return self._collect(collect, shipment, on_result)

    def run_scored(
        self, scoring: FrameScoring, worker: BatchesWorker, task: ScoringTask, frame: DataFrame, on_result: OnResult
    ) -> list[TaskResult]:
        """As :meth:`run_dataframe`, where Spark's own plan scores: ``scoring`` adds the scores to the frame.

        Raises:
            ModelError: it left rows out, or multiplied them.
            InputError: as of :meth:`run_dataframe`.
        """
        from pyspark.sql import Observation  # noqa: PLC0415  # only reached with a session
        from pyspark.sql import functions as F  # noqa: N812, PLC0415  # as above

        before = Observation("rows")
        counted = frame.observe(before, F.count(F.lit(1)).alias("rows"))
        scored, behind = scoring(counted, task)
        results = self.run_dataframe(worker, behind, scored, on_result)
        given, left = int(before.get["rows"]), sum(result.rows_read for result in results)
        if given != left:
            raise ModelError(
                f"the pipeline of model {task.model.name} made {left:,} rows of {given:,}",
                hint="a stage with handleInvalid 'skip' leaves rows out: use 'keep' or 'error', or fill what misses",
            )
        return results

    def _shipment(self, task: ScoringTask) -> _Shipment:
        archive = None
        master = str(self._context.master)
        local = master == "local" or master.startswith("local[")
        if not local:
            ship_package(self._context)
            archive = ship_model(self._context, task.model.path, task.model.digest) if task.loads_model else None
        # In local mode Spark gives a task one attempt, whatever this setting says.
        configured = self._context.getConf().get("spark.task.maxFailures", str(DEFAULT_MAX_FAILURES))
        max_failures = 1 if local else int(configured or DEFAULT_MAX_FAILURES)
        ended: object = self._context.accumulator([], _Appending())  # type: ignore[arg-type]  # its two methods
        return _Shipment(task, archive, max_failures, ended)

    def _collect(
        self, collect: Callable[[], list[Numbered]], shipment: _Shipment, on_result: OnResult
    ) -> list[TaskResult]:
        job = _Job(self._context, collect, f"batchscore {shipment.task.run_id}")
        heard: set[int] = set()
        patience = time.monotonic() + PATIENCE_SECONDS
        try:
            while job.running(POLL_SECONDS):
                if time.monotonic() > patience:
                    patience = math.inf
                    self._tell_if_starved(job)
                _report(list(shipment.ended.value), heard, on_result)  # type: ignore[attr-defined]
            outcomes = sorted(job.outcomes(), key=lambda numbered: numbered[0])
            return _report(outcomes, heard, on_result)
        finally:
            job.cancel()

    def _tell_if_starved(self, job: _Job) -> None:
        if job.starved():
            _log.warning(
                "no executor has taken a task for %.0f s: does %s have free cores, and workers with the memory asked?",
                PATIENCE_SECONDS,
                self._context.master,
            )


def _report(outcomes: list[Numbered], heard: set[int], on_result: OnResult) -> list[TaskResult]:
    results = []
    for number, outcome in outcomes:
        if isinstance(outcome, BatchscoreError):
            raise outcome
        results.append(outcome)
        if number not in heard:
            heard.add(number)
            on_result(outcome)
    return results


class _Job:
    """A Spark action on a thread of its own, so that the caller can report progress and cancel it."""

    def __init__(self, context: SparkContext, action: Callable[[], list[Numbered]], description: str) -> None:
        from pyspark import InheritableThread  # noqa: PLC0415  # only reached with a session

        self._context = context
        self._group = f"batchscore-{uuid.uuid4()}"
        self._description = description
        self._action = action
        self._outcomes: list[Numbered] = []
        self._error: Exception | None = None
        self._thread: threading.Thread = InheritableThread(target=self._run, name="batchscore-job", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._context.setJobGroup(self._group, self._description, interruptOnCancel=True)
            self._outcomes = self._action()
        except Exception as error:  # noqa: BLE001  # Spark raises classes of its own and of the JVM's
            self._error = error

    def running(self, seconds: float) -> bool:
        """Whether the action still runs after waiting at most ``seconds``."""
        self._thread.join(timeout=seconds)
        return self._thread.is_alive()

    def starved(self) -> bool:
        """Whether no task has begun yet."""
        tracker = self._context.statusTracker()
        jobs = [tracker.getJobInfo(number) for number in tracker.getJobIdsForGroup(self._group)]
        stages = [tracker.getStageInfo(number) for job in jobs if job is not None for number in job.stageIds]
        return not any(stage is not None and stage.numActiveTasks + stage.numCompletedTasks for stage in stages)

    def outcomes(self) -> list[Numbered]:
        """What the action returned.

        Raises:
            BatchscoreError: Spark could not carry the action out.
        """
        if self._error is not None:
            raise spark_error(self._error) from self._error
        return self._outcomes

    def cancel(self) -> None:
        """Ends the action if it still runs; waits until its tasks are told."""
        if self._thread.is_alive():
            self._context.cancelJobGroup(self._group)
            self._thread.join(timeout=CANCEL_WAIT_SECONDS)


def spark_error(error: Exception) -> BatchscoreError:
    """What Spark raised as an error of batchscore, without the JVM's stack trace."""
    from pyspark.errors import AnalysisException  # noqa: PLC0415  # only reached with a session

    _log.debug("Spark raised", exc_info=error)
    text = _bare_message(error)
    missing = re.search(r"ModuleNotFoundError: No module named '([^']+)'", text)
    if missing:
        return SetupError(
            f"the executors' Python lacks the package {missing.group(1)}",
            hint="install batchscore's dependencies there, and set PYSPARK_PYTHON to that interpreter",
        )
    python = re.search(r'Cannot run program "([^"]+)"|PYTHON_VERSION_MISMATCH', text)
    if python:
        hint = "set PYSPARK_PYTHON to an interpreter of the driver's Python version that every executor has"
        return SetupError("the executors' Python cannot be used", found=_cause(text), hint=hint)
    if isinstance(error, AnalysisException) or _OF_DATA.search(text):
        return InputError("Spark could not read or compute the input's rows", found=_cause(text))
    if _OF_MEMORY.search(text):
        hint = "give executors more memory (spark.executor.memoryOverhead)"
        return OutOfMemoryError("Spark lost a worker, most often because memory ran out", found=_cause(text), hint=hint)
    hint = "try again; where memory ran out, give executors more (spark.executor.memoryOverhead) or smaller batches"
    return UnavailableError("Spark lost the job", found=_cause(text), hint=hint)


def _bare_message(error: Exception) -> str:
    java = getattr(error, "java_exception", None)
    return str(java.getMessage() if java is not None else error).split("Driver stacktrace:")[0]


def _cause(text: str) -> str:
    """The most telling lines of a message: Spark puts the cause behind 'most recent failure'."""
    cause = re.sub(r"^.*?most recent failure: Lost task .*?\): ", "", text, count=1, flags=re.DOTALL)
    lines = [line.strip() for line in cause.splitlines() if line.strip() and not re.match(r"\s*(at|File) ", line)]
    return bounded(" ".join(lines[:3]), 400)
