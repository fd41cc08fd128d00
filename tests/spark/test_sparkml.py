"""Spark ML pipelines: each row's score is the pipeline's own, beside its keys, whatever its columns are called."""

from __future__ import annotations

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import Array, DataType
from pyspark.ml import Pipeline
from pyspark.ml.classification import GBTClassifier, LogisticRegression, RandomForestClassifier
from pyspark.ml.feature import Bucketizer, Imputer, SQLTransformer, StringIndexer, VectorAssembler
from pyspark.ml.functions import array_to_vector
from pyspark.ml.regression import LinearRegression

from batchscore import manifests, pipeline, proofs, spark_udf
from batchscore.config import JobConfig
from batchscore.contracts import RunOptions
from batchscore.engines import sparkml
from batchscore.errors import BadRowsError, InputError, ModelError, SettingsError
from batchscore.record.quarantine import examples
from batchscore.replay import replay

pytestmark = pytest.mark.spark
ROWS = 400
MIXED = (("long", "n"), ("double", "x"), ("string", "country"))


def table(rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(7)
    return pa.table(
        {
            "id": pa.array(2**60 + np.arange(rows)),
            "n": pa.array(random.integers(0, 50, rows), pa.int32()),
            "x": pa.array([None if i % 5 == 0 else float(v) for i, v in enumerate(random.random(rows))]),
            "country": pa.array([("DE", "FR", None, "US")[i % 4] for i in range(rows)]),
            "label": pa.array(random.integers(0, 2, rows).astype(float)),
            # Names that the pipeline gives its own columns.
            "features": pa.array([f"f{i}" for i in range(rows)]),
            "rawPrediction": pa.array(range(rows)),
        }
    )


def stages(kind):
    index = StringIndexer(inputCol="country", outputCol="code", handleInvalid="keep")
    impute = Imputer(inputCol="x", outputCol="filled")
    assemble = VectorAssembler(inputCols=["n", "filled", "code"], outputCol="features")
    if kind == "asking":
        ask = SQLTransformer(statement="SELECT *, CASE WHEN x IS NULL THEN 0.0D ELSE 1.0D END AS there FROM __THIS__")
        join = VectorAssembler(inputCols=["there", "n"], outputCol="features")
        return [ask, join, LinearRegression(solver="normal", regParam=0.1)]
    if kind == "skipping":
        return [VectorAssembler(inputCols=["x"], outputCol="features", handleInvalid="skip"), LogisticRegression()]
    if kind == "logistic":
        fill = Bucketizer(splits=[0, 10, 30, 100], inputCol="n", outputCol="bucket")
        join = VectorAssembler(inputCols=["n", "bucket", "code"], outputCol="features")
        return [index, fill, join, LogisticRegression()]
    if kind == "boosted":
        return [index, impute, assemble, GBTClassifier(maxIter=3, seed=1)]
    if kind == "forest":
        return [index, impute, assemble, RandomForestClassifier(numTrees=5, seed=1)]
    return [Bucketizer(splits=[-1, 10, 30, 100], inputCol="n", outputCol="bucket")]


@pytest.fixture(scope="module")
def saved(spark, tmp_path_factory):
    """Kind → folder of the model, and the fitted pipeline."""
    frame = spark.createDataFrame(table().drop_columns(["features", "rawPrediction"]))
    folder = tmp_path_factory.mktemp("sparkml")
    found = {}
    for kind in ("logistic", "boosted", "forest", "bucket", "skipping", "asking"):
        found[kind] = (str(folder / kind), Pipeline(stages=stages(kind)).fit(frame), MIXED)
    arrays = frame.selectExpr("array(cast(n as double), 1.5D) as features", "label")
    fitted = Pipeline(stages=[LinearRegression()]).fit(arrays.withColumn("features", array_to_vector("features")))
    found["vector"] = (str(folder / "vector"), fitted, ((Array(DataType.double), "features"),))
    sparkml.import_connect()
    for path, fitted, inputs in found.values():
        mlflow.spark.save_model(
            fitted,
            path,
            signature=ModelSignature(Schema([ColSpec(*item) for item in inputs]), Schema([ColSpec("double")])),
            pip_requirements=["pyspark"],
            dfs_tmpdir=str(folder / "tmp"),
        )
    return {kind: (path, fitted) for kind, (path, fitted, _) in found.items()}


def settings(model, folder, rows, **changes):
    (folder / "source").mkdir(exist_ok=True)
    pq.write_table(rows, folder / "source" / "a.parquet", row_group_size=100)
    return JobConfig.model_validate(
        {
            "model": {"name": model},
            "input": {"path": str(folder / "source")},
            "output": {"path": str(folder / "out"), "keys": ["id"], "carry": ["*"]},
            "spark": {"master": "local[2]"},
            "registry": {"allowed_paths": [model]},
            **changes,
        }
    )


@pytest.mark.parametrize("kind", ["logistic", "boosted", "forest", "bucket"])
def test_scores_are_the_pipelines_own(spark, saved, tmp_path, kind):
    path, fitted = saved[kind]
    config = settings(path, tmp_path, table())
    record = pipeline.run(config, RunOptions())
    assert (record.state, record.rows, record.engine) == ("published", ROWS, "sparkml")
    found = DeltaTable(tmp_path / "out").to_pyarrow_table().sort_by("id")
    bare = spark.createDataFrame(table().drop_columns(["features", "rawPrediction"]))
    column = "bucket" if kind == "bucket" else "prediction"
    expected = fitted.transform(bare).select("id", column).toArrow().sort_by("id")
    assert found["prediction"].to_pylist() == expected[column].to_pylist()
    assert len(set(expected[column].to_pylist())) > 1
    assert found["id"].to_pylist() == expected["id"].to_pylist()
    assert found["features"].to_pylist() == table()["features"].to_pylist()
    assert found["rawPrediction"].to_pylist() == table()["rawPrediction"].to_pylist()
    manifest = manifests.read(str(tmp_path / "out"), record.run_id)
    assert manifest.certificate is not None
    assert (manifest.certificate.engine, manifest.certificate.verdict) == ("sparkml", "equal")
    assert pipeline.run(config, RunOptions()).state == "skipped"


def test_nan_and_null_are_what_the_registered_model_sees(spark, saved, tmp_path):
    """Null, both of them, as in MLflow's frame: the pipeline tells them apart."""
    path, fitted = saved["asking"]
    values = [float("nan") if i % 7 == 0 else value for i, value in enumerate(table()["x"].to_pylist())]
    rows = table().set_column(2, "x", pa.array(values, pa.float64()))
    pipeline.run(settings(path, tmp_path, rows), RunOptions())
    found = DeltaTable(tmp_path / "out").to_pyarrow_table().sort_by("id")["prediction"].to_pylist()

    def transformed(expression):
        frame = spark.createDataFrame(rows.select(["id", "n", "x"])).selectExpr("id", "n", f"{expression} AS x")
        return fitted.transform(frame).toArrow().sort_by("id")["prediction"].to_pylist()

    assert found == transformed("CASE WHEN NOT isnan(x) THEN x END")
    assert found != transformed("x")
    assert found != transformed("nvl(x, double('NaN'))")


def test_an_array_column_is_the_vector(spark, saved, tmp_path):
    path, fitted = saved["vector"]
    rows = pa.table(
        {"id": pa.array(range(50)), "features": pa.array([[float(i), 1.5] for i in range(50)], pa.list_(pa.float64()))}
    )
    pipeline.run(settings(path, tmp_path, rows), RunOptions())
    found = DeltaTable(tmp_path / "out").to_pyarrow_table().sort_by("id")
    frame = spark.createDataFrame(rows).withColumn("features", array_to_vector("features"))
    assert found["prediction"].to_pylist() == fitted.transform(frame).toArrow().sort_by("id")["prediction"].to_pylist()


def test_a_row_that_cannot_be_cast_goes_to_the_quarantine(saved, tmp_path):
    rows = table()
    numbers = rows["n"].to_pylist()
    numbers[17] = None
    rows = rows.set_column(1, "n", pa.array(numbers, pa.int32()))
    record = pipeline.run(settings(saved["logistic"][0], tmp_path, rows), RunOptions())
    assert (record.rows, record.rows_quarantined) == (ROWS - 1, 1)
    (row,) = examples(str(tmp_path / "out"), record.run_id, 10)
    assert (row.row["id"], row.reason, row.column) == (str(2**60 + 17), "null", "n")


def test_what_was_left_out_is_replayed(spark, saved, tmp_path):
    """Spark scores every row of the frame; the worker keeps the one that the run left out."""
    path, fitted = saved["logistic"]
    numbers = table()["n"].to_pylist()
    numbers[17] = None
    config = settings(path, tmp_path, table().set_column(1, "n", pa.array(numbers, pa.int32())))
    run = pipeline.run(config, RunOptions())
    assert (run.rows, run.rows_quarantined) == (ROWS - 1, 1)
    again = replay(settings(path, tmp_path, table()), run.run_id, RunOptions())
    assert (again.state, again.rows_read, again.rows_filtered) == ("published", ROWS, ROWS - 1)
    assert again.rows == 1
    found = DeltaTable(tmp_path / "out").to_pyarrow_table().sort_by("id")
    bare = spark.createDataFrame(table().drop_columns(["features", "rawPrediction"]))
    expected = fitted.transform(bare).select("id", "prediction").toArrow().sort_by("id")
    assert found["prediction"].to_pylist() == expected["prediction"].to_pylist()
    assert found["_run_id"].to_pylist().count(again.run_id) == 1


def test_more_rows_that_cannot_be_cast_than_allowed_are_named(saved, tmp_path):
    rows = table().set_column(1, "n", pa.array([None] * ROWS, pa.int32()))
    with pytest.raises(BadRowsError) as raised:
        pipeline.run(settings(saved["logistic"][0], tmp_path, rows), RunOptions())
    assert f"id={2**60}: column n" in raised.value.text()
    assert not (tmp_path / "out" / "_delta_log").exists()


def test_a_pipeline_that_leaves_rows_out_is_refused(saved, tmp_path):
    with pytest.raises(ModelError, match=f"made {ROWS - ROWS // 5} rows of {ROWS}"):
        pipeline.run(settings(saved["skipping"][0], tmp_path, table()), RunOptions())
    assert not (tmp_path / "out" / "_delta_log").exists()


def test_what_the_pipeline_raises_is_an_error_of_the_input(saved, tmp_path):
    """A bucketizer of n from 0 on: -5 is in no bucket, and Spark ends the job."""
    rows = table().set_column(1, "n", pa.array([-5] * ROWS, pa.int32()))
    with pytest.raises(InputError, match=r"(?i)bucket"):
        pipeline.run(settings(saved["logistic"][0], tmp_path, rows), RunOptions())
    assert not (tmp_path / "out" / "_delta_log").exists()


def test_what_cannot_score_it_says_so(spark, saved, tmp_path):
    path, _ = saved["logistic"]
    with pytest.raises(SettingsError, match="Spark's own transform"):
        pipeline.run(settings(path, tmp_path, table(), scoring={"runner": "local"}), RunOptions())
    with pytest.raises(ModelError, match="engine pyfunc cannot serve"):
        pipeline.run(settings(path, tmp_path, table(), scoring={"engine": "pyfunc"}), RunOptions())
    with pytest.raises(ModelError, match="no function of columns"):
        spark_udf(spark, path)


def test_the_table_of_engines_shows_it(saved, tmp_path):
    report = proofs.engines(settings(saved["boosted"][0], tmp_path, table()))
    states = {candidate.engine: (candidate.state, candidate.chosen) for candidate in report.candidates}
    assert states["sparkml"] == ("equal", True)
    assert states["pyfunc"][0] == "unavailable"
