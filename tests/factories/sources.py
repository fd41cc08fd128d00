"""Small sources with every type that batchscore reads, and the reading of them by splits."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.arrow.splits import read_split
from batchscore.arrow.types import arrow_schema
from batchscore.plan.splitting import make_tasks

NAN = float("nan")
BIG = 9_007_199_254_740_993  # 2**53 + 1: lost by any way through a double


def every_type(rows=6):
    """A table with a column of each type; ids keep every digit, the last row is null but for the id."""

    def column(values, kind):
        return pa.array([*values[: rows - 1], None], type=kind)

    moment = dt.datetime(2026, 11, 21, 6, 30, 0, 123456, tzinfo=dt.UTC)
    wall = moment.replace(tzinfo=None)
    return pa.table(
        {
            "id": pa.array([BIG + index for index in range(rows)], pa.int64()),
            "flag": column([True, False, True, None, False], pa.bool_()),
            "tiny": column([-128, 127, 0, 1, 2], pa.int8()),
            "small": column([-32768, 32767, 0, 1, 2], pa.int16()),
            "n": column([-(2**31), 2**31 - 1, 0, 1, 2], pa.int32()),
            "f": column([0.1, NAN, -0.0, float("inf"), 2.5], pa.float32()),
            "x": column([0.1, NAN, -0.0, float("-inf"), 2.5], pa.float64()),
            "name": column(["", "a", "ä", "x" * 100, "zz"], pa.string()),
            "raw": column([b"", b"\xff", b"\x00", b"a", b"b"], pa.binary()),
            "ds": column([dt.date(2026, 11, day) for day in range(1, 6)], pa.date32()),
            "at": column([moment] * 5, pa.timestamp("us", tz="UTC")),
            "wall": column([wall] * 5, pa.timestamp("us")),
            "price": column([Decimal("1.50"), Decimal("-99999.99"), Decimal(0), None, Decimal(1)], pa.decimal128(7, 2)),
            "tags": column([["a", None], [], None, ["b"], ["c", "d"]], pa.list_(pa.string())),
            "scores": column([[1.5], [], None, [NAN], [2.0, 3.0]], pa.list_(pa.float64())),
        }
    )


def by_splits(source, restriction=None, *, cores=2, columns=None, batch_rows=3):
    """All rows of a pinned source, read by splits, as a table with the pinned types."""
    predicate = restriction.predicate if restriction else None
    chosen = tuple(c for c in source.columns if not c.type.startswith("unsupported"))
    if columns is not None:
        chosen = tuple(next(c for c in chosen if c.name == name) for name in columns)
    batches = [
        batch
        for task in make_tasks(source.files, cores=cores, rows_per_task=4)
        for split in task
        for batch in read_split(split, source.uri, chosen, predicate, batch_rows)
    ]
    return pa.Table.from_batches(batches, arrow_schema(chosen))


def write(table, path, **options):
    """Writes one Parquet file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path
