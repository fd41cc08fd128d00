"""What a UDF is called with, and the arguments it is made with: no Spark in here."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore import models
from batchscore.contracts import ModelFiles, ModelInput, ModelOutput
from batchscore.errors import SchemaMismatchError, SettingsError
from batchscore.models.mlmodel import read_mlmodel
from batchscore.udf.arguments import config_of, environment_of, variables_of
from batchscore.udf.inputs import arrived, as_flat, by_position
from batchscore.udf.results import conversion, inferred
from batchscore.udf.scorer import ColumnScorer, environment
from tests.factories.models import (
    register_no_signature,
    register_outputs,
    register_sklearn,
    register_unnamed_tensor,
)

AB = (ModelInput("a", "double"), ModelInput("b", "long"))
OPTIONAL = (*AB, ModelInput("c", "string", required=False))
ONE = pa.array([1.0, 2.0])
TWO = pa.array([3, 4])


def scorer(model, asked=None):
    """What spark_udf would send to the executors."""
    result = conversion(model.outputs, inferred(model.outputs, tensor=False) if asked is None else asked)
    made = ColumnScorer(ModelFiles.of(model), "pyfunc", None, result)
    return pickle.loads(pickle.dumps(made))  # noqa: S301  # as Spark does


def test_columns_are_bound_by_position_and_a_struct_by_name():
    for columns in ([ONE, TWO], [pa.StructArray.from_arrays([TWO, ONE, ONE], names=["b", "x", "a"])]):
        batch, inputs = arrived(columns, AB)
        assert inputs == AB
        assert batch.column("a").equals(ONE)
        assert batch.column("b").equals(TWO)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "given 0"), (1, "found: nothing for b"), (4, "takes 3 columns, the UDF was given 4")],
)
def test_too_few_and_too_many_columns(count, said):
    with pytest.raises(SettingsError, match=said):
        by_position(count, OPTIONAL)


def test_optional_inputs_at_the_end_may_lack():
    assert by_position(2, OPTIONAL) == ["a", "b"]
    assert by_position(3, OPTIONAL) == ["a", "b", "c"]


def test_a_null_struct_is_null_in_each_field():
    column = pa.StructArray.from_arrays([ONE, TWO], names=["a", "b"], mask=pa.array([True, False]))
    batch, _ = arrived([column], AB)
    assert batch.to_pydict() == {"a": [None, 2.0], "b": [None, 4]}


def test_a_struct_with_a_name_twice():
    with pytest.raises(SettingsError, match="one name"):
        arrived([pa.StructArray.from_arrays([ONE, TWO], names=["a", "a"])], AB)


def test_without_a_signature_the_columns_are_the_inputs():
    batch, inputs = arrived([ONE, TWO], ())
    assert inputs == (ModelInput("0", "double"), ModelInput("1", "long"))
    assert batch.schema.names == ["0", "1"]
    time = pa.array([0], pa.timestamp("us", tz="UTC"))
    _, inputs = arrived([pa.StructArray.from_arrays([time], names=["when"])], ())
    assert inputs == (ModelInput("when", "timestamp_ntz"),)


def test_unnamed_columns_are_taken_in_order():
    unnamed = (ModelInput("", "double"), ModelInput("", "long", required=False))
    _, inputs = arrived([ONE, TWO], unnamed)
    assert [item.name for item in inputs] == ["0", "1"]
    _, inputs = arrived([ONE], unnamed)
    assert inputs == (ModelInput("0", "double"),)
    with pytest.raises(SettingsError, match="takes 2 columns, the UDF was given 3"):
        arrived([pa.StructArray.from_arrays([ONE, TWO, ONE], names=["a", "b", "c"])], unnamed)


LISTS = pa.array([[1.0, 2.0]])


@pytest.mark.parametrize(
    ("columns", "shape", "expected"),
    [
        ([LISTS], (-1, 2), ModelInput("0", "double", shape=(-1, 2))),
        ([ONE], (-1,), ModelInput("0", "double", shape=(-1,))),
        ([ONE], (-1, 1), ModelInput("", "double", shape=(-1, 1), columns=("0",))),
        ([ONE, ONE], (-1, 2), ModelInput("", "double", shape=(-1, 2), columns=("0", "1"))),
        ([ONE, ONE], (-1, -1), ModelInput("", "double", shape=(-1, 2), columns=("0", "1"))),
    ],
)
def test_an_unnamed_tensor_is_fed_by_an_array_or_by_columns(columns, shape, expected):
    assert arrived(columns, (ModelInput("", "double", shape=shape),))[1] == (expected,)


@pytest.mark.parametrize(("columns", "shape"), [([ONE], (-1, 2)), ([ONE] * 3, (-1, 2)), ([ONE] * 4, (-1, 2, 2))])
def test_an_unnamed_tensor_of_another_width(columns, shape):
    with pytest.raises(SchemaMismatchError, match="tensor of shape"):
        arrived(columns, (ModelInput("", "double", shape=shape),))


def test_a_tensor_named_by_the_caller_takes_arrays():
    named = (ModelInput("", "double", shape=(-1, 2), columns=("features",)),)
    assert arrived([LISTS], named)[1] == (ModelInput("features", "double", shape=(-1, 2)),)


@pytest.mark.parametrize(
    ("shape", "column", "bound"),
    [
        ((-1, 2, 3), pa.array([[1.0] * 6]), ModelInput("x", "double", shape=(-1, 6))),
        ((-1, 2, -1), pa.array([[1.0] * 6]), ModelInput("x", "double", shape=(-1, -1))),
        ((-1, 2, 3), pa.array([[[1.0] * 3] * 2]), ModelInput("x", "double", shape=(-1, 2, 3))),
        ((-1, 2), pa.array([[1.0] * 2]), ModelInput("x", "double", shape=(-1, 2))),
        ((-1, 1), ONE, ModelInput("x", "double", shape=(-1, 1), columns=("x",))),
        ((-1,), ONE, ModelInput("x", "double", shape=(-1,))),
    ],
)
def test_tensors_take_flat_columns(shape, column, bound):
    item = ModelInput("x", "double", shape=shape)
    assert as_flat([item], pa.RecordBatch.from_arrays([column], names=["x"])) == (bound,)


def test_the_models_own_scores(pinned):
    model, frame = pinned(register_sklearn)
    columns = [pa.array(frame[name], from_pandas=True) for name in frame]
    import mlflow.pyfunc

    expected = mlflow.pyfunc.load_model(model.path).predict(frame)
    assert scorer(model).score(*columns).to_pylist() == expected.tolist()
    struct = pa.StructArray.from_arrays(columns[::-1], names=list(frame)[::-1])
    assert scorer(model, "array<string>").score(struct).to_pylist() == [[str(label)] for label in expected]


def test_a_model_without_a_signature_scores_what_it_is_given(registry, model_cache):
    name, _ = register_no_signature(registry, "open")
    with pytest.raises(SchemaMismatchError, match="no signature"):
        models.pin(f"{name}/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)
    model = models.pin(f"{name}/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache, open_inputs=True)
    assert model.inputs == ()
    struct = pa.StructArray.from_arrays([pa.array([1.5, None])], names=["amount"])
    assert scorer(model).score(struct).to_pylist() == [3.0, None]


def test_an_unnamed_tensor_scores_arrays_and_columns_alike(registry, model_cache):
    name, frame = register_unnamed_tensor(registry, "open_tensor")
    model = models.pin(f"{name}/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache, open_inputs=True)
    matrix = np.stack(frame["features"])
    lists = scorer(model).score(pa.array(list(matrix)))
    columns = scorer(model).score(*(pa.array(column) for column in matrix.T))
    assert lists.equals(columns)
    assert np.allclose(lists.to_numpy(), matrix @ np.arange(5.0), atol=1e-5)


def test_an_optional_input_that_lacks_is_missing_to_the_model(registry, model_cache):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from tests.factories.models import register_python

    def predict(data, _):
        return data["x"] + data["bonus"].fillna(100.0)

    inputs = Schema([ColSpec("double", "x"), ColSpec("double", "bonus", required=False)])
    signature = ModelSignature(inputs=inputs, outputs=Schema([ColSpec("double")]))
    register_python(registry, "optional", predict, signature=signature)
    model = models.pin("optional/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)
    made = scorer(model)
    assert made.score(ONE).to_pylist() == [101.0, 102.0]
    assert made.score(pa.StructArray.from_arrays([ONE], names=["x"])).to_pylist() == [101.0, 102.0]
    assert made.score(ONE, pa.array([None, 1.0])).to_pylist() == [101.0, 3.0]


def test_outputs_by_name(pinned):
    model, frame = pinned(register_outputs)
    amount = pa.array(frame["amount"])
    whole = scorer(model).score(amount)
    assert whole.to_pylist()[0] == {"score": 2.0, "name": "n1.0"}
    assert scorer(model, (("name", "string"),)).score(amount).to_pylist()[1] == {"name": "n2.5"}


def test_no_rows(pinned):
    model, _ = pinned(register_outputs)
    assert scorer(model).score(pa.array([], pa.float64())).to_pylist() == []


def _configured(registry, model_cache):
    """A model that says what it was configured with and what it saw in its environment, when loaded and now."""
    import mlflow.pyfunc

    from tests.factories.models import register

    class Told(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            self.seen = os.environ.get("UDF_TEST", "nothing")
            self.config = context.model_config

        def predict(self, context, model_input, params=None):
            text = f"{self.config['factor']} {self.config['name']} {self.seen} {os.environ.get('UDF_TEST')}"
            return np.array([text] * len(model_input), dtype=object)

    frame = pd.DataFrame({"x": [1.0]})
    signature = mlflow.models.infer_signature(frame, np.array(["a"], dtype=object))
    register(
        registry, "told", mlflow.pyfunc.log_model, python_model=Told(), signature=signature,
        model_config={"factor": 1, "name": "plain"},
    )  # fmt: skip
    return models.pin("told/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)


def test_configuration_and_variables_reach_the_model(registry, model_cache):
    model = _configured(registry, model_cache)
    plain = scorer(replace(model, outputs=(ModelOutput("", "string"),)))
    document = read_mlmodel(Path(model.path))
    config = config_of({"factor": 2.5}, document)
    told = replace(plain, files=replace(plain.files, config=config, variables=variables_of({"UDF_TEST": "set"})))
    assert told.score(ONE).to_pylist() == ["2.5 plain set set"] * 2
    assert "UDF_TEST" not in os.environ
    assert plain.score(ONE).to_pylist() == ["1 plain nothing None"] * 2, "another configuration is another model"


def test_a_configuration_may_come_from_a_file(registry, model_cache, tmp_path):
    document = {"flavors": {"python_function": {"config": {"factor": 1, "name": "plain"}}}}
    path = tmp_path / "config.yaml"
    path.write_text("factor: 3\n")
    assert config_of(path, document) == config_of(str(path), document) == '{"factor": 3}'
    assert config_of(None, document) == config_of({}, document) == ""
    path.write_text("[1, 2]")
    with pytest.raises(SettingsError, match="no mapping"):
        config_of(path, document)
    with pytest.raises(SettingsError, match="cannot be read"):
        config_of(tmp_path / "none.yaml", document)


@pytest.mark.parametrize(
    ("given", "own", "said"),
    [
        ({"factor": 1}, None, "takes none"),
        ({"factr": 1}, {"factor": 1}, "did you mean: factor"),
        ({"factor": {1, 2}}, {"factor": 1}, "JSON"),
        ({"factor": (1, 2)}, {"factor": 1}, "JSON"),
        ({"factor": float("nan")}, {"factor": 1}, "JSON"),
    ],
)
def test_a_configuration_that_mlflow_would_leave_out(given, own, said):
    flavor = {} if own is None else {"config": own}
    with pytest.raises(SettingsError, match=said):
        config_of(given, {"flavors": {"python_function": flavor}})


def test_environments():
    assert environment_of(None, None) == environment_of("local", None) == "local"
    assert environment_of("uv", None) == "uv"
    for manager in ("virtualenv", "conda", "docker"):
        with pytest.raises(SettingsError, match="env_manager is not supported"):
            environment_of(manager, None)
    with pytest.raises(SettingsError, match="prebuilt_env_uri is not supported"):
        environment_of(None, "dbfs:/env.tar.gz")


@pytest.mark.parametrize("given", [{"A": 1}, {1: "a"}, {"": "a"}, {"A=B": "a"}, {"A": None}])
def test_variables_are_text(given):
    with pytest.raises(SettingsError, match="extra_env"):
        variables_of(given)


def test_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("UDF_TEST", "before")
    with environment({"UDF_TEST": "x", "UDF_OTHER": "y"}):
        assert (os.environ["UDF_TEST"], os.environ["UDF_OTHER"]) == ("x", "y")
    assert os.environ["UDF_TEST"] == "before"
    assert "UDF_OTHER" not in os.environ


def test_spark_connect_and_engines_that_need_a_signature(registry, model_cache):
    from batchscore.udf.define import _selected, spark_udf

    remote = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
    with pytest.raises(SettingsError, match="Spark Connect"):
        spark_udf(remote, "fraud/1")
    name, _ = register_no_signature(registry, "engines")
    model = models.pin(f"{name}/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache, open_inputs=True)
    assert _selected("auto", model, "local", by_reference=True).engine == "pyfunc"
    with pytest.raises(SettingsError, match="engine onnx needs the model's signature"):
        _selected("onnx", model, "local", by_reference=True)
