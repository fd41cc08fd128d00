"""The staged rows as a pandas or a Spark frame, holding the same values.

What the two engines read differently is made the same first: NaN becomes null (pandas takes it for null, Spark
does not), float becomes double (NumPy compares a float32 with a rounded constant), a date becomes its first
moment, an instant becomes UTC wall-clock time, a decimal that a double holds exactly becomes a double.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from batchscore.arrow.values import numbers_of
from batchscore.contracts import Column, OutputColumn
from batchscore.errors import SettingsError
from batchscore.schema import FLOATS, INTEGERS, decimal_parts, is_decimal
from batchscore.validate.staged import READ_THREADS, StagedTable

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession

# Measured for pandas: values, validity, and the copies that an expectation makes of its column.
NUMBER_BYTES = 24
OBJECT_BYTES = 160
EXACT_DECIMAL_DIGITS = 15


def pandas_bytes(columns: Sequence[Column | OutputColumn], rows: int, names: Sequence[str]) -> int:
    """Memory that judging the named columns with pandas takes, roughly."""
    types = {column.name: column.type for column in columns}
    numeric = ("boolean", *INTEGERS, *FLOATS, "date", "timestamp", "timestamp_ntz")
    return rows * sum(NUMBER_BYTES if types[name] in numeric else OBJECT_BYTES for name in names)


def pandas_frame(output: StagedTable, names: Sequence[str]) -> pd.DataFrame:
    """The named columns of every staged row."""
    import pandas as pd  # noqa: PLC0415  # only runs with a suite need it

    with ThreadPoolExecutor(READ_THREADS) as pool:
        files = pool.map(lambda file: list(file.batches(names)), output.apart())
    table = pa.Table.from_batches([batch for file in files for batch in file], output.schema(names))
    columns = {}
    for name in names:
        columns[name] = _series(_comparable(table[name]))
        table = table.drop_columns([name])
    return pd.DataFrame(columns, copy=False)


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_float32(kind):
        return column.cast(pa.float64())
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us"))  # drops the zone; the instant is in UTC already
    if pa.types.is_decimal(kind) and kind.precision <= EXACT_DECIMAL_DIGITS:
        return column.cast(pa.float64())
    return column


def _series(column: pa.ChunkedArray) -> pd.Series:
    import pandas as pd  # noqa: PLC0415  # only runs with a suite need it

    if not column.null_count and column.num_chunks and _is_plain(column.type):
        # A third of the time of `to_pandas`.
        return pd.Series(np.concatenate([numbers_of(chunk) for chunk in column.chunks]), copy=False)
    # Without a type of its own, an integer column with a null becomes float and loses digits.
    nullable = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    mapper = nullable.get if column.null_count else None
    series: pd.Series = column.to_pandas(types_mapper=mapper)
    return series


def _is_plain(kind: pa.DataType) -> bool:
    """Whether NumPy has the type, and pandas reads it so: all but half floats, which it would widen."""
    return bool(pa.types.is_integer(kind) or pa.types.is_float64(kind) or pa.types.is_boolean(kind))


def spark_frame(output: StagedTable, names: Sequence[str], spark: SparkSession) -> DataFrame:
    """The named columns of every staged row.

    Raises:
        SettingsError: Spark cannot be told where the files are.
    """
    from pyspark.sql import functions as sf  # noqa: PLC0415  # only reached with a session

    types = {column.name: column.type for column in output.columns}
    inside = [column for column in output.columns if column.name not in output.partition_by]
    units: dict[tuple[tuple[str, str | None], ...], list[str]] = {}
    for file in output.files:
        units.setdefault(file.unit, []).append(f"{hadoop_root(output.uri, output.root)}/{file.path}")
    schema = ", ".join(f"`{column.name}` {column.type}" for column in inside)
    whole: DataFrame | None = None
    for unit, paths in units.items():
        # A path is taken as it is: brackets in a partition's folder are no pattern.
        frame = spark.read.schema(schema).option("__globPaths__", "false").parquet(*paths)
        for name, text in unit:
            frame = frame.withColumn(name, sf.lit(text).cast(types[name]))
        whole = frame if whole is None else whole.unionByName(frame)
    if whole is None:
        raise SettingsError("there are no staged files for the validation suite")
    return whole.select([_comparable_in_spark(sf.col(f"`{name}`"), types[name]).alias(name) for name in names])


def _comparable_in_spark(column: SparkColumn, type_name: str) -> SparkColumn:
    from pyspark.sql import functions as sf  # noqa: PLC0415  # only reached with a session

    if type_name in FLOATS:
        wide = column.cast("double")
        return sf.when(~sf.isnan(wide), wide)
    if type_name == "date":
        return column.cast("timestamp_ntz")
    if type_name == "timestamp":
        # The session may have another zone; the same instant in UTC is what pandas sees.
        return sf.convert_timezone(sf.current_timezone(), sf.lit("UTC"), column.cast("timestamp_ntz"))
    if is_decimal(type_name) and decimal_parts(type_name)[0] <= EXACT_DECIMAL_DIGITS:
        return column.cast("double")
    return column


def hadoop_root(uri: str, root: str) -> str:
    """The table's root as Hadoop spells it; ``root`` is the path within pyarrow's file system.

    >>> hadoop_root("/data/t", "/data/t"), hadoop_root("s3://bucket/t?region=x", "bucket/t")
    ('file:///data/t', 's3a://bucket/t')
    """
    scheme, found, _ = uri.partition("://")
    if not found or scheme == "file":
        return f"file://{root}"
    if scheme == "s3":
        return f"s3a://{root}"
    return uri.partition("?")[0].rstrip("/")
