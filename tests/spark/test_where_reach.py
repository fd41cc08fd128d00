"""What a ``--where`` may reach, by the text and by Spark's own reading of it."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore import read
from batchscore.contracts import Column, Restriction
from batchscore.errors import SettingsError
from batchscore.read.analyzed import check_condition
from batchscore.read.where import parse_where

pytestmark = pytest.mark.spark
COLUMNS = (Column("id", "integer"), Column("name", "string"), Column("ds", "date"))
HARMLESS = (
    "upper(name) = 'A' and id in (1, 2, 3)",
    "exists(array(id, 2), t -> t > 1) or case when id > 1 then name is null else true end",
    "date_trunc('month', ds) = date '2026-11-01' and cast(id as decimal(10, 2)) between 1 and 2",
    "regexp_like(name, 'a') and coalesce(try_divide(id, 0), 1) = 1",
)
REACHING = (
    "reflect('java.lang.System', 'getProperty', 'user.home') = name",
    "java_method('java.util.UUID', 'randomUUID') = name",
    "try_reflect('java.util.UUID', 'randomUUID') = name",
    "rand() < 0.5",
    "uuid() = name",
    "input_file_name() = name",
    "monotonically_increasing_id() = id",
    "ds < current_date()",
    "current_timestamp() > ds",
    "now() > ds",
    "current_user() = name",
    "id in (select 1)",
    "exists (select 1)",
    "id = (select 1)",
    "registered(id) = 1",
    "version() = name",
)


@pytest.fixture
def rows(spark):
    return spark.createDataFrame([(1, "a", dt.date(2026, 11, 21))], "id int, name string, ds date")


@pytest.mark.parametrize("where", HARMLESS)
def test_sparks_own_reading_of_a_harmless_filter(rows, where):
    check_condition(rows.where(where), where)
    assert isinstance(parse_where(where, COLUMNS), str)


@pytest.mark.parametrize("where", REACHING)
def test_what_reaches_beyond_its_row_is_found_by_both_readings(spark, rows, where):
    """The text's check comes first; Spark's own reading counts where the two should differ."""
    spark.udf.register("registered", lambda value: value, "int")
    with pytest.raises(SettingsError, match="depends on more than the row"):
        check_condition(rows.where(where), where)
    with pytest.raises(SettingsError):
        parse_where(where, COLUMNS)


def test_the_condition_of_a_rule_is_looked_at_like_a_filter(spark, tmp_path):
    pq.write_table(pa.table({"id": [1], "name": ["a"]}), tmp_path / "a.parquet")
    source = read.pin(str(tmp_path), format="parquet")
    harmless = (("c", "upper(name) = 'A'"),)
    assert read.dataframe(spark, source, Restriction(), ["id", "c"], harmless).collect()[0]["c"] is True
    spark.udf.register("registered", lambda value: value, "int")
    for condition in ("registered(id) = 1", "rand() < 2", "id in (select 1)"):
        with pytest.raises(SettingsError, match="condition of a rule"):
            read.dataframe(spark, source, Restriction(), ["id", "c"], (("c", condition),))
