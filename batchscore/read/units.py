"""A DataFrame restricted to the units that a run scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING

from batchscore.contracts import UnitValues
from batchscore.schema import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def only_units(frame: DataFrame, units: Sequence[UnitValues]) -> DataFrame:
    """The rows of ``frame`` that belong to ``units``; all rows where there is no unit to name, or only ``()``."""
    from pyspark.sql import functions as sf  # noqa: PLC0415  # planning imports this room without Spark

    named = [values for values in units if values]
    if not named:
        return frame
    types = {field.name: field.dataType.simpleString() for field in frame.schema}

    def has(name: str, values: Sequence[str | None]) -> Column:
        return among(sf.col(quoted(name)), values, types[name])

    # One set of values of the column that has most of them, for each combination of the others.
    place = max(range(len(named[0])), key=lambda index: len({values[index][1] for values in named}))
    widest = named[0][place][0]
    by_others: dict[UnitValues, list[str | None]] = {}
    for values in named:
        by_others.setdefault((*values[:place], *values[place + 1 :]), []).append(values[place][1])
    conditions = [
        reduce(and_, (has(widest, values), *(has(name, [value]) for name, value in others)))
        for others, values in by_others.items()
    ]
    return frame.where(_any_of(conditions))


def among(column: Column, values: Sequence[str | None], kind: str) -> Column:
    """Whether a column has one of these values; null is a value like any other.

    Args:
        column: the column.
        values: each the canonical text of the column's type, so that its cast is the value.
        kind: that type, as Spark names it.
    """
    from pyspark.sql import functions as sf  # noqa: PLC0415  # as above

    typed = [sf.lit(value).cast(kind) for value in values if value is not None]
    found: list[Column] = []
    if typed:
        found.append(column == typed[0] if len(typed) == 1 else column.isin(typed))
    if None in values:
        found.append(column.isNull())
    return _any_of(found or [sf.lit(False)])


def _any_of(conditions: Sequence[Column]) -> Column:
    """Whether one holds: as a tree of little depth, because Catalyst's stack ends on a chain of thousands."""
    while len(conditions) > 1:
        conditions = [reduce(or_, conditions[start : start + 2]) for start in range(0, len(conditions), 2)]
    return conditions[0]
