"""Pins the source's version, parses its filter, and opens it as a lazy frame where splits cannot serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from batchscore.contracts import PinnedSource, Predicate, Restriction
from batchscore.errors import InputError, SettingsError, SetupError
from batchscore.read.catalog import pin_catalog
from batchscore.read.conditions import conjunction, partition_predicate
from batchscore.read.delta import pin_delta
from batchscore.read.frame import dataframe
from batchscore.read.narrow import meeting, narrowed, only_dates
from batchscore.read.parquet import check_plain_version, pin_parquet
from batchscore.read.partitions import wanted_values
from batchscore.read.rules import compile_rules, computed_columns
from batchscore.read.storage import locate, looks_like_table_name
from batchscore.read.unchanged import check_unchanged
from batchscore.read.units import only_units

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "check_unchanged",
    "compile_rules",
    "computed_columns",
    "dataframe",
    "met",
    "narrowed",
    "only_dates",
    "only_units",
    "pin",
    "restriction",
]

Format = Literal["auto", "parquet", "delta", "catalog"]


def pin(  # noqa: PLR0913  # a source, and what is asked of it
    path: str,
    *,
    format: Format = "auto",  # noqa: A002  # the setting's own name
    version: str = "latest",
    restriction: Restriction = Restriction(),  # noqa: B008  # frozen
    spark: Callable[[], SparkSession] | None = None,
    without_unreadable: bool = False,
    present: bool = True,
) -> PinnedSource:
    """A source at one version, with the files that are left after pruning by partitions. Reads no data row.

    Args:
        path: a path or URI, or a table or view of Spark's catalog (a name without a slash where nothing lies).
        format: ``auto`` takes a folder with a ``_delta_log`` for Delta, anything else for Parquet.
        version: ``latest``, a Delta version, or an ISO timestamp (UTC where it has no zone).
        restriction: its ``partitions`` prune files; the rest is not looked at.
        spark: gives a session; called for catalog names only.
        without_unreadable: leave Parquet files with damaged footers out, and name them in ``unreadable``.
        present: whether the files of a named Delta version must still be there; without them it can be compared only.

    Raises:
        InputError: when the source is missing, empty, damaged, or a version or partition value does not exist.
        SettingsError: when ``format``, ``version`` or a partition's column does not fit the source.
        SetupError: for a catalog name without ``spark``.
        UnavailableError: when the storage did not answer.
    """
    if format == "catalog" or looks_like_table_name(path):
        if spark is None:
            raise SetupError(
                f"nothing is at {path}, and a table of that name needs Spark's catalog",
                hint="give a path, or run with the spark runner",
            )
        return pin_catalog(spark(), path, restriction, version)
    location = locate(path)
    if location.is_delta:
        if format == "parquet":
            raise _is_a_delta_table(path)
        return pin_delta(location, restriction, version, present=present)
    if format == "delta":
        raise InputError(
            f"{path} is not a Delta table", found="no folder _delta_log", hint="say format: parquet, or mend the path"
        )
    table = location.enclosing_delta()
    if table is not None:
        raise _is_a_delta_table(table)
    check_plain_version(version, "Parquet")
    return pin_parquet(location, restriction, without_unreadable=without_unreadable)


def _is_a_delta_table(path: str) -> SettingsError:
    return SettingsError(
        f"{path} is a Delta table",
        found="format parquet, or a path inside of the table",
        allowed=("the table's own path with format: auto or delta", "--partition to take a part of it"),
        hint="read as Parquet it would also give deleted and uncommitted rows",
    )


def restriction(partitions: Mapping[str, Sequence[str | None]], where: str | None, source: PinnedSource) -> Restriction:
    """What a run takes of a pinned source, with the predicate that workers apply.

    A partition on a plain column becomes part of the predicate; one on a partition column has pruned the files.

    Raises:
        SettingsError: for an unknown column, a value that is none of its type, or a wrong ``where``.
    """
    wanted = wanted_values([(name, tuple(values)) for name, values in partitions.items()], source.columns)
    types = {column.name: column for column in source.columns}
    parts: list[Predicate] = [
        partition_predicate(types[name], values)
        for name, values in wanted.items()
        if name not in source.partition_columns or not source.files
    ]
    parsed = None
    if where is not None:
        from batchscore.read.where import parse_where  # noqa: PLC0415  # its SQL parser takes half a second

        parsed = parse_where(where, source.columns)
    reason = parsed if isinstance(parsed, str) else None
    if parsed is not None and not isinstance(parsed, str):
        parts.append(parsed)
    return Restriction(
        partitions=tuple(wanted.items()),
        where=where,
        predicate=None if reason else conjunction(parts),
        where_reason=reason,
    )


def met(source: PinnedSource, restriction: Restriction) -> PinnedSource:
    """The source without the files of which ``restriction.where`` takes no row, by their partition values alone.

    Raises:
        InputError: no file is left.
    """
    predicate = restriction.predicate
    if restriction.where is not None and restriction.where_reason is not None:
        from batchscore.read.where import understood_conjuncts  # noqa: PLC0415  # its SQL parser takes half a second

        predicate = conjunction(understood_conjuncts(restriction.where, source.columns))
    return meeting(source, predicate)
