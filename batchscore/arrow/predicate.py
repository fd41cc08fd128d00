"""Predicates as Arrow expressions that keep the rows that Spark keeps.

Spark's rules beyond SQL's three-valued logic: NaN equals NaN and is greater than any other number, -0.0 equals
0.0, and a comparison happens in a type that holds both sides. Arrow compares floats by IEEE 754, where nothing
equals NaN, so NaN is handled apart.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence

import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import null_scalar, typed_array
from batchscore.contracts import And, Compare, Constant, IsIn, IsNull, Not, Or, Predicate, Schema
from batchscore.schema import FLOATS, INTEGERS, MAX_DECIMAL_PRECISION, decimal_parts, is_decimal

_OPERATORS: dict[str, Callable[[pc.Expression, pc.Expression], pc.Expression]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TRUE, _FALSE = (pc.scalar(value) for value in typed_array([True, False], "boolean"))
_UNKNOWN = pc.scalar(null_scalar("boolean"))


def expression(predicate: Predicate, columns: Schema) -> pc.Expression:
    """The predicate as a filter expression over batches with the types of ``columns``.

    Args:
        predicate: the tree; constants and columns must be comparable without loss, as ``parse_where`` makes sure.
        columns: at least the columns of the predicate.

    Raises:
        ValueError: for a column that is not among ``columns``, or a comparison that would not be exact.

    >>> import pyarrow as pa
    >>> from batchscore.contracts import Column
    >>> tree = Compare("x", ">", Constant(1, "integer"))
    >>> batch = pa.table({"x": [0.5, float("nan"), None, 2.0]})
    >>> batch.filter(expression(tree, (Column("x", "double"),)))["x"].to_pylist()
    [nan, 2.0]
    """
    types = {column.name: column.type for column in columns}
    return _expression(predicate, types)


def _expression(predicate: Predicate, types: dict[str, str]) -> pc.Expression:
    match predicate:
        case Compare(column, op, constant):
            return _compare(_field(column, types), types[column], op, constant)
        case IsIn(column, constants):
            return _is_in(_field(column, types), types[column], constants)
        case IsNull(column):
            return _field(column, types).is_null()
        case Not(operand):
            return ~_expression(operand, types)
        case And(operands):
            return functools.reduce(operator.and_, [_expression(part, types) for part in operands], _TRUE)
        case Or(operands):
            return functools.reduce(operator.or_, [_expression(part, types) for part in operands], _FALSE)


def _field(column: str, types: dict[str, str]) -> pc.Expression:
    if column not in types:
        raise ValueError(f"the predicate reads {column!r}, which is not among the columns {sorted(types)}")
    return pc.field(column)


def _compare(field: pc.Expression, kind: str, op: str, constant: Constant) -> pc.Expression:
    if constant.value is None:
        return field.is_null() if op == "<=>" else _UNKNOWN
    if op == "<=>":
        return field.is_valid() & _compare(field, kind, "=", constant)
    common = common_type(kind, constant.type)
    if common in FLOATS:
        return _compare_float(_cast(field, kind, common), op, float(constant.value))
    return _OPERATORS[op](_cast(field, kind, common), pc.scalar(typed_array([constant.value], common)[0]))


def _compare_float(field: pc.Expression, op: str, value: float) -> pc.Expression:
    if math.isnan(value):
        return _compare_nan(field, op)
    plain = _OPERATORS[op](field, pc.scalar(typed_array([value], "double")[0]))
    # is_nan of null is null, and null or null is null: the logic stays three-valued.
    return plain | pc.is_nan(field) if op in {">", ">="} else plain


def _compare_nan(field: pc.Expression, op: str) -> pc.Expression:
    nan = pc.is_nan(field)
    never = nan & ~nan
    return {"=": nan, "!=": ~nan, "<": ~nan, "<=": ~never, ">": never, ">=": nan}[op]


def _is_in(field: pc.Expression, kind: str, constants: Sequence[Constant]) -> pc.Expression:
    """``x IN (…)``: unknown where x is null, or where nothing matches and a constant is null."""
    values = [constant for constant in constants if constant.value is not None]
    result = _UNKNOWN if len(values) < len(constants) else _FALSE
    by_type: dict[str, list[Constant]] = {}
    for constant in values:
        by_type.setdefault(common_type(kind, constant.type), []).append(constant)
    for common, group in by_type.items():
        known = typed_array(_members(group, common), common)
        found = pc.is_in(_cast(field, kind, common), value_set=known)
        result = result | found
    return pc.if_else(field.is_valid(), result, _UNKNOWN)


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


def _cast(field: pc.Expression, kind: str, common: str) -> pc.Expression:
    # safe=False: a long beyond 2**53 is compared as its nearest double, as Spark does.
    return field if kind == common else field.cast(to_arrow(common), safe=False)
