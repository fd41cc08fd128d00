"""A ``--where`` text becomes a predicate tree, or a reason why Spark must evaluate it.

Only what has one meaning under every Spark setting is taken: comparisons of a column with a constant that are
exact in the type Spark compares in, IN, BETWEEN, IS NULL, boolean columns, AND, OR and NOT. Whatever depends on
ANSI mode, the session's time zone, string casts or escapes is left to Spark.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Literal, TypeAlias

import numpy as np
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batchscore.arrow.predicate import common_type
from batchscore.contracts import And, Column, Compare, Constant, IsIn, IsNull, Not, Or, Predicate, Schema
from batchscore.errors import SettingsError
from batchscore.read.partitions import find_column
from batchscore.schema import FLOATS, INTEGERS, is_decimal

Op: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "<=>"]

_OPS: dict[type[exp.Expr], Op] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "<=>",
}
_MIRRORED: dict[Op, Op] = {"=": "=", "!=": "!=", "<=>": "<=>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_WALL_TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,6})?")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})")
_INTEGER = re.compile(r"\d+")
_DECIMAL = re.compile(r"\d+\.\d*|\.\d+")
_EXPONENT = re.compile(r"(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_NOT_BOOLEAN = (exp.Literal, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Concat, exp.DPipe)


class _Outside(Exception):  # noqa: N818  # control flow inside this module: the text lies outside the subset
    """Carries the reason."""


def parse_where(sql: str, columns: Schema) -> Predicate | str:
    """The predicate tree of a filter, or the reason why Spark must evaluate it.

    Args:
        sql: a boolean expression over the table's columns, in Spark's SQL.
        columns: the table's columns.

    Raises:
        SettingsError: for text that does not parse, several statements, subqueries, unknown columns (with near
            names) and what is not a boolean expression.

    >>> columns = (Column("amount", "double"), Column("ds", "date"))
    >>> parse_where("AMOUNT > 5 and ds = '2026-11-21'", columns).operands[0]
    Compare(column='amount', op='>', constant=Constant(value=5, type='integer'))
    >>> parse_where("upper(ds) = 'X'", columns)
    'only columns, constants, comparisons, IN, BETWEEN, IS NULL, AND, OR and NOT are read without Spark, not UPPER(ds)'
    """
    tree = _parsed(sql)
    _check_scope(tree, columns)
    _check_boolean(tree, columns)
    if "\\" in sql:
        return "a backslash in a string depends on Spark's escape settings"
    try:
        return _predicate(tree, columns)
    except _Outside as outside:
        return str(outside)


def _parsed(sql: str) -> exp.Expr:
    if not sql.strip():
        raise SettingsError("--where is empty", hint="leave it out, or give a boolean expression such as amount > 5")
    try:
        tree = sqlglot.parse_one(sql, dialect="spark", into=exp.Condition)
    except SqlglotError as error:
        raise SettingsError(
            "--where is not one boolean SQL expression",
            found=sql,
            detail=(str(error).splitlines()[0],),
            hint="give what stands after WHERE, for example: amount > 5 AND country = 'DE'",
        ) from error
    if tree is None or isinstance(tree, exp.Block):
        raise SettingsError("--where holds several statements", found=sql, allowed=("one boolean expression",))
    return tree


def _check_scope(tree: exp.Expr, columns: Schema) -> None:
    """Nothing but the table's own columns, no other table and no parameter."""
    for kind, what in ((exp.Query, "a subquery"), (exp.Table, "another table"), (exp.Placeholder, "a parameter")):
        if tree.find(kind):
            raise SettingsError(f"--where holds {what}", found=tree.sql("spark"), allowed=("the table's own columns",))
    if tree.find(exp.AggFunc, exp.Window):
        raise SettingsError("--where holds an aggregate", found=tree.sql("spark"), allowed=("row by row conditions",))
    for column in tree.find_all(exp.Column):
        _resolved(column, columns)


def _resolved(column: exp.Column, columns: Schema) -> Column:
    """The table's column; of a struct's field (``a.b``) the struct."""
    name = column.parts[0].name if len(column.parts) > 1 else column.name
    return find_column(name, columns, "--where names a column that the table does not have")


def _check_boolean(tree: exp.Expr, columns: Schema) -> None:
    """Refuses what is surely not boolean; of a function's type only Spark knows."""
    tree = tree.unnest()
    found = None
    if isinstance(tree, exp.Connector | exp.Not):
        for part in tree.args.values():
            if isinstance(part, exp.Expr):
                _check_boolean(part, columns)
    elif isinstance(tree, exp.Column) and len(tree.parts) == 1:
        column = _resolved(tree, columns)
        found = None if column.type == "boolean" else f"column {column.name}, which is of type {column.type}"
    elif isinstance(tree, _NOT_BOOLEAN):
        found = tree.sql("spark")
    if found:
        raise SettingsError(
            "--where is not a boolean expression", found=found, hint="compare it with something: amount > 5"
        )


def _predicate(tree: exp.Expr, columns: Schema) -> Predicate:
    tree = tree.unnest()
    for kind, build in _BUILDERS:
        if isinstance(tree, kind):
            return build(tree, columns)
    raise _Outside(
        "only columns, constants, comparisons, IN, BETWEEN, IS NULL, AND, OR and NOT are read without Spark, "
        f"not {tree.sql('spark')}"
    )


def _column_of(tree: exp.Expr, columns: Schema) -> Column:
    tree = tree.unnest()
    if not isinstance(tree, exp.Column) or len(tree.parts) > 1:
        raise _Outside(f"{tree.sql('spark')} is not a column by itself")
    return _resolved(tree, columns)


def _connector(tree: exp.Expr, columns: Schema) -> Predicate:
    kind = type(tree)
    operands = tuple(_predicate(part, columns) for part in tree.flatten())
    return And(operands) if kind is exp.And else Or(operands)


def _negation(tree: exp.Expr, columns: Schema) -> Predicate:
    return Not(_predicate(tree.this, columns))


def _boolean_column(tree: exp.Expr, columns: Schema) -> Predicate:
    return Compare(_column_of(tree, columns).name, "=", Constant(True, "boolean"))


def _comparison(tree: exp.Expr, columns: Schema) -> Predicate:
    op = _OPS[type(tree)]
    left, right = tree.this.unnest(), tree.expression.unnest()
    if isinstance(right, exp.Column):
        left, right, op = right, left, _MIRRORED[op]
    return _compare(_column_of(left, columns), op, right)


def _distinct(tree: exp.Expr, columns: Schema) -> Predicate:
    return Not(_compare(_column_of(tree.this, columns), "<=>", tree.expression.unnest()))


def _between(tree: exp.Expr, columns: Schema) -> Predicate:
    if tree.args.get("symmetric"):
        raise _Outside("BETWEEN SYMMETRIC is left to Spark")
    column = _column_of(tree.this, columns)
    low, high = tree.args["low"].unnest(), tree.args["high"].unnest()
    return And((_compare(column, ">=", low), _compare(column, "<=", high)))


def _is(tree: exp.Expr, columns: Schema) -> Predicate:
    column = _column_of(tree.this, columns)
    if isinstance(tree.expression, exp.Null):
        return IsNull(column.name)
    if isinstance(tree.expression, exp.Boolean) and column.type == "boolean":
        return Compare(column.name, "<=>", Constant(bool(tree.expression.this), "boolean"))
    raise _Outside(f"{tree.sql('spark')} is left to Spark")


def _membership(tree: exp.Expr, columns: Schema) -> Predicate:
    if not tree.expressions or any(tree.args.get(part) for part in ("query", "unnest", "field")):
        raise _Outside(f"{tree.sql('spark')} is left to Spark")
    column = _column_of(tree.this, columns)
    constants = tuple(_constant(part.unnest()) for part in tree.expressions)
    kinds = {_family(constant.type) for constant in constants if constant.value is not None}
    if len(kinds) > 1:  # Spark casts all of them to one type
        raise _Outside("an IN list of several types is left to Spark")
    adapted = tuple(_adapted(column, "=", constant) for constant in constants)
    if any(kind != "integer" for kind in kinds) and column.type in INTEGERS:
        raise _Outside("an IN list of fractions for a whole-number column is left to Spark")
    if column.type == "timestamp_ntz":
        raise _Outside("an IN list of wall-clock times is left to Spark")
    return IsIn(column.name, adapted)


def _family(kind: str) -> str:
    return "integer" if kind in INTEGERS else "decimal" if is_decimal(kind) else kind


_BUILDERS: tuple[tuple[type | tuple[type, ...], Callable[[exp.Expr, Schema], Predicate]], ...] = (
    ((exp.And, exp.Or), _connector),
    (exp.Not, _negation),
    (exp.Column, _boolean_column),
    (exp.NullSafeNEQ, _distinct),
    (tuple(_OPS), _comparison),
    (exp.Between, _between),
    (exp.Is, _is),
    (exp.In, _membership),
)


def _compare(column: Column, op: Op, literal: exp.Expr) -> Predicate:
    constant = _adapted(column, op, _constant(literal))
    return Compare(column.name, op, constant)


# --- constants ---------------------------------------------------------------------------------------------


def _constant(tree: exp.Expr) -> Constant:
    """A literal with the type that Spark gives it."""
    if isinstance(tree, exp.Null):
        return Constant(None, "null")
    if isinstance(tree, exp.Boolean):
        return Constant(bool(tree.this), "boolean")
    if isinstance(tree, exp.Cast):
        return _cast_literal(tree)
    sign, literal = (-1, tree.this.unnest()) if isinstance(tree, exp.Neg) else (1, tree)
    if isinstance(literal, exp.Literal):
        if not literal.is_string:
            return _number(str(literal.this), sign)
        if sign > 0:
            return Constant(str(literal.this), "string")
    raise _Outside(f"{tree.sql('spark')} is not a constant that is read without Spark")


def _number(text: str, sign: int) -> Constant:
    if _INTEGER.fullmatch(text):
        value = sign * int(text)
        for kind, bits in (("integer", 31), ("long", 63)):
            if abs(value) < 1 << bits:
                return Constant(value, kind)
        raise _Outside(f"{text} is beyond a 64-bit integer")
    if _DECIMAL.fullmatch(text):
        number = sign * Decimal(text)
        _, digits, exponent = number.as_tuple()
        scale = -int(exponent)
        precision = max(len(digits), scale)
        if precision > 38:  # noqa: PLR2004  # Spark's largest decimal
            raise _Outside(f"{text} has more than 38 digits")
        return Constant(str(number), f"decimal({precision},{scale})")
    if _EXPONENT.fullmatch(text):
        return _double(text, sign)
    raise _Outside(f"{text} is not a number that is read without Spark")


def _double(text: str, sign: int) -> Constant:
    value = sign * float(text)
    if value in {float("inf"), float("-inf")}:
        raise _Outside(f"{text} is beyond a double")
    return Constant(value, "double")


def _cast_literal(tree: exp.Cast) -> Constant:
    """``DATE '…'``, ``TIMESTAMP '…Z'``, ``TIMESTAMP_NTZ '…'`` and numbers with a suffix (``5L``, ``1.5D``)."""
    literal, kind = tree.this, tree.to.this
    if isinstance(literal, exp.Literal):
        text = str(literal.this)
        if literal.is_string and kind in _TIME_LITERALS:
            return _time_constant(text, *_TIME_LITERALS[kind])
        if not literal.is_string and kind == exp.DataType.Type.BIGINT and _INTEGER.fullmatch(text):
            return Constant(_fits_long(int(text)), "long")
        if not literal.is_string and kind == exp.DataType.Type.DOUBLE:
            return _double(text, 1)
    raise _Outside(f"{tree.sql('spark')} is not a constant that is read without Spark")


def _fits_long(value: int) -> int:
    if value >= 1 << 63:
        raise _Outside(f"{value} is beyond a 64-bit integer")
    return value


_TIME_LITERALS = {
    exp.DataType.Type.DATE: ("date", _DATE),
    exp.DataType.Type.TIMESTAMPTZ: ("timestamp", _INSTANT),
    exp.DataType.Type.TIMESTAMPNTZ: ("timestamp_ntz", _WALL_TIME),
}


def _time_constant(text: str, kind: str, pattern: re.Pattern[str]) -> Constant:
    if pattern.fullmatch(text):
        try:
            value = dt.datetime.fromisoformat(text)
        except ValueError:
            value = None
        if value is not None:
            return Constant(value.date().isoformat() if kind == "date" else value.isoformat(sep=" "), kind)
    raise _Outside(f"'{text}' as a {kind} depends on Spark's settings, such as the session's time zone")


def _adapted(column: Column, op: Op, constant: Constant) -> Constant:
    """The constant as it is compared with the column, where that is exact and the same under all settings."""
    if constant.value is None:
        return Constant(None, column.type)
    kind = column.type
    if constant.type == "string" and kind in {"date", "timestamp_ntz"}:
        constant = _time_constant(str(constant.value), kind, _DATE if kind == "date" else _WALL_TIME)
    _check_order(column, op)
    if kind == "float" and not _exact_in_float32(constant):
        raise _Outside(f"{constant.value} is compared with a float as ANSI mode says")
    if kind in INTEGERS and is_decimal(constant.type):
        constant = _whole(constant)
    try:
        common_type(kind, constant.type)
    except ValueError as error:
        raise _Outside(f"column {column.name}: {error}") from error
    return constant


def _check_order(column: Column, op: Op) -> None:
    if column.type.startswith(("array", "unsupported", "binary")):
        raise _Outside(f"column {column.name} is of type {column.type}")
    if column.type == "boolean" and op not in {"=", "!=", "<=>"}:
        raise _Outside("the order of booleans is left to Spark")


def _exact_in_float32(constant: Constant) -> bool:
    """Integers beyond 24 bits: ANSI mode compares as double, the older mode as float."""
    if constant.type not in INTEGERS:
        return True
    value = float(str(constant.value))
    return float(np.float32(value)) == value and int(value) == constant.value


def _whole(constant: Constant) -> Constant:
    try:
        number = Decimal(str(constant.value))
    except InvalidOperation as error:
        raise _Outside(f"{constant.value} is not a decimal") from error
    if number != number.to_integral_value():
        raise _Outside("a fraction compared with a whole-number column is left to Spark")
    return _number(str(abs(int(number))), -1 if number < 0 else 1)


def partition_predicate(column: Column, values: tuple[str | None, ...]) -> Predicate:
    """``--partition`` on a plain column: its values as a predicate.

    Raises:
        SettingsError: for a column whose values cannot be named by text.
    """
    if column.type in FLOATS or column.type in {"binary", "timestamp"} or not _nameable(column.type):
        raise SettingsError(
            f"--partition cannot select by column {column.name}",
            found=f"type {column.type}",
            hint="use --where",
        )
    parts: list[Predicate] = []
    named = tuple(Constant(_typed(value, column.type), column.type) for value in values if value is not None)
    if named:
        parts.append(IsIn(column.name, named))
    if None in values:
        parts.append(IsNull(column.name))
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def _nameable(kind: str) -> bool:
    return kind in {"boolean", *INTEGERS, "string", "date", "timestamp_ntz"} or is_decimal(kind)


def _typed(value: str, kind: str) -> str | int | bool:
    if kind in INTEGERS:
        return int(value)
    return value == "true" if kind == "boolean" else value


def conjunction(parts: list[Predicate]) -> Predicate | None:
    """All of them, None for none.

    >>> conjunction([IsNull("x")])
    IsNull(column='x')
    """
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))
