"""Looks for rows in data files, and writes a file again without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from batchscore.arrow.layout import NULL_FOLDER
from batchscore.arrow.snapshot import ActiveFile
from batchscore.arrow.splits import constant
from batchscore.arrow.values import array_of
from batchscore.contracts import RUN_COLUMN, Schema, StagedFile, UnitValues
from batchscore.errors import InputError
from batchscore.forget.keys import Keys, as_table_type
from batchscore.rewriting import Files, Writer

READERS = 4  # files looked into at a time


@dataclass(frozen=True, slots=True)
class Hits:
    """What a file holds of the rows looked for.

    Attributes:
        rows: how many rows.
        by_run: the same by run; '' where a row tells none.
        keys: which keys, by position.
    """

    rows: int
    by_run: Mapping[str, int]
    keys: frozenset[int]


NO_HITS = Hits(0, {}, frozenset())


class Searcher:
    """Looks into the files of one table; each file once, because files never change.

    Args:
        uri: root of the table.
        schema: its columns; partition columns may be missing in the files.
        keys: what is looked for.
    """

    def __init__(self, uri: str, schema: Schema, keys: Keys) -> None:
        self._files = Files(uri)
        self._types = {column.name: column.type for column in schema}
        self._keys = keys
        self._known: dict[str, Hits] = {}

    def search(self, files: Mapping[str, UnitValues | None]) -> dict[str, Hits]:
        """What each file holds; files without such a row are left out.

        Args:
            files: partition values by path; None: as the path tells them.

        Raises:
            InputError: a file is damaged.
            UnavailableError: storage does not answer, or a file is gone.
        """
        new = [path for path in files if path not in self._known]
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda path: self._hits(path, files[path]), new)
            self._known.update(zip(new, found, strict=True))
        return {path: self._known[path] for path in files if self._known[path].rows}

    def _hits(self, path: str, unit: UnitValues | None) -> Hits:
        values = dict(unit_of_path(path) if unit is None else unit)
        rows, runs, keys = 0, Counter[str](), set[int]()
        for batch in self._files.batches(path, (*self._keys.names, RUN_COLUMN)):
            places = self._places(path, batch, values)
            at = np.flatnonzero(places >= 0)
            if not len(at):
                continue
            rows += len(at)
            keys.update(int(place) for place in np.unique(places[at]))
            runs.update(_runs(batch.filter(array_of(places >= 0, pa.bool_()))))
        return Hits(rows, dict(runs), frozenset(keys)) if rows else NO_HITS

    def _places(self, path: str, batch: pa.RecordBatch, values: Mapping[str, str | None]) -> np.ndarray:
        try:
            return self._keys.places([self._column(batch, name, values) for name in self._keys.names])
        except (pa.ArrowException, ValueError) as error:
            raise InputError(
                f"the keys of {path} cannot be compared with the table's; nothing was changed",
                found=error,
                hint="a file of an older version may hold another type: `batchscore retain` gives old versions up",
            ) from error

    def _column(self, batch: pa.RecordBatch, name: str, values: Mapping[str, str | None]) -> pa.Array:
        kind = self._types[name]
        if name in batch.schema.names:
            return as_table_type(batch.column(name), kind)
        return pa.repeat(constant(values.get(name), kind), batch.num_rows)

    def without(self, file: ActiveFile, name: str) -> StagedFile | None:
        """Writes a file again without the rows, beside it; None where no row would be left.

        Args:
            file: a file that holds such rows.
            name: what the new file's name holds to tell who wrote it.
        """
        writer: Writer | None = None
        values = dict(file.unit)
        try:
            for batch in self._files.batches(file.path):
                kept = batch.filter(array_of(self._places(file.path, batch, values) < 0, pa.bool_()))
                if kept.num_rows:
                    writer = writer or self._files.writer(file.path, name, kept.schema)
                    writer.write(kept)
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
        return None if writer is None else writer.close(file.unit)


def _runs(batch: pa.RecordBatch) -> Iterator[str]:
    if RUN_COLUMN not in batch.schema.names:
        return iter([""] * batch.num_rows)
    return (str(run or "") for run in batch.column(RUN_COLUMN).to_pylist())


def unit_of_path(path: str) -> UnitValues:
    """The partition values that a path of a Delta table's data file spells.

    >>> unit_of_path("ds=2026-01-31/shop=a%20b/part-0.parquet")
    (('ds', '2026-01-31'), ('shop', 'a b'))
    """
    pairs = (part.partition("=") for part in path.split("/")[:-1] if "=" in part)
    return tuple((unquote(name), None if value == NULL_FOLDER else unquote(value)) for name, _, value in pairs)
