"""Whose rows: key columns and values, typed by the table, and looked for in batches."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import numbers_of, scalar_of, shown, typed_array
from batchscore.contracts import Schema
from batchscore.errors import InputError, SettingsError, nearest
from batchscore.schema import is_supported

NOT_KEYS = ("binary",)
_EXAMPLES = {"date": "a date is written 2026-11-21", "timestamp": "a time is written 2026-11-21T06:30:00Z"}


def from_flags(given: Sequence[str]) -> dict[str, str]:
    """``column=value`` texts, each column once: together they name rows.

    Raises:
        SettingsError: one has no ``=``, or a column is named twice.

    >>> from_flags(["a=1", "b=x=y"])
    {'a': '1', 'b': 'x=y'}
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingsError("--key takes COLUMN=VALUE", found=text, hint="for example --key transaction_id=42")
        if name in found:
            raise SettingsError(
                f"--key names column {name} twice",
                hint="name several rows in a file: --keys-file, a CSV whose first line holds the columns",
            )
        found[name] = value
    return found


def from_file(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file whose first line names the key columns.

    Raises:
        InputError: it is not there, is no text, or holds no row.
        SettingsError: its lines are of different lengths.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [line for line in csv.reader(stream, strict=True) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the keys file {path} cannot be read", found=error) from error
    names, rows = (lines[0], lines[1:]) if lines else ([], [])
    if not rows:
        raise InputError(f"the keys file {path} names no row", hint="a first line with the columns, then a line a key")
    uneven = next((number for number, line in enumerate(rows, 2) if len(line) != len(names)), None)
    if uneven is not None or len(set(names)) != len(names):
        raise SettingsError(
            f"the keys file {path} is no table of keys",
            found="a column is named twice" if uneven is None else f"line {uneven} has another number of values",
            hint=f"each line has {len(names)} values, separated by commas",
        )
    return [dict(zip(names, line, strict=True)) for line in rows]


class Keys:
    """Keys of rows, typed by a table.

    Args:
        rows: at least one; each has a value for the same columns, as text.
        schema: the table's columns.

    Raises:
        SettingsError: a column that the table does not have or that cannot be a key, or a text that is no value of it.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]], schema: Schema) -> None:
        types = {column.name: column.type for column in schema}
        self.names = tuple(rows[0])
        self.count = len(rows)
        self.texts: list[dict[str, str]] = [{} for _ in rows]
        self._known: list[pa.Array] = []
        codes: npt.NDArray[np.int64] = np.zeros(len(rows), np.int64)
        for name in self.names:
            values = _typed(name, [row[name] for row in rows], types)
            known = values.unique()
            self._known.append(known)
            codes = codes * len(known) + numbers_of(pc.index_in(values, value_set=known)).astype(np.int64)
            for text, value in zip(self.texts, values, strict=True):
                text[name] = str(shown(value))
        self._wanted, self._places = np.unique(codes, return_index=True)

    def places(self, columns: Sequence[pa.Array]) -> npt.NDArray[np.int64]:
        """For each row of a batch which key it has, by position; -1 where it has none of them.

        Args:
            columns: the batch's key columns, in the order of :attr:`names`, of the table's types.
        """
        rows = len(columns[0])
        codes, there = np.zeros(rows, np.int64), np.ones(rows, np.bool_)
        for column, known in zip(columns, self._known, strict=True):
            found = pc.index_in(column.cast(known.type), value_set=known)
            there &= numbers_of(found.is_valid())
            codes = codes * len(known) + numbers_of(pc.coalesce(found, _ZERO)).astype(np.int64)
        at = np.searchsorted(self._wanted, codes).clip(max=len(self._wanted) - 1)
        same = there & (self._wanted[at] == codes)
        return np.where(same, self._places[at], -1)


_ZERO = scalar_of(0, pa.int32())


def _typed(name: str, texts: Sequence[str], types: Mapping[str, str]) -> pa.Array:
    if name not in types:
        raise SettingsError(f"the table has no column {name}", near=nearest(name, types), allowed=list(types))
    kind = types[name]
    if not is_supported(kind) or kind.startswith("array<") or kind in NOT_KEYS:
        raise SettingsError(f"column {name} cannot be a key", found=f"type {kind}")
    try:
        return typed_array(list(texts), kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise SettingsError(
            f"a key is no value of column {name}", found=error, allowed=(kind,), hint=_EXAMPLES.get(kind)
        ) from error


def as_table_type(column: pa.Array, kind: str) -> pa.Array:
    """A file's column as the table has it: plain, and of the table's type.

    A file of an older version, or of nobody's, may hold another type. Where that cannot become the table's as a whole,
    each value is read as text; one that is no value of the table's type is none of its keys, and becomes null.

    Raises:
        pa.ArrowException: the values have no text: the file cannot be searched.
    """
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    wanted = to_arrow(kind)
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        distinct = column.cast(pa.string()).dictionary_encode()
    known = [_value_of(text, kind) for text in distinct.dictionary.to_pylist()]
    return pa.concat_arrays(known).take(distinct.indices) if known else pa.nulls(len(column), wanted)


def _value_of(text: str, kind: str) -> pa.Array:
    """One value as the table has it, as an array; null where the text is none of its type."""
    try:
        return typed_array([text], kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        return pa.nulls(1, to_arrow(kind))
