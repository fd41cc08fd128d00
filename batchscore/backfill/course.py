"""Carries a backfill out: one run for each chunk, one after another or side by side."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from batchscore import pipeline, runners, score
from batchscore.backfill.preparing import Prepared, only
from batchscore.contracts import BackfillReport, Chunk, ChunkOutcome, ChunkState
from batchscore.errors import BatchscoreError, bounded, listed
from batchscore.plan import backfill as planning
from batchscore.prepare import LazySpark, OnEvent

# What a run says of its own steps is too much for a hundred of them.
STEPS = ("plan", "score", "validate", "publish", "record")
# Before these a run can be stopped and leaves nothing; once it is published it is to be recorded, too.
STOPS_BEFORE = ("score", "validate", "publish")
INTERRUPTED = "nothing of it is visible unless its commit was done already"

_LOG = logging.getLogger(__name__)


class BackfillInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a backfill; ``report`` says how far it came."""

    def __init__(self, report: BackfillReport) -> None:
        super().__init__()
        self.report = report


def carry_out(prepared: Prepared, on_event: OnEvent = lambda _: None) -> BackfillReport:
    """Scores and publishes what a backfill planned, chunk by chunk; a chunk that fails does not stop the others.

    Args:
        prepared: of :func:`prepare`.
        on_event: receives notices, the progress over all rows, and ``{"event": "chunk", "number": int, "of": int,
            "text": str, "left": float}`` when a chunk has ended: seconds that the others may take, or -1.

    Returns:
        How each date ended; the exit code is that of the gravest failure.

    Raises:
        BackfillInterrupted: with the report so far; what was under way has been discarded.
        BatchscoreError: Spark does not start.
    """
    course = _Course(prepared, on_event)
    try:
        course.go()
    except KeyboardInterrupt as interruption:
        raise BackfillInterrupted(course.report(interrupted=True)) from interruption
    finally:
        runners.end_spares()
    return course.report()


class _Course:
    """A backfill under way."""

    def __init__(self, prepared: Prepared, on_event: OnEvent) -> None:
        self._plan, self._options, self._on_event = prepared.plan, prepared.options, on_event
        self._spark = LazySpark(next(iter(prepared.groups.values())).config, on_event)
        self._groups = {
            version: replace(group, ready=replace(group.ready, spark=self._spark))
            for version, group in prepared.groups.items()
        }
        self._started = time.perf_counter()
        self._outcomes: list[ChunkOutcome] = []
        self._rows_of = {date.date: date.rows for date in prepared.plan.dates}
        self._rows_under_way: dict[tuple[str, ...], int] = {}
        self._ended: list[Chunk] = []
        self._said: set[str] = set(prepared.plan.notices)
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def go(self) -> None:
        """Scores every chunk, so many at a time."""
        plan = self._plan
        if not plan.chunks:
            return
        text = f"{len(plan.chunks)} commits, oldest first, as {plan.backfill_id}"
        self._on_event({"event": "stage", "stage": "backfill", "text": text})
        if plan.runner == "local":
            runners.start_ahead(score.__name__)
        else:
            # In the main thread, where alone handlers of signals can be set.
            group = self._groups[plan.chunks[0].version]
            pipeline.start_session(group.config, group.planned, self._spark)
        if plan.request.at_a_time == 1:
            for chunk in plan.chunks:
                self._score(chunk)
            return
        with ThreadPoolExecutor(plan.request.at_a_time) as pool:
            scored = [pool.submit(self._score, chunk) for chunk in plan.chunks]
            try:
                for future in scored:
                    future.result()
            except BaseException:
                self._stopping.set()  # and wait for those under way, which discard what they staged
                raise

    def _score(self, chunk: Chunk) -> None:
        if self._is_over(chunk):
            return
        outcomes = [self._run(chunk)]
        if outcomes[0].state == "failed" and len(chunk.dates) > 1:
            outcomes = self._one_by_one(chunk)
        else:
            self._note(outcomes[0])
        self._tell_end(chunk, outcomes)

    def _one_by_one(self, chunk: Chunk) -> list[ChunkOutcome]:
        """The dates of a chunk that failed, each by itself: a bad one must not take its neighbours along."""
        outcomes = []
        for date in chunk.dates:
            alone = Chunk((date,), chunk.version, self._rows_of[date])
            if not self._is_over(alone):
                outcomes.append(self._run(alone))
                self._note(outcomes[-1])
        return outcomes

    def _is_over(self, chunk: Chunk) -> bool:
        """Whether this chunk is not to be begun: something has failed, or a date before it cannot be read."""
        if self._stopping.is_set():
            return True
        if not self._plan.request.stop_on_failure:
            return False
        unreadable = any(date.state == "unreadable" and date.date < chunk.dates[0] for date in self._plan.dates)
        with self._lock:
            return unreadable or any(outcome.state == "failed" for outcome in self._outcomes)

    def _run(self, chunk: Chunk) -> ChunkOutcome:
        """One run over the dates of a chunk; whatever it raises becomes its outcome."""
        group, started = self._groups[chunk.version], time.perf_counter()
        config = only(group.config, self._plan.date_column, chunk.dates)
        heard = _Heard(self, chunk.dates)

        def outcome(state: ChunkState, reason: str, code: int, rows: int = 0) -> ChunkOutcome:
            seconds = round(time.perf_counter() - started, 3)
            return ChunkOutcome(chunk.dates, state, reason, code, heard.run_id, rows, seconds, chunk.version)

        try:
            done = pipeline.run(config, self._options, heard, group.ready)
        except BatchscoreError as error:
            _LOG.info("dates %s failed", listed(chunk.dates), exc_info=True)
            if self._stopping.is_set():  # Spark cancels its jobs at Ctrl-C, whichever thread waits for them
                return outcome("interrupted", _reason(error), planning.INTERRUPTED_EXIT_CODE)
            return outcome("failed", _reason(error), error.exit_code)
        except KeyboardInterrupt:
            self._note(outcome("interrupted", INTERRUPTED, planning.INTERRUPTED_EXIT_CODE))
            raise
        except Exception as error:  # noqa: BLE001  # a bug that one date meets must not keep others from being scored
            _LOG.info("dates %s failed", listed(chunk.dates), exc_info=True)
            return outcome("failed", bounded(f"unforeseen {type(error).__name__}: {error}"), BatchscoreError.exit_code)
        return outcome("published" if done.state == "published" else "skipped", done.message, 0, done.rows)

    def _note(self, outcome: ChunkOutcome) -> None:
        with self._lock:
            self._outcomes.append(outcome)

    def hear(self, dates: tuple[str, ...], event: Mapping[str, object]) -> None:
        """Passes on what a run says that concerns the backfill; stops the run where the backfill is being stopped."""
        kind = event.get("event")
        if self._stopping.is_set() and (kind == "progress" or event.get("stage") in STOPS_BEFORE):
            raise KeyboardInterrupt
        if kind == "progress":
            self._tell_rows(dates, event["rows"])
        elif kind == "notice" or (kind == "stage" and event["stage"] not in STEPS):
            self._tell_once(str(event["text"]) if kind == "notice" else f"{event['stage']}: {event['text']}")

    def _tell_once(self, text: str) -> None:
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        self._on_event({"event": "notice", "text": text})

    def _tell_rows(self, dates: tuple[str, ...], rows: object) -> None:
        """The progress over the rows of all chunks."""
        with self._lock:
            self._rows_under_way[dates] = rows if isinstance(rows, int) else 0
            total = _sum(self._plan.chunks)
            done = sum(max(chunk.rows, 0) for chunk in self._ended) + sum(self._rows_under_way.values())
            self._on_event({"event": "progress", "rows": done, "total": total, "seconds": self._seconds()})

    def _tell_end(self, chunk: Chunk, outcomes: Sequence[ChunkOutcome]) -> None:
        with self._lock:
            under_way = self._rows_under_way.items()
            self._rows_under_way = {dates: rows for dates, rows in under_way if dates[0] not in chunk.dates}
            self._ended.append(chunk)
            share = _share(self._ended, self._plan.chunks)
            event = {
                "event": "chunk",
                "number": len(self._ended),
                "of": len(self._plan.chunks),
                "text": f"{_span(chunk.dates)} {_ending(outcomes)}",
                "left": self._seconds() * (1 - share) / share if share else -1.0,
            }
            self._on_event(event)

    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def report(self, *, interrupted: bool = False) -> BackfillReport:
        """How every date ended that has input."""
        ended = {date for outcome in self._outcomes for date in outcome.dates}
        left = [tuple(date for date in chunk.dates if date not in ended) for chunk in self._plan.chunks]
        outcomes = [
            *self._outcomes,
            *(ChunkOutcome(dates, "not_started", "not started") for dates in left if dates),
            *planning.foregone(self._plan.dates),
        ]
        code = planning.INTERRUPTED_EXIT_CODE if interrupted else planning.exit_code(outcomes)
        ordered = tuple(sorted(outcomes, key=lambda outcome: outcome.dates))
        return BackfillReport(self._plan, ordered, round(self._seconds(), 3), code)


@dataclass
class _Heard:
    """Receives the events of one run; remembers its id."""

    course: _Course
    dates: tuple[str, ...]
    run_id: str = ""

    def __call__(self, event: Mapping[str, object]) -> None:
        if event.get("event") == "run":
            self.run_id = str(event["run_id"])
        self.course.hear(self.dates, event)


def _reason(error: BatchscoreError) -> str:
    """An error on one line: what, and what was there."""
    parts = (error.problem, error.found, *error.detail[:1])
    return bounded("; ".join(part.replace("\n", " ") for part in parts if part), 500)


def _ending(outcomes: Sequence[ChunkOutcome]) -> str:
    if len(outcomes) == 1:
        return f"{outcomes[0].state}: {outcomes[0].reason}"
    counts = Counter(outcome.state for outcome in outcomes)
    return f"one by one: {', '.join(f'{count} {state}' for state, count in counts.items())}"


def _span(dates: Sequence[str]) -> str:
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _sum(chunks: Sequence[Chunk]) -> int:
    return -1 if any(chunk.rows < 0 for chunk in chunks) else sum(chunk.rows for chunk in chunks)


def _share(ended: Sequence[Chunk], chunks: Sequence[Chunk]) -> float:
    """How much of the work is done: by rows where they are known, else by chunks."""
    total = _sum(chunks)
    return _sum(ended) / total if total > 0 else len(ended) / len(chunks)
