"""What the commits of a Delta table say of themselves, each under the number in its file's name.

delta-rs' history counts down from the newest commit and leaves out those without ``commitInfo``, which Delta's protocol
allows: every older one then has the number of another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem, storing
from batchscore.arrow.snapshot import LOG_FOLDER
from batchscore.errors import InputError

READERS = 8  # commits read at a time; each is a request on an object store
HEAD_BYTES = 1 << 16  # mostly the first line says it; a commit of 10,000 files has megabytes behind it
MOST_UNLISTED = 64  # as many commits are asked for by name; a listing tells of more of them which are there

_COMMIT = re.compile(r"(\d{20})\.json")
_INFO = b'"commitInfo"'


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """One commit: its version, what it says of itself ({} where it says nothing), and when, by whatever clock."""

    version: int
    info: Mapping[str, Any]
    committed_at: datetime | None


def logged_commits(uri: str, newest: int, limit: int | None = None) -> list[LoggedCommit]:
    """The commits whose files the log still has, newest first.

    Args:
        uri: root of the table.
        newest: the version to begin with.
        limit: look at so many versions at most.

    Raises:
        InputError: one of them is damaged.
        UnavailableError: storage does not answer.
    """
    oldest = 0 if limit is None else max(0, newest - limit + 1)
    listed = newest - oldest + 1 > MOST_UNLISTED
    versions = sorted(_listed(uri, oldest, newest), reverse=True) if listed else range(newest, oldest - 1, -1)
    return list(_read(uri, versions))


def _listed(uri: str, oldest: int, newest: int) -> list[int]:
    filesystem, root = open_filesystem(uri)
    with storing(f"the log of the table at {uri} could not be listed"):
        infos = filesystem.get_file_info(pafs.FileSelector(f"{root}/{LOG_FOLDER}"))
    found = (int(match[1]) for info in infos if (match := _COMMIT.fullmatch(info.base_name)))
    return [version for version in found if oldest <= version <= newest]


def _read(uri: str, versions: Iterable[int]) -> Iterator[LoggedCommit]:
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda version: _commit(uri, version), versions)
        yield from (commit for commit in found if commit is not None)


def _commit(uri: str, version: int) -> LoggedCommit | None:
    """One commit; None where its file is not there: cleaned away, or a checkpoint alone is left of it."""
    filesystem, root = open_filesystem(uri)
    path = f"{root}/{LOG_FOLDER}/{version:020d}.json"
    with storing(f"version {version} of the log of the table at {uri} could not be read"):
        try:
            with filesystem.open_input_stream(path) as stream:
                data = bytes(stream.read(HEAD_BYTES))
                if not data.partition(b"\n")[1] or _INFO not in data.partition(b"\n")[0]:
                    data += bytes(stream.read())
        except FileNotFoundError:
            return None
    try:
        info = info_of(data)
        moment = _moment(info)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError) as error:
        raise InputError(
            f"the log of the table at {uri} is damaged: version {version} cannot be read",
            found=f"{type(error).__name__}: {error}",
            hint=f"restore the files of its {LOG_FOLDER} folder",
        ) from error
    if moment is None:  # then the file's own time is the commit's, as for other readers of Delta tables
        with storing(f"version {version} of the log of the table at {uri} could not be examined"):
            modified = filesystem.get_file_info(path).mtime
        moment = None if modified is None else modified.astimezone(UTC)
    return LoggedCommit(version, info, moment)


def info_of(data: bytes) -> dict[str, Any]:
    r"""What a commit says of itself; {} where it does not, which is told from damage by reading all of it.

    Raises:
        ValueError: the commit is damaged; also a TypeError or AttributeError.

    >>> info_of(b'{"add":{"path":"a"}}\n{"commitInfo":{"operation":"WRITE"}}\n'), info_of(b'{"add":{"path":"a"}}')
    ({'operation': 'WRITE'}, {})
    """
    place = data.find(_INFO)
    while place >= 0:
        end = data.find(b"\n", place)
        line = data[data.rfind(b"\n", 0, place) + 1 : len(data) if end < 0 else end]
        info = json.loads(line).get("commitInfo")
        if info is not None:
            return {**info}
        place = data.find(_INFO, place + len(_INFO))
    for line in filter(bytes.strip, data.splitlines()):
        json.loads(line).items()
    return {}


def _moment(info: Mapping[str, Any]) -> datetime | None:
    stamp = info.get("inCommitTimestamp", info.get("timestamp"))
    return datetime.fromtimestamp(int(stamp) / 1000, UTC) if isinstance(stamp, int | float) else None
