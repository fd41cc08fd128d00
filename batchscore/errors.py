"""The errors a user can meet, and the exit code of each.

::

    BatchscoreError            1    a bug: nothing below fits
    ├── SettingsError          2    a flag, a settings file or the output's layout is wrong
    ├── ModelError             3    the model is unknown, damaged, raises, or does not fit the table
    │   ├── SchemaMismatchError 3   the model's signature and the table's schema do not meet
    │   └── ModelRaisedError   3    the model raised on a batch of rows: fewer of them it may score
    ├── ValidationRefused      4    the staged output was judged and not published
    │   └── BadRowsError       4    rows that cannot be scored
    ├── InputError             5    the input is missing, empty or unreadable
    ├── FencedOutError         6    another run published these units meanwhile, or took this run over
    ├── UnavailableError       7    storage, cluster or registry not reachable: worth a retry
    │   └── UnsureError        7    whether a commit landed is not known
    └── SetupError             2    this machine lacks Java, a jar, a package: `batchscore doctor` says which

An error takes facts, keeps them as attributes and composes its own bounded text: what, what was there,
what is allowed, and what to do next, its secrets masked. Errors travel from executors, so they pickle.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import ClassVar, TypeVar

from batchscore.redaction import MAX_READ_CHARS, redact

# A message made from data stays readable: one list and one value are cut at these sizes.
MAX_ITEMS = 10
MAX_VALUE_CHARS = 200
MAX_TEXT_CHARS = 4_000

Item = TypeVar("Item")


def bounded(value: object, limit: int = MAX_VALUE_CHARS) -> str:
    """``value`` as text of at most ``limit`` characters, its secrets masked: half of one would still be one.

    >>> bounded("abcdef", limit=4)
    'abc…'
    """
    text = redact(str(value)[:MAX_READ_CHARS])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(items: Iterable[Item], limit: int = MAX_ITEMS, spelled: Callable[[Item], object] = str) -> str:
    """At most ``limit`` items, comma separated, with the number of those left out; only those shown are spelled.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    rest = iter(items)
    shown = ", ".join(bounded(spelled(item)) for item in islice(rest, limit))
    left = sum(1 for _ in rest)
    return f"{shown} and {left} more" if left > 0 else shown


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Known names close to ``name``, best first; case is ignored.

    >>> nearest("fraud_detektion", ["fraud_detection", "churn"])
    ['fraud_detection']
    """
    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), candidate)
    found = difflib.get_close_matches(name.casefold(), list(by_folded), n=limit, cutoff=0.6)
    return [by_folded[folded] for folded in found]


class BatchscoreError(Exception):
    """Base of all errors that batchscore raises on purpose.

    Args:
        problem: what is wrong and which thing it concerns, one sentence without a full stop.
        found: what was there instead.
        allowed: what would be accepted; at most ten are shown.
        near: known names close to the one given.
        hint: what to do next.
        detail: further lines, for example the failed checks; bounded.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        problem: str,
        *,
        found: object = None,
        allowed: Sequence[object] = (),
        near: Sequence[str] = (),
        hint: str | None = None,
        detail: Sequence[str] = (),
    ) -> None:
        self.problem = bounded(problem, 1_000)
        self.found = None if found is None else bounded(found)
        self.allowed = tuple(bounded(item) for item in allowed)
        self.near = tuple(bounded(item) for item in near)
        self.hint = None if hint is None else bounded(hint, 1_000)
        self.detail = tuple(bounded(line, 500) for line in detail)
        super().__init__(self.text())

    def text(self) -> str:
        """The whole message, at most 4,000 characters."""
        lines = [self.problem]
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.near:
            lines.append(f"  did you mean: {listed(self.near)}?")
        if self.allowed:
            lines.append(f"  allowed: {listed(self.allowed)}")
        lines.extend(f"  {line}" for line in self.detail)
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return bounded("\n".join(lines), MAX_TEXT_CHARS)

    def as_dict(self) -> dict[str, object]:
        """The facts for ``--json``."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "problem": self.problem,
            "found": self.found,
            "allowed": list(self.allowed),
            "near": list(self.near),
            "detail": list(self.detail),
            "hint": self.hint,
        }

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles by facts; the default would pass the composed text as ``problem``."""
        facts = {
            "problem": self.problem,
            "found": self.found,
            "allowed": self.allowed,
            "near": self.near,
            "hint": self.hint,
            "detail": self.detail,
        }
        return _rebuild, (type(self), facts)


def _rebuild(kind: type[BatchscoreError], facts: dict[str, object]) -> BatchscoreError:
    return kind(**facts)  # type: ignore[arg-type]  # the facts are the constructor's own


class SettingsError(BatchscoreError):
    """A flag, a key of a settings file or the output's layout is wrong."""

    exit_code = 2


class SetupError(BatchscoreError):
    """This machine lacks something: Java, a jar, a Python package."""

    exit_code = 2


class ModelError(BatchscoreError):
    """The model is unknown, damaged, or raised while it scored."""

    exit_code = 3


class SchemaMismatchError(ModelError):
    """The model's signature does not fit the table's columns."""


class ModelRaisedError(ModelError):
    """The model raised on the rows that it was given; on others it may not."""


class ValidationRefused(BatchscoreError):  # noqa: N818  # a verdict on data, not a fault of the program
    """The staged output failed validation; nothing became visible."""

    exit_code = 4


class BadRowsError(ValidationRefused):
    """Rows that cannot be cast or scored; up to ten are named by their keys."""


class InputError(BatchscoreError):
    """The input is missing, empty, unreadable, or changed while it was read."""

    exit_code = 5


class FencedOutError(BatchscoreError):
    """Another run published other content for these units, or took this run over."""

    exit_code = 6


class UnavailableError(BatchscoreError):
    """Storage, cluster or registry could not be reached, or a live run holds the units."""

    exit_code = 7


class UnsureError(UnavailableError):
    """Storage failed during a commit that may have landed, or may yet: what the run staged has to stay."""


class OutOfMemoryError(UnavailableError):
    """A worker ran out of memory, or was killed as one that does is."""


def unit_text(values: Iterable[tuple[str, str | None]]) -> str:
    """A unit as its path would say it.

    >>> unit_text((("ds", "2026-11-01"), ("country", None))), unit_text(())
    ('ds=2026-11-01/country=null', 'whole table')
    """
    return "/".join(f"{column}={'null' if value is None else bounded(value)}" for column, value in values) or (
        "whole table"
    )
