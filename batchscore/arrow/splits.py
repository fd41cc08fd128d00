"""Reads one split: row groups of one file as record batches of the pinned types, in bounded memory.

Only a window of each column chunk is held beside the batch, so memory grows neither with the file nor with a
row group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.footers import Footer, footer_of, unreadable
from batchscore.arrow.predicate import mask
from batchscore.arrow.stamps import check_same, check_time, opened_state, state_of
from batchscore.arrow.types import arrow_schema, from_arrow
from batchscore.arrow.values import null_scalar, typed_array
from batchscore.contracts import Column, Predicate, Schema, Split, segments
from batchscore.errors import InputError, UnavailableError
from batchscore.schema import INTEGERS, decimal_parts, is_decimal, widened

# Window of one column chunk. Each window of a remote file is a request, so it is larger there.
LOCAL_WINDOW_BYTES = 256 << 10
REMOTE_WINDOW_BYTES = 8 << 20
_DIGITS = {"byte": 3, "short": 5, "integer": 10, "long": 19}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each output column comes from: a column of the file, or a constant (partition value or null).

    ``coded`` are the file's columns that stay dictionaries.
    """

    schema: pa.Schema
    file_names: tuple[str | None, ...]
    constants: tuple[pa.Scalar | None, ...]
    read: tuple[str, ...]
    coded: tuple[str, ...]

    def conform(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the output's columns and types."""
        arrays = []
        for field, name, constant in zip(self.schema, self.file_names, self.constants, strict=True):
            if name is None:
                arrays.append(pa.repeat(constant, batch.num_rows))
            else:
                arrays.append(_conformed(batch.column(name), field, coded=name in self.coded))
        if not self.coded:
            return pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return pa.RecordBatch.from_arrays(arrays, names=self.schema.names)


def read_split(  # noqa: PLR0913  # a split, and what is wanted of it
    split: Split,
    source_uri: str,
    columns: Schema,
    predicate: Predicate | None,
    batch_rows: int,
    *,
    coded: Collection[str] = (),
    on_rows: Callable[[int], None] = lambda _: None,
) -> Iterator[pa.RecordBatch]:
    """The split's rows as batches of at most ``batch_rows`` rows, empty ones left out.

    Args:
        split: a file and its row groups; ``file_size`` and ``stamp`` are compared with the file.
        source_uri: root of the source; selects the file system.
        columns: what a batch holds, in this order, with the pinned types. A column that the file lacks is null,
            a partition column has the split's value.
        predicate: rows to keep, or None; its columns must be among ``columns``.
        batch_rows: rows of a batch before the predicate.
        coded: columns of text that stay dictionaries where the file has them so; none that the predicate reads.
        on_rows: hears of each batch how many rows it had before the predicate.

    Raises:
        InputError: naming the file, when it is missing, damaged, changed since it was pinned, or holds a value
            that the pinned type does not.
        UnavailableError: when the storage did not answer.
        ValueError: when the predicate reads a column that is not among ``columns``.
    """
    filesystem, _ = open_filesystem(source_uri)
    try:
        for batch in _batches(filesystem, split, columns, batch_rows, coded):
            on_rows(batch.num_rows)
            kept = batch if predicate is None else batch.filter(mask(predicate, batch, columns))
            if kept.num_rows:
                yield kept
    except (OSError, pa.ArrowException, UnicodeError, OverflowError) as error:
        raise _failed(split.path, error) from error


def _failed(path: str, error: Exception) -> InputError | UnavailableError:
    if isinstance(error, pa.ArrowInvalid) and "would lose data" in str(error):
        return InputError(
            f"{path} holds a value finer or larger than its column's type",
            found=str(error),
            hint="times are read in microseconds: store them so, or leave the column unread",
        )
    return unreadable(path, error)


def _batches(
    filesystem: pafs.FileSystem, split: Split, columns: Schema, batch_rows: int, coded: Collection[str]
) -> Iterator[pa.RecordBatch]:
    window = LOCAL_WINDOW_BYTES if isinstance(filesystem, pafs.LocalFileSystem) else REMOTE_WINDOW_BYTES
    with filesystem.open_input_file(split.path) as opened:
        before = opened_state(filesystem, split.path, opened)
        check_time(split.path, split.stamp, filesystem, before.mtime_ns)
        footer = footer_of(opened, split.path)
        _check_unchanged(split, footer)
        layout = _layout(split, footer, columns, coded)
        groups = frozenset(range(footer.metadata.num_row_groups) if split.row_groups is None else split.row_groups)
        if not layout.read:
            yield from _without_reading(sum(footer.row_groups[index] for index in groups), layout, batch_rows)
            check_same(split.path, before, state_of(filesystem, split.path))
            return
        file = pq.ParquetFile(
            opened,
            metadata=footer.metadata,
            read_dictionary=list(layout.coded),
            buffer_size=window,
            pre_buffer=False,
            coerce_int96_timestamp_unit="us",
            page_checksum_verification=True,  # where the file has checksums
        )
        for segment in segments(footer.row_groups):
            wanted = [index for index in segment if index in groups]
            for batch in file.iter_batches(
                batch_size=batch_rows, row_groups=wanted, columns=list(layout.read), use_threads=False
            ):
                yield layout.conform(batch)
    check_same(split.path, before, state_of(filesystem, split.path))


def _without_reading(rows: int, layout: _Layout, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Rows of which no column is in the file: constants alone, or no column at all."""
    for start in range(0, rows, batch_rows):
        count = min(batch_rows, rows - start)
        counter = pa.RecordBatch.from_arrays([pa.nulls(count)], names=["rows"])
        yield layout.conform(counter) if layout.schema.names else counter.select([])


def _check_unchanged(split: Split, footer: Footer) -> None:
    """A file's size, footer and ETag must be those that were pinned.

    Raises:
        InputError: naming the file.
    """
    content, _, digest = split.stamp.rpartition(":")
    rows = sum(footer.row_groups)
    if split.file_size not in {-1, footer.size}:
        found = f"{footer.size} bytes instead of {split.file_size}"
    elif digest and digest != footer.digest:
        found = "another footer"
    elif content.startswith("etag ") and content != f"etag {footer.etag}":
        found = "another ETag"
    elif split.row_groups is None and split.rows not in {-1, rows}:
        found = f"{rows} rows instead of {split.rows}"
    else:
        return
    raise InputError(
        f"{split.path} changed after planning", found=found, hint="wait until its writer is done, then run again"
    )


def _layout(split: Split, footer: Footer, columns: Schema, coded: Collection[str]) -> _Layout:
    partition = dict(split.partition)
    names: list[str | None] = []
    constants: list[pa.Scalar | None] = []
    for column in columns:
        name = None if column.name in partition else _file_name(column.name, footer.schema.names)
        if name is not None:
            _check_type(split.path, column, footer.schema.field(name).type)
        names.append(name)
        constants.append(None if name is not None else constant(partition.get(column.name), column.type))
    read = tuple(name for name in names if name is not None)
    texts = {name for name, column in zip(names, columns, strict=True) if name is not None and column.name in coded}
    return _Layout(arrow_schema(columns), tuple(names), tuple(constants), read, _dictionaries(footer, texts))


def _dictionaries(footer: Footer, names: Collection[str]) -> tuple[str, ...]:
    """Those of the columns that are plain text with a dictionary in each row group that has rows."""
    groups = [footer.metadata.row_group(index) for index in range(footer.metadata.num_row_groups)]
    groups = [group for group in groups if group.num_rows]
    if not names or not groups:
        return ()
    paths = [groups[0].column(index).path_in_schema for index in range(groups[0].num_columns)]
    return tuple(
        name
        for name in sorted(names)
        if footer.schema.field(name).type == pa.string()
        and name in paths
        and all(group.column(paths.index(name)).has_dictionary_page for group in groups)
    )


def _file_name(name: str, known: Sequence[str]) -> str | None:
    """The file's spelling of a column: exact, else the only one that differs in case, as Spark resolves it."""
    if name in known:
        return name
    folded = [other for other in known if other.casefold() == name.casefold()]
    return folded[0] if len(folded) == 1 else None


def _check_type(path: str, column: Column, arrow: pa.DataType) -> None:
    found = from_arrow(arrow)
    if not reads_as(found, column.type):
        raise InputError(
            f"column {column.name} of {path} does not fit the table",
            found=found,
            allowed=(column.type,),
            hint="write the file again with the table's types",
        )


def reads_as(found: str, pinned: str) -> bool:
    """Whether a file's column type is the pinned one or widens to it without loss.

    >>> reads_as("integer", "long"), reads_as("integer", "decimal(12,2)"), reads_as("long", "integer")
    (True, True, False)
    """
    if found in INTEGERS and is_decimal(pinned):
        precision, scale = decimal_parts(pinned)
        return precision - scale >= _DIGITS[found]
    return widened(found, pinned) == pinned


def constant(value: str | None, kind: str) -> pa.Scalar:
    """A partition value, a canonical string, as a scalar of a column's type.

    >>> constant("2026-11-21", "date").as_py()
    datetime.date(2026, 11, 21)

    Raises:
        pa.ArrowInvalid: when the text is no value of the type.
    """
    return null_scalar(kind) if value is None else typed_array([value], kind)[0]


def _conformed(array: pa.Array, field: pa.Field, *, coded: bool) -> pa.Array:
    if coded:
        return array
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    return array if array.type == field.type else array.cast(field.type)
