"""batchscore.spark_udf in people's own Spark code, beside mlflow.pyfunc.spark_udf: equal columns, or an error."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyspark
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Array
from pyspark.sql import functions as sf
from pyspark.sql import types as st
from sklearn.tree import DecisionTreeRegressor

import batchscore
from batchscore.errors import ModelError, SettingsError
from tests.factories import models as factories
from tests.spark.test_cluster import driven

pytestmark = pytest.mark.spark

ROWS = 40


# --- One model a kind, scored by both on the same DataFrame. -----------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return factories.make_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def wide(spark):
    """Columns for every kind of model, some with nulls."""
    mixed, numbers = factories.mixed_frame().head(ROWS), factories.numeric_frame().head(ROWS)
    table = pa.table(
        {
            **{name: pa.array(mixed[name], from_pandas=True) for name in mixed},
            **{name: pa.array(numbers[name], pa.float64()) for name in numbers},
            "x": np.arange(ROWS) / 8,
            "when": pa.array(range(ROWS), pa.timestamp("us", "UTC")),
            "matrix": pa.array(numbers.to_numpy().tolist(), pa.list_(pa.float32())),
            "features": numbers.to_numpy().astype(float).tolist(),
        }
    )
    return spark.createDataFrame(table).coalesce(1).cache()


def custom(predict: Callable[..., Any], outputs: Schema | None, inputs: Schema | None = None):
    """Registers a Python model that makes its outputs of the column x."""

    def make(registry, name):
        signature = ModelSignature(inputs=inputs or Schema([ColSpec("double", "x")]), outputs=outputs)
        factories.register_python(registry, name, predict, signature=signature)

    return make


def one(kind: str, dtype: str):
    """A model with one output of one type; floats have a NaN, text a None."""

    def predict(data, _):
        import numpy as np
        import pandas as pd

        values = data["x"].to_numpy()
        if dtype == "object":
            return pd.DataFrame({"y": [f"t{value}" for value in values]})
        if dtype.startswith("float"):
            values = np.where(values == 1.0, np.nan, values * np.pi)
        return pd.DataFrame({"y": (values > 2 if dtype == "bool" else values * 3).astype(dtype)})

    return custom(predict, Schema([ColSpec(kind, "y")]))


def several(data, _):
    import pandas as pd

    x = data["x"]
    return pd.DataFrame(
        {
            "score": x * 0.1, "name": "n" + x.astype(str), "flag": x > 2, "id": (x * 8).astype("int64"),
            "small": (x * 8).astype("int32"), "ratio": (x * 0.1).astype("float32"),
            "parts": [[value, value + 0.5] for value in x],
        }
    )  # fmt: skip


SEVERAL = Schema(
    [
        ColSpec("double", "score"), ColSpec("string", "name"), ColSpec("boolean", "flag"), ColSpec("long", "id"),
        ColSpec("integer", "small"), ColSpec("float", "ratio"), ColSpec(Array("double"), "parts"),
    ]
)  # fmt: skip


def largest():
    """A model of one unnamed matrix, exact whatever the matrix' layout in memory."""

    def predict(data, _):
        return data.max(axis=1)

    matrix, vector = (TensorSpec(np.dtype("float64"), shape) for shape in ((-1, 5), (-1,)))
    return custom(predict, Schema([vector]), Schema([matrix]))


def image():
    """A model of one named tensor of rank 3, fed by flat arrays, and one of a scalar column."""

    def predict(data, _):
        return data["features"].max(axis=(1, 2)) + data["x"][:, 0]

    features, x, out = (TensorSpec(np.dtype("float64"), *spec) for spec in (
        ((-1, 5, 1), "features"), ((-1, 1), "x"), ((-1,), "y"),
    ))  # fmt: skip
    return custom(predict, Schema([out]), Schema([features, x]))


def nested(data, _):
    return [[[value, 1.0], [2.0, value]] for value in data["x"]]


def named(make, *arguments):
    return lambda registry, name: make(registry, *arguments, name=name)


@dataclass(frozen=True)
class Kind:
    """A model, the columns it is called with, and what both make of result types.

    ``equal``: the same column. ``refused``: ours is an error when it is defined. ``ours``: MLflow's fails in the job.
    """

    make: Callable[..., Any]
    call: Callable[[], list[Any]]
    equal: tuple[Any, ...] = ()
    refused: tuple[Any, ...] = ()
    ours: tuple[Any, ...] = ()


def columns(*names: str) -> Callable[[], list[Any]]:
    return lambda: [sf.col(name) for name in names]


def struct(*names: str) -> Callable[[], list[Any]]:
    return lambda: [sf.struct(*names)]


SCALARS = ("int", "long", "float", "double", "boolean", "string")


def whole(*fitting: str) -> dict[str, tuple[Any, ...]]:
    """The scalar types and arrays of them, divided into those that fit and those that do not."""
    return {
        "equal": (None, *(text for kind in fitting for text in (kind, f"array<{kind}>"))),
        "refused": tuple(text for kind in SCALARS if kind not in fitting for text in (kind, f"array<{kind}>")),
    }


X = columns("x")
PIPELINE = ("amount", "hour", "country", "channel")
FEATURES = ("f0", "f1", "f2", "f3", "f4")
NUMBER = ("float", "double", "string")
KINDS = {
    "boolean": Kind(one("boolean", "bool"), X, **whole("boolean", "string")),
    "bool": Kind(one("boolean", "bool"), X, equal=("bool", "y boolean"), ours=("array<bool>", "y bool")),
    "integer": Kind(one("integer", "int32"), X, **whole("int", "long", *NUMBER)),
    "long": Kind(one("long", "int64"), X, **whole("long", *NUMBER)),
    "float": Kind(one("float", "float32"), X, **whole(*NUMBER)),
    "double": Kind(one("double", "float64"), X, **whole(*NUMBER)),
    "string": Kind(one("string", "object"), X, **whole("string")),
    "several": Kind(
        custom(several, SEVERAL),
        X,
        equal=(
            "score double, name string, flag boolean, id long, small int, ratio float, parts array<double>",
            "ratio string, score string, flag string, id string",
            "id int, small long, flag double, score float, ratio double",
            "parts array<float>",
            st.StructType([st.StructField("parts", st.ArrayType(st.StringType()))]),
        ),
        refused=("double", "string", "array<double>", "array<string>", "nome string", "name double", "map<string,int>"),
    ),
    "pipeline": Kind(
        named(factories.register_sklearn), columns(*PIPELINE), equal=(None, "long", "double", "array<long>", "string")
    ),
    "pipeline_struct": Kind(named(factories.register_sklearn), struct("x", *reversed(PIPELINE)), equal=(None,)),
    "probabilities": Kind(
        named(factories.register_probabilities),
        struct(*PIPELINE),
        equal=("array<double>", "array<float>", "array<string>", st.ArrayType(st.DoubleType())),
        refused=("double", "string", "array<int>", "array<array<double>>"),
        ours=(None,),
    ),
    "tensor": Kind(
        named(factories.register_unnamed_tensor),
        columns("features"),
        equal=(None, "double", "float", "array<double>", "string"),
        refused=("int", "boolean"),
    ),
    "tensor_of_columns": Kind(largest(), struct(*FEATURES), equal=(None, "double", "array<double>")),
    "image": Kind(image(), columns("features", "x"), equal=(None, "double")),
    "image_struct": Kind(image(), struct("x", "features"), equal=("double",)),
    "onnx": Kind(
        named(factories.register_onnx),
        lambda: [sf.col(name).cast("float") for name in FEATURES],
        equal=("double", "float", "string"),
    ),
    "onnx_tensor": Kind(
        named(factories.register_onnx_tensor),
        columns("matrix"),
        equal=("label long, probabilities array<float>", "probabilities array<double>", "label int"),
        refused=("long", "array<float>", "probabilities float"),
        ours=(None,),
    ),
    "nested": Kind(
        custom(nested, Schema([ColSpec(Array(Array("double")))])),
        X,
        equal=(None, "array<array<double>>", "array<array<float>>", "array<array<string>>"),
        refused=("double", "array<double>"),
    ),
    "rank_three": Kind(
        custom(lambda data, _: np.array(nested(data, _)), Schema([TensorSpec(np.dtype("float64"), (-1, 2, 2))])),
        X,
        equal=("array<array<double>>",),
    ),
    "no_outputs": Kind(
        custom(lambda data, _: data["x"] * 2, None),
        X,
        equal=(None, "double", "float"),
    ),
    "no_outputs_matrix": Kind(
        custom(lambda data, _: np.array([[x, x + 1] for x in data["x"]]), None),
        X,
        equal=("array<double>", "array<float>"),
    ),
    "no_outputs_struct": Kind(custom(several, None), X, equal=("score double, name string, flag boolean, id long, "
        "small int, ratio float, parts array<double>",)),
    "when": Kind(
        custom(lambda data, _: data["when"], Schema([ColSpec("datetime")]), Schema([ColSpec("datetime", "when")])),
        columns("when"),
        equal=(None, "string"),
    ),
}  # fmt: skip


@functools.cache
def folder_of(registry, name: str) -> str:
    """The folder of a kind's model, made once."""
    make = KINDS[name].make
    kept = mlflow.get_tracking_uri()
    make(registry, name)
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        return str(mlflow.artifacts.download_artifacts(f"models:/{name}/1"))
    finally:
        mlflow.set_tracking_uri(kept)


@pytest.mark.parametrize("name", KINDS)
def test_the_same_columns_as_mlflow(spark, wide, registry, name):
    kind, folder = KINDS[name], folder_of(registry, name)
    pairs = {}
    for number, asked in enumerate(kind.equal):
        ours = batchscore.spark_udf(spark, folder, asked)
        theirs = mlflow.pyfunc.spark_udf(spark, folder, asked, env_manager="local")
        pairs[f"ours_{number}"] = ours(*kind.call())
        pairs[f"theirs_{number}"] = theirs(*kind.call())
    scored = wide.select(*(column.alias(alias) for alias, column in pairs.items()))
    table = scored.toArrow()
    for number, asked in enumerate(kind.equal):
        ours, theirs = (scored.schema[f"{side}_{number}"].dataType.simpleString() for side in ("ours", "theirs"))
        assert ours == theirs, asked
        values = table[f"ours_{number}"].to_pylist()
        assert values == table[f"theirs_{number}"].to_pylist(), asked
        assert len({str(value) for value in values}) > 1, "a constant would prove nothing"


@pytest.mark.parametrize(("name", "asked"), [(name, asked) for name, kind in KINDS.items() for asked in kind.refused])
def test_refused_when_it_is_defined(spark, registry, name, asked):
    with pytest.raises(SettingsError):
        batchscore.spark_udf(spark, folder_of(registry, name), asked)


@pytest.mark.parametrize(("name", "asked"), [(name, asked) for name, kind in KINDS.items() for asked in kind.ours])
def test_what_mlflow_fails_at(spark, wide, registry, name, asked):
    kind, folder = KINDS[name], folder_of(registry, name)
    assert (
        wide.select(batchscore.spark_udf(spark, folder, asked)(*kind.call()).alias("s")).where("s is null").count() == 0
    )
    with pytest.raises(Exception, match=r"exception was thrown|PARSE|DATATYPE"):
        wide.select(mlflow.pyfunc.spark_udf(spark, folder, asked, env_manager="local")(*kind.call())).collect()


def test_a_model_without_a_signature_takes_the_udfs_columns(spark, wide, registry):
    factories.register_no_signature(registry, "bare")
    factories.register_python(registry, "numbered", lambda data, _: data["0"] * 2 + data["1"])
    kept = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        both = (functools.partial(batchscore.spark_udf, spark), functools.partial(mlflow.pyfunc.spark_udf, spark))
        bare, theirs = (make("models:/bare/1", "double", "local") for make in both)
        numbered, their_numbered = (make("models:/numbered/1", "double") for make in both)
    finally:
        mlflow.set_tracking_uri(kept)
    row = sf.struct("amount")
    table = wide.select(
        bare(row).alias("a"),
        theirs(row).alias("b"),
        numbered("x", "f0").alias("c"),
        their_numbered("x", "f0").alias("d"),
    ).toArrow()
    assert table["a"].to_pylist() == table["b"].to_pylist()
    assert table["c"].to_pylist() == table["d"].to_pylist()
    with pytest.raises(SettingsError, match="signature="):
        bare()
    inputs = {"inputs": [{"name": "amount", "type": "double"}]}
    by_name = batchscore.spark_udf(spark, "models:/bare/1", tracking_uri=registry.tracking_uri, signature=inputs)
    assert wide.select(by_name()).toArrow()[0].to_pylist() == table["a"].to_pylist()


# --- In queries ----------------------------------------------------------------------------------------------------


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
        rows.withColumn("s", score()).filter(score("b", "a") >= 0),
        rows.select("id").join(rows.withColumn("s", score()), "id"),
        rows.alias("l").join(rows.withColumnRenamed("a", "other"), "id").select(
            "l.a", "l.b", score("l.b", "l.a").alias("s")
        ),
    ):  # fmt: skip
        table = scored.toArrow()
        assert table.num_rows == 500
        assert table["s"].to_numpy().tobytes() == own(estimator, table).tobytes()


def test_it_can_be_registered_for_sql(spark, tree, rows):
    folder, estimator = tree
    spark.udf.register("fraud", batchscore.spark_udf(spark, folder))
    rows.createOrReplaceTempView("transactions")
    query = """
        SELECT l.a, l.b, fraud(l.b, r.a) AS s
        FROM transactions l JOIN transactions r ON l.id = r.id
        WHERE fraud(l.b, l.a) >= 0 AND fraud(named_struct('a', r.a, 'b', r.b)) >= 0
    """
    table = spark.sql(query).toArrow()
    assert table.num_rows == 500
    assert table["s"].to_numpy().tobytes() == own(estimator, table).tobytes()
    with pytest.raises(Exception, match="takes 2 columns, the UDF was given 3"):
        spark.sql("SELECT fraud(b, a, id) FROM transactions").collect()


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
    third = batchscore.spark_udf(spark, str(tmp_path / "model"), "label string")
    for udf in (first, second, third, first):
        table = rows.select("a", udf(sf.col("a")).alias("s")).toArrow()
        scored = table["s"].combine_chunks()
        if udf is not third:
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
    echo, doubled = (batchscore.spark_udf(spark, str(tmp_path / "model"), asked) for asked in (None, "double"))
    digits = 2**53 + 1
    frame = spark.createDataFrame([(digits,), (7,)], "x long")
    assert sorted(row[0] for row in frame.select(echo("x")).collect()) == [7, digits]
    with pytest.raises(Exception, match="holds a value that result_type double cannot hold"):
        frame.select(doubled("x")).collect()
    nulls = spark.createDataFrame([(digits,), (None,)], "x long")
    with pytest.raises(Exception, match="null, and the model's long has none"):
        nulls.select(echo("x")).collect()


def test_what_it_cannot_do_is_said(spark, tree):
    folder, _ = tree
    with pytest.raises(SettingsError, match="env_manager"):
        batchscore.spark_udf(spark, folder, env_manager="virtualenv")
    with pytest.raises(SettingsError, match="prebuilt_env_uri"):
        batchscore.spark_udf(spark, folder, prebuilt_env_uri="dbfs:/env.tar.gz")
    with pytest.raises(SettingsError, match="model_config is given, and the model takes none"):
        batchscore.spark_udf(spark, folder, model_config={"depth": 3})
    with pytest.raises(SettingsError, match="unknown engine"):
        batchscore.spark_udf(spark, folder, engine="nope")
    with pytest.raises(SettingsError, match="no result_type"):
        batchscore.spark_udf(spark, folder, result_type="array<")
    with pytest.raises(SettingsError, match="takes 2 columns, the UDF was given 3"):
        batchscore.spark_udf(spark, folder)("a", "b", "id")
    with pytest.raises(ModelError):
        batchscore.spark_udf(spark, folder + "/nothing")


def test_the_arguments_are_mlflows_in_its_order():
    import inspect

    theirs = list(inspect.signature(mlflow.pyfunc.spark_udf).parameters)
    ours = inspect.signature(batchscore.spark_udf).parameters
    assert list(ours)[: len(theirs)] == theirs
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(theirs) :])


def test_the_model_in_its_own_environment_with_variables_configuration_and_params(spark, rows, tmp_path):
    class Told(mlflow.pyfunc.PythonModel):
        """Tells its configuration, a variable of its environment, and a version that its requirements pin."""

        def predict(self, context, model_input, params=None):
            import importlib.metadata
            import os

            version = importlib.metadata.version("iniconfig")
            return [f"{context.model_config} {os.environ.get('UDF_TEST')} {version} {params}"] * len(model_input)

    own = [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow-skinny", "cloudpickle", "pandas")]
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=Told(),
        signature=mlflow.models.infer_signature(
            pd.DataFrame({"a": [1.0]}), np.array(["text"], dtype=object), params={"n": 1}
        ),
        model_config={"depth": 1},
        pip_requirements=[*own, "iniconfig==2.0.0"],
    )
    arguments = (str(tmp_path / "model"), "string", "uv", {"n": 5}, {"UDF_TEST": "set"}, None, {"depth": 3})
    told = {row[0] for row in rows.select(batchscore.spark_udf(spark, *arguments)("a")).collect()}
    assert told == {"{'depth': 3} set 2.0.0 {'n': 5}"}


CLUSTER = """
import json, sys
from batchscore import session, spark_udf
from pyspark.sql import functions as sf

given = json.loads(sys.argv[1])
spark = session.start(given["master"], given["conf"], on_notice=print)
frame = spark.createDataFrame([(i, float(i), 1.0 / (i + 1)) for i in range(100)], "id long, a double, b double")
score, listed = (spark_udf(spark, given["model"], asked) for asked in ("double", "array<double>"))
spark.udf.register("score", score)
frame.repartition(4).createOrReplaceTempView("t")
rows = spark.sql("SELECT a, b, score(b, a) AS s FROM t WHERE score(b, a) >= 0")
table = rows.withColumn("l", listed("b", "a")).toArrow()
print(json.dumps({"rows": table.to_pydict(), "archives": list(spark.sparkContext.listArchives)}))
spark.stop()
"""


def linked_spark(home: Path) -> Path:
    """An installation whose executors' folders, which local-cluster puts beside its jars, are the test's own."""
    home.mkdir()
    for entry in Path(pyspark.__file__).parent.iterdir():
        (home / entry.name).symlink_to(entry)
    return home


@pytest.mark.cluster
@pytest.mark.parametrize("master", ["standalone", "local-cluster[2,1,512]"])
def test_executors_elsewhere_get_the_package_and_the_model(cluster, tree, tmp_path, monkeypatch, master):
    folder, estimator = tree
    monkeypatch.setenv("SPARK_HOME", str(linked_spark(tmp_path / "spark")))
    master = cluster.master if master == "standalone" else master
    given = {"master": master, "conf": cluster.driver_conf, "model": folder}
    answer = json.loads(driven(CLUSTER, given, tmp_path).splitlines()[-1])
    table = pa.table(answer["rows"])
    assert table.num_rows == 100
    assert table["s"].to_pylist() == own(estimator, table).tolist()
    assert table["l"].to_pylist() == [[score] for score in answer["rows"]["s"]]
    assert len(answer["archives"]) == 1
