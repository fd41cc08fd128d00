"""Constants with the types that Spark gives them, adapted to the column that they meet."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Literal, TypeAlias

import numpy as np

from batchscore.arrow.predicate import common_type
from batchscore.contracts import Column, Constant
from batchscore.schema import INTEGERS, MAX_DECIMAL_PRECISION, is_decimal

Op: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "<=>"]

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
WALL_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?")
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})")
MAX_NUMBER_CHARS = 400  # a double has at most 309 digits before its point
INTEGER = re.compile(r"\d+")
_DECIMAL = re.compile(r"\d+\.\d*|\.\d+")
_EXPONENT = re.compile(r"(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class OutsideSubset(Exception):  # noqa: N818  # control flow of parse_where: what lies outside the subset
    """Carries the reason."""


def number(text: str, sign: int) -> Constant:
    """A number without its sign, as SQL spells it.

    Raises:
        OutsideSubset: it is none, or beyond what Spark's types hold.
    """
    if len(text) > MAX_NUMBER_CHARS:  # Python itself refuses to read integers of 4,300 digits
        raise OutsideSubset("a number of so many digits is left to Spark")
    if INTEGER.fullmatch(text):
        value = sign * int(text)
        for kind, bits in (("integer", 31), ("long", 63)):
            if abs(value) < 1 << bits:
                return Constant(value, kind)
        raise OutsideSubset(f"{text} is beyond a 64-bit integer")
    if _DECIMAL.fullmatch(text):
        exact = sign * Decimal(text)
        _, digits, exponent = exact.as_tuple()
        scale = -int(exponent)
        precision = max(len(digits), scale)
        if precision > MAX_DECIMAL_PRECISION:
            raise OutsideSubset(f"{text} has more than 38 digits")
        return Constant(str(exact), f"decimal({precision},{scale})")
    if _EXPONENT.fullmatch(text):
        return double(text, sign)
    raise OutsideSubset(f"{text} is not a number that is read without Spark")


def double(text: str, sign: int) -> Constant:
    """A number as a double.

    Raises:
        OutsideSubset: it is beyond a double.
    """
    value = sign * float(text)
    if value in {float("inf"), float("-inf")}:
        raise OutsideSubset(f"{text} is beyond a double")
    return Constant(value, "double")


def time_constant(text: str, kind: str, pattern: re.Pattern[str]) -> Constant:
    """A date or time, where the text has one meaning.

    Raises:
        OutsideSubset: what it means depends on Spark's settings.
    """
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
        constant = time_constant(str(constant.value), kind, DATE if kind == "date" else WALL_TIME)
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
    exact = Decimal(str(constant.value))
    if exact != exact.to_integral_value():
        raise OutsideSubset("a fraction compared with a whole-number column is left to Spark")
    return number(str(abs(int(exact))), -1 if exact < 0 else 1)
