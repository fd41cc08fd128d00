"""``batchscore rollback``: readers see the table as it was right after a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from batchscore import amendments, publish, record
from batchscore.contracts import RunRecord
from batchscore.errors import BatchscoreError, SettingsError
from batchscore.prepare import Moment, OnEvent, absolute


@dataclass(frozen=True, slots=True)
class RollbackOutcome:
    """What was rolled back, or would be.

    Attributes:
        plan: what changes.
        dry_run: whether nothing was done.
        rollback_id: the id of the rollback in the ledger; '' where nothing was done.
        version: the version that holds it; -1 where nothing was done.
        by: who did it.
    """

    plan: publish.RollbackPlan
    dry_run: bool
    rollback_id: str = ""
    version: int = -1
    by: str = ""


def rollback(table: str, to: str, *, dry_run: bool = False, on_event: OnEvent = lambda _: None) -> RollbackOutcome:
    """Makes the table what it was right after a run, as a new commit.

    Args:
        table: path or URI of the prediction table.
        to: a run that was published, by its id or a unique beginning of it; older or newer than what is there.
        dry_run: only say what would change.
        on_event: receives notices.

    Raises:
        SettingsError: there is no such run, it published nothing, or batchscore may not write this table.
        InputError: there is no table, or the run is out of reach; those within reach are named.
        FencedOutError: another run published meanwhile.
        UnavailableError: storage could not be reached.
    """
    started = time.perf_counter()
    uri = absolute(table)
    publish.writable(uri)
    target, _ = record.show(uri, to)
    _refuse_unpublished(target)
    plan = publish.plan_rollback(uri, target.run_id)
    outcome = RollbackOutcome(plan, dry_run)
    if dry_run or not plan.units:
        return outcome
    moment, by = Moment.now(), amendments.operator_name()
    outcome = replace(outcome, rollback_id=moment.run_id(), by=by)
    version = publish.roll_back(plan, outcome.rollback_id, created_at=moment.iso(), by=by)
    outcome = replace(outcome, version=version)
    try:
        record.append(uri, _row(target, outcome, moment, time.perf_counter() - started))
    except (BatchscoreError, OSError) as error:
        on_event({"event": "notice", "text": f"the ledger could not be written: {error}"})
    return outcome


def _refuse_unpublished(target: RunRecord) -> None:
    if target.state in ("rolled_back", "forgotten"):
        raise SettingsError(
            f"{target.run_id} is no run of a model",
            found=target.message,
            hint="name a run whose table should come back",
        )
    if target.state != "published":
        raise SettingsError(
            f"run {target.run_id} published nothing, so there is no table to go back to",
            found=f"{target.state}: {target.message}",
            hint="`batchscore history` shows the runs that were published",
        )


def _row(target: RunRecord, outcome: RollbackOutcome, moment: Moment, seconds: float) -> RunRecord:
    plan = outcome.plan
    return replace(
        target,
        run_id=outcome.rollback_id,
        state="rolled_back",
        started_at=moment.iso(),
        ended_at=Moment.now().iso(),
        table_version=outcome.version,
        units_published=len(plan.units),
        units_live=0,
        rows_read=0,
        rows=sum(item.rows for item in plan.returning),
        seconds=round(seconds, 3),
        exit_code=0,
        message=f"to run {plan.to_run} (version {plan.to_version}) from version {plan.from_version}, by {outcome.by}",
        detail="",
        peak_worker_bytes=0,
    )
