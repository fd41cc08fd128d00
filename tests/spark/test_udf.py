"""batchscore.spark_udf in people's own Spark code: same scores, loaded once for each worker process."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from pyspark.sql import functions as sf
from sklearn.tree import DecisionTreeRegressor

import batchscore
from batchscore.errors import ModelError, SettingsError

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree over two columns whose order matters, and the estimator itself.

    A linear model would not do: its last bit depends on how many rows BLAS multiplies at a time.
    """
    folder = tmp_path_factory.mktemp("tree") / "model"
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"b": generator.random(300), "a": generator.random(300) * 500})
    estimator = DecisionTreeRegressor(random_state=0).fit(frame, frame["a"] * frame["b"])
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", "b"), ColSpec("double", "a")]), outputs=Schema([ColSpec("double")])
    )
    mlflow.sklearn.save_model(
        estimator, folder, signature=signature, pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
    )
    return str(folder), estimator


class Counting(mlflow.pyfunc.PythonModel):
    """Leaves a file in ``log`` for each load; returns a number and a label."""

    def __init__(self, log: Path):
        self.log = log

    def load_context(self, context):
        (self.log / f"{os.getpid()}-{os.urandom(4).hex()}").touch()

    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"total": model_input["x"] * (params or {}).get("factor", 1.0), "label": "big"})


@pytest.fixture(scope="module")
def rows(spark):
    frame = spark.createDataFrame([(i, float(i), 1.0 / (i + 1)) for i in range(500)], "id long, a double, b double")
    return frame.repartition(7)


def own(estimator, table: pa.Table) -> np.ndarray:
    return estimator.predict(table.select(["b", "a"]).to_pandas())


def test_scores_are_the_models_own_to_the_last_bit(spark, tree, rows):
    folder, estimator = tree
    score = batchscore.spark_udf(spark, folder)
    for scored in (
        rows.select("a", "b", score().alias("s")),
        rows.select("a", "b", score("b", "a").alias("s")),
        rows.select("a", "b", score(sf.struct("a", "b", "id")).alias("s")),
    ):
        table = scored.toArrow()
        assert table["s"].to_numpy().tobytes() == own(estimator, table).tobytes()


def test_it_can_be_registered_for_sql(spark, tree, rows):
    folder, estimator = tree
    spark.udf.register("fraud", batchscore.spark_udf(spark, folder))
    rows.createOrReplaceTempView("transactions")
    table = spark.sql("SELECT a, b, fraud(b, a) AS s FROM transactions").toArrow()
    assert table["s"].to_numpy().tobytes() == own(estimator, table).tobytes()


def test_a_model_is_loaded_once_for_each_worker_process(spark, rows, tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", "x")]),
        outputs=Schema([ColSpec("double", "total"), ColSpec("string", "label")]),
    )
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=Counting(log),
        signature=signature,
        pip_requirements=["mlflow"],
    )
    first, second = (batchscore.spark_udf(spark, str(tmp_path / "model")) for _ in range(2))
    for udf in (first, second, first):
        table = rows.select("a", udf(sf.col("a")).alias("s")).toArrow()
        scored = table["s"].combine_chunks()
        assert scored.field("total").to_pylist() == table["a"].to_pylist()
        assert set(scored.field("label").to_pylist()) == {"big"}
    loads = [path.name for path in log.iterdir()]
    assert loads
    assert len(loads) == len({name.split("-")[0] for name in loads}), loads


def test_nullable_integers_keep_their_digits(spark, tmp_path):
    class Echo(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input["x"]

    signature = ModelSignature(inputs=Schema([ColSpec("long", "x")]), outputs=Schema([ColSpec("long")]))
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Echo(), signature=signature, pip_requirements=["mlflow"])
    echo = batchscore.spark_udf(spark, str(tmp_path / "model"))
    digits = 2**53 + 1
    frame = spark.createDataFrame([(digits,), (7,)], "x long")
    assert sorted(row[0] for row in frame.select(echo("x")).collect()) == [7, digits]
    nulls = spark.createDataFrame([(digits,), (None,)], "x long")
    with pytest.raises(Exception, match="null, and the model's long has none"):
        nulls.select(echo("x")).collect()


def test_what_it_cannot_do_is_said(spark, tree):
    folder, _ = tree
    with pytest.raises(SettingsError, match="env_manager"):
        batchscore.spark_udf(spark, folder, env_manager="virtualenv")
    with pytest.raises(SettingsError, match="double"):
        batchscore.spark_udf(spark, folder, result_type="float")
    with pytest.raises(ModelError):
        batchscore.spark_udf(spark, folder + "/nothing")


def test_a_wrong_number_of_columns_names_them(spark, tree, rows):
    folder, _ = tree
    score = batchscore.spark_udf(spark, folder)
    with pytest.raises(Exception, match="takes 2 columns, the UDF was given 3"):
        rows.select(score("a", "b", "id")).collect()
