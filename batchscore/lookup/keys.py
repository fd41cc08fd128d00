"""Keys of a row as the command line names them, typed by the table's schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchscore.arrow.layout import partition_value
from batchscore.arrow.values import python_of, typed_array
from batchscore.contracts import Column, Schema
from batchscore.errors import SettingsError, nearest
from batchscore.schema import FLOATS, INTEGERS, is_decimal

COMPARABLE = ("boolean", *INTEGERS, *FLOATS, "string", "date", "timestamp", "timestamp_ntz")


@dataclass(frozen=True, slots=True)
class Key:
    """One column and the value that it must have.

    Attributes:
        name: the column.
        type: its type name.
        text: the value as the user wrote it, or as text.
        value: as Python has it.
        scalar: as Arrow has it.
        canonical: as a partition value is spelled, where the type can partition a table; else None.
    """

    name: str
    type: str
    text: str
    value: Any
    scalar: pa.Scalar
    canonical: str | None

    def __str__(self) -> str:
        """As the command line spells it."""
        return f"{self.name}={self.text}"


def typed_keys(given: Sequence[str], columns: Schema) -> tuple[Key, ...]:
    """``column=value`` texts with the types of a table's columns.

    Args:
        given: as ``--key`` takes them.
        columns: the table's.

    Raises:
        SettingsError: there is none, or one has no ``=``, names an unknown column or one twice, or is no value of its
            column's type.
    """
    if not given:
        raise SettingsError("no key is named", hint="name the row: --key transaction_id=42, once for each key column")
    by_name = {column.name: column for column in columns}
    found: dict[str, Key] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingsError("--key takes COLUMN=VALUE", found=text, hint="for example --key transaction_id=42")
        if name not in by_name:
            known = list(by_name)
            raise SettingsError(f"the table has no column {name}", near=nearest(name, known), allowed=known)
        if name in found:
            raise SettingsError(f"--key names {name} twice", found=f"{found[name].text} and {value}")
        found[name] = _typed(by_name[name], value)
    return tuple(found.values())


def key_of(column: Column, scalar: pa.Scalar) -> Key | None:
    """A value of a row as a key for another table; None where it cannot tell rows.

    Such are null, NaN, an array, and a time that Python has not.
    """
    if not scalar.is_valid or not is_comparable(column.type):
        return None
    try:
        value = python_of(scalar)
    except OverflowError:
        return None
    if column.type in FLOATS and value != value:  # noqa: PLR0124  # NaN alone differs from itself
        return None
    return Key(column.name, column.type, str(value), value, scalar, _canonical(scalar, column.type))


def _typed(column: Column, text: str) -> Key:
    if not is_comparable(column.type):
        raise SettingsError(f"column {column.name} cannot be a key", found=f"type {column.type}")
    try:
        scalar = typed_array([text], column.type)[0]
        value = python_of(scalar)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"--key {column.name}: this is no value of type {column.type}",
            found=text or "an empty text",
            hint=_EXAMPLES.get(column.type),
        ) from error
    return Key(column.name, column.type, text, value, scalar, _canonical(scalar, column.type))


_EXAMPLES = {
    **dict.fromkeys(INTEGERS, "a whole number, for example 42"),
    "date": "a date is written 2026-11-21",
    "boolean": "true or false",
    "timestamp": "a time is written 2026-11-21T06:30:00Z",
    "timestamp_ntz": "a time without zone is written 2026-11-21T06:30:00",
}


def is_comparable(kind: str) -> bool:
    """Whether values of a type can name a row: no arrays, no binary."""
    return kind in COMPARABLE or is_decimal(kind)


def _canonical(scalar: pa.Scalar, kind: str) -> str | None:
    return None if kind in FLOATS else partition_value(scalar)
