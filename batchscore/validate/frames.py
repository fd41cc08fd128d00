"""The staged rows as a pandas or a Spark frame, holding the same values.

What the two engines read differently is made the same first: NaN becomes null (pandas takes it for null, Spark
does not), float becomes double (NumPy compares a float32 with a rounded constant), a date becomes its first
moment, an instant becomes UTC wall-clock time, a decimal that a double holds exactly becomes a double.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.arrow.values import numbers_of, numpy_type, scalar_of
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


class PandasColumns:
    """Columns of the staged rows for pandas, put in place by whoever reads them; several threads may at a time.

    Numbers and times go straight into the array that pandas takes, so that they are in memory once.

    Args:
        output: the staged rows.
        names: of the columns.
    """

    def __init__(self, output: StagedTable, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._rows = sum(output.rows)
        self._types = {field.name: _comparable_type(field.type) for field in output.schema(names)}
        self._values = {
            name: np.empty(self._rows, _numpy_type(kind)) for name, kind in self._types.items() if _is_plain(kind)
        }
        self._nulls: dict[str, list[tuple[int, npt.NDArray[np.bool_]]]] = {name: [] for name in self._values}
        self._chunks: dict[str, list[tuple[int, pa.Array]]] = {
            name: [] for name in self._types if name not in self._values
        }

    def take(self, first: int, batch: pa.RecordBatch) -> None:
        """The rows from number ``first`` on; a batch may have other columns, too."""
        for name, kind in self._types.items():
            column = batch.column(name)
            column = column if column.type == kind else column.cast(kind)
            if name in self._values:
                self._put(name, first, column)
            else:
                self._chunks[name].append((first, column))

    def _put(self, name: str, first: int, column: pa.Array) -> None:
        place = self._values[name][first : first + len(column)]
        if column.null_count and not pa.types.is_floating(column.type):  # a float's null is NaN
            self._nulls[name].append((first, numbers_of(column.is_null())))
            column = column.fill_null(scalar_of(0, column.type))
        place[:] = numbers_of(column).view(place.dtype)

    def frame(self) -> pd.DataFrame:
        """All columns, when every row is in place."""
        import pandas as pd  # noqa: PLC0415  # only runs with a suite need it

        columns = {name: self._numbers(name) if name in self._values else self._others(name) for name in self._types}
        return pd.DataFrame(columns, copy=False)

    def _numbers(self, name: str) -> Any:  # noqa: ANN401  # an array of NumPy or pandas
        import pandas as pd  # noqa: PLC0415  # as above

        values = self._values[name]
        if not self._nulls[name]:
            return values
        missing = np.zeros(self._rows, np.bool_)
        for first, nulls in self._nulls[name]:
            missing[first : first + len(nulls)] = nulls
        if values.dtype.kind == "M":
            values[missing] = np.datetime64("NaT")
            return values
        # Without a type of its own, an integer column with a null becomes float and loses digits.
        return (pd.arrays.BooleanArray if values.dtype.kind == "b" else pd.arrays.IntegerArray)(values, missing)

    def _others(self, name: str) -> pd.Series:
        chunks = [chunk for _, chunk in sorted(self._chunks[name], key=lambda pair: pair[0])]
        series: pd.Series = pa.chunked_array(chunks, self._types[name]).to_pandas()
        return series


def pandas_frame(output: StagedTable, names: Sequence[str]) -> pd.DataFrame:
    """The named columns of every staged row."""
    columns = PandasColumns(output, names)

    def read(first: int, file: StagedTable) -> None:
        for batch in file.batches(names):
            columns.take(first, batch)
            first += batch.num_rows

    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(read, *zip(*output.apart(), strict=True)))
    return columns.frame()


def _comparable_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_float32(kind):
        return pa.float64()
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return pa.timestamp("us")  # drops a zone; the instant is in UTC already
    if pa.types.is_decimal(kind) and kind.precision <= EXACT_DECIMAL_DIGITS:
        return pa.float64()
    return kind


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_float64(kind) or types.is_boolean(kind) or types.is_timestamp(kind))


def _numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    if pa.types.is_boolean(kind):
        return np.dtype(np.bool_)
    return np.dtype("datetime64[us]") if pa.types.is_timestamp(kind) else numpy_type(kind)


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
