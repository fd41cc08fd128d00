"""Pins Parquet: every footer is read, no data row is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow.fs as pafs

from batchscore.arrow.footers import Footer, read_footer
from batchscore.contracts import Column, PinnedSource, Restriction, Schema, SourceFile, UnreadableFile
from batchscore.errors import InputError, SettingsError
from batchscore.read.partitions import canonical, hive_values, inferred_type, pruned, wanted_values
from batchscore.read.storage import Location, snapshot_digest
from batchscore.schema import widened

FOOTER_THREADS = 32  # a footer is one small read: the wait is the storage's, not the processor's


@dataclass(frozen=True, slots=True)
class _Found:
    """A file before its partition values are typed."""

    info: pafs.FileInfo
    footer: Footer
    raw: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class _Damaged:
    """A file whose footer cannot be read, and why."""

    info: pafs.FileInfo
    error: InputError
    raw: tuple[tuple[str, str | None], ...]


def pin_parquet(location: Location, restriction: Restriction, *, without_unreadable: bool = False) -> PinnedSource:
    """A Parquet file or folder with the files that are there now.

    Args:
        location: where it is.
        restriction: only its ``partitions`` are looked at.
        without_unreadable: name files with a damaged footer instead of refusing the whole; an error where all are.

    Raises:
        InputError: when nothing is there, a file is not Parquet or is truncated, schemas conflict, a partition
            value does not exist, or there is no row.
        SettingsError: when ``restriction`` names a column that the table lacks.
    """
    found, damaged = _with_footers(location, without_unreadable)
    partition_names = _partition_names(found)
    # Damaged files' values count, so that the types do not depend on who is damaged.
    raw = [dict(file.raw) for file in found] + [dict(file.raw) for file in damaged]
    types = {name: inferred_type([values[name] for values in raw if name in values]) for name in partition_names}
    columns, missing = merged_schema([(file.info.path, file.footer.columns) for file in found], partition_names)
    columns = (*columns, *(Column(name, types[name]) for name in partition_names))
    files = tuple(_source_file(file, types) for file in found)
    wanted = wanted_values(restriction.partitions, columns)
    files = pruned(files, partition_names, wanted)
    if not sum(file.rows for file in files):
        raise InputError(f"{location.uri} has no rows", found=f"{len(files)} files", hint="nothing to score")
    return PinnedSource(
        kind="parquet",
        uri=location.uri,
        version=None,
        snapshot=snapshot_digest("parquet", location, files),
        columns=columns,
        partition_columns=partition_names,
        files=files,
        root=location.path,
        missing_ok=missing,
        unreadable=tuple(_unreadable_file(file, types) for file in damaged),
    )


def _with_footers(location: Location, without_unreadable: bool) -> tuple[list[_Found], list[_Damaged]]:
    """All files with their footers, and apart from them those whose footer is damaged, where they may be left out."""

    def read(info: pafs.FileInfo) -> _Found | _Damaged:
        raw = hive_values(location.relative(info.path))
        try:
            return _Found(info, read_footer(location.filesystem, info.path), raw)
        except InputError as error:
            if not without_unreadable:
                raise
            return _Damaged(info, error, raw)

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        files = list(pool.map(read, list_files(location)))
    found = [file for file in files if isinstance(file, _Found)]
    damaged = [file for file in files if isinstance(file, _Damaged)]
    if not found:
        raise damaged[0].error
    return found, damaged


def list_files(location: Location) -> list[pafs.FileInfo]:
    """The data files of a file or folder, sorted by path; what Spark ignores is ignored.

    Raises:
        InputError: when the folder holds none.
    """
    if location.info.is_file:
        return [location.info]
    selector = pafs.FileSelector(location.path, recursive=True)
    infos = [
        info
        for info in location.filesystem.get_file_info(selector)
        if info.is_file and not _hidden(location.relative(info.path))
    ]
    if not infos:
        raise InputError(
            f"{location.uri} holds no data files",
            hint="names that begin with _ or . do not count; is this the folder that the writer wrote to?",
        )
    return sorted(infos, key=lambda info: str(info.path))


def _hidden(relative: str) -> bool:
    """Whether Spark ignores the file: a part begins with ``.``, or with ``_`` and is no ``_column=value``."""
    parts = PurePosixPath(relative).parts
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)


def _partition_names(found: Sequence[_Found]) -> tuple[str, ...]:
    """The partition columns, the same for every file.

    Raises:
        InputError: naming two files whose paths do not have the same.
    """
    first = found[0]
    expected = tuple(name for name, _ in first.raw)
    for file in found:
        names = tuple(name for name, _ in file.raw)
        if names != expected:
            raise InputError(
                "the folders are not partitioned by the same columns",
                detail=(f"{first.info.path}: {expected or 'none'}", f"{file.info.path}: {names or 'none'}"),
                hint="read one of the two tables, or move the stray files away",
            )
    return expected


def merged_schema(
    schemas: Sequence[tuple[str, Schema]], partition_names: Sequence[str]
) -> tuple[Schema, frozenset[str]]:
    """The columns of all files, each with the type that holds every file's, and those that some files lack.

    Args:
        schemas: path and columns of each file.
        partition_names: columns whose values come from the path, which wins over the file.

    Raises:
        InputError: naming two files, the column and both types, where no type holds both.

    >>> merged_schema([("a", (Column("x", "integer"),)), ("b", (Column("x", "long"), Column("y", "string")))], ())
    ((Column(name='x', type='long', nullable=True), Column(name='y', type='string', nullable=True)), frozenset({'y'}))
    """
    merged: dict[str, Column] = {}
    origin: dict[str, str] = {}
    spelled: dict[str, str] = {}
    counts: dict[str, int] = {}
    by_path = {name.casefold() for name in partition_names}
    for path, columns in schemas:
        for column in columns:
            if column.name.casefold() in by_path:
                continue
            counts[column.name] = counts.get(column.name, 0) + 1
            first = spelled.setdefault(column.name.casefold(), column.name)
            if column.name not in {first, *merged} and origin[first] != path:
                raise _conflict(column.name, (origin[first], first), (path, column.name))
            known = merged.get(column.name)
            origin.setdefault(column.name, path)
            merged[column.name] = column if known is None else _widened(known, column, origin[column.name], path)
    missing = frozenset(name for name, count in counts.items() if count < len(schemas))
    result = tuple(
        Column(column.name, column.type, column.nullable or column.name in missing) for column in merged.values()
    )
    return result, missing


def _widened(known: Column, column: Column, first: str, second: str) -> Column:
    kind = widened(known.type, column.type)
    if kind is None:
        raise _conflict(column.name, (first, known.type), (second, column.type))
    return Column(known.name, kind, known.nullable or column.nullable)


def _conflict(name: str, first: tuple[str, str], second: tuple[str, str]) -> InputError:
    return InputError(
        f"column {name} is not the same in all files",
        detail=(f"{first[0]}: {first[1]}", f"{second[0]}: {second[1]}"),
        hint="no type holds both without loss: write one of the files again",
    )


def _source_file(file: _Found, types: dict[str, str]) -> SourceFile:
    try:
        partition = tuple((name, canonical(value, types[name])) for name, value in file.raw)
    except ValueError as error:
        raise InputError(f"{file.info.path} has an unreadable partition value", found=str(error)) from error
    return SourceFile(
        path=file.info.path,
        size=file.footer.size,
        stamp=f"{_content(file)}:{file.footer.digest}",
        rows=file.footer.metadata.num_rows,
        row_groups=file.footer.row_groups,
        partition=partition,
    )


def _unreadable_file(file: _Damaged, types: dict[str, str]) -> UnreadableFile:
    found = f" ({file.error.found})" if file.error.found else ""
    partition = tuple((name, canonical(value, types.get(name, "string"))) for name, value in file.raw)
    return UnreadableFile(file.info.path, partition, f"{file.error.problem}{found}")


def _content(file: _Found) -> str:
    """What tells a file's content apart beside its footer: an object store's ETag, else when it was written."""
    return f"etag {file.footer.etag}" if file.footer.etag else str(file.info.mtime_ns or 0)


def check_plain_version(version: str, kind: str) -> None:
    """Only Delta has versions.

    Raises:
        SettingsError: for any version but ``latest``.
    """
    if version != "latest":
        raise SettingsError(
            f"--input-version needs a Delta table, this is a {kind} source",
            found=version,
            allowed=("latest",),
            hint="leave --input-version out",
        )
