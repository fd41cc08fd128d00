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
    named = [values for values in units if values]
    if not named:
        return frame
    return frame.where(reduce(or_, (_matches(frame, values) for values in named)))


def _matches(frame: DataFrame, values: UnitValues) -> Column:
    from pyspark.sql import functions as sf  # noqa: PLC0415  # planning imports this room without Spark

    def equals(name: str, value: str | None) -> Column:
        # The text is canonical for the column's type, so its cast is the value.
        return sf.col(quoted(name)).eqNullSafe(sf.lit(value).cast(frame.schema[name].dataType))

    return reduce(and_, (equals(name, value) for name, value in values))
