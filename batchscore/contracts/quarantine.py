"""Rows that cannot be scored, or must not be published: what asks for that, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from batchscore.contracts.columns import Predicate, Schema, UnitValues

Reason: TypeAlias = Literal[
    "null_key",
    "null",
    "cast",
    "required",
    "out_of_range",
    "not_allowed",
    "no_match",
    "rule",
    "model_raised",
    "not_finite",
    "null_prediction",
    "unknown_class",
]

# What each reason says of a row, for people.
REASONS: dict[Reason, str] = {
    "null_key": "a key column is null",
    "null": "a column is null that the model does not take without a value",
    "cast": "a value does not survive the cast to the model's type",
    "required": "a rule asks for a value, and there is none",
    "out_of_range": "a value lies outside of a rule's range",
    "not_allowed": "a value is none of those that a rule allows",
    "no_match": "a text does not match a rule's regular expression",
    "rule": "a rule's SQL condition is false",
    "model_raised": "the model raised on this row alone",
    "not_finite": "the prediction is NaN, infinite or null",
    "null_prediction": "the prediction is null",
    "unknown_class": "the prediction is none of the model's classes",
}

REASON_COLUMN = "_reason"
COLUMN_COLUMN = "_column"
DETAIL_COLUMN = "_detail"
VALUES_COLUMN = "_values"
QUARANTINE_SUFFIX = "__quarantine"


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on each row; a row breaks it where the condition is false, not where it is unknown.

    Attributes:
        name: as it stands in ``_detail``.
        reason: what a row that breaks it is quarantined for.
        columns: the columns that the condition reads: of the input, or the prediction table's outputs.
        holds: the condition.
        of_output: whether it is looked at after scoring.
        sql: where Spark has to evaluate it: the condition's text; ``holds`` then reads ``columns[0]``, in which
            Spark puts its value.
        named: the columns of the input that ``sql`` reads. No part of what units are told by: it changes no score.
    """

    name: str
    reason: Reason
    columns: tuple[str, ...]
    holds: Predicate
    of_output: bool = False
    sql: str = ""
    named: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class QuarantineLimits:
    """How many rows of a run may be quarantined before the run is refused.

    Attributes:
        max_fraction: of the rows read, those that a condition left out not counted.
        max_rows: rows, or None.
    """

    max_fraction: float = 0.0
    max_rows: int | None = None

    def exceeded(self, quarantined: int, rows: int) -> bool:
        """Whether so many of the rows are too many.

        >>> QuarantineLimits(0.01).exceeded(1, 100), QuarantineLimits(0.01).exceeded(2, 100)
        (False, True)
        """
        if self.max_rows is not None and quarantined > self.max_rows:
            return True
        return quarantined > self.max_fraction * rows


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """Rows quarantined for one reason, of one column or rule."""

    reason: Reason
    column: str
    rows: int


def merged(counts: Iterable[ReasonCount]) -> tuple[ReasonCount, ...]:
    """The counts of several batches or tasks, one for each reason and column.

    >>> merged([ReasonCount("cast", "a", 1), ReasonCount("cast", "a", 2)])
    (ReasonCount(reason='cast', column='a', rows=3),)
    """
    rows: dict[tuple[Reason, str], int] = {}
    for count in counts:
        rows[count.reason, count.column] = rows.get((count.reason, count.column), 0) + count.rows
    return tuple(ReasonCount(reason, column, total) for (reason, column), total in sorted(rows.items()))


@dataclass(frozen=True, slots=True)
class Replay:
    """Which rows a replay takes: those that one run quarantined.

    Attributes:
        run_id: that run.
        keys: key and partition columns with their types, by which rows are found again.
        files: the quarantine's data files that hold them, relative to its root.
        uri: root of the quarantine table.
        units: where in the prediction table they belong.
    """

    run_id: str
    keys: Schema
    files: tuple[str, ...]
    uri: str
    units: tuple[UnitValues, ...]
