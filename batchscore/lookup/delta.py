"""What Delta's log says of one version: its files with statistics and deletion vectors, and its commit."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from deltalake import DeltaTable

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.layout import partition_value
from batchscore.arrow.snapshot import LOG_FOLDER, Snapshot, open_table, snapshot_of
from batchscore.arrow.values import table_of
from batchscore.contracts import RUN_KEY, UnitValues
from batchscore.errors import InputError, UnavailableError, bounded, nearest
from batchscore.lookup.files import BOUNDED_TYPES, Bounds, DataFile, FileSet

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
MAPPING_MODE = "delta.columnMapping.mode"


@dataclass(frozen=True, slots=True)
class Commit:
    """One version's commit. ``at`` is ISO 8601 in UTC; ``run_id`` is '' where no run of batchscore made it."""

    version: int
    at: str
    operation: str
    run_id: str


def newest_version(uri: str) -> int:
    """The table's newest version.

    Raises:
        InputError: there is no Delta table.
        UnavailableError: storage could not be reached.
    """
    return _opened(uri, None).version()


def files_at(uri: str, version: int | None = None, *, bounds: Collection[str] = ()) -> FileSet:
    """The files of a table at a version; reads the log alone.

    Args:
        uri: path or URI of the table.
        version: None is the newest.
        bounds: columns whose statistics are wanted; names that the table lacks are passed over.

    Raises:
        InputError: there is no such table, or no such version; those that exist are named. Or its log names a file
            that lies above it.
        UnavailableError: storage could not be reached.
    """
    table = _opened(uri, version)
    snapshot = snapshot_of(table)
    actions = table_of(table.get_add_actions())
    root = open_filesystem(uri)[1].rstrip("/")
    kept = _kept(table) if "deletionVectors" in snapshot.features else {}
    wanted = [column.name for column in snapshot.columns if column.name in bounds and column.type in BOUNDED_TYPES]
    known = _bounds(actions, wanted)
    units = _units(actions, snapshot.partition_by)
    rows = actions.select(["path", "num_records"]).to_pylist()
    files, foreign = [], False
    for row, unit, bound in zip(rows, units, known, strict=True):
        path = unquote(row["path"])
        if ".." in path.split("/"):
            raise InputError(
                f"the log of the Delta table at {uri} names a file outside of the table",
                found=path,
                hint="who wrote this table? its log is not one that a writer of Delta makes",
            )
        foreign = foreign or _is_absolute(path)
        count = -1 if row["num_records"] is None else int(row["num_records"])
        place = path if _is_absolute(path) else f"{root}/{path}"
        files.append(DataFile(place, unit, count, bounds=bound, kept=kept.get(path)))
    return FileSet(
        what=f"{uri} at version {snapshot.version}",
        uri=uri,
        columns=snapshot.columns,
        partition_by=snapshot.partition_by,
        files=tuple(files),
        version=snapshot.version,
        obstacle=_obstacle(snapshot, foreign=foreign),
    )


def commit_of(uri: str, version: int) -> Commit | None:
    """When and by which run a version was committed; None where the log no longer holds that commit.

    Raises:
        InputError: the log says a time that is none.
        UnavailableError: storage could not be reached.
    """
    filesystem, root = open_filesystem(uri)
    path = f"{root}/{LOG_FOLDER}/{version:020d}.json"
    try:
        with filesystem.open_input_stream(path) as stream:
            lines = stream.read().decode(errors="replace").splitlines()
        modified = filesystem.get_file_info(path).mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"the log of the table at {uri} could not be read", found=error) from error
    info = next((facts for line in lines if (facts := _info(line)) is not None), {})
    stamp = info.get("inCommitTimestamp", info.get("timestamp"))
    try:
        moment = datetime.fromtimestamp(int(stamp) / 1000, UTC) if isinstance(stamp, int | float) else modified
    except (OverflowError, ValueError, OSError) as error:
        raise InputError(
            f"the log of the table at {uri} is damaged",
            found=f"version {version} was committed at {bounded(stamp, 40)}, which is no time",
            hint="name another version with --at, or repair the log",
        ) from error
    at = "" if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Commit(version, at, str(info.get("operation") or ""), str(info.get(RUN_KEY) or ""))


def _info(line: str) -> dict[str, Any] | None:
    if '"commitInfo"' not in line:
        return None
    try:
        found = json.loads(line).get("commitInfo")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _opened(uri: str, version: int | None) -> DeltaTable:
    if version is not None:
        _check_version(uri, version)
    table = open_table(uri, version)
    if table is None:
        raise InputError(f"there is no Delta table at {uri}", near=_near(uri), hint="check the path")
    return table


def _check_version(uri: str, version: int) -> None:
    filesystem, root = open_filesystem(uri)
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(f"{root}/{LOG_FOLDER}", allow_not_found=True))
    except OSError as error:
        raise UnavailableError(f"the log of the table at {uri} could not be listed", found=error) from error
    commits = sorted(int(match[1]) for info in infos if (match := _COMMIT.fullmatch(info.base_name)))
    checkpoints = sorted(int(match[1]) for info in infos if (match := _CHECKPOINT.fullmatch(info.base_name)))
    if not commits and not checkpoints:
        return  # no table: the caller says so
    newest = max((*commits, *checkpoints))
    oldest = 0 if 0 in commits else min(checkpoints, default=commits[0] if commits else 0)
    if not oldest <= version <= newest:
        raise InputError(
            f"the table at {uri} has no version {version}",
            allowed=[f"versions {oldest} to {newest}"],
            hint="`batchscore history` shows which run made which version",
        )


def _near(uri: str) -> list[str]:
    filesystem, root = open_filesystem(uri)
    folder, _, name = root.rstrip("/").rpartition("/")
    infos = filesystem.get_file_info(pafs.FileSelector(folder or "/", allow_not_found=True))
    known = [info.base_name for info in infos if info.type == pafs.FileType.Directory]
    return [bounded(f"{folder}/{near}") for near in nearest(name, known)]


def _bounds(actions: pa.Table, names: Sequence[str]) -> list[Bounds]:
    """For each file the bounds of those columns that have both."""
    columns = [(name, _statistic(actions, "min", name), _statistic(actions, "max", name)) for name in names]
    return [
        {
            name: (lows[index], highs[index])
            for name, lows, highs in columns
            if lows[index] is not None and highs[index] is not None
        }
        for index in range(actions.num_rows)
    ]


def _statistic(actions: pa.Table, which: str, name: str) -> list[Any]:
    statistics = actions.column(which).combine_chunks() if which in actions.column_names else None
    is_known = statistics is not None and pa.types.is_struct(statistics.type)
    if statistics is None or not is_known or statistics.type.get_field_index(name) < 0:
        return [None] * actions.num_rows
    found: list[Any] = pc.struct_field(statistics, name).to_pylist()
    return found


def _units(actions: pa.Table, partition_by: tuple[str, ...]) -> list[UnitValues]:
    if not partition_by or not actions.num_rows:
        return [()] * actions.num_rows
    partition = actions.column("partition").combine_chunks()
    columns = [[partition_value(value) for value in pc.struct_field(partition, name)] for name in partition_by]
    return [tuple(zip(partition_by, values, strict=True)) for values in zip(*columns, strict=True)]


def _kept(table: DeltaTable) -> dict[str, np.ndarray[Any, Any]]:
    """For each file with a deletion vector, by its relative path, which rows are left."""
    root = table.table_uri
    found = {}
    for entry in table_of(table.deletion_vectors()).to_pylist():
        uri = entry["filepath"]
        path = uri[len(root) :].lstrip("/") if uri.startswith(root) else uri
        found[unquote(path)] = np.array([bool(keep) for keep in entry["selection_vector"]], np.bool_)
    return found


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "file:")) or "://" in path


def _obstacle(snapshot: Snapshot, *, foreign: bool) -> str:
    mode = snapshot.properties.get(MAPPING_MODE, "none")
    if mode not in {"", "none"}:
        return f"column mapping (mode {mode})"
    return "files outside of the table's folder (a shallow clone)" if foreign else ""
