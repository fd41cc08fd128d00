"""Delta statistics of a data file, gathered while it is written.

Readers skip files by them, so a wrong bound loses rows: a float column that holds a NaN has no bounds (Spark
orders NaN above every number), a truncated text stays a bound, times are in microseconds.
"""

from __future__ import annotations

import datetime as dt
import decimal

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.values import python_of
from batchscore.contracts import ColumnStats

MAX_STRING_CHARS = 32  # Delta's own prefix length for string statistics
HIGHEST_CHARACTER = "\U0010ffff"

_Bound = str | int | float | dt.date | dt.datetime | decimal.Decimal


class StatsBuilder:
    """Accumulates the statistics of the columns of one file.

    Args:
        schema: the columns to describe; others are passed over.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._nulls = dict.fromkeys(schema.names, 0)
        self._bounds: dict[str, tuple[_Bound, _Bound]] = {}
        self._unbounded = {field.name for field in schema if not _is_ordered(field.type)}

    def add(self, name: str, column: pa.Array) -> None:
        """Takes values of a column into account; of a constant column one of them is enough."""
        if name not in self._nulls:
            return
        self._nulls[name] += column.null_count
        if name not in self._unbounded and column.null_count < len(column):
            self._widen(name, column)

    def finish(self) -> tuple[ColumnStats, ...]:
        """The statistics, one entry a column, in file order."""
        stats = []
        for name in self._schema.names:
            low, high = self._bounds.get(name, (None, None)) if name not in self._unbounded else (None, None)
            stats.append(ColumnStats(name, self._nulls[name], _lower(low), _upper(high)))
        return tuple(stats)

    def _widen(self, name: str, column: pa.Array) -> None:
        if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
            self._unbounded.add(name)
            return
        bounds = pc.min_max(column)
        try:
            low, high = python_of(bounds["min"]), python_of(bounds["max"])
        except OverflowError:  # a time outside of the years 1 to 9999, for which JSON has no spelling that all read
            self._unbounded.add(name)
            return
        if name in self._bounds:
            known_low, known_high = self._bounds[name]
            low, high = min(_ordered(low), _ordered(known_low))[1], max(_ordered(high), _ordered(known_high))[1]
        self._bounds[name] = (low, high)


def _ordered(value: _Bound) -> tuple[bytes | _Bound, _Bound]:
    # Spark and Parquet order text by its UTF-8 bytes; Python's str order is the same by code points.
    return (value.encode(), value) if isinstance(value, str) else (value, value)


def _is_ordered(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_string(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_decimal(kind)
    )


def _lower(value: _Bound | None) -> str | int | float | None:
    return value[:MAX_STRING_CHARS] if isinstance(value, str) else _json(value)


def _upper(value: _Bound | None) -> str | int | float | None:
    if isinstance(value, str) and len(value) > MAX_STRING_CHARS:
        # Text that goes on with the highest character would lie above the padded prefix: then no bound.
        is_bound = value[MAX_STRING_CHARS] != HIGHEST_CHARACTER
        return value[:MAX_STRING_CHARS] + HIGHEST_CHARACTER if is_bound else None
    return _json(value)


def _json(value: _Bound | None) -> str | int | float | None:
    if isinstance(value, dt.datetime):
        text = value.replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{text}Z" if value.tzinfo is not None else text
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None  # JSON has no infinity
    return value
