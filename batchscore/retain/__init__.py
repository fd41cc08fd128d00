"""``batchscore retain``: removes what no version of a table needs that is younger than so many days."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from batchscore import publish, record
from batchscore.errors import SettingsError
from batchscore.prepare import Moment, absolute
from batchscore.retain.merging import Merge, merge, plan_merge

__all__ = ["Merge", "Retention", "retain"]

QUARANTINE_SUFFIX = "__quarantine"
ALL_RUNS = 10**9


@dataclass(frozen=True, slots=True)
class Retention:
    """What retention removed, or would.

    Attributes:
        days: versions that were the table within so many days are kept.
        promised_days: what the table or the settings promise.
        dry_run: whether everything is still there.
        plans: of the table, then of its quarantine and its ledger where they exist.
        merged: small files of the table that were merged, or would be.
    """

    days: int
    promised_days: int
    dry_run: bool
    plans: tuple[publish.RetentionPlan, ...]
    merged: Merge

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not self.merged.files and all(plan.empty for plan in self.plans)


def retain(
    table: str,
    days: int | None = None,
    *,
    settings_days: int = 0,
    shorter: bool = False,
    optimize: bool = False,
    dry_run: bool = True,
) -> Retention:
    """Removes old versions of a table, of its quarantine and of its ledger; no row that a reader sees.

    A run under way is not touched: its staged files are mentioned by no version and are of no published run.

    Args:
        table: path or URI of the prediction table.
        days: versions that were the table within so many days are kept; None: as the table promises.
        settings_days: ``output.retention_days`` of the job, where one is known.
        shorter: allow fewer days than promised.
        optimize: merge small files of the newest version first; what was merged is then needed by older ones alone.
        dry_run: only say what would be removed.

    Raises:
        InputError: no table is there.
        SettingsError: fewer days than promised, and nobody allowed it.
        UnavailableError: storage could not be reached, or the table stayed busy.
    """
    uri = absolute(table)
    promised = max(publish.retention_days_of(publish.writable(uri)), settings_days)
    asked = promised if days is None else days
    if asked < promised and not shorter:
        raise SettingsError(
            f"the table at {uri} promises to keep older versions for {promised} days",
            found=f"{asked} days asked",
            hint="ask for as many, or add --shorter: versions younger than promised are then lost",
        )
    merged = Merge()
    if optimize:
        merged = plan_merge(uri) if dry_run else merge(uri, Moment.now().run_id())
    cutoff = dt.datetime.now(dt.UTC) - dt.timedelta(days=min(asked, publish.MOST_DAYS))
    plans = []
    for place in (uri, uri.rstrip("/") + QUARANTINE_SUFFIX, record.ledger_uri(uri)):
        published = _published(uri) if place == uri else ()
        plan = publish.plan_retention(place, cutoff, published)
        if plan is not None:
            plans.append(plan if dry_run else publish.sweep(plan, cutoff=cutoff, published=published))
    return Retention(asked, promised, dry_run, tuple(plans), merged)


def _published(uri: str) -> tuple[str, ...]:
    return tuple(run.run_id for run in record.history(uri, ALL_RUNS) if run.state == "published")
