"""Writes staged data files, under names that no other attempt uses and in no log yet.

Predictions go inside the table's folder, rows that are left out into the quarantine's.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore import faults
from batchscore.arrow.filesystem import make_folder, open_filesystem, remove_file, storing
from batchscore.arrow.layout import data_folder, partition_value
from batchscore.arrow.splits import constant
from batchscore.arrow.values import array_of, numbers_of
from batchscore.contracts import (
    COLUMN_COLUMN,
    DETAIL_COLUMN,
    REASON_COLUMN,
    ScoringTask,
    StagedFile,
    UnitValues,
)
from batchscore.score.core import lineage_values, output_schema
from batchscore.score.quarantine import quarantine_lineage, quarantine_schema
from batchscore.score.stats import StatsBuilder

# One open file a unit; beyond this many the one written longest ago is closed, so that a task over
# hundreds of units keeps a bounded number of buffers.
MAX_OPEN_FILES = 32
# A row group buffers its encoded columns in memory; 256k rows of a prediction table are a few MB.
ROW_GROUP_ROWS = 262_144
_TEXT = pa.string()
_CODED = pa.dictionary(pa.int8(), _TEXT)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the files of a table have in common.

    Attributes:
        schema: their columns.
        repetitive: columns worth a dictionary; one of keys or floats is given up after it was built.
        described: whether statistics are gathered for the table's log.
    """

    schema: pa.Schema
    repetitive: Sequence[str]
    described: bool = True


class _OpenFile:
    """One data file.

    Args:
        filesystem: where it is written.
        root: the table's folder.
        relative: its path below that.
        kind: its columns.
        constants: the columns whose value is the same in each row: they are made a row group at a time, as
            dictionaries of one entry, and so cost nothing.
    """

    def __init__(
        self, filesystem: pafs.FileSystem, root: str, relative: str, kind: _Kind, constants: Mapping[str, pa.Scalar]
    ) -> None:
        schema = kind.schema
        self.relative = relative
        self.rows = 0
        self._filesystem = filesystem
        self._path = f"{root}/{relative}"
        self._schema = pa.schema([_constant(field, constants.get(field.name)) for field in schema])
        self._constants = constants
        self._stats = StatsBuilder(schema if kind.described else pa.schema([]))
        self._writer = pq.ParquetWriter(
            self._path,
            self._schema,
            filesystem=filesystem,
            compression="zstd",
            compression_level=1,
            # A footer's bounds leave NaN out and readers then skip rows that are NaN: none for floats at all. Delta's
            # own bounds tell a constant; computing them again here would take longer than writing the key.
            write_statistics=[
                field.name for field in schema if field.name not in constants and not _holds_floats(field.type)
            ],
            store_schema=False,
            use_dictionary=list(kind.repetitive) or False,
            coerce_timestamps="us",
            write_page_checksum=True,  # what storage damages later is noticed when it is read
        )
        self._buffered: list[pa.RecordBatch] = []
        self._buffered_rows = 0
        faults.reached("worker.opened")

    def write(self, batch: pa.RecordBatch) -> None:
        if not self.rows and batch.num_rows:
            for name, value in self._constants.items():
                self._stats.add(name, pa.repeat(value, 1))
        for name in batch.schema.names:
            self._stats.add(name, batch.column(name))
        self.rows += batch.num_rows
        self._buffered.append(batch)
        self._buffered_rows += batch.num_rows
        if self._buffered_rows >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._buffered:
            return
        rows = pa.Table.from_batches(self._buffered)
        columns = [
            _repeated(self._constants[name], rows.num_rows) if name in self._constants else rows.column(name)
            for name in self._schema.names
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=rows.num_rows)
        self._buffered, self._buffered_rows = [], 0

    def close(self, unit: UnitValues) -> StagedFile:
        self._flush()
        faults.reached("worker.closing")
        self._writer.close()
        faults.reached("worker.closed")
        size = self._filesystem.get_file_info(self._path).size
        of_unit = {name for name, _ in unit}  # the unit itself says what these columns hold
        stats = tuple(stats for stats in self._stats.finish() if stats.name not in of_unit)
        return StagedFile(self.relative, size, self.rows, unit, stats)

    def abandon(self) -> None:
        self._writer.close()


class StagedWriter:
    """Routes scored batches to one file a unit and remembers what was written.

    Args:
        task: the run's task; for Delta its ``partition_by`` columns go into paths, not into the files.
    """

    def __init__(self, task: ScoringTask) -> None:
        self._task = task
        self._problem = f"predictions could not be staged at {task.staging_uri}"
        self._filesystem, self._root = open_filesystem(task.staging_uri)
        left_out = task.partition_by if task.output_format == "delta" else ()
        self._schema = pa.schema([field for field in output_schema(task) if field.name not in left_out])
        self._types = {column.name: column.type for column in task.columns}
        self._constants = lineage_values(task)
        repetitive = [
            field.name for field in self._schema if field.name not in task.keys and not _holds_floats(field.type)
        ]
        self._kind = _Kind(self._schema, repetitive)
        self._attempt = uuid.uuid4().hex[:12]
        self._count = 0
        self._open: OrderedDict[UnitValues, _OpenFile] = OrderedDict()
        self._folders: set[str] = set()
        self._paths: list[str] = []
        self._done: list[StagedFile] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends the rows of ``batch`` to the files of their units.

        Raises:
            UnavailableError: the storage has no space, or did not take what was written.
        """
        with storing(self._problem):
            for unit, rows in self._by_unit(batch):
                file = self._file(unit)
                file.write(rows)
                if file.rows >= self._task.file_rows:
                    self._close(unit)

    def finish(self) -> tuple[StagedFile, ...]:
        """Closes all files and returns them.

        Raises:
            UnavailableError: as :meth:`write`; what is written last goes to an object store only here.
        """
        with storing(self._problem):
            for unit in list(self._open):
                self._close(unit)
        return tuple(self._done)

    def discard(self) -> None:
        """Removes what was written: the task failed, and its files belong to nobody.

        What cannot be removed now is left to the run that staged it: the task's own error is the one to be told.
        """
        for file in self._open.values():
            with suppress(OSError):
                file.abandon()
        for path in self._paths:
            with suppress(OSError):
                remove_file(self._task.staging_uri, path)

    def _file(self, unit: UnitValues) -> _OpenFile:
        if unit in self._open:
            self._open.move_to_end(unit)
            return self._open[unit]
        if len(self._open) >= MAX_OPEN_FILES:
            self._close(next(iter(self._open)))
        folder = data_folder(self._task.output_format, self._task.run_id, unit)
        name = f"part-{self._count:05d}-{self._task.run_id}-{self._attempt}.zstd.parquet"
        relative = f"{folder}/{name}" if folder else name
        self._count += 1
        if folder not in self._folders:
            make_folder(self._filesystem, f"{self._root}/{folder}".rstrip("/"))
            self._folders.add(folder)
        self._paths.append(relative)
        constants = {**self._constants, **self._of_unit(unit)}
        self._open[unit] = _OpenFile(self._filesystem, self._root, relative, self._kind, constants)
        return self._open[unit]

    def _of_unit(self, unit: UnitValues) -> dict[str, pa.Scalar]:
        """The values of the partition columns that go into the unit's files."""
        if self._task.output_format == "delta":
            return {}
        return {name: constant(value, self._types[name]) for name, value in unit}

    def _close(self, unit: UnitValues) -> None:
        self._done.append(self._open.pop(unit).close(unit))

    def _by_unit(self, batch: pa.RecordBatch) -> Iterator[tuple[UnitValues, pa.RecordBatch]]:
        names = self._task.partition_by
        data = batch.select([name for name in self._schema.names if name not in self._constants and name not in names])
        if not names:
            if data.num_rows:
                yield (), data
            return
        codes, units = unit_codes(batch, names)
        if len(units) == 1:
            yield units[0], data
            return
        for code, unit in enumerate(units):
            rows = np.flatnonzero(codes == code)
            yield unit, data.take(array_of(rows, pa.int64()))


class QuarantineWriter:
    """Writes the rows that a task leaves out; one file, and none where there are none.

    Args:
        task: the run's task.
    """

    def __init__(self, task: ScoringTask) -> None:
        self._task = task
        self._problem = f"rows could not be quarantined at {task.quarantine_uri}"
        self._file: _OpenFile | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends rows: the columns of :func:`quarantine_schema` without lineage.

        Raises:
            UnavailableError: the storage has no space, or did not take what was written.
        """
        with storing(self._problem):
            if self._file is None:
                self._file = self._begun()
            self._file.write(batch)

    def _begun(self) -> _OpenFile:
        task = self._task
        filesystem, root = open_filesystem(task.quarantine_uri)
        make_folder(filesystem, root)
        name = f"part-00000-{task.run_id}-{uuid.uuid4().hex[:12]}.zstd.parquet"
        schema = quarantine_schema(task)
        repetitive = [name for name in (REASON_COLUMN, COLUMN_COLUMN, DETAIL_COLUMN) if name in schema.names]
        # Nobody looks for these rows by bounds, and which run they are of is told without.
        kind = _Kind(schema, repetitive, described=False)
        return _OpenFile(filesystem, root, name, kind, quarantine_lineage(task))

    def finish(self) -> tuple[StagedFile, ...]:
        """Closes the file and returns it, if there is one.

        Raises:
            UnavailableError: as :meth:`write`.
        """
        with storing(self._problem):
            return () if self._file is None else (self._file.close(()),)

    def discard(self) -> None:
        """Removes what was written: the task failed, and its file belongs to nobody."""
        if self._file is not None:
            with suppress(OSError):
                self._file.abandon()
            with suppress(OSError):
                remove_file(self._task.quarantine_uri, self._file.relative)


def unit_codes(batch: pa.RecordBatch, names: tuple[str, ...]) -> tuple[np.ndarray, list[UnitValues]]:
    """For each row the index of its unit, and the units, for the partition columns ``names``."""
    combined = np.zeros(batch.num_rows, dtype=np.int64)
    values: list[list[str | None]] = []
    for name in names:
        encoded = batch.column(name).dictionary_encode(null_encoding="encode")
        values.append([partition_value(scalar) for scalar in encoded.dictionary])
        combined = combined * len(values[-1]) + numbers_of(encoded.indices)
    present, codes = np.unique(combined, return_inverse=True)
    units: list[UnitValues] = []
    for code in present.tolist():
        parts: list[tuple[str, str | None]] = []
        rest = code
        for name, known in zip(reversed(names), reversed(values), strict=True):
            rest, index = divmod(rest, len(known))
            parts.append((name, known[index]))
        units.append(tuple(reversed(parts)))
    return codes, units


def _constant(field: pa.Field, value: pa.Scalar | None) -> pa.Field:
    """A column of one value: coded where it is text, and required, which spares a level for each row.

    Any other column, ``value`` None, and one of nulls stay as they are.
    """
    if value is None or not value.is_valid:
        return field
    return field.with_type(_CODED if field.type == _TEXT else field.type).with_nullable(False)


def _repeated(value: pa.Scalar, rows: int) -> pa.Array:
    """A column of one value; text as codes into a dictionary of one entry, which is written as it is."""
    if value.type != _TEXT or not value.is_valid:
        return pa.repeat(value, rows)
    return pa.DictionaryArray.from_arrays(array_of(np.zeros(rows, np.int8), pa.int8()), pa.repeat(value, 1))


def _holds_floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or (pa.types.is_list(kind) and _holds_floats(kind.value_type))
