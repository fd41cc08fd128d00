"""What the versions that a table still has mention: nothing of that may ever be deleted.

A version can be read while the log has a checkpoint at or before it and the commits behind that. So all that any
readable version holds stands in the commits and checkpoints that lie in the log's folder, a file that was added and
removed in between included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.snapshot import LOG_FOLDER, active_files, open_table, snapshot_of
from batchscore.contracts import FENCED_KEY, RUN_KEY
from batchscore.errors import InputError, UnavailableError
from batchscore.tables.parquet import ParquetOutput

FIRST_COMMIT = f"{0:020d}.json"
# As `Moment.run_id` makes them.
RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")
UNKNOWN = datetime(9000, 1, 1, tzinfo=UTC)  # later than any file: nothing is known to be newer
_COMMIT = re.compile(r"\d{20}\.json")
_PATHS = ("add.path", "remove.path")
_STATISTICS = "add.stats"


@dataclass(frozen=True, slots=True)
class Retained:
    """What the log still says.

    Attributes:
        names: base names of all data files that some version, commit or checkpoint mentions. Staged files have names
            that nobody else uses, so the folder does not matter, nor how the log spells it.
        committed: runs whose commit the log still has.
        named: runs that anything in the log names, but for their fences.
        fenced: runs that may no longer publish, by a commit that the log still has.
        oldest: when the oldest commit that is left was written, by the clock of the storage; None where the log has
            every commit.
    """

    names: frozenset[str] = frozenset()
    committed: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    fenced: frozenset[str] = frozenset()
    oldest: datetime | None = None


@dataclass(slots=True)
class _Found:
    names: set[str] = field(default_factory=set)
    committed: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    fenced: set[str] = field(default_factory=set)


def retained(uri: str) -> Retained:
    """Reads the whole log: every commit and checkpoint.

    Raises:
        InputError: a part of the log cannot be read; then nothing may be deleted.
        UnavailableError: storage does not answer.
    """
    output = ParquetOutput.open(uri)
    if output is not None:
        return _of_pointers(output)
    table = open_table(uri)
    if table is None:
        return Retained()
    found = _Found()
    filesystem, root = open_filesystem(uri)
    try:
        infos = _files_of_log(filesystem, f"{root}/{LOG_FOLDER}")
        for info in infos:
            if info.base_name.endswith(".json"):
                _read_commit(filesystem, info.path, found)
            elif info.base_name.endswith(".parquet"):
                _read_checkpoint(filesystem, info.path, found)
        # An OPTIMIZE leaves neither names nor bounds of each run that it merged.
        for file in active_files(table, uri, snapshot_of(table)):
            found.named.update(run for run, _ in file.runs)
    except OSError as error:
        raise UnavailableError(f"the log of the table at {uri} could not be read", found=error) from error
    return Retained(
        names=frozenset(found.names),
        committed=frozenset(found.committed),
        named=frozenset(found.named | found.committed),
        fenced=frozenset(found.fenced),
        oldest=_oldest(infos),
    )


def _of_pointers(output: ParquetOutput) -> Retained:
    """What the versions of a Parquet table say, as far back as they are kept."""
    found, oldest = _Found(), None
    for pointer in output.pointers():
        oldest = None if pointer.version == 0 else datetime.fromisoformat(pointer.committed_at)
        # A version's own file is kept, too.
        paths = [file.path for file in pointer.files] + [pointer.path, *filter(None, (pointer.previous,))]
        found.names.update(path.rpartition("/")[2] for path in paths)
        found.named.update(file.run_id for file in pointer.files)
        if RUN_KEY in pointer.metadata:
            found.committed.add(pointer.metadata[RUN_KEY])
        found.fenced.update(pointer.fences)
    return Retained(
        names=frozenset(found.names),
        committed=frozenset(found.committed),
        named=frozenset(found.named | found.committed),
        fenced=frozenset(found.fenced),
        oldest=oldest,
    )


def _oldest(infos: list[pafs.FileInfo]) -> datetime | None:
    commits = {info.base_name: info.mtime for info in infos if _COMMIT.fullmatch(info.base_name)}
    if FIRST_COMMIT in commits:
        return None
    written = commits[min(commits)] if commits else None
    return UNKNOWN if written is None else written.astimezone(UTC)


def _files_of_log(filesystem: pafs.FileSystem, folder: str) -> list[pafs.FileInfo]:
    """Commits, compacted ones, checkpoints of every kind and their sidecars."""
    infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    hidden = re.compile(r"^[_.]")
    return [info for info in infos if info.type == pafs.FileType.File and not hidden.match(info.base_name)]


def _read_commit(filesystem: pafs.FileSystem, path: str, found: _Found) -> None:
    try:
        with filesystem.open_input_stream(path) as stream:
            lines = stream.read().decode().splitlines()
        for line in filter(str.strip, lines):
            _read_action(json.loads(line), found)
    except FileNotFoundError:  # cleaned meanwhile: no version needs it any more
        return
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from error


def _read_action(action: dict[str, Any], found: _Found) -> None:
    for kind in ("add", "remove"):
        if action.get(kind):
            found.names.add(_base_name(action[kind]["path"]))
            found.named.update(RUN_ID.findall(json.dumps(action[kind])))
    info = action.get("commitInfo") or {}
    if FENCED_KEY in info:
        found.fenced.add(str(info[FENCED_KEY]))
        return
    found.named.update(RUN_ID.findall(json.dumps(info)))
    if RUN_KEY in info:
        found.committed.add(str(info[RUN_KEY]))


def _read_checkpoint(filesystem: pafs.FileSystem, path: str, found: _Found) -> None:
    try:
        with filesystem.open_input_file(path) as file:
            parquet = pq.ParquetFile(file)
            kinds = {name.rpartition(".")[0] for name in (*_PATHS, _STATISTICS)} & set(parquet.schema_arrow.names)
            wanted = [name for name in (*_PATHS, _STATISTICS) if name.partition(".")[0] in kinds]
            for batch in parquet.iter_batches(columns=wanted):
                for kind, name, text in _texts(batch):
                    if name == "path":
                        found.names.add(_base_name(text))
                    if kind == "add" or name == "path":
                        found.named.update(RUN_ID.findall(text))
    except FileNotFoundError:
        return
    except (pa.ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error


def _texts(batch: pa.RecordBatch) -> Iterator[tuple[str, str, str]]:
    """Each action's kind, field and text in a checkpoint's batch."""
    for kind in batch.schema.names:
        for entry in batch.column(kind).to_pylist():
            for name, text in (entry or {}).items():
                if isinstance(text, str):
                    yield kind, name, text


def _base_name(path: str) -> str:
    return unquote(path).rpartition("/")[2]


def _unreadable(path: str, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read, so nobody knows which files the table still needs; nothing was deleted",
        found=error,
        hint="restore the file; it is a part of the table's log",
    )
