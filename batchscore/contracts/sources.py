"""An input, pinned to one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from batchscore.contracts.columns import Predicate, Schema, UnitValues

# See `segments`: at most the rows of a usual batch, and few enough that a small file can still be cut for many cores.
MAX_SEGMENT_ROWS = 65_536
MIN_SEGMENT_ROWS = 4_096
SEGMENTS_A_FILE = 32


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One data file of a pinned source.

    Attributes:
        path: path as pyarrow's filesystem for the source's URI opens it.
        size: bytes.
        stamp: what tells a changed file: Delta: '' or the deletion vector's id; Parquet: ETag or
            modification time (ns), then a digest of the footer.
        rows: rows, less deleted ones; -1 where unknown without opening the file.
        row_groups: rows of each row group; () where the footer was not read.
        partition: partition values from the path or Delta's log.
    """

    path: str
    size: int
    stamp: str
    rows: int
    row_groups: tuple[int, ...] = ()
    partition: UnitValues = ()


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file of a source whose footer cannot be read, where the rest of the source is wanted all the same."""

    path: str
    partition: UnitValues
    reason: str


@dataclass(frozen=True, slots=True)
class PinnedSource:
    """A source at one version.

    Attributes:
        kind: how it is read. ``catalog`` sources (tables and views of Spark's catalog) have no files.
        uri: path, URI or catalog name, without secrets.
        version: Delta version, or None.
        snapshot: digest that changes when the content may have changed, hex.
        columns: all columns, partition columns included, types widened over all files.
        partition_columns: columns that the layout is partitioned by, in order.
        files: the files that remain after pruning by partition values.
        root: the path that the files' paths begin with; keys of units leave it out.
        missing_ok: columns that some files lack (added later); read as null there.
        dataframe_reason: why workers cannot read splits of it themselves, or None where they can.
        unreadable: files that are left out because they are damaged, where that was asked for.
    """

    kind: Literal["parquet", "delta", "catalog"]
    uri: str
    version: int | None
    snapshot: str
    columns: Schema
    partition_columns: tuple[str, ...]
    files: tuple[SourceFile, ...]
    root: str = ""
    missing_ok: frozenset[str] = frozenset()
    dataframe_reason: str | None = None
    notices: tuple[str, ...] = ()
    unreadable: tuple[UnreadableFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Restriction:
    """Which rows a run takes.

    ``partitions`` are the ``--partition`` values by column (a row matches when, for each column, its value is
    among those named); ``predicate`` is ``where`` parsed, or None where the SQL must go through Spark.
    """

    partitions: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    where: str | None = None
    predicate: Predicate | None = None
    where_reason: str | None = None  # why `where` could not be parsed into `predicate`


def segments(row_groups: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Row groups of a file that are read as one: as few as hold a 32nd of its rows, or 4,096 or 65,536 of them.

    Tasks are cut between them and batches end with them, so that which rows are scored together is told by the file
    and the rows of a batch alone, not by the cores or by what was measured: a matrix product rounds the last few rows
    of a batch otherwise (BLAS does), and a run is reproduced bit for bit.

    Args:
        row_groups: rows of each row group.

    >>> segments([100_000, 3_000, 3_000, 10]), segments([])
    (((0,), (1, 2), (3,)), ())
    """
    least = max(MIN_SEGMENT_ROWS, min(MAX_SEGMENT_ROWS, sum(row_groups) // SEGMENTS_A_FILE))
    found: list[tuple[int, ...]] = []
    held: list[int] = []
    rows = 0
    for index, count in enumerate(row_groups):
        held.append(index)
        rows += count
        if rows >= least:
            found.append(tuple(held))
            held, rows = [], 0
    return (*found, tuple(held)) if held else tuple(found)


@dataclass(frozen=True, slots=True)
class Split:
    """A piece of one file that one task reads: whole segments of it, see :func:`segments`.

    ``size`` is its share of the file's bytes. ``file_size`` and ``stamp`` are the file's own, by which a reader
    notices that it changed since it was pinned; -1 and '' check nothing.
    """

    path: str
    rows: int
    row_groups: tuple[int, ...] | None  # None: all of them
    partition: UnitValues
    size: int
    file_size: int = -1
    stamp: str = ""
