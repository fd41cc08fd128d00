"""What is wrong with predictions, row by row: the same where they are made and where they are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.values import array_of, scalar_of

Wrong: TypeAlias = Callable[[pa.Array], pa.Array]


def not_finite(values: pa.Array) -> pa.Array:
    """Marks what is NaN, infinite or null; of arrays, those that hold such a value.

    >>> not_finite(pa.array([1.0, float("nan"), None])).to_pylist()
    [False, True, True]
    """
    if not pa.types.is_list(values.type):
        return pc.invert(pc.fill_null(pc.is_finite(values), scalar_of(False, pa.bool_())))
    return _rows_with(values, not_finite)


def any_null(values: pa.Array) -> pa.Array:
    """Marks nulls; of arrays, those that hold one, too.

    >>> any_null(pa.array([[1], [None], None])).to_pylist()
    [False, True, True]
    """
    return _rows_with(values, any_null) if pa.types.is_list(values.type) else pc.is_null(values)


def _rows_with(values: pa.ListArray, wrong: Wrong) -> pa.Array:
    """Marks the rows that are null or hold an element that ``wrong`` marks."""
    marks = values.is_null()
    at_fault = pc.filter(pc.list_parent_indices(values), wrong(pc.list_flatten(values)))
    if len(at_fault) == 0:
        return marks
    rows = array_of(range(len(values)), pa.int64())
    return pc.or_(marks, pc.is_in(rows, at_fault.cast(pa.int64())))


def unknown_class(classes: Sequence[str], type_name: str) -> Wrong:
    """Marks labels that are none of a model's classes.

    Args:
        classes: the labels as text.
        type_name: of the column that is looked at.

    >>> unknown_class(("0", "1"), "long")(pa.array([0, 2])).to_pylist()
    [False, True]
    """
    folded = type_name == "boolean"  # Arrow writes true, Python True
    known = array_of([label.casefold() if folded else label for label in classes], pa.string())

    def wrong(values: pa.Array) -> pa.Array:
        return pc.and_(values.is_valid(), pc.invert(pc.is_in(values.cast(pa.string()), known)))

    return wrong
