"""Which version of a Delta table a number or a time means, from the listing of its log alone."""

from __future__ import annotations

import bisect
import datetime as dt
import json
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from batchscore.arrow.footers import unreadable
from batchscore.errors import InputError, SettingsError
from batchscore.read.storage import DELTA_LOG, Location

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")


@dataclass(frozen=True, slots=True)
class _Log:
    """Commit files by version, and versions with a checkpoint."""

    commits: dict[int, pafs.FileInfo]
    checkpoints: tuple[int, ...]

    @property
    def newest(self) -> int:
        return max((*self.commits, *self.checkpoints))

    @property
    def oldest(self) -> int:
        """The first version that the log can still rebuild."""
        return 0 if 0 in self.commits else min(self.checkpoints, default=min(self.commits))


def resolve_version(location: Location, version: str) -> int | None:
    """The number that ``version`` means; None for ``latest``.

    A timestamp means the last version committed at or before it, by the times that Spark goes by: the in-commit
    timestamp where the table has them, else the commit file's modification time.

    Raises:
        InputError: when there is no such version, with those that exist.
        SettingsError: when the text is neither ``latest``, a number nor an ISO timestamp.
    """
    if version == "latest":
        return None
    log = _read_log(location)
    number = int(version) if version.isascii() and version.isdigit() else _version_at(location, log, version)
    if not log.oldest <= number <= log.newest:
        raise InputError(
            f"{location.uri} has no version {number}",
            detail=(describe_versions(location),),
            hint="give a version that exists, or `latest`",
        )
    return number


def describe_versions(location: Location) -> str:
    """The versions that the log has, for messages."""
    log = _read_log(location)
    if not log.commits and not log.checkpoints:
        return "the log has no version"
    times = [_time(info).isoformat(sep=" ", timespec="seconds") for _, info in sorted(log.commits.items())]
    dated = f", committed {times[0]} to {times[-1]}" if times else ""
    return f"versions {log.oldest} to {log.newest} exist{dated}"


def _read_log(location: Location) -> _Log:
    try:
        infos = location.filesystem.get_file_info(pafs.FileSelector(f"{location.path}/{DELTA_LOG}"))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(f"{location.uri}/{DELTA_LOG}", error) from error
    commits = {int(match[1]): info for info in infos if (match := _COMMIT.fullmatch(info.base_name))}
    checkpoints = sorted({int(match[1]) for info in infos if (match := _CHECKPOINT.fullmatch(info.base_name))})
    if not commits and not checkpoints:
        raise InputError(f"the log of Delta table {location.uri} is empty", hint="the table is damaged")
    return _Log(commits, tuple(checkpoints))


def _version_at(location: Location, log: _Log, text: str) -> int:
    moment = _moment(text)
    versions = sorted(log.commits)
    # Commit times ascend, so a few commits are opened, not all.
    place = bisect.bisect_right(
        versions, moment.timestamp() * 1e3, key=lambda n: _commit_time(location, log.commits[n])
    )
    if not place:
        raise InputError(
            f"{location.uri} has no version as early as {text}",
            detail=(describe_versions(location),),
            hint="give a later time, or a version number",
        )
    return versions[place - 1]


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            "--input-version is neither a version nor a time",
            found=text,
            allowed=("latest", "a number such as 12", "a time such as 2026-11-21T06:00:00Z"),
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    if moment > dt.datetime.now(dt.UTC):
        raise SettingsError(
            "--input-version lies in the future", found=text, hint="use `latest` for the newest version"
        )
    return moment


def _time(info: pafs.FileInfo) -> dt.datetime:
    return dt.datetime.fromtimestamp((info.mtime_ns or 0) / 1e9, dt.UTC)


def _commit_time(location: Location, info: pafs.FileInfo) -> float:
    """Milliseconds since the epoch at which a commit counts as made."""
    with location.filesystem.open_input_stream(info.path) as stream:
        first = stream.read(65_536).split(b"\n", 1)[0]
    try:
        return float(json.loads(first)["commitInfo"]["inCommitTimestamp"])
    except (ValueError, TypeError, KeyError, RecursionError):
        # Not there; or a first action longer than the read, which is no commitInfo: those are short.
        return (info.mtime_ns or 0) / 1e6
