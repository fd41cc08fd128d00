"""What a run published, read back from its table: the rows that carry its run id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore import lookup
from batchscore.arrow.splits import read_split
from batchscore.arrow.values import array_of, scalar_of
from batchscore.contracts import RUN_COLUMN, RunRecord, Schema, Split, UnitValues
from batchscore.errors import InputError, unit_text
from batchscore.lookup import DataFile, FileSet

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Published:
    """The files of a table version that may hold rows of a run.

    Attributes:
        run_id: the run.
        files: those files.
        version: the version.
        own: whether that is the version that the run made.
    """

    run_id: str
    files: FileSet
    version: int
    own: bool

    @property
    def units(self) -> frozenset[UnitValues]:
        """Units with such files."""
        return frozenset(file.partition for file in self.files.files)

    def batches(self, unit: UnitValues, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The run's rows of a unit, with these columns.

        Raises:
            InputError: a file is gone or damaged.
        """
        by_name = {column.name: column for column in self.files.columns}
        columns = tuple(by_name[name] for name in dict.fromkeys((*names, RUN_COLUMN)))
        for file in self.files.files:
            if file.partition == unit:
                for batch in _kept(self.files.uri, file, columns):
                    mine = pc.equal(batch.column(RUN_COLUMN), scalar_of(self.run_id, pa.string()))
                    yield batch.filter(mine).select(list(names))


def published_by(table: str, run: RunRecord) -> Published:
    """Where the rows of a run are: in the version that it made, or in the newest one where that is gone from the log.

    Raises:
        InputError: there is no such table.
    """
    newest = lookup.newest_version(table)
    version = run.table_version if run.table_version >= 0 else newest
    try:
        files = lookup.files_at(table, version, bounds=(RUN_COLUMN,))
    except InputError:
        version = newest
        files = lookup.files_at(table, version, bounds=(RUN_COLUMN,))
    held = tuple(file for file in files.files if _may_hold(file, run.run_id))
    return Published(run.run_id, replace(files, files=held), version, own=version == run.table_version)


def lost(published: Published, unit: UnitValues) -> str:
    """Why a unit of the run has no rows in the table."""
    if published.own:
        return f"{unit_text(unit)}: another run had published the same, so this one did not"
    return f"{unit_text(unit)}: version {published.version} of the table holds nothing of the run any more"


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
