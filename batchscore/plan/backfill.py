"""What a backfill does with each date of its range, in which commits, and with which exit code it ends; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from batchscore.contracts import (
    BackfillRequest,
    Chunk,
    ChunkOutcome,
    DateVersion,
    PlannedDate,
    PlannedUnit,
    ScoringPlan,
    SourceFile,
)
from batchscore.errors import InputError, SettingsError
from batchscore.plan.dates import days, parsed
from batchscore.plan.make import TASK_ROWS
from batchscore.plan.splitting import make_tasks

# Which failure names the exit code, where there are several kinds: the one that nothing but a person mends comes first.
# 7 is last, so that it means: every failure is worth a retry.
GRAVEST_FIRST = (1, 2, 3, 5, 4, 6, 7)
INTERRUPTED_EXIT_CODE = 130


def range_of(request: BackfillRequest) -> tuple[str, ...]:
    """The dates of a request, oldest first, with its other numbers checked.

    Raises:
        SettingsError: a date or a number is none that a backfill can go by.
    """
    for flag, number in (("--parallel", request.at_a_time), ("--chunk", request.chunk_dates)):
        if number < 1:
            raise SettingsError(f"{flag} takes a number of 1 or more", found=number)
    return days(request.first, request.last)


def refuse_mode(mode: str, partitions: Iterable[str], column: str) -> None:
    """Refuses settings under which the dates would get in each other's way.

    Raises:
        SettingsError: the whole table is to be replaced, or the dates are named a second time.
    """
    if mode == "replace":
        raise SettingsError(
            "a backfill cannot replace the whole table: each commit would remove the dates before it",
            found="output.mode replace",
            allowed=("partitions", "append"),
        )
    if column.casefold() in {name.casefold() for name in partitions}:
        raise SettingsError(
            f"the dates are named twice: by --from and --to, and as a partition {column}",
            hint=f"leave --partition {column}=… (input.partitions) out",
        )


def missing_dates(dates: Sequence[str], present: Iterable[str]) -> tuple[PlannedDate, ...]:
    """The dates that the input does not have."""
    there = set(present)
    return tuple(PlannedDate(date, "missing", "the input has no such date") for date in dates if date not in there)


def unreadable_dates(reasons: Mapping[str, str]) -> tuple[PlannedDate, ...]:
    """The dates of which a file cannot be read, with the reason."""
    return tuple(PlannedDate(date, "unreadable", reason) for date, reason in reasons.items())


def planned_dates(
    plan: ScoringPlan, column: str, versions: Mapping[str, DateVersion] | None = None
) -> tuple[PlannedDate, ...]:
    """What a plan over many dates says of each of them, with its share of the time and of the cost.

    Args:
        plan: of all dates that one model version scores.
        column: the partition column that holds the dates.
        versions: what says that the plan's model scores a date; None: it scores all.
    """
    files: dict[str, list[SourceFile]] = {}
    units: dict[str, list[PlannedUnit]] = {}
    for file in plan.source.files:
        files.setdefault(dict(file.partition)[column] or "", []).append(file)
    for unit in plan.units:
        units.setdefault(dict(unit.values)[column] or "", []).append(unit)
    return tuple(
        _planned(plan, date, units[date], files[date], versions[date].why if versions else "")
        for date in sorted(units)
        if parsed(date) is not None
    )


def _planned(
    plan: ScoringPlan, date: str, units: Sequence[PlannedUnit], files: Sequence[SourceFile], why: str
) -> PlannedDate:
    scored = [unit for unit in units if unit.action == "score"]
    of_state = scored or units
    rows = -1 if any(unit.rows < 0 for unit in of_state) else sum(unit.rows for unit in of_state)
    seconds, core_seconds = _estimate(plan, rows, files) if scored else (0.0, 0.0)
    return PlannedDate(
        date=date,
        state="score" if scored else "live",
        reason=_reason(of_state, len(units)),
        units=len(of_state),
        rows=rows,
        seconds=seconds,
        core_seconds=core_seconds,
        version=plan.model.version if scored else "",
        version_why=why if scored else "",
    )


def _reason(units: Sequence[PlannedUnit], of: int) -> str:
    reasons = list(dict.fromkeys(unit.reason for unit in units))
    text = reasons[0] if len(reasons) == 1 else f"{reasons[0]}; {reasons[1]}"
    return text if len(units) == of else f"{len(units)} of {of} units: {text}"


def _estimate(plan: ScoringPlan, rows: int, files: Sequence[SourceFile]) -> tuple[float, float]:
    """Seconds and core-seconds of a date, by the speed that the whole plan was estimated with; -1 where unknown."""
    if plan.estimated_seconds < 0 or plan.expected_rows <= 0 or rows < 0:
        return -1.0, -1.0
    seconds = plan.estimated_seconds * rows / plan.expected_rows
    tasks = len(make_tasks(files, cores=plan.cores, rows_per_task=TASK_ROWS)) if plan.tasks else plan.cores
    return seconds, seconds * max(1, min(tasks, plan.cores))


def chunked(dates: Iterable[PlannedDate], chunk_dates: int) -> tuple[Chunk, ...]:
    """The dates to score, oldest first, so many to a commit; one commit has one model version.

    >>> some = [PlannedDate(f"2026-01-0{day}", "score", "new", 1, 10, version="12"[day > 2]) for day in range(1, 6)]
    >>> [chunk.dates for chunk in chunked(some, 2)]
    [('2026-01-01', '2026-01-02'), ('2026-01-03', '2026-01-04'), ('2026-01-05',)]
    """
    chunks: list[Chunk] = []
    for date in sorted((date for date in dates if date.state == "score"), key=lambda date: date.date):
        last = chunks[-1] if chunks else None
        if last is not None and len(last.dates) < chunk_dates and last.version == date.version:
            rows = -1 if last.rows < 0 or date.rows < 0 else last.rows + date.rows
            chunks[-1] = Chunk((*last.dates, date.date), last.version, rows)
        else:
            chunks.append(Chunk((date.date,), date.version, date.rows))
    return tuple(chunks)


def foregone(dates: Iterable[PlannedDate]) -> tuple[ChunkOutcome, ...]:
    """How the dates end that have input and are not scored: those that are published, and those that cannot be read."""
    return tuple(
        ChunkOutcome((date.date,), "skipped", date.reason)
        if date.state == "live"
        else ChunkOutcome((date.date,), "failed", date.reason, InputError.exit_code)
        for date in dates
        if date.state in ("live", "unreadable")
    )


def exit_code(outcomes: Iterable[ChunkOutcome]) -> int:
    """How a backfill ends: 0 where every date is published, otherwise by the gravest failure.

    130 where it was interrupted. 7, worth a retry, only where every failure is.

    >>> failed = [ChunkOutcome(("2026-01-01",), "failed", "", code) for code in (7, 5, 7)]
    >>> exit_code(failed), exit_code(failed[:1]), exit_code([])
    (5, 7, 0)
    """
    ended = list(outcomes)
    if any(outcome.state == "interrupted" for outcome in ended):
        return INTERRUPTED_EXIT_CODE
    codes = {outcome.exit_code for outcome in ended if outcome.state == "failed"}
    return next((code for code in GRAVEST_FIRST if code in codes), max(codes, default=0))
