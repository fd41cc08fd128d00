"""What a run published, read back from its table: the rows that carry its run id."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from batchscore import lookup
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.splits import read_split
from batchscore.arrow.values import array_of, scalar_of
from batchscore.contracts import RUN_COLUMN, RunRecord, Schema, Split, UnitValues
from batchscore.errors import InputError
from batchscore.lookup import DataFile, FileSet

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Published:
    """The files of a table version that may hold rows of a run.

    Attributes:
        run_id: the run.
        files: those files, by the units that they belong to.
        table: the version's columns and the table's place.
        version: the version.
        own: whether that is the version that the run made.
    """

    run_id: str
    files: Mapping[UnitValues, Sequence[DataFile]]
    table: FileSet
    version: int
    own: bool

    def batches(self, unit: UnitValues, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The run's rows of a unit, with these columns.

        Raises:
            InputError: a file is gone or damaged.
        """
        by_name = {column.name: column for column in self.table.columns}
        columns = tuple(by_name[name] for name in dict.fromkeys((*names, RUN_COLUMN)))
        for file in self.files.get(unit, ()):
            for batch in _kept(self.table.uri, file, columns):
                mine = pc.equal(batch.column(RUN_COLUMN), scalar_of(self.run_id, pa.string()))
                yield batch.filter(mine).select(list(names))


def published_by(table: str, run: RunRecord) -> Published:
    """Where the rows of a run are: in the version that it made; in the newest one where that lost its log or files.

    Raises:
        InputError: there is no such table.
    """
    newest = lookup.newest_version(table)
    if 0 <= run.table_version < newest:
        with contextlib.suppress(InputError):  # the log no longer reaches that far back
            found = _at(table, run, run.table_version)
            if _all_there(found):
                return found
    return _at(table, run, newest)


def _at(table: str, run: RunRecord, version: int) -> Published:
    files = lookup.files_at(table, version, bounds=(RUN_COLUMN,))
    files.require_readable()
    held: dict[UnitValues, list[DataFile]] = defaultdict(list)
    for file in files.files:
        if _may_hold(file, run.run_id):
            held[file.partition].append(file)
    return Published(run.run_id, dict(held), files, version, own=version == run.table_version)


def _all_there(published: Published) -> bool:
    filesystem, _ = open_filesystem(published.table.uri)
    found = filesystem.get_file_info([file.path for files in published.files.values() for file in files])
    return all(info.type != pafs.FileType.NotFound for info in found)


def staged_batches(uri: str, files: Sequence[DataFile], columns: Schema) -> Iterator[pa.RecordBatch]:
    """The rows of files that were just written."""
    for file in files:
        yield from _kept(uri, file, columns)


def _may_hold(file: DataFile, run_id: str) -> bool:
    low, high = file.bounds.get(RUN_COLUMN, (run_id, run_id))
    return bool(low <= run_id <= high)


def _kept(uri: str, file: DataFile, columns: Schema) -> Iterator[pa.RecordBatch]:
    """A file's rows but for deleted ones."""
    split = Split(file.path, -1, None, file.partition, file.size, file.size)
    start = 0
    for batch in read_split(split, uri, columns, None, BATCH_ROWS):
        if file.kept is None:
            yield batch
        else:
            flags = np.ones(batch.num_rows, np.bool_)
            known = file.kept[start : start + batch.num_rows]
            flags[: len(known)] = known
            yield batch.filter(array_of(flags, pa.bool_()))
        start += batch.num_rows
