"""What Spark reads of tables that were rolled back, merged, and from which rows were forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchscore.forget import forget
from batchscore.plan.units import is_live
from batchscore.publish import commit
from batchscore.retain import retain
from batchscore.rollback import rollback
from batchscore.tables.pointer import POINTER
from tests.factories.staging import day, look, make_plan, offer, publish_run, stage

pytestmark = pytest.mark.spark
D1, D2 = day("2026-01-01"), day("2026-01-02")
NAN = float("nan")


def read(spark, table):
    """As docs/reading.md says."""
    if table.endswith("delta"):
        return spark.read.format("delta").load(table)
    pointer = json.loads((Path(table) / POINTER).read_text())
    return spark.read.schema(pointer["spark_schema"]).parquet(*(f"{table}/{file['path']}" for file in pointer["files"]))


def rows(frame):
    return sorted((str(row["ds"]), row["id"], row["_run_id"]) for row in frame.repartition(3).collect())


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_spark_reads_what_is_there(spark, tmp_path, kind):
    table = str(tmp_path / kind)
    plan = make_plan(look(table), "r1", {D1: "k1", D2: "k2"})
    files = [stage(plan, D1, [1, 2], 0.1), stage(plan, D1, [3, 4], NAN), stage(plan, D1, [5]), stage(plan, D2, [1])]
    staged, manifest = offer(plan, files, {D1: "k1", D2: "k2"})
    commit(plan, staged, manifest, is_live=is_live)
    publish_run(table, "r2", {D2: "n2"})
    rollback(table, "r1")
    first = [("2026-01-01", number, "r1") for number in (1, 2, 3, 4, 5)] + [("2026-01-02", 1, "r1")]
    assert rows(read(spark, table)) == first
    assert retain(table, optimize=True, dry_run=False).merged.files == 3
    assert rows(read(spark, table)) == first
    # Spark orders NaN above every number, and skips files by their bounds.
    assert rows(read(spark, table).where("prediction > 0.9")) == first[2:4]
    forget(table, [{"id": "1"}, {"id": "5"}])
    assert rows(read(spark, table)) == first[1:4]
    assert rows(read(spark, table).where("prediction > 0.9")) == first[2:4]
    assert rows(read(spark, table).where("id = 1 OR id = 5")) == []
    assert rows(read(spark, table).where("id = 2")) == first[1:2]
