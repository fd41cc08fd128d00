"""What `batchscore backfill` prints: the plan before the first run, and the summary after the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from batchscore.cli.show import DIGEST_CHARS, aligned, as_json_value
from batchscore.errors import bounded, listed

if TYPE_CHECKING:
    from batchscore.contracts import BackfillPlan, BackfillReport, ChunkOutcome, DateState, PlannedDate

MAX_DATES = 400  # a year and a month
REASON_CHARS = 160
_STATES: dict[DateState, str] = {
    "score": "to score",
    "live": "published",
    "missing": "missing input",
    "unreadable": "unreadable",
}
_ENDS = {
    "published": "published",
    "skipped": "published already",
    "failed": "failed",
    "interrupted": "interrupted",
    "not_started": "not started",
}
_NUMBERS = ("rows", "seconds", "core-seconds")


def plan_lines(plan: BackfillPlan) -> list[str]:
    """What is scored by what, date by date, and what it takes."""
    request = plan.request
    lines = [
        _line("backfill", f"{request.first} to {request.last} by {plan.date_column}: {_counts(plan)}"),
        *_model_lines(plan),
        _line("input", plan.input),
        _line("output", f"{plan.table}, {_version(plan)}"),
        _line("engine", f"{plan.engine}, runner {plan.runner}, {plan.cores} cores"),
        _line("commits", _commits(plan)),
        *_date_lines(plan),
        *(f"note: {text}" for text in plan.notices),
    ]
    return lines if plan.chunks else [*lines, "nothing to do: every date that has input is published already"]


def _counts(plan: BackfillPlan) -> str:
    counts = Counter(date.state for date in plan.dates)
    return f"{len(plan.dates):,} dates, " + ", ".join(
        f"{counts[state]:,} {text}" for state, text in _STATES.items() if counts[state]
    )


def _model_lines(plan: BackfillPlan) -> list[str]:
    versions = [f"version {name} (sha256 {digest[:DIGEST_CHARS]})" if name else digest for name, digest in plan.models]
    if plan.request.model_as_of:
        return [_line("model", f"{plan.model} as of each date: {listed(versions)}")]
    return [_line("model", f"{plan.model}, {versions[0]}" if versions else plan.model)]


def _version(plan: BackfillPlan) -> str:
    return f"version {plan.table_version}" if plan.table_version >= 0 else "a new table"


def _commits(plan: BackfillPlan) -> str:
    request = plan.request
    size = "1 date" if request.chunk_dates == 1 else f"up to {request.chunk_dates} dates"
    side = f", {request.at_a_time} at a time" if request.at_a_time > 1 else ", one after another"
    return f"{len(plan.chunks):,} of {size} each, oldest first{side}"


def _date_lines(plan: BackfillPlan) -> list[str]:
    as_of = plan.request.model_as_of
    head = ("date", "state", *_NUMBERS, *(("version", "because") if as_of else ()), "why")
    rows = [_date_row(date, as_of) for date in plan.dates[:MAX_DATES]]
    left = len(plan.dates) - MAX_DATES
    table = _numbers_right([head, *rows, _sum_row(plan, as_of)])
    lines = aligned(table)
    return [*lines[:-1], *([f"  and {left:,} more"] if left > 0 else []), lines[-1]]


def _date_row(date: PlannedDate, as_of: bool) -> tuple[str, ...]:
    scored = date.state == "score"
    version = (date.version, bounded(date.version_why, REASON_CHARS)) if as_of else ()
    return (
        date.date,
        _STATES[date.state],
        _number(date.rows) if scored or date.state == "live" else "",
        _number(date.seconds, digits=1) if scored else "",
        _number(date.core_seconds, digits=1) if scored else "",
        *version,
        bounded(date.reason, REASON_CHARS),
    )


def _sum_row(plan: BackfillPlan, as_of: bool) -> tuple[str, ...]:
    scored = [date for date in plan.dates if date.state == "score"]
    return (
        "to score",
        f"{len(scored):,} dates",
        _number(_total([date.rows for date in scored])),
        _number(_total([date.seconds for date in scored]), digits=1),
        _number(_total([date.core_seconds for date in scored]), digits=1),
        *(("", "") if as_of else ()),
        "" if plan.table_version >= 0 or not scored else "time unknown: no earlier run tells the speed",
    )


def _total(values: Sequence[float]) -> float:
    return -1 if any(value < 0 for value in values) else sum(values)


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if value >= 0 else "?"


def _numbers_right(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    places = range(2, 2 + len(_NUMBERS))
    widths = {place: max(len(row[place]) for row in rows) for place in places}
    return [
        tuple(cell.rjust(widths[place]) if place in widths else cell for place, cell in enumerate(row)) for row in rows
    ]


def plan_document(plan: BackfillPlan) -> dict[str, object]:
    """The whole plan as JSON values, with the counts and sums that a reader would take from it."""
    document = as_json_value(plan)
    assert isinstance(document, dict)  # noqa: S101  # a dataclass gives an object
    scored = [date for date in plan.dates if date.state == "score"]
    counts = Counter(date.state for date in plan.dates)
    return {
        "backfill_id": plan.backfill_id,
        "nothing_to_do": not plan.chunks,
        **{f"dates_{state}": counts[state] for state in _STATES},
        "rows": _total([date.rows for date in scored]),
        "estimated_seconds": _total([date.seconds for date in scored]),
        "estimated_core_seconds": _total([date.core_seconds for date in scored]),
        **document,
        "models": [{"version": name, "digest": digest} for name, digest in plan.models],
    }


def report_lines(report: BackfillReport) -> list[str]:
    """How the dates ended, and which of them failed, with their reasons."""
    plan, ended = report.plan, _ended(report)
    missing = sum(date.state == "missing" for date in plan.dates)
    counts = [f"{ended[state]:,} {text}" for state, text in _ENDS.items() if ended[state]]
    rows = sum(outcome.rows for outcome in report.outcomes)
    runs = sum(outcome.state == "published" for outcome in report.outcomes)
    lines = [
        _line("backfill", f"{', '.join(counts)}{f', {missing:,} without input' if missing else ''}"),
        _line("table", plan.table),
        _line("rows", f"{rows:,} published by {runs:,} run{'s' if runs != 1 else ''} in {report.seconds:,.1f} s"),
        _line("runs", f"{plan.backfill_id} in the ledger"),
    ]
    failed = [outcome for outcome in report.outcomes if outcome.state in ("failed", "interrupted")]
    if failed:
        lines += [_line("failed", ""), *aligned([_outcome_row(outcome) for outcome in failed[:MAX_DATES]])]
        lines += [f"  and {len(failed) - MAX_DATES:,} more"] if len(failed) > MAX_DATES else []
    if failed or ended["not_started"]:
        lines.append(_line("next", "the same command scores what is not published yet"))
    return [line.rstrip() for line in lines]


def _outcome_row(outcome: ChunkOutcome) -> tuple[str, ...]:
    dates = outcome.dates[0] if len(outcome.dates) == 1 else f"{outcome.dates[0]} to {outcome.dates[-1]}"
    run = f"run {outcome.run_id}" if outcome.run_id else "not begun"
    return (dates, f"exit code {outcome.exit_code}", run, bounded(outcome.reason, 4 * REASON_CHARS))


def _ended(report: BackfillReport) -> Mapping[str, int]:
    """Dates by how they ended."""
    counts: Counter[str] = Counter()
    for outcome in report.outcomes:
        counts[outcome.state] += len(outcome.dates)
    return counts


def report_document(report: BackfillReport) -> dict[str, object]:
    """The report as JSON values: counts of dates by how they ended, every outcome, and the plan."""
    ended = _ended(report)
    return {
        "backfill_id": report.plan.backfill_id,
        "exit_code": report.exit_code,
        "seconds": report.seconds,
        "rows": sum(outcome.rows for outcome in report.outcomes),
        **{f"dates_{state}": ended[state] for state in _ENDS},
        "dates_missing": sum(date.state == "missing" for date in report.plan.dates),
        "outcomes": as_json_value(report.outcomes),
        "plan": plan_document(report.plan),
    }


def _line(label: str, text: str) -> str:
    return f"{label:<10} {text}"
