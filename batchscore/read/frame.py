"""The same rows and columns as a lazy DataFrame, for what splits cannot serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batchscore.contracts import PinnedSource, Restriction
from batchscore.errors import InputError, SettingsError
from batchscore.read.analyzed import check_condition
from batchscore.read.partitions import wanted_values
from batchscore.read.storage import Location, locate
from batchscore.read.units import among
from batchscore.schema import quoted, spark_type

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Schemes by which Spark's file systems go, where they differ from pyarrow's.
SPARK_SCHEMES = {"s3": "s3a"}
_GLOB = str.maketrans({character: f"\\{character}" for character in "{}[]*?\\"})


def dataframe(
    spark: SparkSession,
    source: PinnedSource,
    restriction: Restriction,
    columns: Sequence[str],
    computed: Sequence[tuple[str, str]] = (),
) -> DataFrame:
    """The pinned rows that the restriction leaves, lazily.

    Args:
        spark: a session with Delta's extensions where the source is a Delta table.
        source: what ``pin`` returned.
        restriction: ``partitions`` and ``where`` are applied; ``predicate`` is not looked at.
        columns: the columns to return, in this order.
        computed: the names of those that are no columns of the source, each with its SQL.

    Raises:
        SettingsError: when Spark does not accept ``where`` or a computed column.
        InputError: when Spark cannot find the table or its files.
    """
    # Loaded here: pinning a source needs no Spark.
    from pyspark.errors import AnalysisException  # noqa: PLC0415  # see above
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  # see above

    try:
        frame = _opened(spark, source, restriction)
    except AnalysisException as error:
        raise InputError(f"Spark cannot read {source.uri}", found=_first_line(error)) from error
    wanted = wanted_values(restriction.partitions, source.columns)
    types = {column.name: column.type for column in source.columns}
    for name, values in wanted.items():
        frame = frame.where(among(F.col(quoted(name)), values, spark_type(types[name])))
    if restriction.where is not None:
        from batchscore.read.where import parse_where  # noqa: PLC0415  # its SQL parser takes half a second

        parse_where(restriction.where, source.columns)  # refuses what would reach other tables
        try:
            frame = frame.where(F.expr(restriction.where))
            check_condition(frame, restriction.where)
        except AnalysisException as error:
            raise SettingsError(
                "Spark does not accept --where", found=_first_line(error), detail=(restriction.where,)
            ) from error
    sql = dict(computed)
    try:
        for text in sql.values():  # conditions, too
            check_condition(frame.where(F.expr(text)), text, "the condition of a rule")
        return frame.select(
            *(F.expr(sql[name]).alias(name) if name in sql else F.col(quoted(name)) for name in columns)
        )
    except AnalysisException as error:
        raise SettingsError(
            "Spark does not accept the condition of a rule", found=_first_line(error), detail=tuple(sql.values())
        ) from error


def _opened(spark: SparkSession, source: PinnedSource, restriction: Restriction) -> DataFrame:
    if source.kind == "catalog":
        return spark.table(source.uri)
    location = locate(source.uri)
    if source.kind == "delta":
        reader = spark.read.format("delta").option("versionAsOf", str(source.version))
        return reader.load(spark_uri(location.uri))
    readable = [column for column in source.columns if not column.type.startswith("unsupported")]
    reader = spark.read
    if restriction.where is not None and len(readable) < len(source.columns):
        # The filter may read a column whose type batchscore has no name for: Spark finds its type in the files.
        reader = reader.option("mergeSchema", "true")
    else:
        reader = reader.schema(", ".join(f"{quoted(column.name)} {spark_type(column.type)}" for column in readable))
    if not location.info.is_file:
        reader = reader.option("basePath", spark_uri(location.uri))
    return reader.parquet(*(_file(location, file.path) for file in source.files))


def _file(location: Location, path: str) -> str:
    """A file's path for Spark, which takes it as a pattern: characters of patterns are escaped."""
    return spark_uri(location.file_uri(path)).translate(_GLOB)


def spark_uri(uri: str) -> str:
    """The URI as Spark's file systems spell it.

    >>> spark_uri("s3://bucket/data?region=x"), spark_uri("/data/a b")
    ('s3a://bucket/data', '/data/a b')
    """
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return parts._replace(scheme=SPARK_SCHEMES.get(parts.scheme, parts.scheme), query="").geturl()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
