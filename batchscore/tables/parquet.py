"""Parquet tables: a folder of data files for each run, and one pointer that says which of them count.

The commit is the replacement of the pointer and nothing else. Data files are never changed in place; the file of a
version is written before the pointer names it, so a crash between the two leaves a file that no chain reaches.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem, remove_file, write_durably
from batchscore.arrow.snapshot import ActiveFile, Snapshot
from batchscore.contracts import (
    FENCED_BY_KEY,
    FENCED_KEY,
    RUN_COLUMN,
    RUN_KEY,
    ColumnStats,
    OutputFormat,
    StagedFile,
)
from batchscore.errors import InputError, SettingsError, UnavailableError, listed
from batchscore.tables.base import Change, Conflict, PastVersion, Table, TableVersion, file_statistics, new_columns
from batchscore.tables.places import Held, Place, place_of
from batchscore.tables.pointer import POINTER, PointedFile, Pointer, from_json, to_json, version_path

# Clocks of the machine that wrote a file and of the one that wrote a commit may differ by as much.
CLOCK_SKEW = timedelta(hours=1)
SUFFIX_CHARS = 8

_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]")


class ParquetOutput(Table):
    """One version of a Parquet table.

    Args:
        uri: root of the table.
        place: where its pointer lies.
        pointer: what it says.
        held: the pointer as it was read; None for an older version, on which nothing can be committed.
    """

    format: OutputFormat = "parquet"

    def __init__(self, uri: str, place: Place, pointer: Pointer, held: Held | None) -> None:
        self.uri = uri
        self._place = place
        self._pointer = pointer
        self._held = held

    @classmethod
    def open(cls, uri: str, version: int | None = None) -> Self | None:
        """The newest version or ``version``; None where no pointer lies."""
        place = place_of(uri)
        held = None if place is None else place.read()
        if place is None or held is None:
            return None
        newest = cls(uri, place, from_json(held.data, f"{uri.rstrip('/')}/{POINTER}"), held)
        if version is None or version == newest.version:
            return newest
        return cls(uri, place, newest._at(version), None)

    @classmethod
    def check_place(cls, uri: str) -> None:
        """The storage must replace a file on a condition."""
        _place(uri)

    @classmethod
    def create(cls, uri: str, change: Change) -> None:
        """Makes the table with its first files."""
        run_id = change.metadata.get(RUN_KEY, "")
        pointer = Pointer(
            version=0,
            path=version_path(0, _suffix(run_id)),
            previous=None,
            committed_at=_now(),
            operation="publish",
            metadata=change.metadata,
            columns=change.columns,
            partition_by=change.partition_by,
            properties={"retention_days": str(change.retention_days)},
            fences={},
            files=_added(change.files, run_id),
        )
        _swap(uri, _place(uri), pointer, None)

    @property
    def pointer(self) -> Pointer:
        """What this version says of itself."""
        return self._pointer

    @cached_property
    def snapshot(self) -> Snapshot:
        """The columns; such a table demands nothing else of a writer."""
        pointer = self._pointer
        return Snapshot(pointer.version, pointer.columns, pointer.partition_by, (), pointer.properties, {})

    @cached_property
    def files(self) -> tuple[ActiveFile, ...]:
        """The files that the pointer names."""
        return tuple(file.active() for file in self._pointer.files)

    def kept_rows(self) -> Mapping[str, bytes]:
        """No row of a file is ever deleted by itself."""
        return {}

    def write(self, change: Change) -> bool:
        """Commits the change, new columns included, on this version."""
        pointer, run_id = self._pointer, change.metadata.get(RUN_KEY, "")
        removed = {file.path for file in change.removed}
        kept = tuple(file for file in pointer.files if file.path not in removed)
        if len(kept) + len(removed) != len(pointer.files):
            raise ValueError(f"version {pointer.version} does not hold all of the {len(removed)} files to remove")
        self._commit(
            replace(
                self._next(change.operation, run_id, change.metadata),
                columns=(*pointer.columns, *new_columns(change, pointer.columns)),
                files=(*kept, *_added(change.files, run_id)),
            )
        )
        return True

    def restore(self, version: int, metadata: Mapping[str, str]) -> None:
        """Commits an older version's files, columns and properties."""
        older = self._at(version)
        self._refuse_gone(older)
        following = self._next("restore", metadata.get(RUN_KEY, ""), metadata)
        self._commit(
            replace(
                following,
                columns=older.columns,
                partition_by=older.partition_by,
                properties=older.properties,
                files=older.files,
            )
        )

    def fence(self, run_id: str, by: str = "") -> None:
        """Commits the run's name among those that may no longer publish."""
        following = self._next("fence", run_id, {FENCED_KEY: run_id, FENCED_BY_KEY: by})
        try:
            self._commit(replace(following, fences={**self._pointer.fences, run_id: following.committed_at}))
        except OSError as error:
            raise Conflict(str(error)) from error

    def is_fenced(self, run_id: str) -> bool:
        """Whether the pointer names the run among those that may no longer publish."""
        return run_id in self._pointer.fences

    def versions(self, limit: int | None = None) -> tuple[TableVersion, ...]:
        """This version and those that the chain reaches."""
        found: list[TableVersion] = []
        for pointer in self.pointers():
            if limit is not None and len(found) >= limit:
                break
            found.append(_commit_of(pointer))
        return tuple(found)

    def past(self) -> Iterator[PastVersion]:
        """The versions that the chain reaches."""
        for pointer in self.pointers():
            yield PastVersion(_commit_of(pointer), {file.path: file.size for file in pointer.files}, pointer.path)

    def mentioned(self, paths: Collection[str]) -> set[str]:
        """Those that a version names which is not older than the files themselves."""
        wanted = set(paths)
        filesystem, root = open_filesystem(self.uri)
        infos = filesystem.get_file_info([f"{root}/{path}" for path in sorted(wanted)])
        written = [info.mtime for info in infos if info.mtime is not None]
        found = wanted & {file.path for file in self._pointer.files}
        if not written:
            return found
        since = min(written).astimezone(UTC) - CLOCK_SKEW
        for pointer in self.pointers():
            if datetime.fromisoformat(pointer.committed_at) < since:
                break
            found |= wanted & {file.path for file in pointer.files}
        return found

    @classmethod
    def checkpoint(cls, uri: str, version: int) -> None:
        """There is none: the pointer itself is the whole of a version."""

    def undo(self, version: int) -> str:
        """Where that version is read."""
        return f'batchscore.read_predictions("{self.uri}", version={version}) still reads version {version}'

    # --- versions ------------------------------------------------------------------------------------------

    def pointers(self) -> Iterator[Pointer]:
        """This version, then each one before it, as far as their files are kept."""
        filesystem, root = open_filesystem(self.uri)
        pointer: Pointer | None = self._pointer
        while pointer is not None:
            yield pointer
            pointer = None if pointer.previous is None else _read_version(filesystem, root, pointer.previous)

    def _at(self, version: int) -> Pointer:
        oldest = self.version
        for pointer in self.pointers():
            if pointer.version == version:
                return pointer
            oldest = pointer.version
        raise InputError(f"the table at {self.uri} has no version {version}", allowed=(f"{oldest} to {self.version}",))

    def _refuse_gone(self, older: Pointer) -> None:
        active = {file.path for file in self._pointer.files}
        asked = [file.path for file in older.files if file.path not in active]
        filesystem, root = open_filesystem(self.uri)
        infos = filesystem.get_file_info([f"{root}/{path}" for path in asked])
        gone = [path for path, info in zip(asked, infos, strict=True) if info.type != pafs.FileType.File]
        if gone:
            raise InputError(
                f"version {older.version} of the table at {self.uri} has lost files", found=listed(gone, 3)
            )

    # --- commits -------------------------------------------------------------------------------------------

    def _next(self, operation: str, name: str, metadata: Mapping[str, str]) -> Pointer:
        """This version's content as the one that follows it."""
        version = self._pointer.version + 1
        return replace(
            self._pointer,
            version=version,
            path=version_path(version, _suffix(name)),
            previous=self._pointer.path,
            committed_at=_now(),
            operation=operation,
            metadata=metadata,
        )

    def _commit(self, pointer: Pointer) -> None:
        if self._held is None:
            raise ValueError(f"version {self._pointer.version} is not the newest: nothing can follow it")
        _swap(self.uri, self._place, pointer, self._held)


def _commit_of(pointer: Pointer) -> TableVersion:
    return TableVersion(pointer.version, pointer.committed_at, pointer.operation, dict(pointer.metadata))


def _place(uri: str) -> Place:
    place = place_of(uri)
    if place is None:
        raise SettingsError(
            "a Parquet table needs storage that replaces a file on a condition",
            found=uri,
            allowed=("a path", "s3://", "gs://", "abfss://"),
            hint="write to one of these, or set output.format to delta",
        )
    return place


def _swap(uri: str, place: Place, pointer: Pointer, held: Held | None) -> None:
    """Keeps the version as a file of its own, then replaces the pointer."""
    data = to_json(pointer).encode()
    _write_version(uri, pointer.path, data)
    try:
        place.swap(data, held)
    except Conflict:
        if place.sure:  # else a later version may name it as the one before
            _forget(uri, pointer.path)
        raise


def _write_version(uri: str, path: str, data: bytes) -> None:
    filesystem, root = open_filesystem(uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        write_durably(Path(root) / path, data)
        return
    with filesystem.open_output_stream(f"{root}/{path}") as stream:
        stream.write(data)


def _read_version(filesystem: pafs.FileSystem, root: str, path: str) -> Pointer | None:
    """A version's own file; None where it is no longer kept."""
    try:
        with filesystem.open_input_stream(f"{root}/{path}") as stream:
            data = stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"{path} of the table could not be read", found=error) from error
    return from_json(data, f"{root}/{path}")


def _forget(uri: str, path: str) -> None:
    with suppress(OSError):
        remove_file(uri, path)


def _added(files: Sequence[StagedFile], run_id: str) -> tuple[PointedFile, ...]:
    return tuple(
        PointedFile(file.path, file.size, file.rows, _run_of(file) or run_id, file.unit, file_statistics(file))
        for file in files
    )


def _run_of(file: StagedFile) -> str:
    """The run whose rows a file holds by its statistics: a rewritten file's is not the commit's; '' where unproved."""
    return next((str(stats.minimum) for stats in file.stats if _proves_run(stats, file.rows)), "")


def _proves_run(stats: ColumnStats, rows: int) -> bool:
    same = stats.minimum is not None and stats.minimum == stats.maximum
    return stats.name == RUN_COLUMN and same and not stats.null_count and rows > 0


def _suffix(name: str) -> str:
    """What tells this writer's file of a version from another's."""
    return f"{_NO_NAME.sub('_', name) or 'commit'}-{uuid.uuid4().hex[:SUFFIX_CHARS]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
