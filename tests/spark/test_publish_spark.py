"""What Spark reads of a published table, and what its own commands do to liveness."""

from __future__ import annotations

import math
from dataclasses import replace

import pyarrow as pa
import pytest

from batchscore.contracts import OutputColumn
from batchscore.plan.units import is_live
from batchscore.publish import commit, fence, inspect
from tests.factories.staging import (
    COLUMNS,
    day,
    live_units,
    make_plan,
    offer,
    publish_run,
    stage,
    stage_table,
)

pytestmark = pytest.mark.spark

D1, D2 = day("2026-01-01"), day("2026-01-02")
BOTH = {D1: "k1", D2: "k2"}


@pytest.fixture
def table(tmp_path, spark):
    # VACUUM and RESTORE list files in as many tasks, 200 by default.
    spark.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
    return str(tmp_path / "scores")


def read(spark, table):
    return spark.read.format("delta").load(table)


def test_delete_restore_insert_optimize(spark, table):
    """One story, since each step needs the one before it."""
    plan = make_plan(inspect(table), "r1", BOTH)
    files = [stage(plan, values, [number]) for values in BOTH for number in range(3)]
    commit(plan, *offer(plan, files, BOTH), is_live=is_live)
    assert read(spark, table).count() == 6

    spark.sql(f"OPTIMIZE delta.`{table}`")
    assert len(read(spark, table).inputFiles()) == 2
    assert live_units(table, BOTH) == {D1: True, D2: True}

    spark.sql(f"DELETE FROM delta.`{table}` WHERE id = 1 AND ds = '2026-01-01'")
    assert live_units(table, BOTH) == {D1: False, D2: True}

    spark.sql(f"RESTORE TABLE delta.`{table}` TO VERSION AS OF 0")
    assert live_units(table, BOTH) == {D1: True, D2: True}

    spark.sql(f"INSERT INTO delta.`{table}` VALUES (9, DATE'2026-01-02', 0.5, 'r1')")
    assert live_units(table, BOTH) == {D1: True, D2: False}

    assert publish_run(table, "r2", BOTH).dropped[0].values == D1
    assert sorted(row["_run_id"] for row in read(spark, table).collect()) == ["r1"] * 3 + ["r2"] * 2


def test_deletion_vectors_of_spark(spark, table):
    publish_run(table, "r1", BOTH, rows=20)
    spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES('delta.enableDeletionVectors'='true')")
    spark.sql(f"DELETE FROM delta.`{table}` WHERE id = 3")
    states = inspect(table).units
    assert {values: (state.runs, state.foreign_files) for values, state in states.items()} == {D1: ((), 1), D2: ((), 1)}
    assert live_units(table, BOTH) == {D1: False, D2: False}
    publish_run(table, "r2", {D1: "n1"})
    counts = {str(row["ds"]): row["count"] for row in read(spark, table).groupBy("ds").count().collect()}
    assert counts == {"2026-01-01": 2, "2026-01-02": 19}
    publish_run(table, "r3", {D1: "m1", D2: "m2"})
    assert read(spark, table).count() == 4


def test_models_v1_v2_v1(spark, table):
    for run, key in (("r1", "v1"), ("r2", "v2"), ("r3", "v1")):
        publish_run(table, run, {D1: key})
        assert {row["_run_id"] for row in read(spark, table).collect()} == {run}
    assert live_units(table, {D1: "v1"}) == {D1: True}


def test_partition_values_as_spark_reads_them(spark, table):
    columns = (
        COLUMNS[0],
        OutputColumn("p", "string", "source", "p"),
        OutputColumn("q", "timestamp", "source", "q"),
        *COLUMNS[2:],
    )
    moment = "2026-01-01T10:00:00.000001Z"
    texts = ["a b", "50%", "a/b", "ünï", "x=y:z", "%20", "q'\"\\", None, "__HIVE_DEFAULT_PARTITION__", "x" * 300]
    units = {(("p", text), ("q", moment)): "k" for text in texts}
    publish_run(table, "r1", units, columns=columns, partition_by=("p", "q"))
    frame = read(spark, table)
    assert {row["p"] for row in frame.collect()} == set(texts)
    assert frame.where("p = 'a b' AND q = TIMESTAMP'2026-01-01 10:00:00.000001'").count() == 2
    assert frame.where("p IS NULL").count() == 2
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        assert frame.where("q = TIMESTAMP'2026-01-01 19:00:00.000001'").count() == 2 * len(texts)
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    publish_run(table, "r2", dict.fromkeys(list(units)[:3], "n"), columns=columns, partition_by=("p", "q"))
    assert read(spark, table).where("_run_id = 'r2'").count() == 6
    assert read(spark, table).count() == 2 * len(texts)


def test_every_partition_type_as_spark_reads_it(spark, table):
    types = {
        "a": ("byte", "-1"),
        "b": ("boolean", "true"),
        "c": ("decimal(10,2)", "1.20"),
        "d": ("timestamp_ntz", "2026-01-01 10:00:00.000001"),
        "e": ("date", "2026-01-01"),
        "f": ("long", "9223372036854775807"),
    }
    columns = (
        COLUMNS[0],
        *(OutputColumn(name, kind, "source", name) for name, (kind, _) in types.items()),
        *COLUMNS[2:],
    )
    unit = tuple((name, value) for name, (_, value) in types.items())
    nulls = tuple((name, None) for name in types)
    publish_run(table, "r1", {unit: "k", nulls: "k"}, columns=columns, partition_by=tuple(types))
    condition = (
        "a = -1 AND b AND c = 1.20 AND d = TIMESTAMP_NTZ'2026-01-01 10:00:00.000001' "
        "AND e = DATE'2026-01-01' AND f = 9223372036854775807"
    )
    assert read(spark, table).where(condition).count() == 2
    assert read(spark, table).where("a IS NULL AND b IS NULL AND d IS NULL").count() == 2


def test_data_skipping_never_loses_a_row(spark, table):
    plan = make_plan(inspect(table), "r1", BOTH)
    with_nan = pa.table({"id": [1, 2], "prediction": [math.nan, 9.0], "_run_id": ["r1", "r1"]})
    without = pa.table({"id": [3, 4], "prediction": [1.0, 2.0], "_run_id": ["r1", "r1"]})
    files = [stage_table(plan, D1, with_nan), stage_table(plan, D2, without)]
    commit(plan, *offer(plan, files, BOTH), is_live=is_live)
    frame = read(spark, table)
    # To Spark NaN is greater than any number.
    assert sorted(row["id"] for row in frame.where("prediction > 5").collect()) == [1, 2]
    assert sorted(row["id"] for row in frame.where("prediction < 5").collect()) == [3, 4]
    assert [row["id"] for row in frame.where("isnan(prediction)").collect()] == [1]
    assert [row["id"] for row in frame.where("id = 4").collect()] == [4]
    assert frame.where("_run_id = 'r1'").count() == 4
    assert frame.where("_run_id = 'r2'").count() == 0


def test_an_evolved_schema(spark, table):
    publish_run(table, "r1", BOTH)
    more = (*COLUMNS, OutputColumn("extra", "array<double>", "source", "extra"))
    publish_run(table, "r2", {D1: "n"}, columns=more, evolve_schema=True)
    assert read(spark, table).schema["extra"].dataType.simpleString() == "array<double>"
    assert read(spark, table).where("extra IS NULL").count() == 4


def test_a_required_column(spark, table):
    strict = (replace(COLUMNS[0], nullable=False), *COLUMNS[1:])
    publish_run(table, "r1", BOTH, columns=strict)
    with pytest.raises(Exception, match="NOT_NULL"):  # py4j wraps what Delta raises
        spark.sql(f"INSERT INTO delta.`{table}` VALUES (NULL, DATE'2026-01-05', 0.5, 'x')")
    assert read(spark, table).count() == 4


def test_history_and_fence_as_spark_sees_them(spark, table):
    publish_run(table, "r1", BOTH)
    fence(table, "zombie")
    first = spark.sql(f"DESCRIBE HISTORY delta.`{table}`").where("version = 0").collect()[0]
    assert first["userMetadata"].startswith("batchscore run r1: m/1")
    spark.sql(f"INSERT INTO delta.`{table}` VALUES (9, DATE'2026-01-05', 0.5, 'x')")
    assert read(spark, table).count() == 5
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{table}`").collect()[0]
    assert detail["properties"]["delta.logRetentionDuration"] == "interval 30 days"


def test_vacuum_keeps_manifests_and_published_files(spark, table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n"})
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        spark.sql(f"VACUUM delta.`{table}` RETAIN 0 HOURS")
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    assert read(spark, table).count() == 4
    assert live_units(table, {D1: "n", D2: "k2"}) == {D1: True, D2: True}
