"""Whether two columns hold the same bits: NaN equals the same NaN, 0.0 is not -0.0, null equals null."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.values import array_of, numbers_of, scalar_of

Flags: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
_WHOLE = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def same_bits(left: pa.Array, right: pa.Array) -> Flags:
    """For each row whether both columns hold the same value, bit for bit.

    Args:
        left: a column.
        right: one of as many rows; a column of another type has no row alike.

    >>> same_bits(pa.array([0.0, float("nan"), None]), pa.array([-0.0, float("nan"), None])).tolist()
    [False, True, True]
    """
    if _is_list(left.type) and _is_list(right.type):
        return _same_lists(left, right)
    if left.type != right.type:
        return np.zeros(len(left), np.bool_)
    if pa.types.is_floating(left.type):
        whole = _WHOLE[left.type.bit_width]
        left, right = left.view(whole), right.view(whole)
    nulls = pc.and_(left.is_null(), right.is_null())
    same = pc.fill_null(pc.equal(left, right), scalar_of(False, pa.bool_()))
    return numbers_of(pc.or_(same, nulls))


def largest_difference(left: pa.Array, right: pa.Array) -> float | None:
    """The largest absolute difference of numbers; infinity where one is missing or NaN alone, None for other types."""
    if _is_list(left.type) and _is_list(right.type):
        left, right = left.flatten(), right.flatten()
        if len(left) != len(right):
            return float("inf")
    if not (_is_number(left.type) and _is_number(right.type)) or not len(left):
        return None
    first, second = (numbers_of(side.cast(pa.float64(), safe=False)) for side in (left, right))
    with np.errstate(invalid="ignore"):
        gap = np.abs(first - second)
    gap[same_bits(left, right)] = 0.0
    gap[np.isnan(gap)] = np.inf
    return float(gap.max())


def _same_lists(left: pa.Array, right: pa.Array) -> Flags:
    lengths = [pc.fill_null(pc.list_value_length(side), scalar_of(-1, pa.int32())) for side in (left, right)]
    same = numbers_of(pc.equal(*lengths)).copy()
    chosen = array_of(same, pa.bool_())
    left, right = left.filter(chosen), right.filter(chosen)
    parents = numbers_of(pc.list_parent_indices(left))
    inner = np.ones(len(left), np.bool_)
    inner[parents[~same_bits(left.flatten(), right.flatten())]] = False
    same[same] = inner
    return same


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
