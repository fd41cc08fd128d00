"""The compiled walker scores as MLflow's pyfunc does, bit for bit, at every boundary, for every kind of tree model."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.contracts import ModelParam
from batchscore.engines import compiled
from batchscore.engines.cache import loaded
from batchscore.engines.trees import artifact
from batchscore.errors import ModelError, SetupError
from tests.factories import models as factory
from tests.factories.artifacts import converted, outputs_of
from tests.factories.models import batch_of, files_of

# scikit-learn adds up huge values to see whether all are finite.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning"),
    pytest.mark.usefixtures("built_once"),
]


def reference(model, batch):
    return loaded("pyfunc", files_of(model), 1).score(batch)


def same(found, expected):
    values = outputs_of(found)
    return np.array_equal(values, outputs_of(expected), equal_nan=values.dtype.kind == "f")


@pytest.mark.parametrize("kind", ["booster", "classifier"])
@pytest.mark.parametrize("register", [factory.register_lightgbm, factory.register_xgboost])
def test_categories(pinned, tmp_path, register, kind):
    model, frame = pinned(register, kind)
    engine = compiled.load(converted(compiled, model, tmp_path), 1)
    strange = frame.copy()
    strange.loc[::3, "country"] = "Atlantis"
    strange.loc[1::3, "channel"] = None
    strange.loc[2::5, "shop"] = 2**60 + 2  # one double with a known shop's number
    strange.loc[::4, "amount"] = np.nan
    for rows in (frame, strange):
        assert same(engine.score(batch_of(model, rows)), reference(model, batch_of(model, rows)))
    assert artifact.read(tmp_path)[0].forest.sets.size


def test_categories_that_are_plain_numbers(tmp_path, pin_folder):
    import lightgbm

    random = np.random.default_rng(3)
    frame = pd.DataFrame({"code": random.integers(0, 70, 900).astype("float64"), "x": random.normal(size=900)})
    goal = (frame["code"] % 3 == 0) ^ (frame["x"] > 0.3)
    params = {"objective": "binary", "verbose": -1, "n_jobs": 1, "min_data_per_group": 2, "cat_smooth": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(frame.to_numpy(), goal, categorical_feature=[0]), 8)
    factory.save_estimator(tmp_path / "model", booster, frame, booster.predict(frame))
    model = pin_folder(tmp_path / "model")
    engine = compiled.load(converted(compiled, model, tmp_path / "made"), 1)
    odd = [-5, -1, -0.5, -0.0, 0.4, 1.5, 31, 31.99, 32, 64, 69, 70, 95, 96, 1e6, 2**31, 1e20, -1e20, np.nan, np.inf]
    rows = pd.DataFrame({"code": np.repeat(odd, 50), "x": np.tile(np.linspace(-2, 2, 50), len(odd))})
    rows = pd.concat([frame, rows], ignore_index=True)
    assert same(engine.score(batch_of(model, rows)), reference(model, batch_of(model, rows)))
    assert artifact.read(tmp_path / "made")[0].forest.sets.size


@pytest.mark.parametrize("library_name", ["xgboost", "sklearn"])
@pytest.mark.parametrize("beside", ["int64", "float64", "float32", "bool"])
def test_whole_numbers_beyond_doubles(tmp_path, pin_folder, library_name, beside):
    """The way from int64 to float32 is the library's own: at once, or by way of double, which rounds twice."""
    import xgboost
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(4)
    half = 2**60 + 2**36  # half way between two float32
    values = np.concatenate([half + np.arange(-400, 400), 2**60 + random.integers(-(2**38), 2**38, 800)])
    frame = pd.DataFrame({"id": values, "x": random.integers(0, 2, len(values)).astype(beside)})
    goal = values.astype("float32") + frame["x"].to_numpy("float64")
    if library_name == "xgboost":
        estimator = xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(frame, goal / 2**40)
    else:
        estimator = RandomForestRegressor(n_estimators=3, random_state=0).fit(frame, goal)
    factory.save_estimator(tmp_path / "model", estimator, frame, estimator.predict(frame))
    model = pin_folder(tmp_path / "model")
    engine = compiled.load(converted(compiled, model, tmp_path / "made"), 1)
    assert same(engine.score(batch_of(model, frame)), reference(model, batch_of(model, frame)))


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize("name", ["HistGradientBoostingClassifier", "GradientBoostingClassifier"])
def test_a_sum_of_exactly_zero_is_the_librarys_class(tmp_path, pin_folder, name, method):
    """Balanced classes and nothing to split on: the one gives the first class, the other the second."""
    from sklearn import ensemble

    frame = pd.DataFrame({"x": np.zeros(200)})
    estimator = getattr(ensemble, name)().fit(frame, np.tile(["a", "b"], 100))
    predicted = getattr(estimator, method)(frame)
    factory.save_estimator(tmp_path / "model", estimator, frame, predicted, method)
    model = pin_folder(tmp_path / "model")
    engine = compiled.load(converted(compiled, model, tmp_path / "made"), 1)
    assert same(engine.score(batch_of(model, frame)), reference(model, batch_of(model, frame)))


def test_early_stopping_counts(tmp_path, pin_folder):
    import lightgbm
    import xgboost

    frame = factory.tree_frame("xgboost", "float64")
    random = np.random.default_rng(0)
    goal, other = random.integers(0, 2, len(frame)), random.integers(0, 2, len(frame))
    common = {"n_estimators": 30, "n_jobs": 1}
    xgb = xgboost.XGBClassifier(early_stopping_rounds=3, **common).fit(
        frame, goal, eval_set=[(frame, other)], verbose=False
    )
    lgb = lightgbm.LGBMClassifier(verbose=-1, **common).fit(
        frame, goal, eval_X=frame, eval_y=other, callbacks=[lightgbm.early_stopping(3, verbose=False)]
    )
    assert xgb.best_iteration < 25
    assert lgb.best_iteration_ < 25
    for name, estimator in (("xgb", xgb), ("lgb", lgb)):
        factory.save_estimator(tmp_path / name, estimator, frame, estimator.predict_proba(frame), "predict_proba")
        model = pin_folder(tmp_path / name)
        engine = compiled.load(converted(compiled, model, tmp_path / f"{name}_made"), 1)
        assert same(engine.score(batch_of(model, frame)), reference(model, batch_of(model, frame)))


def test_a_tensor_signature(tmp_path, pin_folder):
    from sklearn.ensemble import HistGradientBoostingRegressor

    frame = factory.tree_frame("xgboost", "float64")
    values = frame.to_numpy()
    estimator = HistGradientBoostingRegressor(max_iter=5).fit(values, np.nan_to_num(values) @ np.arange(4.0))
    factory.save_estimator(tmp_path / "model", estimator, values, estimator.predict(values))
    model = pin_folder(tmp_path / "model", signature={"inputs": [{"name": "features", "type": "array<double>"}]})
    engine = compiled.load(converted(compiled, model, tmp_path / "made"), 1)
    batch = batch_of(model, pd.DataFrame({"features": list(values)}))
    assert same(engine.score(batch), reference(model, batch))
    assert engine.score(batch.slice(7, 11)).equals(engine.score(batch).slice(7, 11))


def test_probabilities_as_columns(tree_model, tmp_path, model_cache):
    from batchscore import models

    model, frame = tree_model("lightgbm_multiclass", "float32")
    names = [{"name": name, "type": "double"} for name in ("low", "middle", "high")]
    columns = models.pin(model.path, tracking_uri="", cache_dir=model_cache, signature={"outputs": names})
    batch = batch_of(model, frame)
    found = compiled.load(converted(compiled, columns, tmp_path), 1).score(batch)
    assert found.schema.names == ["low", "middle", "high"]
    assert found.equals(reference(columns, batch))
    two = models.pin(model.path, tracking_uri="", cache_dir=model_cache, signature={"outputs": names[:2]})
    with pytest.raises(ModelError, match="other outputs than it declares"):
        compiled.convert(two, tmp_path)


def test_threads_slices_and_small_batches(tree_model, tmp_path):
    model, frame = tree_model("lightgbm_multiclass", "float64")
    files = converted(compiled, model, tmp_path)
    batch = batch_of(model, pd.concat([frame] * 4, ignore_index=True))
    one = compiled.load(files, 1)
    whole = one.score(batch)
    assert compiled.load(files, 3).score(batch).equals(whole)
    for start, length in ((0, 1), (1, 15), (3, 16), (5, 17), (7, 33)):
        assert one.score(batch.slice(start, length)).equals(whole.slice(start, length))
    assert one.score(batch.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize("kind", ["xgboost_binary", "sklearn_forest", "sklearn_boosting", "sklearn_tree_regressor"])
def test_values_that_the_library_refuses(tree_model, tmp_path, kind):
    model, frame = tree_model(kind, "float64")
    engine = compiled.load(converted(compiled, model, tmp_path), 1)
    bad = {"sklearn_boosting": [np.nan, np.inf, 1e39]}.get(kind, [np.inf, -np.inf, 1e39])
    for value in bad:
        rows = frame.head(40).copy()
        rows.loc[7, "f1"] = value
        for score in (engine.score, lambda batch: reference(model, batch)):
            with pytest.raises(ModelError):
                score(batch_of(model, rows))


def test_a_null_is_nan_and_a_null_flag_is_an_error(tree_model, tmp_path):
    model, frame = tree_model("lightgbm_binary", "float64")
    engine = compiled.load(converted(compiled, model, tmp_path), 1)
    nulls = batch_of(model, frame)
    assert nulls.column(0).null_count
    arrays = [pa.array(frame[name].to_numpy(), from_pandas=False) for name in frame]
    nans = pa.RecordBatch.from_arrays(arrays, names=nulls.schema.names)
    assert not nans.column(0).null_count
    assert engine.score(nulls).equals(engine.score(nans))


def test_a_worker_needs_neither_mlflow_nor_pandas_nor_the_library(tree_model, tmp_path):
    model, frame = tree_model("lightgbm_classifier", "float64")
    files = converted(compiled, model, tmp_path)
    code = f"""
import struct
import sys
import pyarrow as pa
from batchscore.contracts import ModelFiles, ModelInput, ModelOutput
from batchscore.engines import compiled
engine = compiled.load({files!r}, 1)
column = pa.Array.from_buffers(pa.float64(), 2, [None, pa.py_buffer(struct.pack("2d", 0.5, 1.5))])
batch = pa.RecordBatch.from_arrays([column] * 4, names={list(frame.columns)!r})
print(engine.score(batch).column(0).to_pylist())
print(sorted({{"mlflow", "pandas", "lightgbm", "sklearn", "scipy", "treelite"}} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    rows = pd.DataFrame([[0.5] * 4, [1.5] * 4], columns=frame.columns)
    labels = reference(model, batch_of(model, rows)).column(0).to_pylist()
    assert shown.stdout.splitlines() == [str(labels), "[]"]


def test_the_same_model_gives_the_same_files(tree_model, tmp_path):
    model, _ = tree_model("xgboost_binary", "float32")
    assert converted(compiled, model, tmp_path / "a").digest == converted(compiled, model, tmp_path / "b").digest


def test_no_path_of_this_machine_in_the_library(built_once, tmp_path):
    built_once(tmp_path / "one.so")
    assert str(tmp_path).encode() not in (tmp_path / "one.so").read_bytes()
    built_once(tmp_path / "two.so")
    assert (tmp_path / "one.so").read_bytes() == (tmp_path / "two.so").read_bytes()


def test_no_compiler(monkeypatch, tree_model, built_once, tmp_path):
    model, _ = tree_model("lightgbm_binary", "float64")
    assert compiled.supports(model) is None
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no C compiler" in compiled.supports(model)
    with pytest.raises(SetupError, match="no-such-compiler"):
        built_once(tmp_path / "trees.so")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C compiler" in compiled.supports(model)


def test_a_failing_compiler(monkeypatch, built_once, tmp_path):
    failing = tmp_path / "failing-cc"
    failing.write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 4\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CC", str(failing))
    with pytest.raises(SetupError, match=r"exit code 4[\s\S]*no space left"):
        built_once(tmp_path / "trees.so")
    assert not (tmp_path / "trees.so").exists()


@pytest.mark.parametrize(("key", "value"), [("machine", "sparc"), ("system", "plan9"), ("libc_version", "99.1")])
def test_another_platform(tree_model, tmp_path, key, value):
    model, _ = tree_model("lightgbm_binary", "float64")
    files = converted(compiled, model, tmp_path)
    described = json.loads((tmp_path / artifact.DESCRIPTION).read_text())
    described["platform"][key] = value
    (tmp_path / artifact.DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(SetupError, match=f"another platform[\\s\\S]*{value}"):
        compiled.load(files, 1)


def test_an_older_c_library_built_it(tree_model, tmp_path):
    model, _ = tree_model("lightgbm_binary", "float64")
    files = converted(compiled, model, tmp_path)
    described = json.loads((tmp_path / artifact.DESCRIPTION).read_text())
    described["platform"]["libc_version"] = "2.9" if described["platform"]["libc_version"] else ""
    (tmp_path / artifact.DESCRIPTION).write_text(json.dumps(described))
    compiled.load(files, 1)


@pytest.mark.parametrize("damage", ["format", "json", "forest", "forest_field", "library"])
def test_damaged_artifacts(tree_model, tmp_path, damage):
    model, _ = tree_model("lightgbm_binary", "float64")
    files = converted(compiled, model, tmp_path)
    description = tmp_path / artifact.DESCRIPTION
    if damage == "format":
        description.write_text(description.read_text().replace(f'"format": {artifact.FORMAT}', '"format": 99'))
    elif damage == "json":
        description.write_text("{")
    elif damage == "forest":
        (tmp_path / artifact.FOREST).write_bytes(b"PK")
    elif damage == "forest_field":
        np.savez(tmp_path / artifact.FOREST, feature=np.zeros(3))
    else:
        (tmp_path / compiled.LIBRARY).write_bytes(b"\x7fELF")
    with pytest.raises((ModelError, SetupError), match=r"damaged|another version|does not load"):
        compiled.load(files, 1)


def test_what_is_refused_before_loading(pinned, tree_model):
    onnx, _ = pinned(factory.register_onnx)
    assert "flavors are onnx" in compiled.supports(onnx)
    model, _ = tree_model("lightgbm_binary", "float64")
    text = dataclasses.replace(model, flavors=("python_function", "sklearn"))
    assert compiled.supports(text) is None
    params = dataclasses.replace(model, params=(ModelParam("start_iteration", "long", 0),))
    assert "start_iteration" in compiled.supports(params)
    odd = dataclasses.replace(model, inputs=(dataclasses.replace(model.inputs[0], type="timestamp"),))
    assert "timestamp" in compiled.supports(odd)


def test_what_is_refused_when_loaded(pinned, tmp_path):
    pipeline, _ = pinned(factory.register_sklearn)
    with pytest.raises(ModelError, match="no ensemble of trees of a known kind"):
        compiled.convert(pipeline, tmp_path)


def test_versions():
    found = compiled.versions()
    assert found["compiler"]
    assert "lightgbm" in found
    assert "-ffp-contract=off" in found["flags"]
