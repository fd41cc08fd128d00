"""Each way in which a table may lie there: read by splits and through Spark, with equal rows."""

from __future__ import annotations

import datetime as dt
import itertools

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from batchscore.contracts import Restriction
from batchscore.errors import InputError, SettingsError
from batchscore.read import dataframe, only_units, pin, restriction
from tests.factories.sources import by_splits, every_type, write

pytestmark = pytest.mark.spark
EVERYTHING = Restriction()
_names = (f"read_case_{number}" for number in itertools.count())


def rows(table):
    """Rows as sorted text: NaN equals NaN, -0.0 differs from 0.0, int and float differ."""
    return sorted(repr(row) for row in table.to_pylist())


def by_spark(spark, source, chosen=EVERYTHING, columns=None):
    names = columns or [c.name for c in source.columns if not c.type.startswith("unsupported")]
    # Repartitioned, so that no luck of order passes.
    return dataframe(spark, source, chosen, names).repartition(3).toArrow()


def assert_both_ways(spark, source, chosen=EVERYTHING, count=None):
    assert source.dataframe_reason is None
    split, framed = by_splits(source, chosen), by_spark(spark, source, chosen)
    assert split.column_names == framed.column_names
    assert rows(split) == rows(framed)
    assert count is None or split.num_rows == count
    return split


def chosen_of(path, partitions=None, where=None):
    partitions = partitions or {}
    raw = Restriction(partitions=tuple((name, tuple(values)) for name, values in partitions.items()))
    source = pin(str(path), restriction=raw)
    return source, restriction(partitions, where, source)


@pytest.fixture
def sql_table(spark, tmp_path):
    """Makes a Delta table by Spark: SQL statements with ``{t}`` for its name; returns its path."""

    def make(*statements):
        path = tmp_path / next(_names)
        for statement in statements:
            spark.sql(statement.replace("{t}", f"delta.`{path}`"))
        return str(path)

    return make


# --- cases that splits serve -------------------------------------------------------------------------------


def test_parquet_with_every_type(spark, tmp_path):
    write(every_type(), tmp_path / "t/a.parquet", row_group_size=2)
    assert_both_ways(spark, pin(str(tmp_path / "t")), count=6)
    assert_both_ways(spark, pin(str(tmp_path / "t/a.parquet")), count=6)


def test_parquet_written_by_spark(spark, tmp_path):
    path = str(tmp_path / "t")
    spark.sql(
        "select id, timestamp'2026-11-21 06:00:00Z' at, cast(id as string) name, id % 3 part from range(20)"
    ).write.partitionBy("part").parquet(path)
    source = pin(path)
    assert {c.name: c.type for c in source.columns}["at"] == "timestamp"
    assert_both_ways(spark, source, count=20)


def test_parquet_with_widened_and_added_columns(spark, tmp_path):
    write(pa.table({"id": pa.array([1], pa.int32()), "x": pa.array([0.1], pa.float32())}), tmp_path / "t/a.parquet")
    write(pa.table({"later": ["v"], "x": [0.1], "id": pa.array([2**40])}), tmp_path / "t/b.parquet")
    assert_both_ways(spark, pin(str(tmp_path / "t")), count=2)


def test_parquet_with_unsigned_and_dictionary_columns(spark, tmp_path):
    table = pa.table(
        {
            "u8": pa.array([255], pa.uint8()),
            "u16": pa.array([2**16 - 1], pa.uint16()),
            "u32": pa.array([2**32 - 1], pa.uint32()),
            "u64": pa.array([2**64 - 1], pa.uint64()),
            "name": pa.array(["a"], pa.large_string()).dictionary_encode(),
            "dotted.name": ["b"],
            "back`tick": ["c"],
        }
    )
    write(table, tmp_path / "t/a.parquet")
    assert_both_ways(spark, pin(str(tmp_path / "t")), count=1)


def test_hive_partitions_with_odd_values_and_a_folder_that_looks_like_a_pattern(spark, tmp_path):
    root = tmp_path / "odd [1] {x}*"
    folders = ["city=a%2Fb/h=01", "city=New%20York/h=2", "city=50%25/h=__HIVE_DEFAULT_PARTITION__", "city=[x]/h=3"]
    for index, folder in enumerate(folders):
        write(pa.table({"id": [index]}), root / folder / "part-0.parquet")
    source = pin(str(root))
    assert_both_ways(spark, source, count=4)
    assert_both_ways(spark, *chosen_of(root, {"city": ["a/b", "[x]"]}), count=2)
    assert_both_ways(spark, *chosen_of(root, {"h": [None]}), count=1)
    assert_both_ways(spark, *chosen_of(root, {"id": ["1", "2"]}, "city <> '50%'"), count=1)


@pytest.mark.parametrize(
    "values",
    [["1", "02"], ["2026-11-21", "2026-11-22"], ["1", "1.5"], ["1", "3000000000"], ["a", "1"], ["2026-11-31"]],
)
def test_partition_types_are_those_that_spark_infers(spark, tmp_path, values):
    for index, value in enumerate(values):
        write(pa.table({"id": [index]}), tmp_path / f"t/p={value}/a.parquet")
    source = pin(str(tmp_path / "t"))
    inferred = spark.read.parquet(str(tmp_path / "t")).schema["p"].dataType.simpleString()
    kind = source.columns[-1].type
    assert {"integer": "int", "long": "bigint"}.get(kind, kind) == inferred
    assert_both_ways(spark, source, count=len(values))


def test_delta_with_every_type_and_an_older_version(spark, tmp_path):
    path = str(tmp_path / "t")
    write_deltalake(path, every_type())
    write_deltalake(path, every_type(), mode="append")
    assert_both_ways(spark, pin(path), count=12)
    assert_both_ways(spark, pin(path, version="0"), count=6)


def test_delta_partitions_written_by_spark(spark, sql_table):
    path = sql_table(
        "create table {t}(id long, s string, d date, at timestamp, c decimal(5,2), b boolean) using delta"
        " partitioned by (s, d, at, c, b)",
        "insert into {t} values (1, 'a/ b%=ü', date'2026-11-21', timestamp'2026-11-21 06:00:00.5', 1.50, true),"
        " (2, null, null, null, null, null)",
    )
    assert_both_ways(spark, pin(path), count=2)
    values = {"s": "a/ b%=ü", "d": "2026-11-21", "at": "2026-11-21 06:00:00.5", "c": "1.5", "b": "TRUE"}
    for name, value in values.items():
        found = assert_both_ways(spark, *chosen_of(path, {name: [value]}), count=1)
        assert found["id"].to_pylist() == [1]
        assert_both_ways(spark, *chosen_of(path, {name: [None]}), count=1)


def test_delta_with_an_added_column(spark, sql_table):
    path = sql_table(
        "create table {t}(id long) using delta",
        "insert into {t} values (1)",
        "alter table {t} add columns (later array<string>)",
        "insert into {t} values (2, array('x'))",
    )
    assert_both_ways(spark, pin(path), count=2)


def test_delta_with_widened_types(spark, sql_table):
    path = sql_table(
        "create table {t}(id int, f float, d date, c decimal(5,2), i int, j short) using delta"
        " tblproperties('delta.enableTypeWidening'='true', 'delta.feature.timestampNtz'='supported')",
        "insert into {t} select id, id / 3, date'2020-01-01', 1.25, id, id from range(5)",
        "alter table {t} alter column id type long",
        "alter table {t} alter column f type double",
        "alter table {t} alter column d type timestamp_ntz",
        "alter table {t} alter column c type decimal(10,4)",
        "alter table {t} alter column i type double",
        "alter table {t} alter column j type decimal(12,2)",
        "insert into {t} select id + 5000000000, id / 3, timestamp_ntz'2020-01-01 10:00:00', 1.2525, id + 0.5, 1.25"
        " from range(5)",
    )
    assert_both_ways(spark, pin(path), count=10)


def test_delta_with_features_that_do_not_concern_reading(spark, sql_table):
    path = sql_table(
        "create table {t}(id long, v variant) using delta tblproperties('delta.checkpointPolicy'='v2',"
        " 'delta.enableRowTracking'='true', 'delta.enableInCommitTimestamps'='true')",
        "insert into {t} select id, parse_json('1') from range(5)",
    )
    assert_both_ways(spark, pin(path), count=5)


def test_timestamps_mean_the_version_that_spark_means(spark, sql_table):
    path = sql_table(
        "create table {t}(id long) using delta tblproperties('delta.enableInCommitTimestamps'='true')",
        "insert into {t} values (1)",
        "insert into {t} values (2)",
        "insert into {t} values (3)",
    )
    history = spark.sql(f"describe history delta.`{path}`").select("version", "timestamp").collect()
    for version, moment in history:
        if version:
            assert pin(path, version=moment.astimezone(dt.UTC).isoformat()).version == version


# --- cases that only Spark serves --------------------------------------------------------------------------


def test_deletion_vectors(spark, sql_table):
    path = sql_table(
        "create table {t}(id long, ds string) using delta partitioned by (ds)"
        " tblproperties('delta.enableDeletionVectors'='true')",
        "insert into {t} select id, if(id < 50, 'a/ b%', 'b') from range(100)",
        "delete from {t} where id % 10 = 3 and id < 50",
    )
    source = pin(path)
    assert "deletion vectors" in source.dataframe_reason
    assert sum(file.rows for file in source.files) == 95
    assert by_spark(spark, source).num_rows == 95
    deleted = {file.partition for file in source.files if file.stamp.startswith("dv:")}
    assert deleted == {(("ds", "a/ b%"),)}
    before = source.snapshot
    spark.sql(f"delete from delta.`{path}` where id = 0")  # the test's own path
    assert pin(path).snapshot != before
    # A partition without deleted rows is read by splits, also in such a table.
    assert_both_ways(spark, *chosen_of(path, {"ds": ["b"]}), count=50)
    assert by_spark(spark, pin(path, version="1")).num_rows == 100


def test_column_mapping(spark, sql_table):
    path = sql_table(
        "create table {t}(id long, ds string) using delta partitioned by (ds)"
        " tblproperties('delta.columnMapping.mode'='name')",
        "insert into {t} select id, if(id < 5, 'a', 'b') from range(10)",
        "alter table {t} rename column id to `the id`",
    )
    source, chosen = chosen_of(path, {"ds": ["a"]}, "`the id` > 2")
    assert "column mapping (mode name)" in source.dataframe_reason
    assert {file.partition for file in source.files} == {(("ds", "a"),)}
    assert by_spark(spark, source, chosen)["the id"].to_pylist() == [3, 4]


def test_a_shallow_clone(spark, sql_table, tmp_path):
    origin = sql_table("create table {t}(id long) using delta", "insert into {t} values (1)")
    clone = tmp_path / "clone"
    spark.sql(f"create table delta.`{clone}` shallow clone delta.`{origin}`")
    source = pin(str(clone))
    assert "shallow clone" in source.dataframe_reason
    assert by_spark(spark, source).num_rows == 1


@pytest.fixture
def catalog(spark):
    spark.sql("create database if not exists read_db")
    spark.sql("create or replace temp view read_view as select id, id % 2 = 0 even from range(10)")
    spark.sql("create table read_db.plain(id long, ds string) using parquet partitioned by (ds)")
    spark.sql("create table read_db.lake(id long, ds string) using delta partitioned by (ds)")
    for table in ("plain", "lake"):
        spark.sql(f"insert into read_db.{table} values (1, 'a'), (2, 'b')")  # the test's own tables
    yield lambda: spark
    spark.sql("drop database read_db cascade")
    spark.catalog.dropTempView("read_view")


def test_tables_and_views_of_the_catalog(spark, catalog):
    view = pin("read_view", spark=catalog)
    assert (view.kind, view.files, view.version) == ("catalog", (), None)
    assert "a view" in view.dataframe_reason
    chosen = restriction({"even": ["true"]}, "id > 2", view)
    assert sorted(by_spark(spark, view, chosen, ["id"])["id"].to_pylist()) == [4, 6, 8]
    assert pin("read_view", spark=catalog).snapshot != view.snapshot

    plain = pin("read_db.plain", spark=catalog, restriction=Restriction(partitions=(("ds", ("a",)),)))
    assert plain.partition_columns == ("ds",)
    chosen = restriction({"ds": ["a"]}, None, plain)
    assert by_spark(spark, plain, chosen)["id"].to_pylist() == [1]

    lake = pin("read_db.lake", spark=catalog)
    assert lake.kind == "delta"
    assert_both_ways(spark, lake, count=2)
    assert by_spark(spark, pin("read_db.lake", version="1", spark=catalog)).num_rows == 2


def test_what_the_catalog_does_not_have(catalog):
    with pytest.raises(InputError, match="no table or view") as caught:
        pin("read_db.lak", spark=catalog)
    assert caught.value.near[0] == "read_db.lake"
    with pytest.raises(InputError, match="no table or view") as caught:
        pin("read_d.lake", spark=catalog)
    assert caught.value.near == ("read_db",)
    with pytest.raises(SettingsError, match="needs a Delta table"):
        pin("read_view", version="3", spark=catalog)
    with pytest.raises(SettingsError, match="does not have"):
        pin("read_view", restriction=Restriction(partitions=(("dss", ("a",)),)), spark=catalog)


# --- units ---------------------------------------------------------------------------------------------------

MANY = 2_000  # a chain of so many conditions ends Catalyst's stack


@pytest.fixture
def numbered(spark):
    """Rows (n, text, m), n from 0 to MANY and as text, m null for every tenth."""
    return spark.range(MANY + 1).selectExpr(
        "CAST(id AS INT) AS n",
        "CAST(id AS STRING) AS text",
        "IF(id % 10 = 0, NULL, CAST(id % 3 AS STRING)) AS m",
    )


@pytest.mark.parametrize("first", ["n", "m"])
def test_thousands_of_units(numbered, first):
    def unit(n, m):
        return (("n", str(n)), ("m", m)) if first == "n" else (("m", m), ("n", str(n)))

    # Of each number one unit that has its row, but of the last, and one that has none.
    there = [unit(n, None if n % 10 == 0 else str(n % 3)) for n in range(MANY)]
    others = [unit(n, "9") for n in range(MANY)]
    assert only_units(numbered, [*there, *others]).count() == MANY


def test_thousands_of_units_that_share_no_value(numbered):
    units = [(("n", str(n)), ("text", str(n if n % 2 else -1))) for n in range(MANY)]
    assert only_units(numbered, units).count() == MANY // 2


def test_units_of_one_column(numbered):
    assert only_units(numbered, [(("n", str(n)),) for n in range(1, MANY)]).count() == MANY - 1
    assert only_units(numbered, [(("m", None),), (("m", "1"),)]).where("m IS NULL").count() == MANY // 10 + 1
    assert only_units(numbered, [(("m", None),)]).count() == MANY // 10 + 1
    assert only_units(numbered, [()]).count() == only_units(numbered, []).count() == MANY + 1


def test_thousands_of_partitions_that_the_command_names(spark, tmp_path):
    write(pa.table({"id": [*range(9), None]}), tmp_path / "t/n=7/a")
    write(pa.table({"id": [10]}), tmp_path / "t/n=8/a")
    source = pin(str(tmp_path / "t"))
    many = tuple(map(str, range(1, MANY)))
    for values, count in ((many, 9), ((*many, None), 10), ((None,), 1), (("10",), 1)):
        assert by_spark(spark, source, restriction({"id": values}, None, source)).num_rows == count


# --- filters that only Spark serves ------------------------------------------------------------------------


def test_a_filter_outside_the_subset(spark, tmp_path):
    write(pa.table({"id": [1, 2, 3], "name": ["a", "B", None], "p": [{"k": 1}, {"k": 2}, {"k": 3}]}), tmp_path / "t/a")
    source, chosen = chosen_of(tmp_path / "t", {"id": ["1", "2"]}, "upper(name) = 'B'")
    assert chosen.predicate is None
    assert by_spark(spark, source, chosen, ["id"])["id"].to_pylist() == [2]
    source, chosen = chosen_of(tmp_path / "t", None, "p.k > 2")
    assert by_spark(spark, source, chosen, ["id"])["id"].to_pylist() == [3]


@pytest.mark.parametrize("where", ["size(id) = 1", "upper(id)", "p.nope = 1"])
def test_a_filter_that_spark_does_not_accept(spark, tmp_path, where):
    write(pa.table({"id": [1], "p": [{"k": 1}]}), tmp_path / "t/a")
    source, chosen = chosen_of(tmp_path / "t", None, where)
    with pytest.raises(SettingsError, match="Spark does not accept --where"):
        dataframe(spark, source, chosen, ["id"])


@pytest.mark.usefixtures("catalog")
def test_a_filter_does_not_reach_other_tables(spark, tmp_path):
    write(pa.table({"id": [1, 2]}), tmp_path / "t/a")
    source = pin(str(tmp_path / "t"))
    for where in ("id in (select id from read_db.lake)", "exists (select 1 from read_view)"):
        with pytest.raises(SettingsError, match="subquery"):
            dataframe(spark, source, Restriction(where=where), ["id"])
