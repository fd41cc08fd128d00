"""Pins tables and views of Spark's catalog; the only sources that need a session to be planned."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from batchscore.contracts import Column, PinnedSource, Restriction, Schema
from batchscore.errors import InputError, nearest
from batchscore.read.delta import pin_delta, type_name
from batchscore.read.parquet import check_plain_version
from batchscore.read.partitions import wanted_values
from batchscore.read.storage import locate

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.catalog import Table

MAX_TABLES_LISTED = 500


def pin_catalog(spark: SparkSession, name: str, restriction: Restriction, version: str) -> PinnedSource:
    """A table or view by name. A Delta table is pinned by its location, so that workers can read it.

    Raises:
        InputError: when there is no such table, with near names.
        SettingsError: for a version of what is not a Delta table, or an unknown partition column.
    """
    from pyspark.errors import AnalysisException  # noqa: PLC0415  # planning a path needs no Spark

    try:
        table = spark.catalog.getTable(name)
        frame = spark.table(name)
    except AnalysisException as error:
        raise InputError(
            f"there is no table or view {name} in the catalog",
            near=_near(spark, name),
            hint="check the name; a path holds a slash (./name for one beside you)",
        ) from error
    place = _delta_location(spark, name, table)
    if place is not None:
        return pin_delta(locate(place), restriction, version)
    check_plain_version(version, "view" if _is_view(table) else "catalog")
    fields = frame.schema.jsonValue()["fields"]
    columns: Schema = tuple(Column(field["name"], type_name(field["type"]), field["nullable"]) for field in fields)
    wanted_values(restriction.partitions, columns)
    what = "a view" if _is_view(table) else "a table of Spark's catalog that is not Delta"
    return PinnedSource(
        kind="catalog",
        uri=name,
        version=None,
        snapshot=uuid.uuid4().hex,
        columns=columns,
        partition_columns=() if _is_view(table) else _partition_columns(spark, name),
        files=(),
        dataframe_reason=f"{name} is {what}",
        notices=(f"{name} is {what}: nothing tells whether its rows changed, so a second run scores them again",),
    )


def _is_view(table: Table) -> bool:
    return table.isTemporary or table.tableType in {"VIEW", "TEMPORARY", "METRIC_VIEW"}


def _partition_columns(spark: SparkSession, name: str) -> tuple[str, ...]:
    return tuple(column.name for column in spark.catalog.listColumns(name) if column.isPartition)


def _delta_location(spark: SparkSession, name: str, table: Table) -> str | None:
    if _is_view(table):
        return None
    described = spark.sql(f"DESCRIBE TABLE EXTENDED {quoted_table(name)}").collect()
    facts = {row["col_name"].strip(): row["data_type"] for row in described}
    if str(facts.get("Provider", "")).casefold() != "delta":
        return None
    place = str(facts["Location"])
    return place.removeprefix("file:") if place.startswith("file:/") else place


def quoted_table(name: str) -> str:
    """A table name whose parts Spark's SQL takes literally.

    >>> quoted_table("sales.transactions")
    '`sales`.`transactions`'
    """
    return ".".join("`" + part.strip("`").replace("`", "``") + "`" for part in name.split("."))


def _near(spark: SparkSession, name: str) -> list[str]:
    """Near names among the tables of the database that the name says, or of the current one."""
    from pyspark.errors import AnalysisException  # noqa: PLC0415  # planning a path needs no Spark

    database, _, _ = name.rpartition(".")
    try:
        tables = spark.catalog.listTables(database or None)[:MAX_TABLES_LISTED]
    except AnalysisException:  # the database does not exist either
        known = [row.name for row in spark.catalog.listDatabases()]
        return nearest(database, known)
    return nearest(
        name, [f"{database}.{table.name}" if database and table.namespace else table.name for table in tables]
    )
