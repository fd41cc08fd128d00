"""How far back a table can go: which versions still have all of their files, and may become the table again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import pyarrow.fs as pafs

from batchscore import amendments
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.layout import is_data_path
from batchscore.errors import InputError, SettingsError, UnavailableError
from batchscore.publish.features import refusal
from batchscore.tables import PastVersion, Table, TableVersion, open_table

VERSION_DIGITS = 18  # more are no version: damage


@dataclass(frozen=True, slots=True)
class Reach:
    """A run to which a table can be rolled back: its id, and the version and time (ISO 8601, UTC) of its commit."""

    run_id: str
    version: int
    committed_at: str


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that lies under a table, in whatever version; ``modified`` is None where storage does not say."""

    size: int
    modified: dt.datetime | None


def writable(uri: str) -> Table:
    """The newest version of a table that exists and that batchscore may write.

    Raises:
        InputError: no table is there.
        SettingsError: batchscore cannot write it correctly: what is in the way, and the statement that drops it.
    """
    table = open_table(uri)
    if table is None:
        raise InputError(f"no prediction table is at {uri}", hint="check the path: it is output.path of the job")
    why = refusal(table.snapshot, uri)
    if why is not None:
        what, _, drop = why.partition("; drop it: ")
        raise SettingsError(
            f"batchscore cannot write the table at {uri} correctly", found=what, hint=f"drop it: {drop}"
        )
    return table


def data_files(uri: str) -> dict[str, DataFile]:
    """All data files under a table, published or not, by path relative to its root.

    Raises:
        UnavailableError: storage could not be listed.
    """
    filesystem, root = open_filesystem(uri)
    root = root.rstrip("/")
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=True))
    except OSError as error:
        raise UnavailableError(f"the files of the table at {uri} could not be listed", found=error) from error
    found = {info.path[len(root) + 1 :]: DataFile(info.size, _utc(info.mtime)) for info in infos if info.is_file}
    return {path: file for path, file in found.items() if path.endswith(".parquet") and is_data_path(path)}


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    return None if moment is None else moment.astimezone(dt.UTC)


def given_up(commits: Iterable[TableVersion]) -> int:
    """The oldest version that no retention has given up; older ones may lose files at any time."""
    texts = (commit.metadata.get(amendments.HORIZON_KEY, "") for commit in commits)
    return max((int(text) for text in texts if text.isdecimal() and len(text) <= VERSION_DIGITS), default=0)


def forgotten_files(uri: str) -> frozenset[str]:
    """Files that held rows which were forgotten: a version that has one may not become the table again."""
    return frozenset(path for record in amendments.forgettings(uri) for path in record.files)


def reachable(
    past: Iterable[PastVersion], present: Collection[str], forgotten: Collection[str] = ()
) -> tuple[Reach, ...]:
    """The runs to which a table can be rolled back, newest first.

    Args:
        past: the table's versions, newest first.
        present: paths of the data files that are there.
        forgotten: paths of files that may not come back.
    """
    versions = tuple(past)
    oldest, there, barred = given_up(version.commit for version in versions), frozenset(present), frozenset(forgotten)
    return tuple(
        Reach(version.commit.run_id, version.commit.version, version.commit.committed_at)
        for version in versions
        if version.commit.run_id
        and version.commit.version >= oldest
        and version.files.keys() <= there
        and version.files.keys().isdisjoint(barred)
    )


def reachable_now(table: Table, files: Mapping[str, DataFile] | None = None) -> tuple[Reach, ...]:
    """:func:`reachable` for a table as it is; ``files`` are its data files where they are listed already."""
    present = data_files(table.uri) if files is None else files
    return reachable(table.past(), present.keys(), forgotten_files(table.uri))
