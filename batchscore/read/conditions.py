"""Conditions that need no SQL: the values of ``--partition`` on a plain column, and several conditions as one."""

from __future__ import annotations

from batchscore.contracts import And, Column, Constant, IsIn, IsNull, Or, Predicate
from batchscore.errors import SettingsError
from batchscore.schema import FLOATS, INTEGERS, is_decimal


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
