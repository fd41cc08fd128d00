"""The staged files, read back as batches in which partition columns are visible.

Not through ``pyarrow.dataset``: importing it imports pandas (0.4 s), which the built-in checks do without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import scalar_of
from batchscore.contracts import Column, Schema, ScoringPlan, StagedFile, StagedOutput
from batchscore.errors import UnavailableError
from batchscore.processors import usable_cores

BATCH_ROWS = 65_536
FOOTER_THREADS = 8
# Reading is most of a pass and leaves Python's lock.
READ_THREADS = min(8, usable_cores())


@dataclass(frozen=True)
class StagedTable:
    """The staged output of a run, opened for reading.

    Attributes:
        uri: root of the table.
        columns: all columns in table order, partition columns included.
        partition_by: columns that are in the paths and not in the files.
        files: the staged files.
        footers: the files' own metadata.
    """

    uri: str
    columns: Schema
    partition_by: tuple[str, ...]
    files: tuple[StagedFile, ...]
    footers: tuple[pq.FileMetaData, ...]
    filesystem: pafs.FileSystem
    root: str

    def schema(self, names: Sequence[str]) -> pa.Schema:
        """Arrow types of the named columns."""
        by_name = {column.name: column for column in self.columns}
        return pa.schema([pa.field(name, to_arrow(by_name[name].type)) for name in names])

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Every staged row's named columns, in batches of at most 65,536 rows.

        Raises:
            UnavailableError: a file vanished or cannot be read.
        """
        schema = self.schema(names)
        inside = [name for name in names if name not in self.partition_by]
        try:
            for file, footer in zip(self.files, self.footers, strict=True):
                values = {
                    name: partition_scalar(text, schema.field(name).type) for name, text in file.unit if name in names
                }
                with self.filesystem.open_input_file(f"{self.root}/{file.path}") as source:
                    reader = pq.ParquetFile(source, metadata=footer, pre_buffer=True, page_checksum_verification=True)
                    for batch in reader.iter_batches(BATCH_ROWS, columns=inside, use_threads=False):
                        yield _with_partition(batch, schema, values)
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(error) from error

    def apart(self) -> Iterator[tuple[int, StagedTable]]:
        """Each file as a table of its own, so that several threads can read at a time; before it its first row."""
        first = 0
        for file, footer in zip(self.files, self.footers, strict=True):
            yield first, replace(self, files=(file,), footers=(footer,))
            first += footer.num_rows

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows that each file's footer states."""
        return tuple(footer.num_rows for footer in self.footers)


def _with_partition(batch: pa.RecordBatch, schema: pa.Schema, values: Mapping[str, pa.Scalar]) -> pa.RecordBatch:
    columns = [
        pa.repeat(values[field.name], batch.num_rows)
        if field.name in values
        else batch.column(field.name).cast(field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def open_staged(plan: ScoringPlan, staged: StagedOutput) -> StagedTable:
    """Opens the staged files and reads their footers.

    Raises:
        UnavailableError: a file vanished or its footer cannot be read.
    """
    filesystem, root = open_filesystem(plan.target.uri)
    root = root.rstrip("/")
    columns = tuple(Column(column.name, column.type, column.nullable) for column in plan.task.columns)
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        footers = tuple(pool.map(lambda file: _footer(filesystem, f"{root}/{file.path}"), staged.files))
    return StagedTable(plan.target.uri, columns, plan.task.partition_by, staged.files, footers, filesystem, root)


def _footer(filesystem: pafs.FileSystem, path: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path, filesystem=filesystem)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(error) from error


def unreadable(error: Exception) -> UnavailableError:
    """A staged file could not be read back."""
    return UnavailableError("a staged file cannot be read back", found=error, hint="run again: nothing was published")


def partition_scalar(text: str | None, kind: pa.DataType) -> pa.Scalar:
    """A partition value from its canonical text.

    >>> partition_scalar("2026-11-21", pa.date32()).as_py()
    datetime.date(2026, 11, 21)
    """
    if text is None:
        return scalar_of(None, kind)
    if pa.types.is_timestamp(kind):
        # Delta writes UTC wall-clock time, with or without the letter that says so.
        wall = scalar_of(text.removesuffix("Z"), pa.string()).cast(pa.timestamp("us"))
        return scalar_of(wall.value, kind)
    return scalar_of(text, pa.string()).cast(kind)
