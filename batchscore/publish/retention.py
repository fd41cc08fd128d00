"""Retention: which files no version needs that is younger than a limit, and their removal.

What may go is told from the table's own versions, never from a file's age alone: a file that no version mentions may be
one that a run under way has staged. So a file goes where an older version mentions it and no kept one does, or where
it is of a run that is known to have published, which therefore commits nothing more.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.fs as pafs

from batchscore import amendments, tables
from batchscore.arrow.filesystem import open_filesystem, remove_file
from batchscore.errors import BatchscoreError, UnavailableError
from batchscore.publish.horizon import DataFile, Reach, data_files, forgotten_files, given_up, reachable
from batchscore.publish.swap import MAX_ATTEMPTS, backoff
from batchscore.tables import Change, PastVersion, Table
from batchscore.tables.pointer import VERSIONS_FOLDER

DELETERS = 8  # files deleted at a time; each is a request on an object store
DEFAULT_RETENTION_DAYS = 7  # Delta's own, for a table that says nothing
MOST_DAYS = 36_500  # what is longer has no end: no date lies so far away
# A commit under way has written its version's file, and the pointer a moment later.
STRAY_AGE = dt.timedelta(days=1)
# As `Moment.run_id` makes them.
_RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")
_DAYS = re.compile(r"[0-9]{1,12}")
_INTERVAL = re.compile(r"(?:interval\s+)?([0-9]{1,18})\s+(second|minute|hour|day|week)s?", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What retention would remove of one table.

    Attributes:
        table: root of the table.
        version: what it was planned on.
        kept_from: the oldest version that stays.
        versions: versions that are given up, newest first.
        files: data files to delete, with their bytes, by path relative to the root.
        documents: files that describe versions which are given up, or none; relative to the root.
        before: runs that can be rolled back to now, newest first.
        after: those that still can be afterwards.
    """

    table: str
    version: int
    kept_from: int
    versions: tuple[int, ...]
    files: Mapping[str, int]
    documents: tuple[str, ...]
    before: tuple[Reach, ...]
    after: tuple[Reach, ...]

    @property
    def size(self) -> int:
        """Bytes of the data files to delete."""
        return sum(self.files.values())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not self.files and not self.documents


def retention_days_of(table: Table) -> int:
    """For how many days the table promises to keep what it was; parts of a day count as one, no end as a century."""
    properties = table.snapshot.properties
    days = _DAYS.fullmatch(properties.get("retention_days", ""))
    if days is not None:
        return min(int(days[0]), MOST_DAYS)
    found = _INTERVAL.fullmatch(properties.get("delta.deletedFileRetentionDuration", "").strip())
    if found is None:
        return DEFAULT_RETENTION_DAYS
    return min(math.ceil(int(found[1]) * _SECONDS[found[2].lower()] / _SECONDS["day"]), MOST_DAYS)


def plan_retention(uri: str, cutoff: dt.datetime, published: Collection[str] = ()) -> RetentionPlan | None:
    """What no version needs that was the table at ``cutoff`` or later; writes nothing.

    Args:
        uri: root of the table.
        cutoff: with a zone.
        published: runs that are known to have published: what they left that the history no longer mentions goes, too.

    Returns:
        The plan; None where there is no table.

    Raises:
        InputError: what describes the table is damaged.
        UnavailableError: storage could not be reached.
    """
    table = tables.open_table(uri)
    return None if table is None else _plan(table, cutoff, frozenset(published))


def _plan(table: Table, cutoff: dt.datetime, published: frozenset[str]) -> RetentionPlan:
    past, present = tuple(table.past()), data_files(table.uri)
    count = _kept(past, cutoff)
    kept, dropped = past[:count], past[count:]
    needed = {path for version in kept for path in version.files}
    mentioned = {path for version in dropped for path in version.files}
    doomed = {path for path in mentioned - needed if path in present}
    doomed |= {
        path
        for path, file in present.items()
        if path not in needed | mentioned and _is_left_over(path, file, cutoff, published)
    }
    barred = forgotten_files(table.uri)
    return RetentionPlan(
        table=table.uri,
        version=table.version,
        kept_from=kept[-1].commit.version,
        versions=tuple(version.commit.version for version in dropped),
        files={path: present[path].size for path in sorted(doomed)},
        documents=_documents(table.uri, kept, dropped, cutoff),
        before=reachable(past, present.keys(), barred),
        after=reachable(kept, present.keys() - doomed, barred),
    )


def _kept(past: tuple[PastVersion, ...], cutoff: dt.datetime) -> int:
    """How many of the versions stay: the young ones, and the one that was the table at the cutoff."""
    young = [index for index, version in enumerate(past) if _is_young(version, cutoff)]
    return min(len(past), (young[-1] + 2) if young else 1)


def _is_young(version: PastVersion, cutoff: dt.datetime) -> bool:
    moment = version.commit.committed_at
    return not moment or dt.datetime.fromisoformat(moment) >= cutoff


def _is_left_over(path: str, file: DataFile, cutoff: dt.datetime, published: frozenset[str]) -> bool:
    """Whether a file that no version mentions is an old one of a run that has published."""
    found = _RUN_ID.search(path.rsplit("/", 1)[-1])
    old = file.modified is not None and file.modified < cutoff
    return found is not None and found[0] in published and old


def _documents(
    uri: str, kept: Iterable[PastVersion], dropped: Iterable[PastVersion], cutoff: dt.datetime
) -> tuple[str, ...]:
    """Files of versions that do not stay, and old ones that a commit left which never landed."""
    filesystem, root = open_filesystem(uri)
    root = root.rstrip("/")
    stay, go = ({version.document for version in versions} - {""} for versions in (kept, dropped))
    infos = filesystem.get_file_info(pafs.FileSelector(f"{root}/{VERSIONS_FOLDER}", allow_not_found=True))
    there = {info.path[len(root) + 1 :]: _moment(info) for info in infos if info.base_name.endswith(".json")}
    stray = {path for path, moment in there.items() if path not in stay and moment < cutoff - STRAY_AGE}
    return tuple(sorted((go & there.keys()) | stray))


def _moment(info: pafs.FileInfo) -> dt.datetime:
    moment: dt.datetime = info.mtime or dt.datetime.now(dt.UTC)
    return moment.astimezone(dt.UTC)


def sweep(
    plan: RetentionPlan,
    *,
    cutoff: dt.datetime,
    published: Collection[str] = (),
    max_attempts: int = MAX_ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> RetentionPlan:
    """Gives the old versions up by a commit, then deletes what only they needed.

    The commit comes first: a rollback to one of them that was planned before meets it and looks again.

    Args:
        plan: what was shown; made anew where other commits came since.
        cutoff: as the plan was made for.
        published: as the plan was made for.
        max_attempts: looks at the table before giving up.
        sleep: waits between attempts, seconds.

    Returns:
        What was removed.

    Raises:
        UnavailableError: the table stayed busy, or storage failed; what was deleted until then no version needs.
    """
    for attempt in range(1, max_attempts + 1):
        table = tables.open_table(plan.table)
        if table is None:
            return plan
        plan = _plan(table, cutoff, frozenset(published))
        if plan.empty:
            return plan
        if not plan.files or given_up(table.versions()) >= plan.kept_from or _give_up(table, plan.kept_from):
            delete_files(plan.table, plan.files)
            delete_files(plan.table, plan.documents)
            return plan
        sleep(backoff(attempt))
    raise UnavailableError(
        f"old versions could not be given up: other commits came first {max_attempts} times", hint="try again"
    )


def _give_up(table: Table, kept_from: int) -> bool:
    """Commits that versions before ``kept_from`` may lose files; False where another commit came first."""
    metadata = {
        amendments.HORIZON_KEY: str(kept_from),
        "userMetadata": f"batchscore retain: versions before {kept_from} are given up",
    }
    change = Change(
        columns=table.columns,
        partition_by=table.partition_by,
        retention_days=retention_days_of(table),
        files=(),
        removed=(),
        units=None,
        metadata=metadata,
        operation="retain",
    )
    try:
        table.write(change)
    except BatchscoreError:
        raise
    except Exception as error:  # stores raise many types, some of them after the version landed
        now = tables.open_table(table.uri)
        if now is None or now.version == table.version:
            raise UnavailableError(
                "old versions could not be given up; nothing was deleted", found=error, hint="check write permission"
            ) from error
        return given_up(now.versions(now.version - table.version)) >= kept_from
    return True


def delete_files(uri: str, paths: Iterable[str]) -> None:
    """Deletes files under a table; one that is gone already is no matter.

    Raises:
        UnavailableError: some could not be deleted.
    """

    def delete(path: str) -> OSError | None:
        try:
            remove_file(uri, path)
        except OSError as error:
            return error
        return None

    with ThreadPoolExecutor(DELETERS) as pool:
        failed = [error for error in pool.map(delete, paths) if error is not None]
    if failed:
        raise UnavailableError(
            f"{len(failed)} files under {uri} could not be deleted", found=failed[0], hint="try again: the rest is done"
        )
