"""How far two scored batches are apart, row by row."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Values = np.ndarray[Any, Any]

# Two classes, or a probability and one half, that are nearer than this in the reference are a tie: which of them is
# ahead is rounding. What the settings allow does not widen it, because who accepts a difference of 0.01 may still
# accept no flip.
TIE = 1e-6
HALF = 0.5
# What a float, and a sum of doubles, cannot tell apart, relative to the value: for predictions of millions an
# absolute limit would ask for more digits than there are.
FLOAT_ROUNDING = 2.0**-23
DOUBLE_ROUNDING = 1e-12
VECTOR = 2  # elements of the smallest vector of probabilities
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Rows:
    """Differences of one output; each array has one element a row.

    Attributes:
        absolute: difference of numbers; 0 where nothing is to be compared, inf for finite against infinite.
        relative: the same relative to the reference; inf where that is 0 and the other is not.
        flips: whether the label differs.
        missing: whether one is NaN, or null, and the other is not.
    """

    absolute: Values
    relative: Values
    flips: Values
    missing: Values


def layout_reason(expected: pa.RecordBatch, found: pa.RecordBatch) -> str | None:
    """Why two scored batches cannot be compared: other names, types or numbers of rows; None where they can."""
    if expected.schema.names != found.schema.names:
        return f"its outputs are {found.schema.names}, the reference's {expected.schema.names}"
    for name, one, two in zip(expected.schema.names, expected.schema.types, found.schema.types, strict=True):
        if one != two:
            return f"output {name} is {two}, the reference's {one}"
    if expected.num_rows != found.num_rows:
        return f"it returned {found.num_rows} rows for {expected.num_rows}"
    return None


def differences(expected: pa.Array, found: pa.Array, *, probability: bool) -> Rows:
    """Compares one output of the reference with another engine's.

    Numbers with a fraction are subtracted. Whole numbers, text, truth values and the like are labels: a different
    one is a flip. A vector that sums to one holds the probabilities of classes: its label is the largest.

    Args:
        expected: the reference's output.
        found: the other's, of the same type and length.
        probability: whether a number is a probability, whose label changes at one half.
    """
    if _is_list(expected.type):
        return _vectors(expected, found)
    nulls = _differ(expected.is_null(), found.is_null())
    if not pa.types.is_floating(expected.type):
        other = pc.fill_null(pc.not_equal(expected, found), False).to_numpy(zero_copy_only=False)
        return Rows(np.zeros(len(expected)), np.zeros(len(expected)), other, nulls)
    one, two = _numbers(expected), _numbers(found)
    absolute, relative = _apart(one, two)
    flips = np.zeros(len(one), bool)
    if probability:
        flips = ((one > HALF) != (two > HALF)) & (np.abs(one - HALF) > TIE) & (one >= 0) & (one <= 1)
        flips &= ~np.isnan(two)
    return Rows(absolute, relative, flips, nulls | (np.isnan(one) != np.isnan(two)))


def rounding(arrow: pa.DataType) -> float:
    """The relative difference that is rounding in values of this type, or in lists of it."""
    element = arrow.value_type if _is_list(arrow) else arrow
    return FLOAT_ROUNDING if pa.types.is_float32(element) else DOUBLE_ROUNDING


def is_probability(name: str, known: Collection[str]) -> bool:
    """Whether an output is a probability: it is known to be one, or named like one.

    >>> is_probability("probability", ()), is_probability("score", ()), is_probability("score", ["score"])
    (True, False, True)
    """
    return name in known or "prob" in name.casefold()


def _vectors(expected: pa.Array, found: pa.Array) -> Rows:
    rows = len(expected)
    nulls = _differ(expected.is_null(), found.is_null())
    one, two = _lengths(expected), _lengths(found)
    if not pa.types.is_floating(expected.type.value_type):
        other = np.array([a != b for a, b in zip(expected.to_pylist(), found.to_pylist(), strict=True)], bool)
        return Rows(np.zeros(rows), np.zeros(rows), other & ~nulls, nulls)
    result = Rows(np.zeros(rows), np.zeros(rows), np.zeros(rows, bool), nulls.copy())
    result.absolute[one != two] = result.relative[one != two] = np.inf
    for length in np.unique(one[one == two]):
        if length:
            same = (one == two) & (one == length)
            _fill(result, same, _matrix(expected, same, length), _matrix(found, same, length))
    return result


def _fill(result: Rows, rows: Values, one: Values, two: Values) -> None:
    """Differences of vectors of one length, for the ``rows`` of the result."""
    absolute, relative = _apart(one, two)
    result.absolute[rows], result.relative[rows] = absolute.max(axis=1), relative.max(axis=1)
    result.missing[rows] |= (np.isnan(one) != np.isnan(two)).any(axis=1)
    clean = ~(np.isnan(one) | np.isnan(two)).any(axis=1)
    clean &= (one.shape[1] >= VECTOR) & ((one >= 0) & (one <= 1)).all(axis=1)
    clean &= np.abs(np.where(clean[:, None], one, 0.0).sum(axis=1) - 1) < SUM_TOLERANCE
    filled = np.where(np.isnan(two), -np.inf, two)
    line = np.arange(len(one))
    top = np.where(np.isnan(one), -np.inf, one).max(axis=1)
    with np.errstate(invalid="ignore"):  # infinities, which are no probabilities
        result.flips[rows] = clean & (top - one[line, filled.argmax(axis=1)] > TIE)


def _apart(one: Values, two: Values) -> tuple[Values, Values]:
    """Absolute and relative difference; 0 for equal infinities, and where one is NaN, which is counted by itself."""
    with np.errstate(all="ignore"):
        absolute = np.abs(one - two)
        absolute[(one == two) | np.isnan(one) | np.isnan(two)] = 0
        relative = np.where(absolute == 0, 0.0, absolute / np.abs(one))
    relative[np.isnan(relative)] = np.inf  # infinite against another value
    return absolute, relative


def _differ(one: pa.Array, two: pa.Array) -> Values:
    different: Values = pc.xor(one, two).to_numpy(zero_copy_only=False)
    return different


def _numbers(array: pa.Array) -> Values:
    numbers: Values = pc.fill_null(array, np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def _lengths(array: pa.Array) -> Values:
    lengths: Values = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return lengths


def _matrix(array: pa.Array, rows: Values, length: int) -> Values:
    return _numbers(array.filter(pa.array(rows)).flatten()).reshape(-1, length)


def _is_list(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))
