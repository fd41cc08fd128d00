"""The ``result_type`` argument: Spark's type objects and DDL strings as type names of :mod:`batchscore.schema`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchscore.errors import SettingsError
from batchscore.schema import is_supported
from batchscore.udf.results import ResultType

if TYPE_CHECKING:
    from pyspark.sql.types import DataType

ALLOWED = (
    "boolean", "int", "long", "float", "double", "string", "array<…> of these, nested too",
    "struct<name: type, …> of these",
)  # fmt: skip
# MLflow takes "bool" for Spark's "boolean". What follows a type is a comma, a closing bracket or the end.
_BOOL = re.compile(r"\bbool\b(?=\s*(?:[,>]|$))", re.IGNORECASE)


def result_type_of(given: DataType | str) -> ResultType:
    """The asked result type.

    Args:
        given: a type object, or a DDL string (``double``, ``array<int>``, ``a int, b array<string>``), for which a
            Spark session must be active.

    Raises:
        SettingsError: it is no type, or one that no output can become.
    """
    from pyspark.sql.types import DataType, StructType  # noqa: PLC0415  # a worker has no use for this

    kind = _parsed(given) if isinstance(given, str) else given
    if not isinstance(kind, DataType):
        raise _refused(given)
    if not isinstance(kind, StructType):
        return _name(kind)
    names = [field.name for field in kind.fields]
    if not names or len(set(names)) < len(names):
        raise SettingsError("a struct as result_type has fields, and each has a name of its own", found=names)
    return tuple((field.name, _name(field.dataType)) for field in kind.fields)


def _parsed(text: str) -> DataType:
    from pyspark.errors import ParseException  # noqa: PLC0415  # a worker has no use for this
    from pyspark.sql.types import DataType  # noqa: PLC0415  # a worker has no use for this

    try:
        return DataType.fromDDL(_BOOL.sub("boolean", text))
    except ParseException as error:
        raise _refused(text) from error


def _name(kind: DataType) -> str:
    from pyspark.sql.types import ArrayType, DecimalType  # noqa: PLC0415  # a worker has no use for this

    if isinstance(kind, ArrayType):
        return f"array<{_name(kind.elementType)}>"
    name = kind.simpleString() if isinstance(kind, DecimalType) else kind.typeName()
    if not is_supported(name):
        raise _refused(kind.simpleString())
    return name


def _refused(given: object) -> SettingsError:
    return SettingsError("this is no result_type", found=given, allowed=ALLOWED)
