"""Scores what the plan names into staged files, which no reader sees yet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchscore import engines, publish, read, runners, score
from batchscore.contracts import ScoringPlan, StagedOutput, TaskResult
from batchscore.errors import MAX_ITEMS, BadRowsError, InputError, OutOfMemoryError
from batchscore.prepare import LazySpark, OnEvent


@dataclass(frozen=True)
class Staging:
    """Where a plan is carried out, and who hears how far it is.

    Args:
        runner: ``local`` or ``spark``.
        spark: the session, started when somebody asks for it.
        on_event: receives progress and notices.
    """

    runner: str
    spark: LazySpark
    on_event: OnEvent

    def fill(self, plan: ScoringPlan) -> StagedOutput:
        """Scores every task; once more in batches of half the size where workers ran out of memory.

        Raises:
            InputError: no row is left to score.
            OutOfMemoryError: half the size was too large as well; both sizes are named.
        """
        try:
            return self._scored(plan)
        except OutOfMemoryError as error:
            return self._scored_in_halves(plan, error)

    def _scored_in_halves(self, plan: ScoringPlan, error: OutOfMemoryError) -> StagedOutput:
        largest = max((split.rows for group in plan.tasks for split in group), default=plan.task.batch_rows)
        rows = min(plan.task.batch_rows, largest if largest > 0 else plan.task.batch_rows)
        half = max(rows // 2, 1)
        publish.discard_run(plan.target.uri, plan.run_id)
        text = f"{error.problem} with batches of {rows:,} rows: once more, with {half:,}"
        self.on_event({"event": "notice", "text": text})
        try:
            return self._scored(replace(plan, task=replace(plan.task, batch_rows=half)))
        except OutOfMemoryError as again:
            raise OutOfMemoryError(
                f"workers ran out of memory with batches of {half:,} rows, and before with {rows:,}",
                found=again.found or again.problem,
                hint=f"give workers more memory, use fewer of them, or set scoring.batch_rows far below {half:,}",
            ) from again

    def _scored(self, plan: ScoringPlan) -> StagedOutput:
        task = plan.task
        tally = _Tally(plan, self.on_event)
        if self.runner == "local":
            results = runners.LocalRunner().run_splits(score.run_splits_task, task, plan.tasks, tally)
        elif plan.route == "splits":
            runner = runners.SparkRunner(self.spark())
            results = runner.run_splits(score.run_splits_task, task, plan.tasks, tally)
        else:
            names = [column.name for column in task.source_columns]
            frame = read.dataframe(self.spark(), plan.source, plan.restriction, names)
            frame = read.only_units(frame, [unit.values for unit in plan.to_score])
            runner = runners.SparkRunner(self.spark())
            if task.engine == engines.SPARKML:
                results = runner.run_scored(score.in_spark, score.run_batches_task, task, frame, tally)
            else:
                results = runner.run_dataframe(score.run_batches_task, task, frame, tally)
            read.check_unchanged(plan.source)  # the splits' own reader looks at each file itself
        return _collected(results, tally.seconds())


class _Tally:
    """Counts the rows of finished tasks and says how far the run is; the session's start does not count."""

    def __init__(self, plan: ScoringPlan, on_event: OnEvent) -> None:
        self._total, self._on_event = plan.expected_rows, on_event
        self._started = time.perf_counter()
        self._rows = 0
        self._tell()

    def __call__(self, result: TaskResult) -> None:
        self._rows += result.rows_read
        self._tell()

    def _tell(self) -> None:
        self._on_event({"event": "progress", "rows": self._rows, "total": self._total, "seconds": self.seconds()})

    def seconds(self) -> float:
        return time.perf_counter() - self._started


def _collected(results: Sequence[TaskResult], seconds: float) -> StagedOutput:
    files = tuple(file for result in results for file in result.files)
    bad_rows = [row for result in results for row in result.bad_rows]
    staged = StagedOutput(
        files=files,
        rows_read=sum(result.rows_read for result in results),
        rows_staged=sum(result.rows_staged for result in results),
        bad_count=sum(result.bad_count for result in results),
        bad_rows=tuple(bad_rows[:MAX_ITEMS]),
        seconds=seconds,
        peak_worker_bytes=max((result.peak_bytes for result in results), default=0),
    )
    if staged.rows_read == 0:
        raise InputError(
            "no row is left to score",
            hint="look at --where, --partition and the input: an empty result would replace what is published",
        )
    return staged


def refuse_bad_rows(staged: StagedOutput) -> None:
    """Ends a run whose input has rows that cannot be scored.

    Raises:
        BadRowsError: the first rows, each with its keys, its column and the value at fault.
    """
    if not staged.bad_count:
        return
    detail = [
        f"{', '.join(f'{key}={value}' for key, value in row.keys) or 'row'}: column {row.column} = {row.value}: "
        f"{row.reason}"
        for row in staged.bad_rows
    ]
    raise BadRowsError(
        f"{staged.bad_count:,} of {staged.rows_read:,} rows cannot be scored; nothing was published",
        detail=detail,
        hint="mend these rows in the input, or leave them out with --where",
    )
