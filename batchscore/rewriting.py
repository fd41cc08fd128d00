"""Writes published data files again: without some rows, or several as one; the rows themselves stay as they are."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore.arrow.filesystem import open_filesystem
from batchscore.contracts import StagedFile, UnitValues
from batchscore.errors import InputError, UnavailableError
from batchscore.score.stats import StatsBuilder

BATCH_ROWS = 262_144  # also the rows of a row group that is written


class Files:
    """The data files under a table.

    Args:
        uri: root of the table.
    """

    def __init__(self, uri: str) -> None:
        self._filesystem, root = open_filesystem(uri)
        self._root = root.rstrip("/")

    def schema(self, path: str) -> pa.Schema:
        """The columns that a file holds.

        Raises:
            InputError: the file is damaged.
            UnavailableError: storage does not answer, or the file is gone.
        """
        with _Told(path), self._filesystem.open_input_file(f"{self._root}/{path}") as opened:
            return pq.ParquetFile(opened).schema_arrow

    def batches(self, path: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a file.

        Args:
            path: relative to the table's root.
            columns: those to read where the file has them; None: all.

        Raises:
            InputError: the file is damaged.
            UnavailableError: storage does not answer, or the file is gone.
        """
        with _Told(path), self._filesystem.open_input_file(f"{self._root}/{path}") as opened:
            file = pq.ParquetFile(opened, page_checksum_verification=True)
            stored = file.schema_arrow.names
            names = None if columns is None else [name for name in dict.fromkeys(columns) if name in stored]
            # With no column at all a batch would not tell how many rows it has.
            yield from file.iter_batches(
                batch_size=BATCH_ROWS, columns=names or (None if names is None else stored[:1])
            )

    def writer(self, beside: str, name: str, schema: pa.Schema) -> Writer:
        """A new data file.

        Args:
            beside: the path of a data file of the same unit.
            name: what the new file's name holds to tell who wrote it.
            schema: its columns.
        """
        folder = beside.rpartition("/")[0]
        base = f"part-00000-{name}-{uuid.uuid4().hex[:12]}.zstd.parquet"
        return Writer(self._filesystem, self._root, f"{folder}/{base}" if folder else base, schema)


class _Told:
    """Turns what storage and Parquet raise into errors that name the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise UnavailableError(f"{self._path} is gone; nothing was changed", hint="try again") from error
        if isinstance(error, OSError):
            raise UnavailableError(f"{self._path} cannot be read; nothing was changed", found=error) from error
        if isinstance(error, pa.ArrowException):
            raise InputError(f"{self._path} is damaged; nothing was changed", found=error) from error


class Writer:
    """One data file, written like those of a run: no bounds in the footer for floats, which NaN would make wrong.

    Args:
        filesystem: where it is written.
        root: the table's folder.
        relative: its path below that.
        schema: its columns.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str, relative: str, schema: pa.Schema) -> None:
        self._filesystem, self._path, self._relative = filesystem, f"{root}/{relative}", relative
        self.schema = schema
        self._stats = StatsBuilder(schema)
        self._rows = 0
        self._writer = pq.ParquetWriter(
            self._path,
            schema,
            filesystem=filesystem,
            compression="zstd",
            compression_level=1,
            write_statistics=[field.name for field in schema if _has_bounds(field.type)],
            store_schema=False,
            coerce_timestamps="us",
            write_page_checksum=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends rows, as a row group."""
        for name in batch.schema.names:
            self._stats.add(name, batch.column(name))
        self._rows += batch.num_rows
        self._writer.write_batch(batch)

    def close(self, unit: UnitValues) -> StagedFile:
        """Ends the file; it is in no version yet.

        Args:
            unit: the partition values of its rows.
        """
        self._writer.close()
        size = self._filesystem.get_file_info(self._path).size
        left_out = {name for name, _ in unit}  # the unit itself says what these columns hold
        # Statistics of a map or a struct have another form.
        left_out |= {field.name for field in self.schema if _is_map_or_struct(field.type)}
        stats = tuple(stats for stats in self._stats.finish() if stats.name not in left_out)
        return StagedFile(self._relative, size, self._rows, unit, stats)

    def abandon(self) -> None:
        """Removes what was written."""
        self._writer.close()
        self._filesystem.delete_file(self._path)


def _is_map_or_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_map(kind) or pa.types.is_struct(kind))


def _has_bounds(kind: pa.DataType) -> bool:
    return not pa.types.is_floating(kind) and not pa.types.is_nested(kind)
