"""Type names across Spark, Arrow and MLflow, and the casts between a table's columns and a model's inputs.

One vocabulary is used between stages, Delta's own: ``boolean byte short integer long float double string
binary date timestamp timestamp_ntz decimal(p,s) array<T>``; any other type is spelled
``unsupported(<name>)`` and may be left unread, but neither scored nor carried.

This module is pure: the Arrow side lives in :mod:`batchscore.arrow`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchscore.contracts import OutputColumn

MAX_DECIMAL_PRECISION = 38
INTEGERS = ("byte", "short", "integer", "long")
FLOATS = ("float", "double")
SCALARS = (
    "boolean",
    *INTEGERS,
    *FLOATS,
    "string",
    "binary",
    "date",
    "timestamp",
    "timestamp_ntz",
)

# MLflow's DataType names (mlflow.types.DataType) in the vocabulary above.
FROM_MLFLOW = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "long",
    "float": "float",
    "double": "double",
    "string": "string",
    "binary": "binary",
    "datetime": "timestamp_ntz",
}

# Where Spark's SQL has another name.
_SPARK_TYPES = {"byte": "tinyint", "short": "smallint", "integer": "int", "long": "bigint"}

Cast = Literal["same", "widen", "checked", "to_utc", "midnight"]

_DECIMAL = re.compile(r"^decimal\((\d+),\s*(-?\d+)\)$")


@dataclass(frozen=True, slots=True)
class CastRule:
    """How one column reaches the model.

    ``same``: no conversion. ``widen``: every value is representable. ``checked``: each value must survive
    unchanged, else its row is bad. ``to_utc``: an instant becomes UTC wall-clock time. ``midnight``: a date
    becomes its first moment. ``null_rows_bad``: the model's type has no null, so a null makes its row bad.
    """

    cast: Cast
    null_rows_bad: bool = False


@functools.lru_cache(maxsize=256)
def is_decimal(name: str) -> bool:
    """Whether ``name`` is a decimal type.

    >>> is_decimal("decimal(10,2)")
    True
    """
    return _DECIMAL.match(name) is not None


def decimal_parts(name: str) -> tuple[int, int]:
    """Precision and scale of a decimal type name.

    >>> decimal_parts("decimal(10,2)")
    (10, 2)
    """
    match = _DECIMAL.match(name)
    if match is None:
        raise ValueError(f"not a decimal type: {name}")
    return int(match.group(1)), int(match.group(2))


def element_of(name: str) -> str | None:
    """The element type of an array type name, or None for another type.

    >>> element_of("array<double>")
    'double'
    """
    return name[6:-1] if name.startswith("array<") and name.endswith(">") else None


def is_float(name: str) -> bool:
    """Whether values of the type are floats, or arrays of them.

    >>> is_float("array<double>"), is_float("long")
    (True, False)
    """
    element = element_of(name)
    return name in FLOATS if element is None else is_float(element)


def label_column(outputs: Sequence[OutputColumn]) -> OutputColumn | None:
    """The output that holds class labels; a float output may be a probability and is not taken for one."""
    labels = [column for column in outputs if column.type in (*INTEGERS, "string", "boolean")]
    named = [column for column in labels if column.name == "prediction"] or labels
    return named[0] if len(named) == 1 else None


def is_supported(name: str) -> bool:
    """Whether values of this type can be carried into a table that batchscore writes."""
    element = element_of(name)
    if element is not None:
        return is_supported(element)
    return name in SCALARS or is_decimal(name)


def widened(first: str, second: str) -> str | None:
    """The type both widen to without loss, or None where they conflict.

    >>> widened("integer", "long"), widened("float", "double"), widened("long", "string")
    ('long', 'double', None)
    """
    if first == second:
        return first
    for ladder in (INTEGERS, FLOATS):
        if first in ladder and second in ladder:
            return ladder[max(ladder.index(first), ladder.index(second))]
    # Delta's type widening: whole numbers up to 32 bits fit a double exactly.
    small = ("byte", "short", "integer", "float")
    if "double" in (first, second) and (first in small or second in small):
        return "double"
    if {first, second} == {"date", "timestamp_ntz"}:
        return "timestamp_ntz"
    if is_decimal(first) and is_decimal(second):
        (p1, s1), (p2, s2) = decimal_parts(first), decimal_parts(second)
        scale = max(s1, s2)
        precision = max(p1 - s1, p2 - s2) + scale
        return f"decimal({precision},{scale})" if precision <= MAX_DECIMAL_PRECISION else None
    return None


def cast_rule(source: str, model: str) -> CastRule | None:
    """The cast from a table's column type to a model's input type, or None: refused before scoring.

    Lossy casts (double to float, string to number, number to string) are refused, because a model then sees
    other values than the table holds; casts that are exact for the values at hand are checked value by value.

    >>> cast_rule("integer", "long")
    CastRule(cast='widen', null_rows_bad=True)
    >>> cast_rule("double", "float") is None
    True
    """
    element, model_element = element_of(source), element_of(model)
    if element is not None or model_element is not None:
        if element is None or model_element is None:
            return None
        inner = cast_rule(element, model_element)
        return None if inner is None else CastRule(inner.cast, null_rows_bad=True)
    cast = _scalar_cast(source, model)
    if cast is None:
        return None
    return CastRule(cast, null_rows_bad=model in ("boolean", *INTEGERS))


def _scalar_cast(source: str, model: str) -> Cast | None:
    if source == model:
        return "same"
    if model in INTEGERS:
        return _to_integer(source, model)
    if model in FLOATS:
        return _to_float(source, model)
    if model == "timestamp_ntz":
        return {"timestamp": "to_utc", "date": "midnight"}.get(source)  # type: ignore[return-value]
    return None


def _to_integer(source: str, model: str) -> Cast | None:
    if source in INTEGERS:
        return "widen" if INTEGERS.index(source) <= INTEGERS.index(model) else "checked"
    if is_decimal(source) and decimal_parts(source)[1] <= 0:
        return "checked"
    return None


def _to_float(source: str, model: str) -> Cast | None:
    if source == "float":
        return "widen"  # float to double; the other direction is lossy and refused
    if is_decimal(source):
        # The nearest double is what every reader of a decimal column gets (Spark's own cast, pandas' float()).
        return "widen" if model == "double" else None
    if source in INTEGERS:
        exact_bits = {"byte": 8, "short": 16, "integer": 32, "long": 64}[source]
        return "widen" if exact_bits <= {"float": 24, "double": 53}[model] else "checked"
    return None


def spark_type(name: str) -> str:
    """The type in Spark's DDL.

    >>> spark_type("array<long>"), spark_type("double")
    ('array<bigint>', 'double')
    """
    element = element_of(name)
    return _SPARK_TYPES.get(name, name) if element is None else f"array<{spark_type(element)}>"


def quoted(name: str) -> str:
    """A column name that Spark's SQL takes literally.

    >>> quoted("a.b")
    '`a.b`'
    """
    return "`" + name.replace("`", "``") + "`"
