"""Some rows of the input, as the model takes them: what engines are compared and measured on."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batchscore import read
from batchscore.arrow.splits import read_split
from batchscore.contracts import ScoringPlan, ScoringTask, Split
from batchscore.prepare import LazySpark
from batchscore.score import scorable_inputs

ROWS = 20_000
# Spread over the input: its first, middle and last task.
PLACES = 3


def sample(plan: ScoringPlan, spark: LazySpark) -> pa.RecordBatch | None:
    """Up to 20,000 rows of the input as the model takes them, without those that cannot be scored.

    Returns:
        None where there are none.

    Raises:
        InputError: the input cannot be read.
    """
    batches = _of_splits(plan) if plan.route == "splits" else _of_frame(plan, spark)
    parts = [scorable_inputs(batch, plan.task) for batch in batches if batch.num_rows]
    table = pa.Table.from_batches(parts).combine_chunks() if parts else None
    return table.to_batches()[0] if table is not None and table.num_rows else None


def _of_splits(plan: ScoringPlan) -> Iterator[pa.RecordBatch]:
    places = sorted({0, len(plan.tasks) // 2, len(plan.tasks) - 1}) if plan.tasks else []
    for place in places:
        yield from _first_rows(plan.task, plan.tasks[place], ROWS // len(places))


def _first_rows(task: ScoringTask, splits: tuple[Split, ...], rows: int) -> Iterator[pa.RecordBatch]:
    for split in splits:
        batches = read_split(split, task.source_uri, task.source_columns, task.predicate, min(rows, task.batch_rows))
        for batch in batches:
            yield batch.slice(0, rows)
            rows -= batch.num_rows
            if rows <= 0:
                return


def _of_frame(plan: ScoringPlan, spark: LazySpark) -> Iterator[pa.RecordBatch]:
    names = [column.name for column in plan.task.source_columns]
    frame = read.dataframe(spark(), plan.source, plan.restriction, names, read.computed_columns(plan.task.rules))
    yield from frame.limit(ROWS).toArrow().combine_chunks().to_batches()
