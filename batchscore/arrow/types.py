"""Type names of :mod:`batchscore.schema` as Arrow types, and back."""

from __future__ import annotations

import functools

import pyarrow as pa

from batchscore.contracts import Column, Schema
from batchscore.schema import MAX_DECIMAL_PRECISION, decimal_parts, element_of, is_decimal

_SCALARS: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "byte": pa.int8(),
    "short": pa.int16(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "timestamp_ntz": pa.timestamp("us"),
}
# Arrow types that share a name: unsigned integers take the next signed type that holds them all.
_NAMES: dict[pa.DataType, str] = {arrow: name for name, arrow in _SCALARS.items()} | {
    pa.uint8(): "short",
    pa.uint16(): "integer",
    pa.uint32(): "long",
    pa.uint64(): "decimal(20,0)",
    pa.float16(): "float",
    pa.large_string(): "string",
    pa.string_view(): "string",
    pa.large_binary(): "binary",
    pa.binary_view(): "binary",
    pa.date64(): "date",
}


@functools.cache
def to_arrow(name: str) -> pa.DataType:
    """The Arrow type that batchscore uses for a type name.

    Raises:
        ValueError: for an ``unsupported(...)`` name.

    >>> to_arrow("array<float>")
    ListType(list<element: float>)
    """
    element = element_of(name)
    if element is not None:
        return pa.list_(pa.field("element", to_arrow(element)))
    if is_decimal(name):
        return pa.decimal128(*decimal_parts(name))
    if name not in _SCALARS:
        raise ValueError(f"no Arrow type for {name}")
    return _SCALARS[name]


def from_arrow(arrow: pa.DataType) -> str:
    """The type name of an Arrow type; ``unsupported(<type>)`` where there is none.

    >>> from_arrow(pa.dictionary(pa.int32(), pa.large_string()))
    'string'
    """
    if pa.types.is_dictionary(arrow):
        return from_arrow(arrow.value_type)
    if pa.types.is_timestamp(arrow):
        return "timestamp_ntz" if arrow.tz is None else "timestamp"
    if pa.types.is_decimal(arrow):
        fits = arrow.precision <= MAX_DECIMAL_PRECISION
        return f"decimal({arrow.precision},{arrow.scale})" if fits else f"unsupported({arrow})"
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        element = from_arrow(arrow.value_type)
        return f"unsupported({arrow})" if element.startswith("unsupported") else f"array<{element}>"
    return _NAMES.get(arrow, f"unsupported({arrow})")


def arrow_schema(columns: Schema) -> pa.Schema:
    """An Arrow schema with the types of :func:`to_arrow`."""
    return pa.schema([pa.field(column.name, to_arrow(column.type), column.nullable) for column in columns])


def columns_of(schema: pa.Schema) -> Schema:
    """The columns of an Arrow schema by their type names."""
    return tuple(Column(field.name, from_arrow(field.type), field.nullable) for field in schema)
