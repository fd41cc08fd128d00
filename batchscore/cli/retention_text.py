"""What ``rollback``, ``retain`` and ``forget`` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchscore.cli.show import LABEL_CHARS, MAX_UNITS, aligned
from batchscore.config import redact
from batchscore.errors import listed, unit_text

if TYPE_CHECKING:
    from batchscore.forget import Erasure, Forgotten
    from batchscore.publish import Reach, RetentionPlan, RowsOfRun
    from batchscore.retain import Retention
    from batchscore.rollback import RollbackOutcome

MAX_RUNS = 20
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
STEP = 1024
FOREIGN = "not batchscore's"


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_CHARS}} {text}"


def size_text(size: int) -> str:
    """Bytes for a reader.

    >>> size_text(512), size_text(3 * 1024 * 1024)
    ('512 bytes', '3.0 MiB')
    """
    value, unit = float(size), 0
    while value >= STEP and unit < len(UNITS) - 1:
        value, unit = value / STEP, unit + 1
    return f"{value:,.1f} {UNITS[unit]}" if unit else f"{size:,} bytes"


# --- rollback ----------------------------------------------------------------------------------------------


def rollback_lines(outcome: RollbackOutcome) -> list[str]:
    """What changes for readers, by run; then what was done."""
    plan = outcome.plan
    head = [
        _line("table", redact(plan.table)),
        _line("now", f"version {plan.from_version}"),
        _line("back to", f"version {plan.to_version}, right after run {plan.to_run} ({plan.to_committed_at[:19]})"),
    ]
    if not plan.units:
        return [*head, "nothing to do: readers see that already"]
    rows = [("", "run", "units", "rows")]
    rows.extend(("goes", *_moved(item)) for item in plan.leaving[:MAX_RUNS])
    rows.extend(("comes back", *_moved(item)) for item in plan.returning[:MAX_RUNS])
    if outcome.dry_run:
        done = "nothing was changed: this is a dry run"
    else:
        done = _line("done", f"version {outcome.version}, rollback {outcome.rollback_id} by {outcome.by}")
    again = "what goes is not scored again by the same job over the same input, unless forced (--force)"
    return [*head, _line("units", f"{len(plan.units):,} change"), *aligned(rows), done, f"note: {again}"]


def _moved(item: RowsOfRun) -> tuple[str, str, str]:
    return item.run_id or FOREIGN, f"{item.units:,}", f"{item.rows:,}"


def rollback_document(outcome: RollbackOutcome) -> dict[str, object]:
    """The same for ``--json``."""
    plan = outcome.plan
    return {
        "table": redact(plan.table),
        "dry_run": outcome.dry_run,
        "nothing_to_do": not plan.units,
        "rollback_id": outcome.rollback_id,
        "version": outcome.version,
        "from_version": plan.from_version,
        "to_version": plan.to_version,
        "to_run": plan.to_run,
        "by": outcome.by,
        "units": [dict(unit.values) for unit in plan.units],
        "leaving": plan.leaving,
        "returning": plan.returning,
    }


# --- retain ------------------------------------------------------------------------------------------------


def retention_lines(retention: Retention) -> list[str]:
    """What would be removed of each table, and how far back a rollback reaches before and after."""
    plan = retention.plans[0]
    rows = [("table", "versions given up", "files", "bytes")]
    rows.extend(_retained(item) for item in retention.plans)
    lines = [
        _line("table", redact(plan.table)),
        _line(
            "keep", f"{retention.days} days (promised: {retention.promised_days}); version {plan.kept_from} and newer"
        ),
        *aligned(rows),
        _line("reach now", _horizon(plan.before)),
        _line("afterwards", _horizon(plan.after)),
    ]
    if retention.merged.files:
        lines.append(_line("merge", _merged(retention)))
    return [*lines, "nothing to remove"] if retention.empty else lines


def _merged(retention: Retention) -> str:
    merged = retention.merged
    return f"{merged.files:,} small files of {merged.units:,} units into {merged.into:,}, no row changes"


def _retained(plan: RetentionPlan) -> tuple[str, str, str, str]:
    name = redact(plan.table).rstrip("/").rpartition("/")[2]
    files = f"{len(plan.files):,}" + (f" and {len(plan.documents):,} of versions" if plan.documents else "")
    return name, f"{len(plan.versions):,}", files, size_text(plan.size)


def _horizon(reach: Sequence[Reach]) -> str:
    if not reach:
        return "no run can be rolled back to"
    oldest = reach[-1]
    return f"{len(reach):,} runs, the oldest {oldest.run_id} (version {oldest.version}, {oldest.committed_at[:19]})"


def removed_lines(retention: Retention) -> list[str]:
    """What was removed."""
    files = sum(len(plan.files) + len(plan.documents) for plan in retention.plans)
    merged = [_line("merged", _merged(retention))] if retention.merged.files else []
    return [*merged, _line("removed", f"{files:,} files, {size_text(sum(plan.size for plan in retention.plans))}")]


def retention_document(retention: Retention) -> dict[str, object]:
    """The same for ``--json``."""
    return {
        "days": retention.days,
        "promised_days": retention.promised_days,
        "dry_run": retention.dry_run,
        "nothing_to_do": retention.empty,
        "merged": retention.merged,
        "tables": [
            {
                "table": redact(plan.table),
                "kept_from": plan.kept_from,
                "versions": list(plan.versions),
                "files": [{"path": path, "bytes": size} for path, size in plan.files.items()],
                "documents": list(plan.documents),
                "bytes": plan.size,
                "reach_before": plan.before,
                "reach_after": plan.after,
            }
            for plan in retention.plans
        ],
    }


# --- forget ------------------------------------------------------------------------------------------------


def forget_lines(outcome: Forgotten, *, now: bool) -> list[str]:
    """What is erased, what remains and until when."""
    asked, found = outcome.keys
    verb = "would be erased" if outcome.dry_run else "erased"
    lines = [_line("keys", f"{found:,} of {asked:,} found")]
    for erasure in outcome.erasures:
        lines.extend(_erased(erasure, verb))
    texts = len(outcome.texts) + outcome.ledger.rows
    lines.append(
        _line(
            "texts",
            f"{len(outcome.texts):,} manifests and {outcome.ledger.rows:,} rows of the ledger named a key"
            + ("" if not texts or outcome.dry_run else ": masked"),
        )
    )
    lines.extend(_remaining(outcome, now=now))
    lines.append(
        "note: the input was not looked into: where it still holds the rows, the next run that scores their units "
        "publishes them again"
    )
    if outcome.dry_run:
        return [*lines, "nothing was changed: this is a dry run"]
    return [*lines, _line("done", f"erasure {outcome.forget_id} by {outcome.by}")]


def _erased(erasure: Erasure, verb: str) -> list[str]:
    at = f", version {erasure.version}" if erasure.version >= 0 else ""
    rows = [(unit_text(unit.values), f"{unit.rows:,} rows") for unit in erasure.units[:MAX_UNITS]]
    left = len(erasure.units) - MAX_UNITS
    return [
        _line("table", redact(erasure.table)),
        _line(verb.rpartition(" ")[2], f"{erasure.rows:,} rows in {len(erasure.units):,} units{at}"),
        *aligned(rows),
        *([f"  and {left:,} more"] if left > 0 else []),
    ]


def _remaining(outcome: Forgotten, *, now: bool) -> list[str]:
    lines = []
    for erasure in outcome.erasures:
        name, remains = redact(erasure.table).rstrip("/").rpartition("/")[2], erasure.remains
        if remains.files and now and not outcome.dry_run:
            lines.append(_line("deleted", f"{len(remains.files):,} files of older versions of {name}"))
        elif remains.files:
            versions = listed(remains.versions, 5)
            text = f"{len(remains.files):,} files of {name} hold the rows in older versions ({versions})"
            lines.append(
                _line("remains", f"{text}; `batchscore retain` removes the last of them from {remains.until} on")
            )
        if erasure.unmentioned:
            text = f"{len(erasure.unmentioned):,} files of {name} that no version mentions hold such rows"
            lines.append(_line("remains", f"{text}: of a run at work, or of one that was killed"))
    lines.append(_line("remains", "the smallest and largest values of columns, in the table's log of older versions"))
    if outcome.ledger.files and not now:
        lines.append(
            _line("remains", f"{len(outcome.ledger.files):,} older files of the ledger, until `batchscore retain`")
        )
    return lines


def forget_document(outcome: Forgotten) -> dict[str, object]:
    """The same for ``--json``; it does not say the keys."""
    return {
        "forget_id": outcome.forget_id,
        "by": outcome.by,
        "dry_run": outcome.dry_run,
        "keys_asked": outcome.keys[0],
        "keys_found": outcome.keys[1],
        "input_looked_into": False,
        "deleted_files": outcome.deleted,
        "texts": list(outcome.texts),
        "ledger_rows": outcome.ledger.rows,
        "tables": [
            {
                "table": redact(erasure.table),
                "version": erasure.version,
                "rows": erasure.rows,
                "units": [{"unit": dict(unit.values), "rows": unit.rows} for unit in erasure.units],
                "remains": {
                    "files": len(erasure.remains.files),
                    "rows": erasure.remains.rows,
                    "versions": list(erasure.remains.versions),
                    "until": erasure.remains.until,
                },
                "unmentioned_files": len(erasure.unmentioned),
            }
            for erasure in outcome.erasures
        ],
    }
