"""Scores what the plan names into staged files, which no reader sees yet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchscore import engines, publish, read, runners, score
from batchscore.contracts import (
    REASONS,
    BadRow,
    QuarantineLimits,
    ReasonCount,
    ScoringPlan,
    StagedOutput,
    TaskResult,
    merged,
)
from batchscore.errors import MAX_ITEMS, BadRowsError, InputError, ModelError, OutOfMemoryError, listed, unit_text
from batchscore.prepare import LazySpark, OnEvent


@dataclass(frozen=True)
class Staging:
    """Where a plan is carried out, and who hears how far it is.

    Args:
        runner: ``local`` or ``spark``.
        spark: the session, started when somebody asks for it.
        on_event: receives progress and notices.
        local: the local runner, where its processes are used for more than one run.
    """

    runner: str
    spark: LazySpark
    on_event: OnEvent
    local: runners.LocalRunner | None = None

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
        publish.discard_run(plan.task.quarantine_uri, plan.run_id)
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
            local = self.local or runners.LocalRunner()
            results = local.run_splits(score.run_splits_task, task, plan.tasks, tally)
        elif plan.route == "splits":
            runner = runners.SparkRunner(self.spark())
            results = runner.run_splits(score.run_splits_task, task, plan.tasks, tally)
        else:
            names = [column.name for column in task.source_columns]
            computed = read.computed_columns(task.rules)
            frame = read.dataframe(self.spark(), plan.source, plan.restriction, names, computed)
            frame = read.only_units(frame, [unit.values for unit in plan.to_score])
            runner = runners.SparkRunner(self.spark())
            if task.engine == engines.SPARKML:
                results = runner.run_scored(score.in_spark, score.run_batches_task, task, frame, tally)
            else:
                results = runner.run_dataframe(score.run_batches_task, task, frame, tally)
            read.check_unchanged(plan.source)  # the splits' own reader looks at each file itself
        return _collected(plan, results, tally.seconds())


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


def _collected(plan: ScoringPlan, results: Sequence[TaskResult], seconds: float) -> StagedOutput:
    rows_read = sum(result.rows_read for result in results)
    filtered = sum(result.rows_filtered for result in results)
    if plan.route == "dataframe" and plan.restriction.where is not None and plan.most_rows >= rows_read:
        # Spark left the other rows out while it read.
        filtered, rows_read = filtered + plan.most_rows - rows_read, plan.most_rows
    staged = StagedOutput(
        files=tuple(file for result in results for file in result.files),
        rows_read=rows_read,
        rows_staged=sum(result.rows_staged for result in results),
        bad_rows=tuple(row for result in results for row in result.bad_rows)[:MAX_ITEMS],
        seconds=seconds,
        peak_worker_bytes=max((result.peak_bytes for result in results), default=0),
        rows_filtered=filtered,
        quarantined=merged(count for result in results for count in result.quarantined),
        quarantine=tuple(file for result in results for file in result.quarantine),
    )
    if staged.rows_read == staged.rows_filtered and not _may_be_empty(plan):
        raise InputError(
            "no row is left to score",
            hint="look at --where, --partition and the input: an empty result would replace what is published",
        )
    return staged


def _may_be_empty(plan: ScoringPlan) -> bool:
    """Whether a run that has no row at all is about units that are empty, and not about an input that is.

    A condition that nothing meets, on an input that was never published, is rather a mistake; a day of which no row
    meets it is not.
    """
    if not plan.units_known or plan.task.replay is not None or not (plan.target.exists or plan.restriction.partitions):
        return False
    return plan.force or (plan.mode != "replace" and all(unit.values for unit in plan.to_score))


def refuse_vanishing(plan: ScoringPlan, staged: StagedOutput) -> None:
    """Ends a run that has no row of a unit that holds some in the table: they would vanish because of a condition.

    A unit whose files are there and hold no row is published as empty, unless there is nothing else to publish.

    Raises:
        BadRowsError: naming the units.
    """
    if plan.force or plan.mode != "partitions" or not plan.units_known:
        return
    there = {file.unit for file in staged.files}
    vanishing = [
        unit_text(unit.values)
        for unit in plan.to_score
        if unit.values not in there
        and (unit.before.runs or unit.before.foreign_files)
        and (unit.rows != 0 or not staged.rows_staged)
    ]
    if vanishing:
        raise BadRowsError(
            f"no row is left of {len(vanishing):,} of {len(plan.to_score):,} units that are published; nothing was "
            "published",
            found=listed(vanishing, 3),
            hint="look at --where (input.where); choose days with --partition, or publish these as empty with --force",
        )


def refuse_excess(plan: ScoringPlan, staged: StagedOutput, limits: QuarantineLimits) -> None:
    """Ends a run that left out more rows than it may, or all rows of a unit: what is published of it would vanish.

    Raises:
        BadRowsError: the counts by reason and the first rows, each with its keys and the value at fault.
        ModelError: the model raised on every row.
    """
    count, rows = staged.rows_quarantined, staged.rows_read - staged.rows_filtered
    lost = _lost_units(plan, staged) if count else []
    if not lost and not limits.exceeded(count, rows):
        return
    named = [
        f"{', '.join(f'{key}={value}' for key, value in row.keys) or 'row'}: {_at_fault(row)}"
        for row in staged.bad_rows
    ]
    if count == rows and all(entry.reason == "model_raised" for entry in staged.quarantined):
        raise ModelError(f"the model raised on each of {rows:,} rows; nothing was published", detail=named)
    reasons = [f"{entry.rows:,} rows: {_reason_text(entry)}" for entry in staged.quarantined]
    allowed = [f"{limits.max_fraction:.3%} of the rows".replace(".000%", "%")]
    if limits.max_rows is not None:
        allowed.append(f"{limits.max_rows:,} rows")
    if not limits.exceeded(count, rows):
        raise BadRowsError(
            f"no row is left of {len(lost):,} of {len(plan.to_score):,} units; nothing was published",
            found=listed(lost, 3),
            detail=[*reasons[:MAX_ITEMS], *named],
            hint="look at them with `batchscore quarantine`; mend the input, or leave these units out",
        )
    raise BadRowsError(
        f"{count:,} of {rows:,} rows cannot be scored; nothing was published",
        found=f"{count / rows:.3%}",
        allowed=allowed,
        detail=[*reasons[:MAX_ITEMS], *named],
        hint="look at them with `batchscore quarantine`; mend the input or the model, or raise quarantine.max_fraction "
        "or quarantine.max_rows",
    )


def _lost_units(plan: ScoringPlan, staged: StagedOutput) -> list[str]:
    """Units of which each row was left out; where a condition leaves rows out nobody can tell."""
    if plan.restriction.where is not None or plan.restriction.predicate is not None:
        return []
    staged_units = {file.unit for file in staged.files}
    # Rows that nobody has counted (-1) are rows; a file that holds none is no loss.
    return [unit_text(unit.values) for unit in plan.to_score if unit.rows != 0 and unit.values not in staged_units]


def _at_fault(row: BadRow) -> str:
    return f"column {row.column} = {row.value}: {row.reason}" if row.column else row.reason


def _reason_text(count: ReasonCount) -> str:
    return f"{count.column}: {REASONS[count.reason]}" if count.column else REASONS[count.reason]
