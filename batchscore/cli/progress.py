"""Progress of a run on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypeAlias

from batchscore.cli.logs import stderr_is_stdout
from batchscore.redaction import redact

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

OnEvent: TypeAlias = Callable[[Mapping[str, object]], None]

LINE_SECONDS = 5.0  # between two progress lines where there is no terminal


@contextmanager
def reporting(stream: TextIO | None = None, *, as_json: bool = False) -> Iterator[OnEvent]:
    """A receiver of a run's events.

    Events are ``{"event": "stage", "stage": str, "text": str}``, ``{"event": "notice", "text": str}`` and
    ``{"event": "progress", "rows": int, "total": int, "seconds": float}`` with a total of -1 where it is unknown, and
    ``{"event": "chunk", "number": int, "of": int, "text": str, "left": float}`` when a part of a backfill has ended.

    Args:
        stream: where to; stderr by default.
        as_json: the answer on stdout is for a machine: nothing is said where stderr runs into it.
    """
    if as_json and stderr_is_stdout():
        yield lambda _: None
        return
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield PlainProgress(stream)
        return
    with _bar(stream) as bar:
        yield BarProgress(bar)


class PlainProgress:
    """One line a stage, and one at most every five seconds while rows are scored."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next = clock() + LINE_SECONDS

    def __call__(self, event: Mapping[str, object]) -> None:
        """Prints the event when it is time."""
        if event.get("event") == "stage":
            self._print(f"{event['stage']}: {event['text']}")
        elif event.get("event") == "notice":
            self._print(f"note: {event['text']}")
        elif event.get("event") == "chunk":
            self._print(chunk_text(event))
        elif event.get("event") == "progress" and self._clock() >= self._next:
            self._next = self._clock() + LINE_SECONDS
            self._print(progress_text(event))

    def _print(self, line: str) -> None:
        print(redact(line), file=self._stream, flush=True)  # what this class is for


class BarProgress:
    """The stages' texts, and below them the stage under way with rows, rows/s and the time that remains."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def __call__(self, event: Mapping[str, object]) -> None:
        """Begins a stage or moves the bar."""
        if event.get("event") == "stage":
            self._say(f"{event['stage']}: {event['text']}")
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(str(event["stage"]), total=None, text="")
        elif event.get("event") == "notice":
            self._say(f"note: {event['text']}")
        elif event.get("event") == "chunk":
            self._say(chunk_text(event))
        elif event.get("event") == "progress" and self._task is not None:
            total = _number(event["total"])
            self._bar.update(
                self._task,
                completed=_number(event["rows"]),
                total=total if total >= 0 else None,
                text=progress_text(event).partition(": ")[2],
                refresh=True,
            )

    def _say(self, line: str) -> None:
        self._bar.console.print(redact(line), markup=False, highlight=False, soft_wrap=True)


def progress_text(event: Mapping[str, object]) -> str:
    """A progress event on one line.

    >>> progress_text({"rows": 50_000, "total": 200_000, "seconds": 10.0})
    'score: 50,000 of 200,000 rows (25 %), 5,000 rows/s, 30 s left'
    """
    rows, total, seconds = _number(event["rows"]), _number(event["total"]), _number(event["seconds"])
    if total < 0:
        return f"score: {rows:,.0f} rows, {rate_text(event)}"
    if rows <= 0 or seconds <= 0:
        return f"score: {rows:,.0f} of {total:,.0f} rows"
    left = max(0.0, (total - rows) * seconds / rows)
    share = f"{100 * rows / total:.0f} %"
    return f"score: {rows:,.0f} of {total:,.0f} rows ({share}), {rate_text(event)}, {left:.0f} s left"


def chunk_text(event: Mapping[str, object]) -> str:
    """A part of a backfill that has ended, on one line.

    >>> chunk_text({"number": 3, "of": 14, "text": "2026-11-03 published: 200 rows as version 2", "left": 21.7})
    '3 of 14: 2026-11-03 published: 200 rows as version 2; about 22 s left'
    """
    left = _number(event["left"])
    more = f"; about {left:,.0f} s left" if left > 0 else ""
    return f"{event['number']} of {event['of']}: {event['text']}{more}"


def rate_text(event: Mapping[str, object]) -> str:
    """Rows per second of a progress event.

    >>> rate_text({"rows": 50_000, "seconds": 10.0})
    '5,000 rows/s'
    """
    seconds = _number(event["seconds"])
    return f"{_number(event['rows']) / seconds:,.0f} rows/s" if seconds > 0 else "0 rows/s"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _bar(stream: TextIO) -> Progress:
    from rich.console import Console  # noqa: PLC0415  # only where there is a terminal
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
    )
    return Progress(*columns, console=Console(file=stream), transient=True)
