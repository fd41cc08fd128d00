"""Merges the small files of a unit into larger ones: the same rows, each file still of one run and one unit.

So a unit stays published: what its files say of runs and rows does not change, and statistics prove it. delta-rs'
OPTIMIZE merges the files of several runs, after which each look at the table reads the column of run ids; and it writes
bounds for floats with NaN among them, by which Spark then loses rows.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from batchscore import publish, s3, tables
from batchscore.arrow.snapshot import ActiveFile
from batchscore.contracts import StagedFile, UnitValues
from batchscore.errors import BatchscoreError, UnavailableError, listed
from batchscore.rewriting import Files, Writer
from batchscore.tables import Change, Table

SMALL_BYTES = 32 << 20  # larger files are left: a reader opens them in a fraction of the time that it reads them
MERGED_BYTES = 128 << 20  # Delta's own target is 100 MB
MERGE_KEY = "batchscore.merged"


@dataclass(frozen=True, slots=True)
class Merge:
    """Small files that were merged, or would be: how many, of how many units, into how many; -1 is no commit."""

    files: int = 0
    units: int = 0
    into: int = 0
    version: int = -1


def plan_merge(uri: str) -> Merge:
    """What :func:`merge` would do; reads no row."""
    groups = _groups(publish.writable(uri).files)
    return Merge(sum(map(len, groups)), len({group[0].unit for group in groups}), len(groups))


def merge(
    uri: str,
    merge_id: str,
    *,
    max_attempts: int = publish.MAX_ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> Merge:
    """Merges small files, as one commit that changes no row.

    Args:
        uri: root of the table.
        merge_id: unlike any other id of the table.
        max_attempts: looks at the table before giving up.
        sleep: waits between attempts, seconds.

    Raises:
        UnavailableError: the table stayed busy, or storage failed; the table is as it was.
    """
    since = publish.writable(uri).version
    for attempt in range(1, max_attempts + 1):
        table = publish.writable(uri)
        groups = _groups(table.files)
        if not groups:
            return Merge()
        written = _merged(uri, groups, merge_id)
        if len(written) >= sum(map(len, groups)):  # runs wrote other columns: there is nothing to gain
            publish.discard(uri, written)
            return Merge()
        version = _commit(table, groups, written, merge_id, since)
        if version is not None:
            tables.checkpoint(uri, version, table.format)
            return Merge(sum(map(len, groups)), len({group[0].unit for group in groups}), len(written), version)
        sleep(publish.backoff(attempt))
    raise UnavailableError(
        f"small files could not be merged: other commits came first {max_attempts} times", hint="try again"
    )


def _groups(files: Iterable[ActiveFile]) -> list[tuple[ActiveFile, ...]]:
    """Small files to be one: of one unit and one run, each group within the size of a merged file."""
    alike: dict[tuple[UnitValues, str], list[ActiveFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: file.path):
        if file.size < SMALL_BYTES and len(file.runs) == 1 and not file.deleted:
            alike[file.unit, file.runs[0][0]].append(file)
    return [group for found in alike.values() for group in _filled(found) if len(group) > 1]


def _filled(files: list[ActiveFile]) -> Iterator[tuple[ActiveFile, ...]]:
    group: list[ActiveFile] = []
    for file in files:
        if group and sum(item.size for item in (*group, file)) > MERGED_BYTES:
            yield tuple(group)
            group = []
        group.append(file)
    yield tuple(group)


def _commit(
    table: Table, groups: list[tuple[ActiveFile, ...]], written: tuple[StagedFile, ...], merge_id: str, since: int
) -> int | None:
    """The version that landed; None where another commit came first."""
    change = Change(
        columns=table.columns,
        partition_by=table.partition_by,
        retention_days=publish.retention_days_of(table),
        files=written,
        removed=tuple(file for group in groups for file in group),
        units=None,
        metadata={MERGE_KEY: merge_id, "userMetadata": f"batchscore retain: small files merged, {merge_id}"},
        operation="merge",
        moves_data=True,
    )
    try:
        table.write(change)
    except BatchscoreError:
        publish.discard(table.uri, written)
        raise
    except Exception as error:  # noqa: BLE001  # stores raise many types, some of them after the version landed
        landed = _outcome(table, written, merge_id, since, error)
        if landed is None:
            return None
        version = landed
    else:
        version = table.version + 1
    _read_back(table, change, version)
    return version


def _outcome(table: Table, written: tuple[StagedFile, ...], merge_id: str, since: int, error: Exception) -> int | None:
    """What an exception from the commit meant; the merged files go where it did not land and never will."""
    tried = publish.Tried(
        uri=table.uri,
        commit_id=merge_id,
        what="the commit that merges small files",
        since=table.version,
        landed=lambda now: _landed(now, merge_id, since),
    )
    outcome = publish.outcome_of(tried, error)
    if outcome.version is None:
        publish.discard(table.uri, written)
        if not outcome.came_first:
            raise UnavailableError(
                "small files could not be merged; the table is as it was",
                found=s3.said(error),
                hint="check write permission",
            ) from error
    return outcome.version


def _merged(uri: str, groups: list[tuple[ActiveFile, ...]], merge_id: str) -> tuple[StagedFile, ...]:
    files = Files(uri)
    written: list[StagedFile] = []
    try:
        for group in groups:
            written.extend(_one_of(files, group, merge_id))
    except BaseException:
        publish.discard(uri, written)
        raise
    return tuple(written)


def _one_of(files: Files, group: tuple[ActiveFile, ...], merge_id: str) -> Iterator[StagedFile]:
    """The group's rows in one file; in several where runs wrote other columns."""
    writer: Writer | None = None
    for file in group:
        for batch in files.batches(file.path):
            if writer is not None and not writer.schema.equals(batch.schema):
                yield writer.close(file.unit)
                writer = None
            writer = writer or files.writer(file.path, merge_id, batch.schema)
            writer.write(batch)
    if writer is not None:
        yield writer.close(group[0].unit)


def _landed(table: Table, merge_id: str, since: int) -> int | None:
    newer = table.version - since
    commits = table.versions(newer) if newer > 0 else ()
    return next((item.version for item in commits if item.metadata.get(MERGE_KEY) == merge_id), None)


def _read_back(before: Table, change: Change, version: int) -> None:
    """Files must be those that were, less the merged ones, and units must say of themselves what they said."""
    table = tables.open_table(before.uri, version)
    gone = {file.path for file in change.removed}
    wanted = {file.path for file in before.files} - gone | {file.path for file in change.files}
    found = set() if table is None else {file.path for file in table.files}
    if table is None or found != wanted or table.units != before.units:
        raise BatchscoreError(
            f"version {version} of the table does not hold what it should after small files were merged",
            found=listed(sorted(found ^ wanted)),
            hint=before.undo(before.version),
        )
