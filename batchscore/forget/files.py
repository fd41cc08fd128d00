"""Looks for rows in data files, and writes a file again without them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.layout import NULL_FOLDER
from batchscore.arrow.snapshot import ActiveFile
from batchscore.arrow.splits import constant
from batchscore.arrow.values import array_of
from batchscore.contracts import RUN_COLUMN, Schema, StagedFile, UnitValues
from batchscore.errors import InputError, UnavailableError
from batchscore.forget.keys import Keys, as_table_type
from batchscore.score.stats import StatsBuilder

READERS = 4  # files looked into at a time
BATCH_ROWS = 262_144  # also the rows of a row group that is written again


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
        schema: its columns.
        partition_by: columns that may be missing in the files.
        keys: what is looked for.
    """

    def __init__(self, uri: str, schema: Schema, partition_by: tuple[str, ...], keys: Keys) -> None:
        self._filesystem, root = open_filesystem(uri)
        self._root = root.rstrip("/")
        self._types = {column.name: column.type for column in schema}
        self._partition_by = partition_by
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
        for batch in self._batches(path, (*self._keys.names, RUN_COLUMN)):
            places = self._places(batch, values)
            at = np.flatnonzero(places >= 0)
            if not len(at):
                continue
            rows += len(at)
            keys.update(int(place) for place in np.unique(places[at]))
            runs.update(_runs(batch.filter(array_of(places >= 0, pa.bool_()))))
        return Hits(rows, dict(runs), frozenset(keys)) if rows else NO_HITS

    def _places(self, batch: pa.RecordBatch, values: Mapping[str, str | None]) -> np.ndarray:
        return self._keys.places([self._column(batch, name, values) for name in self._keys.names])

    def _column(self, batch: pa.RecordBatch, name: str, values: Mapping[str, str | None]) -> pa.Array:
        kind = self._types[name]
        if name in batch.schema.names:
            return as_table_type(batch.column(name), kind)
        return pa.repeat(constant(values.get(name), kind), batch.num_rows)

    def _batches(self, path: str, names: Iterable[str] | None) -> Iterator[pa.RecordBatch]:
        try:
            with self._filesystem.open_input_file(f"{self._root}/{path}") as opened:
                file = pq.ParquetFile(opened)
                stored = file.schema_arrow.names
                columns = None if names is None else [name for name in dict.fromkeys(names) if name in stored]
                if columns == []:  # every key is a partition column: the rows are counted all the same
                    columns = stored[:1]
                yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns, use_threads=False)
        except FileNotFoundError as error:
            raise UnavailableError(f"{path} is gone; nothing was changed", hint="try again") from error
        except OSError as error:
            raise UnavailableError(f"{path} cannot be read; nothing was changed", found=error) from error
        except pa.ArrowException as error:
            raise InputError(f"{path} is damaged; nothing was changed", found=error) from error

    def without(self, file: ActiveFile, name: str) -> StagedFile | None:
        """Writes a file again without the rows, beside it; None where no row would be left.

        Args:
            file: a file that holds such rows.
            name: what the new file's name holds to tell who wrote it.
        """
        folder = file.path.rpartition("/")[0]
        base = f"part-00000-{name}-{uuid.uuid4().hex[:12]}.zstd.parquet"
        relative = f"{folder}/{base}" if folder else base
        writer: _Writer | None = None
        values = dict(file.unit)
        try:
            for batch in self._batches(file.path, None):
                kept = batch.filter(array_of(self._places(batch, values) < 0, pa.bool_()))
                if kept.num_rows:
                    writer = writer or _Writer(self._filesystem, f"{self._root}/{relative}", kept.schema)
                    writer.write(kept)
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
        return None if writer is None else writer.close(relative, file.unit)


class _Writer:
    """One data file, written like those of a run: no bounds in the footer for floats, which NaN would make wrong."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, schema: pa.Schema) -> None:
        self._filesystem, self._path, self._schema = filesystem, path, schema
        self._stats = StatsBuilder(schema)
        self._rows = 0
        self._writer = pq.ParquetWriter(
            path,
            schema,
            filesystem=filesystem,
            compression="zstd",
            compression_level=1,
            write_statistics=[field.name for field in schema if _has_bounds(field.type)],
            store_schema=False,
            coerce_timestamps="us",
        )

    def write(self, batch: pa.RecordBatch) -> None:
        for name in batch.schema.names:
            self._stats.add(name, batch.column(name))
        self._rows += batch.num_rows
        self._writer.write_batch(batch)

    def close(self, relative: str, unit: UnitValues) -> StagedFile:
        self._writer.close()
        size = self._filesystem.get_file_info(self._path).size
        of_unit = {name for name, _ in unit}  # the unit itself says what these columns hold
        of_unit |= {
            field.name for field in self._schema if pa.types.is_map(field.type) or pa.types.is_struct(field.type)
        }
        stats = tuple(stats for stats in self._stats.finish() if stats.name not in of_unit)
        return StagedFile(relative, size, self._rows, unit, stats)

    def abandon(self) -> None:
        self._writer.close()
        self._filesystem.delete_file(self._path)


def _is_map_or_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_map(kind) or pa.types.is_struct(kind))


def _has_bounds(kind: pa.DataType) -> bool:
    return not pa.types.is_floating(kind) and not pa.types.is_nested(kind)


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
