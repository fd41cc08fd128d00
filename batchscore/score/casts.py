"""Table columns become model inputs, by the casts that the plan decided.

Each function returns the cast column and a boolean mask of the rows that it cannot represent, or None where
all rows are good: the mask is built only after the fast cast failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import from_arrow, to_arrow
from batchscore.arrow.values import array_of, numbers_of, scalar_of
from batchscore.contracts import Binding, ModelInput, Reason
from batchscore.schema import decimal_parts, element_of, is_decimal

# Arrow's own decimal-to-double cast is off by one unit in the last place for some values (0.000055 is one), while
# Spark's and Python's float() give the nearest double. A whole number of up to 15 digits and 10**scale are both
# exact doubles, so that their quotient is the nearest; longer decimals go through their text.
EXACT_DECIMAL_DIGITS = 15
_CAST: Reason = "cast"


@dataclass(frozen=True, slots=True)
class CastColumn:
    """A cast column and the rows it could not represent (None: none); ``code`` says why, and ``reason`` in words.

    ``parts`` are the columns that it is made of, in binding order, where it is more than one.
    """

    values: pa.Array
    bad: pa.Array | None
    reason: str = ""
    code: Reason = _CAST
    parts: tuple[CastColumn, ...] = ()


def normalized(values: pa.Array, name: str) -> pa.Array:
    """``values`` in the Arrow type of the type name: dictionaries decoded, large and view types narrowed.

    Raises:
        pa.ArrowInvalid: for a timestamp whose nanoseconds a table in microseconds would lose.
    """
    target = to_arrow(name)
    if values.type == target:
        return values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(target)


def is_coded_text(values: pa.Array) -> bool:
    """Whether a column is text as a dictionary."""
    return bool(pa.types.is_dictionary(values.type) and pa.types.is_string(values.type.value_type))


def bind(columns: Sequence[pa.Array], bindings: Sequence[Binding], model_input: ModelInput) -> CastColumn:
    """The one column that a model input takes, from the table columns bound to it, in binding order."""
    cast = [_bound(values, binding) for values, binding in zip(columns, bindings, strict=True)]
    if model_input.columns:
        return _stacked(cast, model_input)
    return _shaped(cast[0], model_input)


def _bound(values: pa.Array, binding: Binding) -> CastColumn:
    column = _cast(values, binding)
    if binding.null_rows_bad and column.values.null_count:
        nulls = column.values.is_null()
        reason = f"null, and the model's {binding.model_type} has none"
        if column.bad is None:
            return CastColumn(column.values, nulls, reason, "null")
        return CastColumn(column.values, pc.or_(column.bad, nulls), f"{column.reason}, or {reason}")
    return column


def _cast(values: pa.Array, binding: Binding) -> CastColumn:
    target = to_arrow(binding.model_type)
    if binding.cast == "to_utc":
        # Arrow keeps an instant as UTC; dropping the zone leaves the UTC wall-clock time.
        return CastColumn(values.cast(pa.timestamp("us", tz="UTC")).cast(target), None)
    if is_decimal(binding.source_type) and binding.model_type == "double":
        return CastColumn(_decimal_to_double(values), None)
    if values.type == target or (pa.types.is_string(target) and is_coded_text(values)):
        return CastColumn(values, None)
    try:
        return CastColumn(values.cast(target), None)
    except pa.ArrowInvalid:
        if binding.cast != "checked" or element_of(binding.model_type) is not None:
            raise
        reason = f"does not survive the cast from {binding.source_type} to {binding.model_type}"
        return CastColumn(*_round_trip(values, target), reason)


def _decimal_to_double(values: pa.Array) -> pa.Array:
    precision, scale = decimal_parts(from_arrow(values.type))
    if precision > EXACT_DECIMAL_DIGITS or not 0 <= scale <= EXACT_DECIMAL_DIGITS:
        return values.cast(pa.string()).cast(pa.float64())
    if not len(values):
        return pa.nulls(0, pa.float64())
    # A decimal is 16 bytes, low word first; up to 18 digits fit the low word.
    words = np.frombuffer(values.buffers()[1], dtype="<i8").reshape(-1, 2)
    unscaled = words[values.offset : values.offset + len(values), 0]
    quotients = array_of(unscaled / 10.0**scale, pa.float64())
    return pc.if_else(values.is_valid(), quotients, pa.nulls(1, pa.float64())[0]) if values.null_count else quotients


def _round_trip(values: pa.Array, target: pa.DataType) -> tuple[pa.Array, pa.Array]:
    forced = values.cast(target, safe=False)
    if pa.types.is_decimal(values.type):
        limits = np.iinfo(target.to_pandas_dtype())
        low, high = (pa.scalar(int(bound)).cast(pa.decimal128(19, 0)) for bound in (limits.min, limits.max))
        same = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
    else:
        same = pc.equal(forced.cast(values.type, safe=False), values)
    bad = pc.fill_null(pc.invert(same), scalar_of(False, pa.bool_()))
    return pc.if_else(bad, scalar_of(0, pa.int8()).cast(target), forced), bad


def _stacked(cast: Sequence[CastColumn], model_input: ModelInput) -> CastColumn:
    """Scalar columns side by side as one row-major matrix: a fixed-size list a row."""
    rows = len(cast[0].values)
    numpy_type = to_arrow(model_input.type).to_pandas_dtype()
    matrix = np.empty((rows, len(cast)), dtype=numpy_type)
    bad: pa.Array | None = None
    reason, code = "", _CAST
    for index, column in enumerate(cast):
        values = column.values
        if values.null_count:
            fill = np.nan if pa.types.is_floating(values.type) else 0
            values = values.fill_null(scalar_of(fill, values.type))
        matrix[:, index] = numbers_of(values)
        if column.bad is not None:
            bad = column.bad if bad is None else pc.or_(bad, column.bad)
            reason, code = column.reason, column.code
    flat = array_of(matrix.reshape(-1), to_arrow(model_input.type))
    return CastColumn(pa.FixedSizeListArray.from_arrays(flat, len(cast)), bad, reason, code, tuple(cast))


def _shaped(column: CastColumn, model_input: ModelInput) -> CastColumn:
    """A tensor input's array column must hold as many elements a row as the signature's shape says."""
    shape = model_input.shape
    if shape is None or len(shape) < 2:  # noqa: PLR2004  # (rows,) is a plain column
        return column
    values = column.values
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        return column
    inner = shape[1:]
    if -1 in inner or pa.types.is_list(values.type.value_type):
        return column
    width = int(np.prod(inner))
    lengths = pc.fill_null(pc.list_value_length(values), scalar_of(-1, pa.int32()))
    wrong = pc.not_equal(lengths, width)
    if not pc.any(wrong).as_py() and values.flatten().null_count == 0:
        return CastColumn(
            pa.FixedSizeListArray.from_arrays(values.flatten(), width), column.bad, column.reason, column.code
        )
    reason = f"the model takes {width} elements a row, none of them null"
    bad = pc.or_(wrong, _has_null_element(values))
    return CastColumn(values, bad if column.bad is None else pc.or_(column.bad, bad), reason)


def _has_null_element(values: pa.Array) -> pa.Array:
    flags = np.zeros(len(values), dtype=bool)
    parents = numbers_of(pc.list_parent_indices(values))
    flags[parents[numbers_of(values.flatten().is_null())]] = True
    return array_of(flags, pa.bool_())
