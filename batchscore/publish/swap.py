"""The commit: a compare-and-swap on the units.

No lock is needed for correctness. Each attempt looks at the newest version, decides for every unit by what its
active files say, and commits on exactly that version; whoever comes second looks again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deltalake.exceptions import DeltaError

from batchscore import amendments, faults, manifests, s3, tables
from batchscore.arrow.snapshot import ActiveFile
from batchscore.contracts import (
    RUN_KEY,
    Column,
    Manifest,
    ManifestHead,
    ManifestUnit,
    Mode,
    Receipt,
    ScoringPlan,
    StagedFile,
    StagedOutput,
    TargetState,
    UnitState,
    UnitValues,
)
from batchscore.errors import BatchscoreError, FencedOutError, UnavailableError, listed, unit_text
from batchscore.publish import staged as staged_files
from batchscore.publish.cleanup import discard, refuse_fenced
from batchscore.publish.emptied import EMPTY_KEY, emptied_since
from batchscore.publish.features import refusal
from batchscore.publish.landing import Tried, outcome_of
from batchscore.publish.target import check_target, refuse_other_format
from batchscore.tables import Change, Table

IsLive = Callable[[UnitState, str, UnitValues, Mapping[str, ManifestHead], Mode], bool]

MAX_ATTEMPTS = 25  # four writers on disjoint partitions needed up to 19
BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 2.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """The newest version of the table; ``table`` is None where there is none yet."""

    table: Table | None
    files: tuple[ActiveFile, ...]
    units: Mapping[UnitValues, UnitState]

    @property
    def version(self) -> int:
        """Its version, -1 where there is no table."""
        return -1 if self.table is None else self.table.version


@dataclass(frozen=True, slots=True)
class Offer:
    """What a run wants to publish."""

    plan: ScoringPlan
    units: Mapping[UnitValues, ManifestUnit]
    files: tuple[StagedFile, ...]
    metadata: Mapping[str, str]

    @property
    def uri(self) -> str:
        """Root of the table."""
        return self.plan.target.uri

    def of(self, units: Mapping[UnitValues, ManifestUnit]) -> tuple[StagedFile, ...]:
        """The staged files of these units."""
        return tuple(file for file in self.files if file.unit in units)


def commit(
    plan: ScoringPlan,
    staged: StagedOutput,
    manifest: Manifest,
    *,
    is_live: IsLive,
    max_attempts: int = MAX_ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> Receipt:
    """Publishes the staged units in one commit, or nothing.

    ``partitions``: exactly the offered units are replaced. ``replace``: every active file goes, but for units
    that the plan leaves alone. ``append``: nothing goes. A unit that the table meanwhile holds under the same
    key is dropped from the offer and its staged files are deleted, unless the plan forces.

    Args:
        plan: what was decided; its units' ``before`` is what the table must still say.
        staged: the files to publish.
        manifest: written before this call; its units are the offer.
        is_live: :func:`batchscore.plan.units.is_live`.
        max_attempts: looks at the table before giving up.
        sleep: waits between attempts, seconds.

    Returns:
        The version that made the run visible; -1 where there was nothing to publish.

    Raises:
        FencedOutError: a unit changed since the plan, or the run was taken over.
        UnavailableError: the table stayed busy, storage failed, or a staged file is gone. It is an :class:`UnsureError`
            where the commit may have landed, or may yet: no staged file may be deleted then.
        SettingsError: the table's layout changed since the plan and no longer fits.
        BatchscoreError: a staged file is not what it should be.
    """
    offer = _offer(plan, staged, manifest)
    if not offer.units:
        return Receipt(version=-1, published=())
    try:
        staged_files.check(offer.files, staged_files.expected_of(plan, offer.units.values()))
    except UnavailableError:
        refuse_fenced(tables.open_table(offer.uri), offer.uri, plan.run_id)  # then they were cleaned away
        raise
    for attempt in range(1, max_attempts + 1):
        look = _look(offer)
        receipt = _already_landed(offer, look, attempt) or _attempt(offer, look, is_live, attempt)
        if receipt is not None:
            _discard_dropped(offer, receipt)
            return receipt
        sleep(backoff(attempt))
    raise UnavailableError(
        f"run {plan.run_id} could not be published: other commits came first {max_attempts} times",
        hint="run again; what is published by then is not scored twice",
    )


def _discard_dropped(offer: Offer, receipt: Receipt) -> None:
    """The run is published by now: nothing here may fail it. What stays is removed by `clean`."""
    try:
        discard(offer.uri, offer.of({unit.values: unit for unit in receipt.dropped}))
    except (BatchscoreError, DeltaError, OSError) as error:
        _LOG.warning("what run %s need not publish could not be removed: %s", offer.plan.run_id, s3.said(error))


def _offer(plan: ScoringPlan, staged: StagedOutput, manifest: Manifest) -> Offer:
    units = {unit.values: unit for unit in manifest.units}
    names = listed(units, 3, unit_text)
    metadata = {
        RUN_KEY: plan.run_id,
        "batchscore.manifest": f"{manifests.FOLDER}/{plan.run_id}.json",
        "batchscore.model": f"{manifest.model_name}/{manifest.model_version}",
        "batchscore.model_digest": manifest.model_digest,
        "batchscore.source": f"{manifest.source_uri}@{manifest.source_snapshot}",
        # What DESCRIBE HISTORY shows.
        "userMetadata": f"batchscore run {plan.run_id}: {manifest.model_name}/{manifest.model_version}, {names}",
    }
    return Offer(plan, units, staged.files, metadata)


def _look(offer: Offer) -> Look:
    """The newest version, with what it says of units; the layout is checked again where it is not the plan's."""
    table = tables.open_table(offer.uri)
    refuse_fenced(table, offer.uri, offer.plan.run_id)
    if table is None:
        return Look(None, (), {})
    task = offer.plan.task
    refuse_other_format(table, task.output_format)
    state = TargetState(
        offer.uri,
        version=table.version,
        columns=table.columns,
        partition_by=table.partition_by,
        refused=refusal(table.snapshot, offer.uri),
    )
    check_target(state, task.columns, task.partition_by, offer.plan.evolve_schema)
    return Look(table, table.files, table.units)


def _already_landed(offer: Offer, look: Look, attempt: int) -> Receipt | None:
    """The receipt of an earlier commit of this very run: its files are in the table or its id in the log."""
    if look.table is None:
        return None
    version = landed_version(look.table, offer.plan.run_id, offer.plan.target.version)
    if version is None:
        staged = {file.path for file in offer.files}
        if not any(file.path in staged for file in look.files):
            return None
        version = look.version  # the log that told the exact version is cleaned
    active = {file.path for file in look.files}
    dropped = {
        values: unit
        for values, unit in offer.units.items()
        if look.version == version and unit.rows and not any(file.path in active for file in offer.of({values: unit}))
    }
    published = tuple(unit for values, unit in offer.units.items() if values not in dropped)
    return Receipt(version, published, tuple(dropped.values()), attempt)


def landed_version(table: Table, run_id: str, since: int) -> int | None:
    """The version after ``since`` that this run committed, by the commits' metadata; None where none names it."""
    newer = table.version - max(since, -1)
    if newer <= 0:
        return None
    return next((entry.version for entry in table.versions(newer) if entry.run_id == run_id), None)


def withdraw(uri: str, run_id: str, since: int) -> None:
    """Removes the manifest of a run that has published nothing after all; `clean` does it where this cannot.

    Args:
        uri: root of the table.
        run_id: the calling run's own id.
        since: version of the table when the run was planned.
    """
    try:
        table = tables.open_table(uri)
        if table is None or landed_version(table, run_id, since) is None:
            manifests.remove(uri, run_id)
    except (BatchscoreError, OSError) as error:
        _LOG.warning("the manifest of run %s could not be removed: %s", run_id, error)


def _attempt(offer: Offer, look: Look, is_live: IsLive, attempt: int) -> Receipt | None:
    """One compare-and-swap; None where another commit came first."""
    forgotten = amendments.Forgotten(amendments.forgettings(offer.uri))
    dropped = _live_units(offer, look, is_live, forgotten)
    publish = {values: unit for values, unit in offer.units.items() if values not in dropped}
    _refuse_changes(offer, look, publish)
    _refuse_withdrawn(offer, look, publish, forgotten)
    removed = _removed(offer, look, publish, dropped)
    files = offer.of(publish)
    # A unit without a row is published by a commit without data: nothing else tells later runs that it is.
    if not files and not removed and (not publish or offer.plan.task.replay is not None):
        return Receipt(-1, (), tuple(dropped.values()), attempt)
    staged_files.check_present(files, offer.uri)
    change = _change(offer, publish, files, removed)
    faults.reached("commit.looked")
    version = _swap(offer, look, change)
    if version is None:
        return None
    faults.reached("commit.written")
    _read_back(offer, look, change, version)
    faults.reached("commit.read_back")
    tables.checkpoint(offer.uri, version, offer.plan.task.output_format)
    return Receipt(version, tuple(publish.values()), tuple(dropped.values()), attempt)


def _change(
    offer: Offer,
    publish: Mapping[UnitValues, ManifestUnit],
    files: tuple[StagedFile, ...],
    removed: tuple[ActiveFile, ...],
) -> Change:
    plan = offer.plan
    empty = sum(not unit.rows and not unit.beside for unit in publish.values())
    return Change(
        columns=tuple(Column(column.name, column.type, column.nullable) for column in plan.task.columns),
        partition_by=plan.task.partition_by,
        retention_days=plan.retention_days,
        files=files,
        removed=removed,
        units=tuple(publish) if plan.mode == "partitions" and plan.task.replay is None else None,
        metadata={
            **offer.metadata,
            "batchscore.units": str(len(publish)),  # less than the manifest offers where another run came first
            "batchscore.rows": str(sum(unit.rows for unit in publish.values())),
            **({EMPTY_KEY: str(empty)} if empty else {}),
        },
    )


def _live_units(
    offer: Offer, look: Look, is_live: IsLive, forgotten: amendments.Forgotten
) -> dict[UnitValues, ManifestUnit]:
    """Units that someone published under the same key meanwhile; a replay adds to units that are live."""
    if offer.plan.force or offer.plan.task.replay is not None:
        return {}
    published = {**look.units, **forgotten.changed(look.units)}
    states = {values: published[values] for values in offer.units if values in published}
    runs = {run for state in states.values() for run, _ in state.runs}
    heads = manifests.heads(offer.uri, runs)
    live = {
        values: offer.units[values]
        for values, state in states.items()
        if is_live(state, offer.units[values].key, values, heads, offer.plan.mode)
    }
    empty = {values: unit.key for values, unit in offer.units.items() if not unit.rows and values not in published}
    return live | {
        values: offer.units[values] for values in emptied_since(look.table, offer.plan.target.version, empty)
    }


def _refuse_changes(offer: Offer, look: Look, publish: Mapping[UnitValues, ManifestUnit]) -> None:
    """A unit that would be replaced must be what it was when planned."""
    plan = offer.plan
    adds_to_units = plan.task.replay is not None
    if plan.mode == "append" and not adds_to_units:
        return
    before = {**plan.target.units, **{unit.values: unit.before for unit in plan.units}}
    judged = set(publish)
    if plan.mode == "replace" and not adds_to_units:
        judged |= {*plan.target.units, *look.units} - set(offer.units)
    nothing = UnitState()
    changed = [values for values in judged if look.units.get(values, nothing) != before.get(values, nothing)]
    if changed:
        raise FencedOutError(
            f"{len(changed)} of {len(judged)} units changed in the table since run {plan.run_id} was planned",
            found=listed(sorted(_said(values, look.units.get(values, nothing)) for values in changed), 3),
            hint="run again: it plans from the table as it is now",
        )


def _refuse_withdrawn(
    offer: Offer, look: Look, publish: Mapping[UnitValues, ManifestUnit], forgotten: amendments.Forgotten
) -> None:
    """A unit that was published and rolled back meanwhile is again what it was when planned.

    A replay is asked for by the run's name, which is to ask for what a rollback took back, too.
    """
    if offer.plan.force or offer.plan.task.replay is not None:
        return
    withdrawn = amendments.withdrawals(amendments.rollbacks(offer.uri), look.units, forgotten)
    for values, unit in publish.items():
        for item in withdrawn.get(values, ()):
            if item.key == unit.key:
                raise FencedOutError(
                    f"what run {offer.plan.run_id} scored was rolled back since it was planned",
                    found=f"{unit_text(values)}: to run {item.to_run}, by {item.by} at {item.at}",
                    hint="--force publishes it all the same",
                )


def _said(values: UnitValues, state: UnitState) -> str:
    who = [f"run {run}" for run, _ in state.runs]
    if state.foreign_files:
        who.append(f"{state.foreign_files} files that are not batchscore's")
    return f"{unit_text(values)}: now {' and '.join(who) or 'empty'}"


def _removed(
    offer: Offer,
    look: Look,
    publish: Mapping[UnitValues, ManifestUnit],
    dropped: Mapping[UnitValues, ManifestUnit],
) -> tuple[ActiveFile, ...]:
    if offer.plan.mode == "append" or offer.plan.task.replay is not None:
        return ()
    if offer.plan.mode == "partitions":
        return tuple(file for file in look.files if file.unit in publish)
    spared = {unit.values for unit in offer.plan.units if unit.action != "score"} | set(dropped)
    return tuple(file for file in look.files if file.unit not in spared)


def _swap(offer: Offer, look: Look, change: Change) -> int | None:
    """Commits on exactly the version looked at; the version that landed, or None where another came first."""
    try:
        written = tables.write(change, look.table, offer.uri, offer.plan.task.output_format)
    except BatchscoreError:
        raise
    except Exception as error:  # noqa: BLE001  # stores raise many types, some of them after the version landed
        return _outcome(offer, look, error)
    return look.version + 1 if written else None


def _outcome(offer: Offer, look: Look, error: Exception) -> int | None:
    """What an exception from the commit meant."""
    run_id = offer.plan.run_id
    tried = Tried(
        uri=offer.uri,
        commit_id=run_id,
        what=f"the commit of run {run_id}",
        since=look.version,
        landed=lambda table: landed_version(table, run_id, look.version),
    )
    outcome = outcome_of(tried, error)
    if outcome.version is None and not outcome.came_first:
        raise UnavailableError(
            f"run {run_id} could not be committed; nothing was published",
            found=s3.said(error),
            hint="check space and write permission of the table, then run again",
        ) from error
    return outcome.version


def _read_back(offer: Offer, look: Look, change: Change, version: int) -> None:
    """The version must hold what was active, less what was removed, and the staged files: delta-rs checks no filter."""
    try:
        table = tables.open_table(offer.uri, version)
    except BatchscoreError as error:
        _LOG.warning("version %d could not be read back: %s", version, error)
        return
    if table is None:
        return
    found = {(file.path, file.size, file.unit) for file in table.files}
    gone = {file.path for file in change.removed}
    wanted = {(file.path, file.size, file.unit) for file in look.files if file.path not in gone}
    wanted |= {(file.path, file.size, file.unit) for file in change.files}
    if found != wanted:
        raise BatchscoreError(
            f"version {version} of the table does not hold what run {offer.plan.run_id} published",
            found=listed(sorted(path for path, _, _ in found ^ wanted)),
            hint=table.undo(version - 1),
        )


def backoff(attempt: int) -> float:
    """Seconds to wait: doubled each time up to a bound, with jitter so that writers do not meet again."""
    bound: float = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(attempt, 10))
    return bound * (0.5 + random.random() / 2)  # noqa: S311  # jitter, no secret
