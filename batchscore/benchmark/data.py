"""The tables that are scored: the same arguments give the same values, in bounded memory."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.benchmark.cases import KEY, PARTITION, Case
from batchscore.demo import data as demo

SEED = 20261101
FIRST_DAY = dt.date(2026, 11, 1)
ROW_GROUP_ROWS = 131_072  # 16 MB of 30 floats; many writers' default of a million rows is no smaller to read


def features(case: Case) -> list[str]:
    """Names of the numeric feature columns."""
    return [f"f{index}" for index in range(case.columns)]


def matrix(case: Case, rows: int, seed: int) -> np.ndarray[Any, Any]:
    """Standard normal values of shape (rows, columns)."""
    return np.random.default_rng(seed).standard_normal((rows, case.columns), dtype=np.dtype(case.dtype))


def make_table(case: Case, folder: Path) -> Path:
    """The case's table, written once.

    Returns:
        Its path.
    """
    table = folder / case.data_name
    if table.exists():
        return table
    unfinished = folder / f".{case.data_name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    if case.model == "pipeline":
        demo.make_data(unfinished, case.rows, case.days)
    else:
        _write_numbers(case, unfinished)
    if case.format == "delta":
        from deltalake import convert_to_deltalake

        convert_to_deltalake(str(unfinished))
    unfinished.rename(table)
    return table


def _write_numbers(case: Case, folder: Path) -> None:
    first = 0
    for number in range(case.files):
        rows = case.rows // case.files + (number < case.rows % case.files)
        place = folder
        if case.days:
            place = folder / f"{PARTITION}={FIRST_DAY + dt.timedelta(days=number % case.days)}"
        place.mkdir(parents=True, exist_ok=True)
        _write_file(case, place / f"part-{number:05d}.parquet", first, rows)
        first += rows


def _write_file(case: Case, path: Path, first: int, rows: int) -> None:
    names = features(case)
    schema = pa.schema([(KEY, pa.int64()), *((name, pa.type_for_alias(case.dtype)) for name in names)])
    with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=False) as writer:
        for start in range(0, rows, ROW_GROUP_ROWS):
            count = min(ROW_GROUP_ROWS, rows - start)
            values = matrix(case, count, SEED + first + start)
            keys = pa.array(np.arange(first + start, first + start + count, dtype=np.int64))
            columns = [keys, *(pa.array(np.ascontiguousarray(values[:, index])) for index in range(case.columns))]
            writer.write_batch(pa.record_batch(columns, schema=schema))
