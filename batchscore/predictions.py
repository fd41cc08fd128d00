"""Published predictions for whoever works in Python: the rows of one version, whatever the table's format."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from batchscore import read
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.predicate import mask
from batchscore.arrow.splits import read_split
from batchscore.arrow.types import arrow_schema
from batchscore.arrow.values import array_of
from batchscore.contracts import PinnedSource, Predicate, Schema, SourceFile, Split, predicate_columns
from batchscore.errors import InputError, SettingsError
from batchscore.read.partitions import find_column, pruned
from batchscore.tables import Table, open_table

BATCH_ROWS = 65_536
READ_THREADS = 8  # files read at a time

Partitions = Mapping[str, str | Sequence[str | None] | None]


def read_predictions(
    uri: str | os.PathLike[str],
    *,
    version: int | None = None,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    partitions: Partitions | None = None,
) -> pa.Table:
    """The rows of a prediction table, Delta or Parquet, all of one version: no half of a run, no run twice.

    Rows are in no order. ``.to_pandas()`` of the result gives a pandas frame.

    Args:
        uri: path or URI of the table (``output.path``).
        version: table version; None: the newest. `batchscore history` names those of runs.
        columns: which columns, in this order; None: all. Columns that a run did not write are null in its rows.
        where: Spark SQL condition over the table's columns, of the kind that workers evaluate: comparisons with
            constants, IN, BETWEEN, IS NULL, AND, OR, NOT.
        partitions: values to take by partition column, as text: ``{"ds": "2026-11-21"}`` or several in a list; None
            is the null partition. Other units' files are not opened.

    Raises:
        InputError: no table is there, it has no such version or partition, or a file of it is gone.
        SettingsError: an unknown column, with near names, or a condition that only Spark can evaluate.
        UnavailableError: storage could not be reached.
    """
    uri = os.fspath(uri)
    table = open_table(uri, version)
    if table is None:
        raise InputError(f"no prediction table is at {uri}", hint="check the path: it is output.path of the job")
    _refuse_mapped(table)
    wanted = _columns(table, columns)
    files, predicate = _restricted(table, where, partitions)
    needed = tuple(column for column in table.columns if column.name in predicate_columns(predicate))
    reader = _Reader(table, tuple(dict.fromkeys((*wanted, *needed))), predicate, table.kept_rows())
    names = [column.name for column in wanted]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        parts = list(pool.map(lambda file: [batch.select(names) for batch in reader.rows(file)], files))
    return pa.Table.from_batches((batch for part in parts for batch in part), schema=arrow_schema(wanted))


def _columns(table: Table, names: Sequence[str] | None) -> Schema:
    if names is None:
        return table.columns
    return tuple(find_column(name, table.columns, "the prediction table has no such column") for name in names)


def _refuse_mapped(table: Table) -> None:
    """Under column mapping the files have other names for the columns: all would read as null."""
    mode = table.snapshot.properties.get("delta.columnMapping.mode", "none")
    if mode != "none":
        raise InputError(f"the table at {table.uri} has column mapping", found=mode, hint="read it with Spark")


def _restricted(
    table: Table, where: str | None, partitions: Partitions | None
) -> tuple[tuple[SourceFile, ...], Predicate | None]:
    """The files of the units asked for, and what their rows must meet."""
    _, root = open_filesystem(table.uri)
    root = root.rstrip("/")
    files = tuple(
        SourceFile(f"{root}/{file.path}", file.size, "", -1 if file.rows is None else file.rows, (), file.unit)
        for file in table.files
    )
    source = PinnedSource("parquet", table.uri, table.version, "", table.columns, table.partition_by, files, root)
    asked = {name: _values(values) for name, values in (partitions or {}).items()}
    restriction = read.restriction(asked, where, source)
    if restriction.where_reason is not None:
        raise SettingsError(
            "this condition needs Spark", found=restriction.where_reason, hint="filter what is returned without it"
        )
    if any(name in table.partition_by for name, _ in restriction.partitions):
        files = pruned(files, table.partition_by, dict(restriction.partitions))
    return files, restriction.predicate


def _values(values: str | Sequence[str | None] | None) -> tuple[str | None, ...]:
    return (values,) if values is None or isinstance(values, str) else tuple(values)


class _Reader:
    """Reads files of one table.

    Args:
        table: gives root and types.
        columns: what a batch holds.
        predicate: which rows are kept, or None.
        kept: what deletions leave of a file, by relative path.
    """

    def __init__(self, table: Table, columns: Schema, predicate: Predicate | None, kept: Mapping[str, bytes]) -> None:
        self._uri, self._columns, self._kept = table.uri, columns, kept
        self._root = open_filesystem(table.uri)[1].rstrip("/")
        self._predicate = predicate

    def rows(self, file: SourceFile) -> Iterator[pa.RecordBatch]:
        """The rows of one file that are not deleted and meet the predicate."""
        split = Split(file.path, file.rows, None, file.partition, file.size, file.size)
        batches: Iterable[pa.RecordBatch] = read_split(split, self._uri, self._columns, None, BATCH_ROWS)
        kept = self._kept.get(file.path.removeprefix(f"{self._root}/"))
        if kept is not None:
            batches = _undeleted(batches, kept)
        for batch in batches:
            yield batch if self._predicate is None else batch.filter(mask(self._predicate, batch, self._columns))


def _undeleted(batches: Iterable[pa.RecordBatch], kept: bytes) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        marks = kept[start : start + batch.num_rows].ljust(batch.num_rows, b"\1")
        start += batch.num_rows
        yield batch.filter(array_of(np.frombuffer(marks, np.uint8), pa.bool_()))
