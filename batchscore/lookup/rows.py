"""One row by its keys: files by statistics, row groups by statistics, key columns, then the row itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.footers import Footer, read_footer
from batchscore.arrow.splits import read_split
from batchscore.arrow.values import shown
from batchscore.contracts import LINEAGE_COLUMNS, Schema, Split
from batchscore.errors import MAX_ITEMS, InputError, SettingsError, bounded, listed, nearest, unit_text
from batchscore.lookup.files import BOUNDED_TYPES, DataFile, FileSet, ranges, within
from batchscore.lookup.keys import Key
from batchscore.schema import INTEGERS

BATCH_ROWS = 65_536
MAX_NEAR = 3
MAX_TEXTS = 10_000  # different texts that near ones are looked for among


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: a file, one of its row groups, the row's place in that, and in the file."""

    file: DataFile
    row_group: int
    index: int
    position: int


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a row: its column, the type's name, and the value as Python has it."""

    name: str
    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class FoundRow:
    """One row, and where it stands.

    Attributes:
        place: file, row group and position.
        batch: the row, one line of all readable columns.
        searched: files that were looked into.
    """

    place: Place
    batch: pa.RecordBatch
    searched: int


@dataclass
class _Search:
    """What was seen on the way: for the message where nothing is found."""

    files: int = 0
    near: tuple[Any, ...] = ()


def one_row(files: FileSet, keys: Sequence[Key]) -> FoundRow:
    """The only row with these keys.

    Raises:
        SettingsError: none has them, or several.
        InputError: a file is damaged or gone.
        UnavailableError: storage did not answer.
    """
    search = _Search()
    found: list[Place] = []
    for place in _places(files, keys, search):
        found.append(place)
        if len(found) > MAX_ITEMS:
            break
    if not found:
        raise _none(files, keys, search)
    if len(found) > 1:
        raise _several(files, keys, found)
    return FoundRow(found[0], values_at(files, found[0], files.readable), search.files)


def values_at(files: FileSet, place: Place, columns: Schema) -> pa.RecordBatch:
    """The row at a place, as a batch of one row with the types of ``columns``."""
    split = _split(place.file, place.row_group)
    left = place.index
    for batch in read_split(split, files.uri, columns, None, BATCH_ROWS):
        if left < batch.num_rows:
            return batch.slice(left, 1)
        left -= batch.num_rows
    raise InputError(f"{place.file.path} has fewer rows than it had a moment ago")


def as_values(batch: pa.RecordBatch, columns: Schema) -> tuple[Value, ...]:
    """The values of a batch of one row."""
    return tuple(Value(column.name, column.type, shown(batch.column(index)[0])) for index, column in enumerate(columns))


def _places(files: FileSet, keys: Sequence[Key], search: _Search) -> Iterator[Place]:
    names = {key.name for key in keys}
    columns = tuple(column for column in files.columns if column.name in names)
    for file in files.files:
        if file.may_hold(keys):
            search.files += 1
            yield from _in_file(files, file, keys, columns, search)


def _in_file(files: FileSet, file: DataFile, keys: Sequence[Key], columns: Schema, search: _Search) -> Iterator[Place]:
    footer = _footer(files, file)
    start = 0
    for group, rows in enumerate(footer.row_groups):
        if _group_may_hold(footer, group, keys, file):
            offset = 0
            for batch in read_split(_split(file, group), files.uri, columns, None, BATCH_ROWS):
                hits = _matches(batch, keys)
                if not hits:
                    _look_near(batch, keys, search)
                for index in hits:
                    position = start + offset + index
                    if file.keeps(position):
                        yield Place(file, group, offset + index, position)
                offset += batch.num_rows
        start += rows


def _footer(files: FileSet, file: DataFile) -> Footer:
    filesystem, _ = open_filesystem(files.uri)
    if filesystem.get_file_info(file.path).type == pafs.FileType.NotFound:
        raise InputError(
            f"{files.what} lost a file that may hold the row",
            found=file.path,
            hint="VACUUM removes the files of older versions; a newer version has its files",
        )
    return read_footer(filesystem, file.path)


def _split(file: DataFile, group: int) -> Split:
    return Split(file.path, -1, (group,), file.partition, file.size, file.size, file.stamp)


def _matches(batch: pa.RecordBatch, keys: Sequence[Key]) -> list[int]:
    masks = [pc.equal(batch.column(key.name), key.scalar) for key in keys]
    found: list[int] = pc.indices_nonzero(functools.reduce(pc.and_kleene, masks)).to_pylist()
    return found


def _group_may_hold(footer: Footer, group: int, keys: Sequence[Key], file: DataFile) -> bool:
    """By the row group's own statistics; columns without usable ones exclude nothing."""
    meta = footer.metadata.row_group(group)
    places = {meta.column(index).path_in_schema: index for index in range(meta.num_columns)}
    partition = dict(file.partition)
    for key in keys:
        index = places.get(key.name)
        if index is None or key.name in partition or key.type not in BOUNDED_TYPES:
            continue
        statistics = meta.column(index).statistics
        if statistics is None or not statistics.has_min_max:
            continue
        if not within((statistics.min, statistics.max), key.value):
            return False
    return True


# --- where the row is not the only one ----------------------------------------------------------------------


def _look_near(batch: pa.RecordBatch, keys: Sequence[Key], search: _Search) -> None:
    """Remembers values near a single key among those that were read anyway."""
    if len(keys) != 1:
        return
    key, column = keys[0], batch.column(0)
    if key.type in INTEGERS:
        search.near = _nearest_numbers(column, key.value, search.near)
    elif key.type == "string" and len(search.near) < MAX_NEAR:
        texts = pc.unique(column.drop_null()).slice(0, MAX_TEXTS).to_pylist()
        search.near = tuple(dict.fromkeys((*search.near, *nearest(key.value, texts))))[:MAX_NEAR]


def _nearest_numbers(column: pa.Array, value: int, known: tuple[Any, ...]) -> tuple[Any, ...]:
    """The nearest ones below and above."""
    ordered = pc.unique(column.drop_null())
    ordered = ordered.take(pc.sort_indices(ordered)).to_pylist() if len(ordered) else []
    below = [number for number in (*ordered, *known) if number < value]
    above = [number for number in (*ordered, *known) if number > value]
    return (*([max(below)] if below else []), *([min(above)] if above else []))


def _none(files: FileSet, keys: Sequence[Key], search: _Search) -> SettingsError:
    texts = " and ".join(map(str, keys))
    partitions = _partitions_named(files, keys)
    detail = []
    for key in keys:
        known = ranges(files.files, key.name)
        if known is not None and not within(known, key.value):
            detail.append(f"{key.name} goes from {bounded(known[0])} to {bounded(known[1])} in its files")
    looked = f"looked into {search.files} of {len(files.files)} files"
    return SettingsError(
        f"no row of {files.what} has {texts}",
        found=looked if not partitions else f"{looked}; {partitions}",
        near=[f"{keys[0].name}={bounded(value)}" for value in search.near],
        detail=detail,
        hint="check the key; --at looks at another version of the table",
    )


def _partitions_named(files: FileSet, keys: Sequence[Key]) -> str:
    """The partitions that were looked at, or the known ones where a key names one that does not exist."""
    named = {key.name: key for key in keys if key.name in files.partition_by}
    units = sorted({file.partition for file in files.files}, key=str)
    for name, key in named.items():
        values = sorted({str(dict(unit)[name]) for unit in units})
        if key.canonical not in values:
            return f"there is no partition {key}; known are {listed(nearest(key.text, values) or values)}"
    looked_at = [unit for unit in units if all(dict(unit)[name] == key.canonical for name, key in named.items())]
    return f"partitions {listed([unit_text(unit) for unit in looked_at], 3)}" if named else ""


def _several(files: FileSet, keys: Sequence[Key], found: Sequence[Place]) -> SettingsError:
    count = f"more than {MAX_ITEMS}" if len(found) > MAX_ITEMS else str(len(found))
    named = {key.name for key in keys}
    others = tuple(column for column in files.readable if column.name not in {*named, *LINEAGE_COLUMNS})
    return SettingsError(
        f"{count} rows of {files.what} have {' and '.join(map(str, keys))}",
        allowed=[column.name for column in others],
        detail=[_brief(values_at(files, place, others), others) for place in found[:3]] if others else (),
        hint="name more columns, so that one row is left: --key again",
    )


def _brief(batch: pa.RecordBatch, columns: Schema) -> str:
    return ", ".join(f"{value.name}={bounded(value.value, 40)}" for value in as_values(batch, columns)[:6])
