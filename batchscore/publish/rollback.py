"""A rollback: an older version becomes the table again, as a new commit, by the same compare-and-swap as a run's."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import pyarrow.fs as pafs

from batchscore import amendments, manifests, s3, tables
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.snapshot import ActiveFile
from batchscore.contracts import (
    Rollback,
    UnitState,
    UnitValues,
    WithdrawnContent,
    WithdrawnUnit,
)
from batchscore.errors import (
    BatchscoreError,
    FencedOutError,
    InputError,
    UnavailableError,
    listed,
    unit_text,
)
from batchscore.publish.horizon import Reach, forgotten_files, given_up, reachable_now, writable
from batchscore.publish.landing import Tried, outcome_of
from batchscore.publish.swap import MAX_ATTEMPTS, backoff
from batchscore.tables import Table, TableVersion

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RowsOfRun:
    """Rows of one run in some units; ``run_id`` is '' for rows that batchscore did not write."""

    run_id: str
    units: int
    rows: int


@dataclass(frozen=True, slots=True)
class ChangedUnit:
    """A unit that a rollback changes: what its files say before and after."""

    values: UnitValues
    before: UnitState
    after: UnitState


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """What a rollback would change.

    Attributes:
        table: root of the table.
        from_version: what readers see now.
        to_version: what they would see, made by ``to_run`` at ``to_committed_at``.
        units: those that change; of () readers would notice nothing.
        returning: rows that come back, by run.
        leaving: rows that go, by run.
    """

    table: str
    from_version: int
    to_version: int
    to_run: str
    to_committed_at: str
    units: tuple[ChangedUnit, ...]
    returning: tuple[RowsOfRun, ...]
    leaving: tuple[RowsOfRun, ...]


@dataclass(frozen=True, slots=True)
class _Look:
    """The newest version, the one to go back to, and the plan made of both."""

    table: Table
    older: Table
    commits: tuple[TableVersion, ...]
    plan: RollbackPlan


def plan_rollback(uri: str, run_id: str) -> RollbackPlan:
    """What going back to a run would change; writes nothing.

    Args:
        uri: root of the table.
        run_id: a run that published.

    Raises:
        InputError: no table is there, or the run is out of reach: those within reach are named.
        SettingsError: batchscore may not write this table.
        UnavailableError: storage could not be reached.
    """
    return _look(uri, run_id).plan


def roll_back(
    plan: RollbackPlan,
    rollback_id: str,
    *,
    created_at: str,
    by: str,
    max_attempts: int = MAX_ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Makes the older version the table again; nothing is destroyed.

    Args:
        plan: what was shown; where the table has changed since, other than by commits that change no unit, nothing
            is done.
        rollback_id: unlike any other id of the table.
        created_at: ISO 8601 in UTC.
        by: who does it.
        max_attempts: looks at the table before giving up.
        sleep: waits between attempts, seconds.

    Returns:
        The version that holds it.

    Raises:
        FencedOutError: another run published since the plan was made.
        InputError: the run is out of reach by now.
        UnavailableError: the table stayed busy, or storage failed.
    """
    for attempt in range(1, max_attempts + 1):
        look = _look(plan.table, plan.to_run)
        landed = _landed(look.table, rollback_id, plan.from_version)
        if landed is not None:
            return landed
        _refuse_changes(plan, look.plan)
        record = _record(look, rollback_id, created_at, by)
        amendments.write(plan.table, record)
        version = _commit(look, record)
        if version is not None:
            _read_back(look, version)
            _note_landed(plan.table, replace(record, version=version))
            tables.checkpoint(plan.table, version, look.table.format)
            return version
        sleep(backoff(attempt))
    raise UnavailableError(
        f"the table could not be rolled back: other commits came first {max_attempts} times", hint="try again"
    )


def _note_landed(uri: str, record: Rollback) -> None:
    """A record that cannot be told so stands for as long as the units are as it says."""
    try:
        amendments.write(uri, record)
    except UnavailableError as error:
        _LOG.warning("the record of rollback %s could not be completed: %s", record.rollback_id, error.found)


def _look(uri: str, run_id: str) -> _Look:
    table = writable(uri)
    commits = table.versions()
    target = next((commit for commit in commits if commit.run_id == run_id), None)
    if target is None:
        raise _out_of_reach(table, run_id, "its commit is no longer in the table's history")
    older = _older(table, target, commits)
    units = _changed_units(table, older)
    changed = {unit.values for unit in units}
    leaving, returning = _moved(table.files, older.files, changed)
    plan = RollbackPlan(
        table=uri,
        from_version=table.version,
        to_version=target.version,
        to_run=run_id,
        to_committed_at=target.committed_at,
        units=units,
        returning=returning,
        leaving=leaving,
    )
    return _Look(table, older, commits, plan)


def _older(table: Table, target: TableVersion, commits: tuple[TableVersion, ...]) -> Table:
    if target.version < given_up(commits):
        raise _out_of_reach(table, target.run_id, f"`batchscore retain` gave version {target.version} up")
    try:
        older = tables.open_table(table.uri, target.version)
    except InputError as error:
        raise _out_of_reach(table, target.run_id, str(error.found or error.problem)) from error
    if older is None:
        raise _out_of_reach(table, target.run_id, "the table is gone")
    active = {file.path for file in table.files}
    asked = [file.path for file in older.files if file.path not in active]
    gone = _gone(table.uri, asked)
    if gone:
        raise _out_of_reach(
            table,
            target.run_id,
            f"{len(gone)} files of version {target.version} are gone (vacuumed): {listed(gone, 3)}",
        )
    if not forgotten_files(table.uri).isdisjoint(file.path for file in older.files):
        raise _out_of_reach(
            table, target.run_id, f"version {target.version} holds rows that `batchscore forget` has erased since"
        )
    return older


def _gone(uri: str, paths: list[str]) -> list[str]:
    filesystem, root = open_filesystem(uri)
    try:
        infos = filesystem.get_file_info([f"{root}/{path}" for path in paths])
    except OSError as error:
        raise UnavailableError(f"the files of the table at {uri} could not be examined", found=error) from error
    return [path for path, info in zip(paths, infos, strict=True) if info.type != pafs.FileType.File]


def _out_of_reach(table: Table, run_id: str, why: str) -> InputError:
    reach = reachable_now(table)
    horizon = f"the oldest is {_said(reach[-1])}" if reach else "no run is within reach"
    return InputError(
        f"the table at {table.uri} cannot be rolled back to run {run_id}",
        found=why,
        allowed=[_said(item) for item in reach],
        hint=f"{horizon}; score what is needed again with `batchscore run --force`",
    )


def _said(reach: Reach) -> str:
    return f"{reach.run_id} (version {reach.version}, {reach.committed_at[:19]})"


# --- what changes ------------------------------------------------------------------------------------------


def _changed_units(table: Table, older: Table) -> tuple[ChangedUnit, ...]:
    before, after, nothing = table.units, older.units, UnitState()
    changes = (
        ChangedUnit(values, before.get(values, nothing), after.get(values, nothing))
        for values in sorted({*before, *after}, key=str)
    )
    return tuple(change for change in changes if change.before != change.after)


def _moved(
    now: Iterable[ActiveFile], then: Iterable[ActiveFile], units: set[UnitValues]
) -> tuple[tuple[RowsOfRun, ...], tuple[RowsOfRun, ...]]:
    """Rows that go and rows that come back, by run."""
    before, after = _rows_by_run(now, units), _rows_by_run(then, units)
    return _summed(before - after), _summed(after - before)


def _rows_by_run(files: Iterable[ActiveFile], units: set[UnitValues]) -> Counter[tuple[str, UnitValues]]:
    found: Counter[tuple[str, UnitValues]] = Counter()
    for file in files:
        if file.unit in units:
            for run, rows in file.runs or (("", file.rows or 0),):
                found[run, file.unit] += rows
    return found


def _summed(rows: Mapping[tuple[str, UnitValues], int]) -> tuple[RowsOfRun, ...]:
    units: dict[str, int] = defaultdict(int)
    totals: dict[str, int] = defaultdict(int)
    for (run, _), count in rows.items():
        units[run] += 1
        totals[run] += count
    return tuple(RowsOfRun(run, units[run], totals[run]) for run in sorted(totals, reverse=True))


def _refuse_changes(shown: RollbackPlan, now: RollbackPlan) -> None:
    if now.units == shown.units and now.to_version == shown.to_version:
        return
    changed = {unit.values for unit in {*now.units} ^ {*shown.units}}
    raise FencedOutError(
        f"the table changed since the rollback to run {shown.to_run} was planned; nothing was rolled back",
        found=listed((unit_text(values) for values in sorted(changed, key=str)), 3),
        hint="look at what it would change now: the same command with --dry-run",
    )


# --- the commit --------------------------------------------------------------------------------------------


def _record(look: _Look, rollback_id: str, created_at: str, by: str) -> Rollback:
    """With what is taken back: what the units hold, and what runs since then had published in them."""
    plan = look.plan
    since = {commit.run_id for commit in look.commits if commit.run_id and commit.version > plan.to_version}
    held = {run for unit in plan.units for run, _ in unit.before.runs}
    heads = manifests.heads(plan.table, since | held)
    contents: dict[UnitValues, list[WithdrawnContent]] = defaultdict(list)
    for head in heads.values():
        for unit in head.units:
            contents[unit.values].append(WithdrawnContent(head.run_id, unit.key, head.source_key))
    return Rollback(
        rollback_id=rollback_id,
        created_at=created_at,
        by=by,
        to_run=plan.to_run,
        to_version=plan.to_version,
        from_version=plan.from_version,
        units=tuple(WithdrawnUnit(unit.values, unit.after, tuple(contents[unit.values])) for unit in plan.units),
    )


def _commit(look: _Look, record: Rollback) -> int | None:
    """The version that landed; None where another commit came first."""
    metadata = {
        amendments.ROLLBACK_KEY: record.rollback_id,
        "batchscore.rollback_to": record.to_run,
        "batchscore.by": record.by,
        "userMetadata": f"batchscore rollback to run {record.to_run} (version {record.to_version}) by {record.by}",
    }
    try:
        look.table.restore(record.to_version, metadata)
    except InputError:  # retention has taken the version meanwhile: the next look says so
        amendments.remove(look.plan.table, record)
        return None
    except BatchscoreError:
        amendments.remove(look.plan.table, record)
        raise
    except Exception as error:  # noqa: BLE001  # stores raise many types, some of them after the version landed
        return _outcome(look, record, error)
    return look.table.version + 1


def _outcome(look: _Look, record: Rollback, error: Exception) -> int | None:
    """What an exception from the commit meant; the record stays where the commit landed or still may."""
    since = look.table.version
    tried = Tried(
        uri=look.plan.table,
        commit_id=record.rollback_id,
        what="the rollback",
        since=since,
        landed=lambda table: _landed(table, record.rollback_id, since),
    )
    outcome = outcome_of(tried, error)
    if outcome.version is None:
        amendments.remove(look.plan.table, record)
        if not outcome.came_first:
            raise UnavailableError(
                "the rollback could not be committed; the table is as it was",
                found=s3.said(error),
                hint="check space and write permission of the table, then try again",
            ) from error
    return outcome.version


def _landed(table: Table, rollback_id: str, since: int) -> int | None:
    newer = table.version - since
    if newer <= 0:
        return None
    commits = table.versions(newer)
    return next((item.version for item in commits if item.metadata.get(amendments.ROLLBACK_KEY) == rollback_id), None)


def _read_back(look: _Look, version: int) -> None:
    """The version must hold exactly the files of the older one."""
    table = tables.open_table(look.plan.table, version)
    found = set() if table is None else {(file.path, file.size, file.unit) for file in table.files}
    wanted = {(file.path, file.size, file.unit) for file in look.older.files}
    if found != wanted:
        raise BatchscoreError(
            f"version {version} of the table does not hold what version {look.plan.to_version} held",
            found=listed(sorted(path for path, _, _ in found ^ wanted)),
            hint=look.table.undo(look.plan.from_version),
        )
