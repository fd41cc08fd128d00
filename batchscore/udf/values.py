"""The values of one output in another type, checked: a number is rounded or refused, never wrapped or cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.errors import ModelError
from batchscore.schema import element_of


def retyped(values: pa.Array, kind: str, label: str, *, short: bool = False) -> pa.Array:
    """``values`` in the Arrow type of ``kind``.

    NaN becomes null, as pandas UDFs hand it to Spark, where NaN would be larger than any threshold. A double becomes
    the nearest float, which is what the type says; any other change of a value is an error. A null stays null in
    text, too.

    Args:
        values: an output; the conversion was planned, so that it exists.
        kind: a type name, arrays included.
        label: the output's name, for messages.
        short: spell a float with as few digits as tell it apart; else as the double that it widens to.

    Raises:
        ModelError: a value does not survive.
    """
    if pa.types.is_list(values.type):
        elements = retyped(values.values, element_of(kind) or kind, label, short=short)
        nulls = values.is_null() if values.null_count else None
        return pa.ListArray.from_arrays(values.offsets, elements, type=to_arrow(kind), mask=nulls)
    target = to_arrow(kind)
    if pa.types.is_string(target):
        return _text(values, short=short)
    if pa.types.is_floating(values.type):
        values = _without_nan(values)
    if values.type == target:
        return values
    if pa.types.is_floating(values.type) and pa.types.is_floating(target):
        return _rounded(values, target, label)
    if pa.types.is_integer(values.type) and pa.types.is_floating(target):
        return _exact(values, target, label)
    try:
        return values.cast(target)
    except pa.ArrowInvalid as error:
        raise _refused(label, kind, error) from error


def _without_nan(values: pa.Array) -> pa.Array:
    nan = pc.is_nan(values)
    return pc.if_else(nan, pa.scalar(None, values.type), values) if pc.any(nan).as_py() else values


def _rounded(values: pa.Array, target: pa.DataType, label: str) -> pa.Array:
    cast = values.cast(target)
    beyond = pc.and_(pc.is_finite(values), pc.invert(pc.is_finite(cast)))
    if pc.any(beyond).as_py():
        raise _refused(label, "float", f"{values.filter(beyond)[0]} is beyond its range")
    return cast


def _exact(values: pa.Array, target: pa.DataType, label: str) -> pa.Array:
    """Whole numbers as floats. Arrow's own check refuses all beyond 2^53, also those that a double holds."""
    cast = values.cast(target, safe=False)
    back = pc.equal(cast.cast(pa.int64(), safe=False), values.cast(pa.int64()))
    changed = pc.invert(pc.and_(back, pc.less(cast, pa.scalar(2.0**63, target))))
    if pc.any(changed).as_py():
        raise _refused(label, str(target), values.filter(changed)[0])
    return cast


def _text(values: pa.Array, *, short: bool) -> pa.Array:
    """What Python's ``str`` makes of each value."""
    if pa.types.is_string(values.type) or pa.types.is_integer(values.type):
        return values.cast(pa.string())
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "True", "False")
    items = values.to_pylist()
    if short and pa.types.is_float32(values.type):
        items = [None if item is None else np.float32(item) for item in items]
    return pa.array([None if item is None else str(item) for item in items], pa.string())


def _refused(label: str, kind: str, found: object) -> ModelError:
    return ModelError(
        f"output {label} of the model holds a value that result_type {kind} cannot hold unchanged",
        found=found,
        hint="ask for a wider type, for example long, double or string",
    )
