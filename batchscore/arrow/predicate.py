"""Predicates over Arrow batches, true where Spark's are.

Spark's rules beyond SQL's three-valued logic: NaN equals NaN and is greater than any other number, -0.0 equals
0.0, and a comparison happens in a type that holds both sides. Arrow compares floats by IEEE 754, where nothing
equals NaN, so NaN is handled apart.

Masks are computed column by column: an expression of ``pyarrow.dataset`` would do the same, and import pandas.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import null_scalar, scalar_of, typed_array
from batchscore.contracts import And, Compare, Constant, IsIn, IsNull, Matches, Not, Or, Predicate, Schema
from batchscore.schema import FLOATS, INTEGERS, MAX_DECIMAL_PRECISION, decimal_parts, is_decimal

_Mask: TypeAlias = "pa.BooleanArray | pa.BooleanScalar"
_OPERATORS: dict[str, Callable[[pa.Array, pa.Scalar], pa.Array]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_TRUE, _FALSE = typed_array([True, False], "boolean")
_UNKNOWN = null_scalar("boolean")


def mask(predicate: Predicate, batch: pa.RecordBatch, columns: Schema) -> pa.BooleanArray:
    """For each row whether the predicate holds; null where that is unknown.

    Args:
        predicate: the tree; constants and columns must be comparable without loss, as ``parse_where`` makes sure.
        batch: rows with at least the predicate's columns.
        columns: their types.

    Raises:
        ValueError: for a column that is not among ``columns``, or a comparison that would not be exact.

    >>> from batchscore.contracts import Column
    >>> tree = Compare("x", ">", Constant(1, "integer"))
    >>> batch = pa.RecordBatch.from_pydict({"x": [0.5, float("nan"), None, 2.0]})
    >>> mask(tree, batch, (Column("x", "double"),)).to_pylist()
    [False, True, None, True]
    """
    found = _Evaluation(batch, {column.name: column.type for column in columns}).of(predicate)
    return pa.repeat(found, batch.num_rows) if isinstance(found, pa.Scalar) else found


class _Evaluation:
    """One batch, and the types of its columns."""

    def __init__(self, batch: pa.RecordBatch, types: dict[str, str]) -> None:
        self._batch, self._types = batch, types

    def of(self, predicate: Predicate) -> _Mask:
        match predicate:
            case Compare(column, op, constant):
                return _compare(self._column(column), self._types[column], op, constant)
            case IsIn(column, constants):
                return _is_in(self._column(column), self._types[column], constants)
            case Matches(column, pattern):
                return pc.match_substring_regex(self._column(column), pattern)
            case IsNull(column):
                return self._column(column).is_null()
            case Not(operand):
                return pc.invert(self.of(operand))
            case And(operands) | Or(operands):
                join, start = (pc.and_kleene, _TRUE) if isinstance(predicate, And) else (pc.or_kleene, _FALSE)
                return functools.reduce(join, [self.of(part) for part in operands], start)

    def _column(self, name: str) -> pa.Array:
        if name not in self._types:
            raise ValueError(f"the predicate reads {name!r}, which is not among the columns {sorted(self._types)}")
        return self._batch.column(name)


def _compare(values: pa.Array, kind: str, op: str, constant: Constant) -> _Mask:
    if constant.value is None:
        return values.is_null() if op == "<=>" else _UNKNOWN
    if op == "<=>":
        return pc.and_kleene(values.is_valid(), _compare(values, kind, "=", constant))
    common = common_type(kind, constant.type)
    if common in FLOATS:
        return _compare_float(_cast(values, kind, common), op, float(constant.value))
    return _OPERATORS[op](_cast(values, kind, common), typed_array([constant.value], common)[0])


def _compare_float(values: pa.Array, op: str, value: float) -> _Mask:
    if math.isnan(value):
        return _compare_nan(values, op)
    plain = _OPERATORS[op](values, scalar_of(value, values.type))
    # is_nan of null is null, and null or null is null: the logic stays three-valued.
    return pc.or_kleene(plain, pc.is_nan(values)) if op in {">", ">="} else plain


def _compare_nan(values: pa.Array, op: str) -> _Mask:
    nan = pc.is_nan(values)
    never = pc.and_kleene(nan, pc.invert(nan))
    masks = {"=": nan, "!=": pc.invert(nan), "<": pc.invert(nan), "<=": pc.invert(never), ">": never, ">=": nan}
    return masks[op]


def _is_in(values: pa.Array, kind: str, constants: Sequence[Constant]) -> _Mask:
    """``x IN (…)``: unknown where x is null, or where nothing matches and a constant is null."""
    known = [constant for constant in constants if constant.value is not None]
    result: _Mask = _UNKNOWN if len(known) < len(constants) else _FALSE
    by_type: dict[str, list[Constant]] = {}
    for constant in known:
        by_type.setdefault(common_type(kind, constant.type), []).append(constant)
    for common, group in by_type.items():
        members = typed_array(_members(group, common), common)
        result = pc.or_kleene(result, pc.is_in(_cast(values, kind, common), value_set=members))
    return pc.if_else(values.is_valid(), result, _UNKNOWN)


def _members(constants: Sequence[Constant], common: str) -> list[str | int | float | bool]:
    """The constants' values; a zero brings both of its signs, because ``is_in`` compares bits."""
    values = [constant.value for constant in constants if constant.value is not None]
    if common in FLOATS and any(float(value) == 0.0 for value in values):
        values += [0.0, -0.0]
    return values


def common_type(column: str, constant: str) -> str:
    """The type in which Spark compares a column with a constant, where that is exact.

    Raises:
        ValueError: where it is not exact, or Spark's answer depends on its settings.

    >>> common_type("integer", "long"), common_type("float", "decimal(2,1)"), common_type("decimal(5,2)", "integer")
    ('long', 'double', 'decimal(12,2)')
    """
    if column == constant:
        return column
    found = None
    if column in INTEGERS and constant in INTEGERS:
        found = INTEGERS[max(INTEGERS.index(column), INTEGERS.index(constant))]
    elif (column in FLOATS and _is_number(constant)) or (constant == "double" and column in INTEGERS):
        found = "double"
    elif is_decimal(column) and (is_decimal(constant) or constant in INTEGERS):
        found = _common_decimal(column, constant)
    elif column == "timestamp_ntz" and constant == "date":
        found = "timestamp_ntz"
    if found is None:
        raise ValueError(f"a {column} column is not compared exactly with a {constant}")
    return found


def _is_number(kind: str) -> bool:
    return kind in INTEGERS or kind in FLOATS or is_decimal(kind)


def _common_decimal(column: str, constant: str) -> str | None:
    digits = {"byte": 3, "short": 5, "integer": 10, "long": 20}
    (p1, s1) = decimal_parts(column)
    (p2, s2) = (digits[constant], 0) if constant in digits else decimal_parts(constant)
    scale = max(s1, s2)
    precision = max(p1 - s1, p2 - s2) + scale
    return f"decimal({precision},{scale})" if precision <= MAX_DECIMAL_PRECISION else None


def _cast(values: pa.Array, kind: str, common: str) -> pa.Array:
    # safe=False: a long beyond 2**53 is compared as its nearest double, as Spark does.
    return values if kind == common else values.cast(to_arrow(common), safe=False)
