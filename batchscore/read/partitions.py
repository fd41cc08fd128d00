"""Partition values: their types, canonical strings, and the files that a restriction leaves.

The values of a Hive-partitioned folder are typed as Spark's inference types them over a whole column: the first
of integer, long, decimal without a fraction, double, timestamp, date, string that holds every value. One thing
differs: a word that Java alone reads as a number (``1d``, ``NaN``) is a string here.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from urllib.parse import unquote

from batchscore.contracts import Column, Schema, SourceFile
from batchscore.errors import InputError, SettingsError, bounded, nearest
from batchscore.schema import MAX_DECIMAL_PRECISION, decimal_parts, is_decimal

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
INTEGER_BITS = {"byte": 8, "short": 16, "integer": 32, "long": 64}
_INTEGER = re.compile(r"[+-]?\d+")
_DOUBLE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z?")


def hive_values(relative: str) -> tuple[tuple[str, str | None], ...]:
    """The partition columns and raw values in a file's path below its root.

    >>> hive_values("ds=2026-11-21/city=New%20York/part-0.parquet")
    (('ds', '2026-11-21'), ('city', 'New York'))
    """
    found = []
    for folder in relative.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if equals and name:
            found.append((unquote(name), None if value in {HIVE_NULL, ""} else unquote(value)))
    return tuple(found)


def inferred_type(values: Sequence[str | None]) -> str:
    """The type of a partition column that has these values.

    >>> inferred_type(["1", "02"]), inferred_type(["2026-11-21", None]), inferred_type(["1", "x"])
    ('integer', 'date', 'string')
    """
    kinds = {_value_type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return kinds.pop() if kinds else "string"
    if kinds <= {"integer", "long"}:
        return "long"
    if kinds <= {"date", "timestamp"}:
        return "timestamp"
    if kinds <= {"integer", "long", "double"}:
        return "double"
    return "string"


def _value_type(value: str) -> str:
    if _INTEGER.fullmatch(value):
        return _integer_type(value)
    if _DOUBLE.fullmatch(value):
        return "double"
    for kind, pattern in (("timestamp", _TIMESTAMP), ("date", _DATE)):
        if pattern.fullmatch(value) and _valid(value, kind):
            return kind
    return "string"


def _integer_type(value: str) -> str:
    number = int(value)
    for kind in ("integer", "long"):
        if -(1 << (INTEGER_BITS[kind] - 1)) <= number < 1 << (INTEGER_BITS[kind] - 1):
            return kind
    digits = len(str(abs(number)))
    return f"decimal({digits},0)" if digits <= MAX_DECIMAL_PRECISION else "double"


def _valid(value: str, kind: str) -> bool:
    try:
        canonical(value, kind)
    except ValueError:
        return False
    return True


def canonical(value: object, kind: str) -> str | None:
    """A partition value, as text or as Delta's log gives it, as the canonical string of its type.

    Times are in UTC, spelled as :func:`batchscore.arrow.layout.partition_value` spells them for the output, so
    that a unit of the input is the same unit there. Two spellings of one value (``01`` and ``1``) have one
    canonical string.

    Raises:
        ValueError: when the text is no value of the type.

    >>> canonical("01", "integer"), canonical(Decimal("1.5"), "decimal(5,2)"), canonical(None, "date")
    ('1', '1.50', None)
    """
    if value is None:
        return None
    if kind in INTEGER_BITS:
        return _canonical_integer(str(value), kind)
    if is_decimal(kind):
        return _canonical_decimal(str(value), kind)
    return _CANONICAL.get(kind, str)(value)


def _canonical_integer(value: str, kind: str) -> str:
    number, bits = int(value), INTEGER_BITS[kind]
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise ValueError(f"{value} does not fit {kind}")
    return str(number)


def _canonical_decimal(value: str, kind: str) -> str:
    precision, scale = decimal_parts(kind)
    try:
        number = Decimal(value)
        # Python's own context rounds to 28 digits. What needs more than the type has is an invalid operation here.
        fixed = number.quantize(Decimal((0, (1,), -scale)), context=Context(prec=precision))
    except InvalidOperation as error:
        raise ValueError(f"{bounded(value)} does not fit {kind}") from error
    if fixed != number:
        raise ValueError(f"{bounded(value)} does not fit {kind}")
    return f"{fixed if fixed else abs(fixed):f}"


def _canonical_boolean(value: object) -> str:
    text = str(value).casefold()
    if text not in {"true", "false"}:
        raise ValueError(f"{value} is not true or false")
    return text


def _canonical_time(value: object) -> str:
    moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
        except OverflowError as error:
            raise ValueError(f"{value} lies outside of the years 1 to 9999 in UTC") from error
    return moment.isoformat(sep=" ", timespec="microseconds")


def _canonical_instant(value: object) -> str:
    return _canonical_time(value).replace(" ", "T") + "Z"


def _canonical_binary(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


_CANONICAL: dict[str, Callable[[object], str]] = {
    "boolean": _canonical_boolean,
    "float": lambda value: repr(float(str(value))),
    "double": lambda value: repr(float(str(value))),
    "date": lambda value: dt.date.fromisoformat(str(value)).isoformat(),
    "timestamp": _canonical_instant,
    "timestamp_ntz": _canonical_time,
    "binary": _canonical_binary,
}


def wanted_values(
    partitions: Sequence[tuple[str, Sequence[str | None]]], columns: Schema
) -> dict[str, tuple[str | None, ...]]:
    """``--partition`` values by exact column name, canonical for the column's type.

    Raises:
        SettingsError: for a column that the table lacks, with near names, or a value that is none of its type.
    """
    wanted: dict[str, tuple[str | None, ...]] = {}
    for name, values in partitions:
        column = find_column(name, columns, "--partition names a column that the table does not have")
        texts = tuple(_wanted_value(value, column) for value in values)
        wanted[column.name] = tuple(dict.fromkeys((*wanted.get(column.name, ()), *texts)))
    return wanted


def _wanted_value(value: str | None, column: Column) -> str | None:
    if value in {None, HIVE_NULL}:
        return None
    try:
        return canonical(value, column.type)
    except ValueError as error:
        raise SettingsError(
            f"--partition {column.name} has a value that is no {column.type}",
            found=value,
            hint=f"column {column.name} is of type {column.type}",
        ) from error


def find_column(name: str, columns: Schema, problem: str) -> Column:
    """The column of this name, exact or the only one that differs in case.

    Raises:
        SettingsError: with ``problem`` and near names where there is none, or where several differ in case only.
    """
    exact = [column for column in columns if column.name == name]
    folded = exact or [column for column in columns if column.name.casefold() == name.casefold()]
    if len(folded) == 1:
        return folded[0]
    known = [column.name for column in columns]
    if folded:
        raise SettingsError(
            f"{name} fits several columns that differ in case only", allowed=[column.name for column in folded]
        )
    raise SettingsError(problem, found=name, near=nearest(name, known), allowed=known)


def pruned(
    files: Sequence[SourceFile], partition_columns: Sequence[str], wanted: Mapping[str, Sequence[str | None]]
) -> tuple[SourceFile, ...]:
    """The files whose partition values are among those wanted.

    Raises:
        InputError: for a value that no file has, with the nearest that exist, or when no file is left.
    """
    asked = {name: values for name, values in wanted.items() if name in partition_columns}
    for name, values in asked.items():
        _check_exists(name, values, [dict(file.partition)[name] for file in files])
    kept = tuple(file for file in files if all(dict(file.partition)[name] in values for name, values in asked.items()))
    if not kept:
        named = ", ".join(f"{name}={'|'.join(map(_shown, values))}" for name, values in asked.items())
        raise InputError(
            "no partition has all of these values", found=named, hint="each value exists, but not in combination"
        )
    return kept


def _check_exists(name: str, values: Sequence[str | None], present: Sequence[str | None]) -> None:
    known = set(present)
    for value in values:
        if value not in known:
            shown = sorted(map(_shown, known))
            raise InputError(
                f"partition {name}={_shown(value)} does not exist",
                near=nearest(_shown(value), shown),
                allowed=_around(_shown(value), shown),
                hint="the table has no file with this value",
            )


def _around(value: str, known: Sequence[str], limit: int = 10) -> list[str]:
    """Known values that sort next to ``value``."""
    place = sum(other < value for other in known)
    start = max(0, min(place - limit // 2, len(known) - limit))
    return list(known[start : start + limit])


def _shown(value: str | None) -> str:
    return HIVE_NULL if value is None else value
