"""The two ways into the core give equal tables: workers that read splits, and a DataFrame through mapInArrow."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.tree import DecisionTreeRegressor

from batchscore import pipeline, runners, score
from batchscore.config import JobConfig
from batchscore.contracts import RunOptions
from batchscore.errors import InputError, SetupError, ValidationRefused

pytestmark = pytest.mark.spark
ROWS = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tree over an integer, a double with nulls and a decimal."""
    folder = tmp_path_factory.mktemp("routes") / "model"
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"n": generator.integers(0, 50, 400), "x": generator.random(400), "price": generator.random(400) * 10}
    )
    frame.loc[::7, "x"] = np.nan
    tree = DecisionTreeRegressor(random_state=0).fit(frame, frame["n"] + frame["price"])
    signature = ModelSignature(
        inputs=Schema([ColSpec("long", "n"), ColSpec("double", "x"), ColSpec("double", "price")]),
        outputs=Schema([ColSpec("double")]),
    )
    mlflow.sklearn.save_model(
        tree, folder, signature=signature, pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
    )
    return str(folder)


def table(rows: int = ROWS) -> pa.Table:
    generator = np.random.default_rng(2)
    numbers = np.arange(rows)
    start = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    return pa.table(
        {
            "id": pa.array(2**60 + numbers),
            "n": pa.array(generator.integers(0, 50, rows), pa.int32()),
            "x": pa.array([None if i % 5 == 0 else float(v) for i, v in enumerate(generator.random(rows))]),
            "price": pa.array(
                [Decimal(int(v)).scaleb(-2) for v in generator.integers(0, 999, rows)], pa.decimal128(9, 2)
            ),
            "country": pa.array([("DE", "FR", None)[i % 3] for i in range(rows)]).dictionary_encode(),
            "at": pa.array([start + dt.timedelta(seconds=int(i)) for i in numbers], pa.timestamp("us", "UTC")),
            "day": pa.array([dt.date(2026, 11, 20) + dt.timedelta(days=int(i) // 3 % 3) for i in numbers]),
        }
    )


def run(model, source, target, on_event=lambda _: None, **changes):
    settings = {
        "model": {"name": model},
        "input": {"path": str(source), **changes.pop("input", {})},
        "output": {"path": str(target), "keys": ["id"], "carry": ["*"], **changes.pop("output", {})},
        "spark": {"master": "local[2]"},
        "registry": {"allowed_paths": [model]},
        **changes,
    }
    return pipeline.run(JobConfig.model_validate(settings), RunOptions(), on_event)


def published(output):
    read = DeltaTable(output).to_pyarrow_table().sort_by("id")
    return read.drop_columns(["_run_id", "_scored_at"])


def parquet(folder):
    pq.write_to_dataset(table(), folder, partition_cols=["day"])


def delta(folder):
    write_deltalake(
        folder, table().set_column(4, "country", table()["country"].cast(pa.string())), partition_by=["day"]
    )


@pytest.mark.parametrize("write", [parquet, delta])
def test_both_ways_give_equal_tables(spark, model, tmp_path, write):
    source = tmp_path / "source"
    write(source)
    # The same rows by two conditions: workers evaluate the one, only Spark can evaluate the other.
    by_splits = run(model, source, tmp_path / "splits", input={"where": "n > 10"})
    plan = pipeline.plan(
        JobConfig.model_validate(
            {
                "model": {"name": model},
                "input": {"path": str(source), "where": "n + 0 > 10"},
                "output": {"path": str(tmp_path / "frame"), "keys": ["id"]},
                "registry": {"allowed_paths": [model]},
            }
        ),
        RunOptions(),
    )
    assert plan.route == "dataframe"
    by_frame = run(model, source, tmp_path / "frame", input={"where": "n + 0 > 10"})
    assert by_splits.rows == by_frame.rows > 0
    assert published(tmp_path / "splits").equals(published(tmp_path / "frame"))
    local = run(model, source, tmp_path / "local", input={"where": "n > 10"}, scoring={"runner": "local"})
    assert local.rows == by_splits.rows
    assert published(tmp_path / "local").equals(published(tmp_path / "splits"))


def test_a_table_with_deletion_vectors_goes_through_spark(spark, model, tmp_path):
    source = tmp_path / "source"
    delta(source)
    spark.sql(f"ALTER TABLE delta.`{source}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = true)")
    spark.sql(f"DELETE FROM delta.`{source}` WHERE n < 10")
    record = run(model, source, tmp_path / "out")
    assert record.rows == sum(number >= 10 for number in table()["n"].to_pylist())
    again = run(model, source, tmp_path / "out")
    assert again.state == "skipped"
    spark.sql(f"DELETE FROM delta.`{source}` WHERE n = 20 AND day = DATE'2026-11-21'")
    changed = run(model, source, tmp_path / "out")
    assert (changed.units_published, changed.units_live) == (1, 2)
    assert len(published(tmp_path / "out")) == spark.read.format("delta").load(str(source)).count()


def test_a_view_is_scored_and_scored_again(spark, model, tmp_path):
    parquet(tmp_path / "source")
    spark.read.parquet(str(tmp_path / "source")).createOrReplaceTempView("transactions_view")
    record = run(model, "transactions_view", tmp_path / "out", output={"partition_by": ["day"], "carry": []})
    assert record.rows == ROWS
    assert record.units_published == 3
    again = run(model, "transactions_view", tmp_path / "out", output={"partition_by": ["day"], "carry": []})
    assert (again.state, again.rows) == ("published", ROWS)
    assert len(DeltaTable(tmp_path / "out").to_pyarrow_table()) == ROWS
    with pytest.raises(SetupError, match="transactions_vieww"):
        run(model, "transactions_vieww", tmp_path / "out", scoring={"runner": "local"})


def test_an_output_partitioned_by_a_column_that_the_layout_does_not_tell(spark, model, tmp_path):
    pq.write_table(table(), tmp_path / "one.parquet")
    options = {"output": {"partition_by": ["country", "day"]}, "scoring": {"runner": "local"}}
    first = run(model, tmp_path / "one.parquet", tmp_path / "out", **options)
    assert first.units_published == 9
    again = run(model, tmp_path / "one.parquet", tmp_path / "out", **options)
    assert (again.state, again.rows) == ("skipped", 0)
    spark.sql(f"DELETE FROM delta.`{tmp_path / 'out'}` WHERE country IS NULL AND day = DATE'2026-11-22'")
    mended = run(model, tmp_path / "one.parquet", tmp_path / "out", **options)
    # The input does not tell the units apart, so all rows are scored; the commit drops those that are live.
    assert (mended.units_published, mended.units_live) == (1, 8)
    assert len(published(tmp_path / "out")) == ROWS


# Only Spark evaluates it, so that Spark itself reads the files.
READ_BY_SPARK = {"rules": [{"sql": "n + 0 >= 0"}]}
SKIPPING = "spark.sql.files.ignoreCorruptFiles"


@pytest.fixture
def damaged(spark, tmp_path):
    """Two files, of which one has damaged pages under a whole footer, in a session that is told to skip such."""
    source = tmp_path / "source"
    source.mkdir()
    for name, start in (("a", 0), ("b", ROWS // 2)):
        pq.write_table(table().slice(start, ROWS // 2), source / f"{name}.parquet")
    path = source / "a.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(bytes(content))
    spark.conf.set(SKIPPING, "true")
    yield source
    spark.conf.set(SKIPPING, "false")


def test_a_damaged_file_is_not_skipped_where_the_session_would(spark, model, tmp_path, damaged):
    heard = []
    with pytest.raises(InputError, match="could not read"):
        run(model, damaged, tmp_path / "out", heard.append, quarantine=READ_BY_SPARK)
    assert any(SKIPPING in str(event.get("text")) for event in heard)
    assert not (tmp_path / "out" / "_delta_log").exists()


def test_rows_that_spark_skipped_nevertheless_are_missed(spark, model, tmp_path, damaged):
    def skip_again(event):
        if event.get("stage") == "score":
            spark.conf.set(SKIPPING, "true")

    with pytest.raises(ValidationRefused) as refused:
        run(model, damaged, tmp_path / "out", skip_again, quarantine=READ_BY_SPARK)
    assert f"planned, not filtered and not quarantined: {ROWS}" in refused.value.text()
    assert not (tmp_path / "out" / "_delta_log").exists()


def test_both_runners_call_the_same_worker_function(spark, model, tmp_path, monkeypatch):
    called = {}
    for name in ("LocalRunner", "SparkRunner"):

        class Recording(getattr(runners, name)):
            def run_splits(self, worker, *arguments):
                called[self.name] = worker
                return super().run_splits(worker, *arguments)

        monkeypatch.setattr(runners, name, Recording)
    parquet(tmp_path / "source")
    for runner in ("local", "spark"):
        run(model, tmp_path / "source", tmp_path / runner, scoring={"runner": runner})
    assert called == {"local": score.run_splits_task, "spark": score.run_splits_task}
    assert published(tmp_path / "local").equals(published(tmp_path / "spark"))
