"""Where the data files of a unit lie, and how partition values are spelled in a table's log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote

import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import array_of, python_of, scalar_of, shown
from batchscore.contracts import RUNS_FOLDER, OutputFormat, UnitValues
from batchscore.errors import InputError, SettingsError

NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
# File systems allow 255 bytes in a name; a longer one is cut and told apart by a digest. The folder's name is
# for people: readers take the values from Delta's log.
MAX_FOLDER_CHARS = 200
_CUT_CHARS = 120


def partition_value(scalar: pa.Scalar) -> str | None:
    """A partition value as Delta's log holds it; None is null.

    Whole numbers in decimal digits, decimals with their scale, booleans as ``true`` and ``false``, dates as
    ``2026-01-31``, timestamps with zone as ``2026-01-31T10:00:00.000000Z`` (the spelling that readers in any
    session zone agree on) and without zone as ``2026-01-31 10:00:00.000000``. **An empty string becomes null**:
    Delta's log has one spelling for both, and readers return null.

    Args:
        scalar: one value of an Arrow column.

    Raises:
        SettingsError: for a type that batchscore does not partition by: floats, binary, nested types.
        InputError: for a date or time outside of the years 1 to 9999, which not every reader spells alike.

    >>> partition_value(pa.scalar("")) is None, partition_value(pa.scalar(True))
    (True, 'true')
    """
    arrow = scalar.type
    if pa.types.is_dictionary(arrow):
        return partition_value(scalar.cast(arrow.value_type))
    if not _partitionable(arrow):
        raise SettingsError(
            "the output cannot be partitioned by a column of this type",
            found=arrow,
            allowed=("string", "whole number", "date", "timestamp", "boolean", "decimal"),
        )
    if not scalar.is_valid:
        return None
    try:
        return _spelled(arrow, python_of(scalar))
    except OverflowError as error:
        raise InputError(
            "a partition column holds a time outside of the years 1 to 9999",
            found=f"{shown(scalar)}, of type {arrow}",
            hint="leave such rows out with --where or a rule, or mend the input: often it is an infinity or ns taken "
            "for µs",
        ) from error


def _partitionable(arrow: pa.DataType) -> bool:
    kinds = pa.types
    return any(
        is_kind(arrow)
        for is_kind in (
            kinds.is_integer,
            kinds.is_boolean,
            kinds.is_string,
            kinds.is_large_string,
            kinds.is_string_view,
            kinds.is_date,
            kinds.is_timestamp,
            kinds.is_decimal,
        )
    )


def _spelled(arrow: pa.DataType, value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _instant(arrow, value)
    if pa.types.is_decimal(arrow):
        return f"{value:f}"
    return str(value) or None


def _instant(arrow: pa.DataType, value: datetime) -> str:
    if not pa.types.is_timestamp(arrow):  # date64 arrives as a date with a time of zero
        return value.date().isoformat()
    if arrow.tz is None:
        return value.isoformat(sep=" ", timespec="microseconds")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def is_canonical(value: str | None, type_name: str) -> bool:
    """Whether ``value`` is spelled as :func:`partition_value` spells it for this type.

    >>> is_canonical("7", "integer"), is_canonical("07", "integer"), is_canonical("", "string")
    (True, False, False)
    """
    if value is None:
        return True
    try:
        return partition_value(scalar_of(value, pa.string()).cast(to_arrow(type_name))) == value
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, InputError, SettingsError):
        return False


def misspelled(values: Iterable[str], type_name: str) -> set[str]:
    """Those of the values that :func:`partition_value` spells otherwise for this type; many at a time.

    >>> misspelled(["7", "07"], "integer"), misspelled(["", "a"], "string")
    ({'07'}, {''})
    """
    given = list(values)
    if type_name == "string":
        return {value for value in given if not value}
    try:
        typed = array_of(given, pa.string()).cast(to_arrow(type_name))
        return {value for value, scalar in zip(given, typed, strict=True) if partition_value(scalar) != value}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, InputError, SettingsError):
        # One value that the type cannot hold fails the cast of all: which one it is, is asked of each.
        return {value for value in given if not is_canonical(value, type_name)}


def partition_path(unit: UnitValues) -> str:
    """The folder of a unit's data files, relative to the table's root; '' without partitions.

    Hive's ``column=value``, everything but letters, digits, ``-``, ``_``, ``.`` and ``~`` percent-escaped, so
    that no reader has to guess how a space, a slash or a percent sign is spelled.

    >>> partition_path((("ds", "2026-01-31"), ("shop", "a b/c%")))
    'ds=2026-01-31/shop=a%20b%2Fc%25'
    >>> partition_path((("_day", None),))
    '%5Fday=__HIVE_DEFAULT_PARTITION__'
    """
    return "/".join(_folder(name, value) for name, value in unit)


def data_folder(output_format: OutputFormat, run_id: str, unit: UnitValues) -> str:
    """The folder of a unit's data files, relative to the table's root; '' for the root itself.

    Of a Parquet table each run has a folder of its own. It begins with ``_``: a reader that lists the table instead
    of asking its pointer finds nothing there, rather than what older runs left beside what counts. Below it no folder
    is named ``column=value``: the partition columns are in the files, with their types, and readers that guess types
    from paths would meet them twice.

    >>> data_folder("parquet", "r1", (("ds", "2026-01-31"),)), data_folder("delta", "r1", (("ds", "2026-01-31"),))
    ('_runs/r1/ds-2026-01-31', 'ds=2026-01-31')
    """
    folder = partition_path(unit)
    if output_format == "delta":
        return folder
    return "/".join((RUNS_FOLDER, run_id, *folder.replace("=", "-").split("/"))).rstrip("/")


def is_data_path(relative: str) -> bool:
    """Whether a path below a table's root is one of data files, published or not: no log and no metadata.

    >>> is_data_path("_delta_log/0.json"), is_data_path("ds=1/part-0.parquet"), is_data_path("_runs/r1/part-0.parquet")
    (False, True, True)
    """
    return not relative.startswith("_") or relative.startswith(f"{RUNS_FOLDER}/")


def _folder(name: str, value: str | None) -> str:
    escaped = quote(name, safe="")
    if escaped[0] in "_.":  # such names are hidden from VACUUM and from readers
        escaped = f"%{ord(escaped[0]):02X}{escaped[1:]}"
    folder = f"{escaped}={NULL_FOLDER if value is None else quote(value, safe='')}"
    if len(folder) <= MAX_FOLDER_CHARS:
        return folder
    return f"{folder[:_CUT_CHARS].rstrip('%')}~{hashlib.sha256(folder.encode()).hexdigest()[:32]}"
