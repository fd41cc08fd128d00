"""ONNX Runtime on a model folder equals MLflow's own ONNX wrapper, and needs no MLflow."""

import dataclasses
import subprocess
import sys

import mlflow.pyfunc
import numpy as np
import pyarrow as pa
import pytest

from batchscore import models
from batchscore.contracts import ModelInput, ModelOutput
from batchscore.engines import choose, supports
from batchscore.engines.cache import loaded
from batchscore.errors import ModelError, SettingsError
from tests.factories import models as factory
from tests.factories.models import batch_of, files_of


def scored(model, frame):
    return loaded("onnx", files_of(model), 1).score(batch_of(model, frame))


def test_columns_feed_the_graphs_one_matrix(pinned):
    model, frame = pinned(factory.register_onnx)
    assert choose("auto", model) == "onnx"
    result = scored(model, frame)
    expected = mlflow.pyfunc.load_model(model.path).predict(frame)["variable"].to_numpy()
    assert result.schema == pa.schema([("variable", pa.float32())])
    assert np.array_equal(result.column(0).to_numpy(), expected)


def test_a_null_float_is_nan(pinned):
    model, frame = pinned(factory.register_onnx)
    frame = frame.copy()
    frame.loc[3, "f2"] = np.nan
    result = scored(model, frame).column(0)
    assert result.null_count == 0
    assert np.isnan(result.to_numpy()).nonzero()[0].tolist() == [3]


def test_tensor_and_two_outputs(pinned):
    model, frame = pinned(factory.register_onnx_tensor)
    result = scored(model, frame)
    expected = mlflow.pyfunc.load_model(model.path).predict({"X": np.stack(frame["X"])})
    assert result.schema.names == ["label", "probabilities"]
    assert np.array_equal(result.column("label").to_numpy(), expected["label"])
    assert np.array_equal(np.array(result.column("probabilities").to_pylist(), "float32"), expected["probabilities"])
    same = loaded("pyfunc", files_of(model), 1).score(batch_of(model, frame))
    assert same.equals(result)


def test_a_sliced_batch(pinned):
    model, frame = pinned(factory.register_onnx_tensor)
    whole = batch_of(model, frame)
    engine = loaded("onnx", files_of(model), 1)
    assert engine.score(whole.slice(13, 29)).equals(engine.score(whole).slice(13, 29))


def test_one_input_a_column_with_text_and_int64(pinned):
    model, frame = pinned(factory.register_onnx_mixed)
    assert supports("onnx", model) is None
    result = scored(model, frame).column(0).to_numpy()
    np.testing.assert_allclose(result, frame["amount"] * 2, rtol=1e-4)
    nameless = frame.assign(channel=None)
    with pytest.raises(ModelError, match="input channel has nulls"):
        scored(model, nameless)


def test_no_rows(pinned):
    model, frame = pinned(factory.register_onnx)
    assert scored(model, frame.iloc[:0]).num_rows == 0


def test_mlflow_is_not_imported(pinned):
    model, _ = pinned(factory.register_onnx)
    code = f"""
import sys
import pyarrow as pa
from batchscore.contracts import ModelFiles, ModelInput, ModelOutput
from batchscore.engines.cache import loaded
files = {files_of(model)!r}
one = pa.Array.from_buffers(pa.float32(), 1, [None, pa.py_buffer(bytes(4))])  # pa.array imports pandas
batch = pa.RecordBatch.from_arrays([one] * 5, names=[item.name for item in files.inputs])
assert loaded("onnx", files, 1).score(batch).num_rows == 1
print([name for name in ("mlflow", "lightgbm", "sklearn", "onnx", "pandas") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_zipmap_is_told_and_pyfunc_chosen(registry, model_cache, tmp_path):
    import mlflow.onnx

    graph, frame = factory.convert_classifier(zipmap=True)
    folder = tmp_path / "zipmap"
    mlflow.onnx.save_model(graph, folder, pip_requirements=["mlflow"])
    settings = {
        "inputs": [{"name": name, "type": "float"} for name in frame.columns],
        "outputs": [{"name": "output_label", "type": "long"}, {"name": "output_probability", "type": "double"}],
    }
    model = models.pin(str(folder), tracking_uri=registry.tracking_uri, cache_dir=model_cache, signature=settings)
    assert "zipmap=False" in supports("onnx", model)
    assert choose("auto", model) == "pyfunc"
    with pytest.raises(ModelError, match="cannot be served by ONNX Runtime alone"):
        loaded("onnx", files_of(model), 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"outputs": (ModelOutput("other", "float"),)}, "the declared ones other"),
        (
            {"outputs": (ModelOutput("variable", "float"), ModelOutput("more", "float"))},
            "the declared ones variable, more",
        ),
        ({"inputs": (ModelInput("f0", "float"), ModelInput("f1", "float"))}, "takes 5 columns, the signature has 2"),
        ({"inputs": tuple(ModelInput(f"f{i}", "string") for i in range(5))}, "f0 is string, the graph takes"),
        ({"inputs": tuple(ModelInput(f"f{i}", "unsupported(object)") for i in range(5))}, "no engine takes"),
        ({"flavors": ("python_function",)}, "no ONNX graph"),
    ],
)
def test_what_does_not_fit_is_told(pinned, change, text):
    model, _ = pinned(factory.register_onnx)
    assert text in supports("onnx", dataclasses.replace(model, **change))


def test_output_of_another_type_is_refused(pinned):
    model, frame = pinned(factory.register_onnx, signature={"outputs": [{"name": "variable", "type": "long"}]})
    with pytest.raises(ModelError, match="another type for output variable"):
        scored(model, frame)


def test_int64_reaches_the_graph_with_every_digit(registry, model_cache, tmp_path):
    import mlflow.onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["id"], ["same"])],
        "identity",
        [helper.make_tensor_value_info("id", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("same", TensorProto.INT64, [None])],
    )
    model_proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "identity"
    mlflow.onnx.save_model(model_proto, folder, pip_requirements=["mlflow"])
    settings = {"inputs": [{"name": "id", "type": "long"}], "outputs": [{"name": "same", "type": "long"}]}
    model = models.pin(str(folder), tracking_uri=registry.tracking_uri, cache_dir=model_cache, signature=settings)
    ids = pa.array([2**63 - 1, -(2**63), 2**53 + 1])
    result = loaded("onnx", files_of(model), 1).score(pa.RecordBatch.from_arrays([ids], names=["id"]))
    assert result.column(0).equals(ids)


def test_external_data_is_read(registry, model_cache, tmp_path):
    import mlflow.onnx

    graph, frame = factory.convert_regressor()
    folder = tmp_path / "external"
    mlflow.onnx.save_model(graph, folder, pip_requirements=["mlflow"], save_as_external_data=True)
    settings = {"inputs": [{"name": name, "type": "float"} for name in frame.columns], "outputs": [{"type": "float"}]}
    model = models.pin(str(folder), tracking_uri=registry.tracking_uri, cache_dir=model_cache, signature=settings)
    own = mlflow.pyfunc.load_model(model.path).predict(frame)["variable"].to_numpy()
    assert np.array_equal(scored(model, frame).column(0).to_numpy(), own)


def test_unknown_engine(pinned):
    model, _ = pinned(factory.register_onnx)
    with pytest.raises(SettingsError, match="did you mean: onnx"):
        choose("onx", model)
    lightgbm, _ = pinned(factory.register_lightgbm, "booster")
    assert choose("onnx", lightgbm) == "onnx", "it converts what is no graph yet"
    with pytest.raises(ModelError, match="engine sparkml cannot serve model lightgbm_booster"):
        choose("sparkml", lightgbm)
