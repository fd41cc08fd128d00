"""Judges the staged output: built-in checks over every row, then the user's suite.

Nothing here changes or publishes anything; a run is published only when each check passed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from batchscore.contracts import ScoringPlan, StagedOutput, Verdict
from batchscore.validate.builtin import check_rows, look_at_rows
from batchscore.validate.expectations import (
    evaluate_pandas,
    fits_pandas,
    judge_suite,
    leave_out,
    prepare,
    suite_bytes,
    suite_names,
    warm,
)
from batchscore.validate.frames import PandasColumns
from batchscore.validate.keys import fits
from batchscore.validate.replayed import check_replayed
from batchscore.validate.staged import open_staged
from batchscore.validate.suite import check_columns, load_suite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "MEMORY_BUDGET_BYTES",
    "check_columns",
    "check_replayed",
    "judge",
    "leave_out",
    "load_suite",
    "may_need_spark",
    "prepare",
    "warm",
]

MEMORY_BUDGET_BYTES = 1 << 30


def may_need_spark(plan: ScoringPlan, suite: str | None) -> bool:
    """Whether :func:`judge` may want a session for what the plan is going to stage.

    Args:
        plan: what is to be scored.
        suite: path of a Great Expectations suite, or None.
    """
    if suite is None:
        return False
    asked = load_suite(suite)
    needed = suite_bytes(asked, plan.task.columns, plan.most_rows)
    return plan.most_rows < 0 or not fits_pandas(asked, needed, MEMORY_BUDGET_BYTES)


def judge(
    plan: ScoringPlan,
    staged: StagedOutput,
    *,
    suite: str | None,
    spark: Callable[[], SparkSession] | None,
    memory_budget_bytes: int = MEMORY_BUDGET_BYTES,
) -> Verdict:
    """All checks over every staged row.

    Args:
        plan: what was to be scored.
        staged: the files that the tasks wrote, not yet in the table's log.
        suite: path of a Great Expectations suite, or None.
        spark: starts or returns a session; called only where the suite's columns do not fit in memory.
        memory_budget_bytes: most memory that the columns of the suite, and the sorted keys, may take.

    Raises:
        SettingsError: the suite cannot be evaluated as it is written.
        UnavailableError: a staged file cannot be read.
    """
    output = open_staged(plan, staged)
    rows = sum(output.rows)
    if suite is None:
        looked = look_at_rows(plan, output, memory_budget_bytes)
        return Verdict(check_rows(plan, staged, output, looked, memory_budget_bytes))
    asked = load_suite(suite)
    check_columns(asked, [column.name for column in output.columns])
    needed = suite_bytes(asked, output.columns, rows)
    if fits_pandas(asked, needed, memory_budget_bytes) and fits(rows, memory_budget_bytes - needed):
        columns = PandasColumns(output, suite_names(asked, output.columns))
        looked = look_at_rows(plan, output, memory_budget_bytes, columns)
        with ThreadPoolExecutor(1) as pool:
            judged = pool.submit(evaluate_pandas, asked, output.columns, columns.frame())
            return Verdict(check_rows(plan, staged, output, looked, memory_budget_bytes) + judged.result())
    # Together they would take more memory than there is.
    of_suite = judge_suite(asked, output, spark, memory_budget_bytes)
    looked = look_at_rows(plan, output, memory_budget_bytes)
    return Verdict(check_rows(plan, staged, output, looked, memory_budget_bytes) + of_suite)
