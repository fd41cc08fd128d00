"""Constants of a ``--where`` text with the types that Spark gives them, adapted to the column they meet."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Literal, TypeAlias

import numpy as np
from sqlglot import exp

from batchscore.arrow.predicate import common_type
from batchscore.contracts import Column, Constant
from batchscore.schema import INTEGERS, MAX_DECIMAL_PRECISION, is_decimal

Op: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "<=>"]

MAX_NUMBER_CHARS = 400  # a double has at most 309 digits before its point
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_WALL_TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,6})?")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})")
_INTEGER = re.compile(r"\d+")
_DECIMAL = re.compile(r"\d+\.\d*|\.\d+")
_EXPONENT = re.compile(r"(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class OutsideSubset(Exception):  # noqa: N818  # control flow of parse_where: the text lies outside the subset
    """Carries the reason."""


def constant(tree: exp.Expr) -> Constant:
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
    raise OutsideSubset(f"{tree.sql('spark')} is not a constant that is read without Spark")


def _number(text: str, sign: int) -> Constant:
    if len(text) > MAX_NUMBER_CHARS:  # Python itself refuses to read integers of 4,300 digits
        raise OutsideSubset("a number of so many digits is left to Spark")
    if _INTEGER.fullmatch(text):
        value = sign * int(text)
        for kind, bits in (("integer", 31), ("long", 63)):
            if abs(value) < 1 << bits:
                return Constant(value, kind)
        raise OutsideSubset(f"{text} is beyond a 64-bit integer")
    if _DECIMAL.fullmatch(text):
        number = sign * Decimal(text)
        _, digits, exponent = number.as_tuple()
        scale = -int(exponent)
        precision = max(len(digits), scale)
        if precision > MAX_DECIMAL_PRECISION:
            raise OutsideSubset(f"{text} has more than 38 digits")
        return Constant(str(number), f"decimal({precision},{scale})")
    if _EXPONENT.fullmatch(text):
        return _double(text, sign)
    raise OutsideSubset(f"{text} is not a number that is read without Spark")


def _double(text: str, sign: int) -> Constant:
    value = sign * float(text)
    if value in {float("inf"), float("-inf")}:
        raise OutsideSubset(f"{text} is beyond a double")
    return Constant(value, "double")


def _cast_literal(tree: exp.Cast) -> Constant:
    """``DATE '…'``, ``TIMESTAMP '…Z'``, ``TIMESTAMP_NTZ '…'`` and numbers with a suffix (``5L``, ``1.5D``)."""
    literal, kind = tree.this, tree.to.this
    if isinstance(literal, exp.Literal):
        text = str(literal.this)
        if literal.is_string and kind in _TIME_LITERALS:
            return _time_constant(text, *_TIME_LITERALS[kind])
        if not literal.is_string and kind == exp.DataType.Type.BIGINT and _INTEGER.fullmatch(text[:MAX_NUMBER_CHARS]):
            return Constant(_fits_long(int(text[:MAX_NUMBER_CHARS])), "long")
        if not literal.is_string and kind == exp.DataType.Type.DOUBLE:
            return _double(text, 1)
    raise OutsideSubset(f"{tree.sql('spark')} is not a constant that is read without Spark")


def _fits_long(value: int) -> int:
    if value >= 1 << 63:
        raise OutsideSubset(f"{value} is beyond a 64-bit integer")
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
    raise OutsideSubset(f"'{text}' as a {kind} depends on Spark's settings, such as the session's time zone")


def adapted(column: Column, op: Op, constant: Constant) -> Constant:
    """The constant as it is compared with the column, where that is exact and the same under all settings."""
    if constant.value is None:
        return Constant(None, column.type)
    kind = column.type
    if constant.type == "string" and kind in {"date", "timestamp_ntz"}:
        constant = _time_constant(str(constant.value), kind, _DATE if kind == "date" else _WALL_TIME)
    _check_order(column, op)
    if kind == "float" and not _exact_in_float32(constant):
        raise OutsideSubset(f"{constant.value} is compared with a float as ANSI mode says")
    if kind in INTEGERS and is_decimal(constant.type):
        constant = _whole(constant)
    try:
        common_type(kind, constant.type)
    except ValueError as error:
        raise OutsideSubset(f"column {column.name}: {error}") from error
    return constant


def _check_order(column: Column, op: Op) -> None:
    if column.type.startswith(("array", "unsupported", "binary")):
        raise OutsideSubset(f"column {column.name} is of type {column.type}")
    if column.type == "boolean" and op not in {"=", "!=", "<=>"}:
        raise OutsideSubset("the order of booleans is left to Spark")


def _exact_in_float32(constant: Constant) -> bool:
    """Integers beyond 24 bits: ANSI mode compares as double, the older mode as float."""
    if constant.type not in INTEGERS:
        return True
    value = float(str(constant.value))
    return float(np.float32(value)) == value and int(value) == constant.value


def _whole(constant: Constant) -> Constant:
    number = Decimal(str(constant.value))
    if number != number.to_integral_value():
        raise OutsideSubset("a fraction compared with a whole-number column is left to Spark")
    return _number(str(abs(int(number))), -1 if number < 0 else 1)
