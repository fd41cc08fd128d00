"""What commands print: plain lines, tables on a terminal, and JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, TypeGuard

from batchscore.errors import bounded, listed, unit_text
from batchscore.redaction import redact

if TYPE_CHECKING:
    from batchscore.contracts import Check, Manifest, PlannedUnit, RunRecord, ScoringPlan, UnitAction
    from batchscore.doctor import Finding

MAX_UNITS = 20
LABEL_CHARS = 10
DIGEST_CHARS = 12
_ACTIONS: dict[UnitAction, str] = {
    "score": "to score",
    "live": "published",
    "older_model": "older model",
    "withdrawn": "rolled back",
}


def emit(lines: Sequence[str], document: object, *, as_json: bool) -> None:
    """Prints the document as JSON or the lines."""
    if as_json:
        print_json(document)
    else:
        _say(lines)


def _say(lines: Sequence[str]) -> None:
    print(redact("\n".join(lines)))  # noqa: T201  # the answer of a command


def print_json(document: object) -> None:
    """Prints one JSON document on stdout."""
    print(json.dumps(as_json_value(document), indent=2))  # noqa: T201  # the answer of a command


def as_json_value(value: object) -> object:
    """Dataclasses, sets and mappings as JSON values; a unit's values become an object.

    >>> as_json_value({(("ds", "2026-11-01"),): frozenset({2, 1})})
    [{'key': {'ds': '2026-11-01'}, 'value': [1, 2]}]
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_json_value(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: as_json_value(item) for key, item in value.items()}
        return [{"key": as_json_value(key), "value": as_json_value(item)} for key, item in value.items()]
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, tuple | list):
        return _json_sequence(value)
    return value if value is None or isinstance(value, int | float | bool) else redact(str(value))


def _json_sequence(items: Sequence[object]) -> object:
    pairs = [item for item in items if _is_unit_value(item)]
    if pairs and len(pairs) == len(items):
        return {pair[0]: pair[1] for pair in pairs}
    return [as_json_value(item) for item in items]


def _is_unit_value(item: object) -> TypeGuard[tuple[str, str | None]]:
    """Whether it is a partition column and its value."""
    if not isinstance(item, tuple) or len(item) != 2:  # noqa: PLR2004  # a pair
        return False
    column, value = item
    return isinstance(column, str) and (value is None or isinstance(value, str))


# --- plan --------------------------------------------------------------------------------------------------


def plan_json(plan: ScoringPlan, runner: str) -> dict[str, object]:
    """The whole plan as JSON values, with the counts that a reader would take from it."""
    document = as_json_value(plan)
    assert isinstance(document, dict)  # noqa: S101  # a dataclass gives an object
    actions = Counter(unit.action for unit in plan.units)
    return {
        "run_id": plan.run_id,
        "nothing_to_do": plan.nothing_to_do,
        "runner": runner,
        "engine": plan.task.engine,
        "units_to_score": actions["score"],
        "units_live": actions["live"],
        "units_older_model": actions["older_model"],
        "units_rolled_back": actions["withdrawn"],
        **document,
    }


def plan_lines(plan: ScoringPlan, runner: str) -> list[str]:
    """The plan for a reader: what is scored by what, where it goes, and why."""
    return [*_head_lines(plan, runner), *_unit_lines(plan), *_note_lines(plan)]


def print_plan(plan: ScoringPlan, runner: str) -> None:
    """Prints the plan; on a terminal its units are a table."""
    if not sys.stdout.isatty():
        _say(plan_lines(plan, runner))
        return
    _say(_head_lines(plan, runner))
    shown = _ordered(plan.units)[:MAX_UNITS]
    if shown:
        _print_table(("unit", "state", "rows", "files", "why"), [_unit_row(unit) for unit in shown])
    _say([*_more_lines(plan), *_note_lines(plan)])


def _head_lines(plan: ScoringPlan, runner: str) -> list[str]:
    model, source, target, task = plan.model, plan.source, plan.target, plan.task
    version = f"{model.name}/{model.version}" if model.version else model.name
    asked = "" if model.requested == version else f", asked for as {model.requested}"
    at = f"version {source.version}" if source.version is not None else f"snapshot {source.snapshot[:DIGEST_CHARS]}"
    kind = " of Parquet files" if task.output_format == "parquet" else ""
    there = f"version {target.version}{kind}" if target.exists else f"a new table{kind}"
    by = f", partitioned by {listed(task.partition_by)}" if task.partition_by else ""
    how = plan.route_reason or "workers read the files themselves"
    size = "" if plan.route == "dataframe" else f", {len(plan.tasks):,} tasks"
    lines = [
        _line("model", f"{version} (sha256 {model.digest[:DIGEST_CHARS]}){asked}"),
        _line("input", f"{source.kind} {source.uri}, {at}, {len(source.files):,} files"),
        _line("output", f"{target.uri}, {there}, mode {plan.mode}{by}"),
        _line("route", f"{plan.route}: {how}{size}"),
        _line("engine", f"{task.engine}, {task.batch_rows:,} rows a batch, runner {runner}"),
        _line("rows", f"{_rows(plan.expected_rows)} to read{_estimate(plan)}"),
        _line("units", _unit_summary(plan)),
    ]
    if plan.device != "cpu" or plan.device_reason:
        why = f": {plan.device_reason}" if plan.device_reason else ""
        lines.insert(-2, _line("device", f"{plan.device}{why}"))
    restriction = _restriction_text(plan)
    return [*lines[:2], _line("only", restriction), *lines[2:]] if restriction else lines


def _estimate(plan: ScoringPlan) -> str:
    """The time and its price in core-seconds, where an earlier run tells the speed."""
    if plan.estimated_seconds < 0 or plan.nothing_to_do:
        return ""
    cores = max(1, min(len(plan.tasks), plan.cores))
    return f", about {plan.estimated_seconds:,.0f} s ({plan.estimated_seconds * cores:,.0f} core-seconds)"


def _restriction_text(plan: ScoringPlan) -> str:
    parts = [f"{column} in ({listed(values)})" for column, values in plan.restriction.partitions]
    if plan.restriction.where:
        parts.append(bounded(plan.restriction.where))
    return " and ".join(parts)


def _unit_summary(plan: ScoringPlan) -> str:
    if not plan.units_known:
        return "found while scoring: the input is not laid out by the output's partition columns"
    counts = Counter(unit.action for unit in plan.units)
    parts = [f"{counts[action]:,} {text}" for action, text in _ACTIONS.items() if counts[action]]
    return f"{len(plan.units):,}: {', '.join(parts)}" if parts else "none"


def _ordered(units: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    """Those to score first."""
    return sorted(units, key=lambda unit: list(_ACTIONS).index(unit.action))


def _unit_row(unit: PlannedUnit) -> tuple[str, ...]:
    return (unit_text(unit.values), _ACTIONS[unit.action], _rows(unit.rows), _files(unit.files), bounded(unit.reason))


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _unit_lines(plan: ScoringPlan) -> list[str]:
    rows = [_unit_row(unit) for unit in _ordered(plan.units)[:MAX_UNITS]]
    return [*aligned(rows), *_more_lines(plan)]


def _more_lines(plan: ScoringPlan) -> list[str]:
    left = len(plan.units) - MAX_UNITS
    return [f"  and {left:,} more"] if left > 0 else []


def _note_lines(plan: ScoringPlan) -> list[str]:
    lines = [f"note: {text}" for text in dict.fromkeys((*plan.model.notices, *plan.source.notices, *plan.notices))]
    if not plan.nothing_to_do:
        return lines
    if not plan.units:
        return [*lines, "nothing to do: no unit is recent"]
    rolled_back = any(unit.action == "withdrawn" for unit in plan.units)
    return [*lines, f"nothing to do: all is published already{' or was rolled back' if rolled_back else ''}"]


# --- runs --------------------------------------------------------------------------------------------------


def record_lines(record: RunRecord) -> list[str]:
    """A run's outcome in a few lines."""
    rate = f", {record.rows / record.seconds:,.0f} rows/s" if record.rows and record.seconds > 0 else ""
    at = f", version {record.table_version}" if record.table_version >= 0 else ""
    lines = [
        _line(record.state, bounded(record.message, 1_000)),
        _line("model", f"{record.model_name}/{record.model_version} (sha256 {record.model_digest[:DIGEST_CHARS]})"),
        _line("table", f"{record.table}{at}"),
        _line("units", f"{record.units_published:,} published, {record.units_live:,} already there"),
        _line(
            "rows", f"{record.rows:,} of {record.rows_read:,} read{_left_out(record)}, in {record.seconds:.1f} s{rate}"
        ),
        _line("engine", f"{record.engine}, runner {record.runner}"),
        _line("run", record.run_id),
    ]
    return [*lines, *(f"  {line}" for line in record.detail.splitlines())]


def _left_out(record: RunRecord) -> str:
    quarantined = f", {record.rows_quarantined:,} in quarantine" if record.rows_quarantined else ""
    return quarantined + (f", {record.rows_filtered:,} filtered" if record.rows_filtered else "")


def run_lines(record: RunRecord, manifest: Manifest | None) -> list[str]:
    """One run in full."""
    at = f"version {record.source_version}, " if record.source_version is not None else ""
    lines = [
        *record_lines(record),
        _line("time", f"{record.started_at} to {record.ended_at}"),
        _line("input", f"{record.source_uri}, {at}snapshot {record.source_snapshot[:DIGEST_CHARS]}"),
        _line("exit code", str(record.exit_code)),
        *([_line("backfill", record.backfill)] if record.backfill else []),
    ]
    if manifest is None:
        return [*lines, "no manifest: the run published nothing, or its manifest was removed"]
    units = [(unit_text(unit.values), f"{unit.rows:,} rows", unit.key[:DIGEST_CHARS]) for unit in manifest.units]
    left = len(units) - MAX_UNITS
    return [
        *lines,
        _line("settings", json.dumps(as_json_value(manifest.settings))),
        _line("units", f"{len(units):,}"),
        *aligned(units[:MAX_UNITS]),
        *([f"  and {left:,} more"] if left > 0 else []),
        *check_lines(manifest.checks),
    ]


_HISTORY_HEAD = ("run", "state", "started", "model", "units", "rows", "seconds", "message")


def print_history(table: str, records: Sequence[RunRecord]) -> None:
    """Prints the runs of a table, one a line."""
    if not records:
        _say([f"no run of {table} is recorded"])
        return
    rows = [
        (
            record.run_id,
            record.state,
            record.started_at[:19],
            f"{record.model_name}/{record.model_version}",
            f"{record.units_published:,}",
            f"{record.rows:,}",
            f"{record.seconds:.1f}",
            bounded(record.message.splitlines()[0] if record.message else "", 80),
        )
        for record in records
    ]
    if sys.stdout.isatty():
        _print_table(_HISTORY_HEAD, rows)
    else:
        _say(aligned([_HISTORY_HEAD, *rows], indent=""))


# --- checks and findings -----------------------------------------------------------------------------------


def check_lines(checks: Sequence[Check]) -> list[str]:
    """One line a check, with a bounded sample of what failed."""
    lines = []
    for check in checks:
        mark = "ok    " if check.passed else "FAILED"
        count = f", {check.unexpected:,} unexpected" if check.unexpected else ""
        sample = f": {listed(check.sample)}" if check.sample and not check.passed else ""
        lines.append(f"{mark}  {check.name}: {check.observed}{count}{sample}")
    return lines


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """One line a finding, and how to mend what is not fine."""
    lines = []
    for finding in findings:
        lines.append(f"{'ok    ' if finding.fine else 'FAILED'}  {finding.name}: {finding.found}")
        if not finding.fine:
            lines.append(f"        next: {finding.mend}")
    return lines


# --- layout ------------------------------------------------------------------------------------------------


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_CHARS}} {text}"


def _rows(rows: int) -> str:
    return f"{rows:,} rows" if rows >= 0 else "an unknown number of rows"


def aligned(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows of cells as lines with columns of equal width."""
    if not rows:
        return []
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415  # only where there is a terminal
    from rich.table import Table  # noqa: PLC0415  # only where there is a terminal
    from rich.text import Text  # noqa: PLC0415  # only where there is a terminal

    table = Table(*head, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(redact(cell)) for cell in row))  # Text: data is not markup
    Console().print(table)
