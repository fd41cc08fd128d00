"""oneDAL on rewritten thresholds: no other label, and scores within float rounding, at every boundary."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.contracts import ModelFiles, ModelInput, ModelOutput
from batchscore.engines import features, onedal
from batchscore.engines.cache import loaded
from batchscore.engines.trees import artifact, walk
from batchscore.engines.trees.builder import Rules, Tree, forest_of
from batchscore.engines.trees.forest import LEAF
from batchscore.engines.trees.read import Ensemble
from batchscore.engines.trees.scores import Scores
from batchscore.errors import ModelError, SetupError
from tests.factories import models as factory
from tests.factories.artifacts import converted, outputs_of
from tests.factories.models import batch_of, files_of

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning")


def reference(model, batch):
    return loaded("pyfunc", files_of(model), 1).score(batch)


def test_rows_that_rounding_would_move_are_walked_exactly(tree_model, tmp_path):
    """Doubles between a threshold and its float32, by the thousand."""
    model, frame = tree_model("lightgbm_regression", "float64")
    engine = onedal.load(converted(onedal, model, tmp_path), 1)
    forest = artifact.read(tmp_path)[0].forest
    pools = [forest.thresholds()[column] for column in range(4)]
    random = np.random.default_rng(2)
    values = np.stack([random.choice(pool, 3_000) for pool in pools], axis=1)
    values = np.where(random.random(values.shape) < 0.5, values, np.nextafter(values, np.inf))
    batch = batch_of(model, pd.DataFrame(values, columns=frame.columns))
    expected = outputs_of(reference(model, batch))
    np.testing.assert_allclose(outputs_of(engine.score(batch)), expected, rtol=1e-6)
    rounded = walk.sums_of(forest, values.astype(np.float32))[:, 0]
    assert (np.abs(rounded - walk.sums_of(forest, values)[:, 0]) > 1e-3).sum() > 100  # so it matters here


def _lookup(values):
    """A tree that gives ``values[i]`` for a row whose first feature is i."""
    inner = len(values) - 1
    number = np.arange(2 * inner + 1)
    is_inner = number < inner
    return Tree(
        feature=np.where(is_inner, 0, LEAF),
        threshold=np.where(is_inner, number + 0.5, 0.0),
        left=np.where(is_inner, inner + number, 0),
        right=np.where(number < inner - 1, number + 1, 2 * inner),
        default_left=np.zeros(len(number), bool),
        values=np.concatenate([np.zeros(inner), values]).reshape(-1, 1),
        target=0,
        rule=np.zeros(len(number)),
    )


@pytest.mark.parametrize("kind", ["float", "double"])
def test_close_calls_keep_the_models_label(kind):
    """Leaves that almost cancel out, so that float rounding alone would decide."""
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 60))
    third = -(first + second) + random.choice([-1e-9, 1e-9], 60)
    rules = Rules(1, "float64", "float64", np.zeros(1))
    forest = forest_of([_lookup(first), _lookup(second), _lookup(third)], rules)
    inputs = [ModelInput("x", kind)]
    ensemble = Ensemble(
        features.describe(inputs, {}, "float64"),
        forest,
        Scores("sigmoid", "label", decision="above_half", classes=(0, 1)),
    )
    files = ModelFiles("", "", "close", "1", (), tuple(inputs), (ModelOutput("", "long"),), ())
    rows = np.arange(60, dtype="float32" if kind == "float" else "float64")
    if kind == "double":
        rows[1] = np.nextafter(0.5, 1)  # so that one row is walked because rounding would move it
    batch = pa.RecordBatch.from_arrays([pa.array(rows)], names=["x"])
    labels = onedal.OnedalEngine(ensemble, files, 1).score(batch).column(0).to_numpy()
    exact = (first + second) + third > 0
    assert np.array_equal(labels, exact)
    narrow = (first.astype("float32") + second.astype("float32")) + third.astype("float32") > 0
    assert (narrow != exact).sum() > 5  # so it matters here


def test_many_trees_are_added_in_doubles(tmp_path, pin_folder):
    import lightgbm

    frame = factory.tree_frame("lightgbm", "float64")
    goal = np.nan_to_num(frame["f0"].to_numpy()) * 3 + 100
    estimator = lightgbm.LGBMRegressor(n_estimators=90, num_leaves=7, verbose=-1, n_jobs=1).fit(frame, goal)
    factory.save_estimator(tmp_path / "model", estimator, frame, estimator.predict(frame))
    model = pin_folder(tmp_path / "model")
    engine = onedal.load(converted(onedal, model, tmp_path / "made"), 1)
    expected = outputs_of(reference(model, batch_of(model, frame)))
    np.testing.assert_allclose(outputs_of(engine.score(batch_of(model, frame))), expected, rtol=1e-7)


def test_batches_of_changing_size(tree_model, tmp_path):
    model, frame = tree_model("lightgbm_multiclass", "float64")
    engine = onedal.load(converted(onedal, model, tmp_path), 1)
    whole = batch_of(model, frame)
    expected = outputs_of(engine.score(whole))
    for start, length in ((0, 1), (5, 100), (3, 7)):
        assert np.array_equal(outputs_of(engine.score(whole.slice(start, length))), expected[start : start + length])
    assert engine.score(whole.slice(0, 0)).num_rows == 0


def test_what_is_refused(pinned, tree_model, tmp_path):
    categories, _ = pinned(factory.register_lightgbm, "classifier")
    with pytest.raises(ModelError, match="splits on categories"):
        onedal.convert(categories, tmp_path)
    forest, _ = tree_model("sklearn_forest", "float64")
    with pytest.raises(ModelError, match="several values"):
        onedal.convert(forest, tmp_path)
    assert onedal.supports(forest) is None
    onnx, _ = pinned(factory.register_onnx)
    assert "flavors are onnx" in onedal.supports(onnx)


def test_not_installed(monkeypatch, tree_model, tmp_path):
    model, _ = tree_model("lightgbm_binary", "float64")
    files = converted(onedal, model, tmp_path)
    monkeypatch.setattr(onedal, "_folder", lambda: None)
    for name in (onedal.EXTENSION, f"{onedal.PACKAGE}.{onedal.EXTENSION}"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert "not installed" in onedal.supports(model)
    with pytest.raises(SetupError, match="scikit-learn-intelex"):
        onedal.load(files, 1)


def test_a_worker_needs_neither_sklearn_nor_the_library(tree_model, tmp_path):
    model, frame = tree_model("lightgbm_classifier", "float64")
    files = converted(onedal, model, tmp_path)
    code = f"""
import sys
import pyarrow as pa
from batchscore.contracts import ModelFiles, ModelInput, ModelOutput
from batchscore.engines import onedal
engine = onedal.load({files!r}, 1)
batch = pa.RecordBatch.from_arrays([pa.array([0.5, 1.5])] * 4, names={list(frame.columns)!r})
print(engine.score(batch).column(0).to_pylist())
print(sorted({{"mlflow", "lightgbm", "sklearn", "scipy", "daal4py"}} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    rows = pd.DataFrame([[0.5] * 4, [1.5] * 4], columns=frame.columns)
    labels = reference(model, batch_of(model, rows)).column(0).to_pylist()
    assert shown.stdout.splitlines() == [str(labels), "[]"]


def test_versions():
    assert {"scikit-learn-intelex", "daal", "lightgbm"} <= set(onedal.versions())


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_missing_apart_from_every_number(tmp_path, pin_folder):
    """A split at infinity: only missing values go the other way, and infinity is a number."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    from batchscore.engines import compiled

    frame = pd.DataFrame({"x": np.where(np.arange(400) % 3 == 0, np.nan, np.random.default_rng(0).normal(size=400))})
    estimator = HistGradientBoostingRegressor(max_iter=3, max_leaf_nodes=2).fit(frame, frame["x"].isna().astype(float))
    factory.save_estimator(tmp_path / "model", estimator, frame, estimator.predict(frame))
    model = pin_folder(tmp_path / "model")
    rows = batch_of(model, pd.DataFrame({"x": [np.nan, np.inf, -np.inf, 1.7976931348623157e308, 0.0]}))
    expected = outputs_of(reference(model, rows))
    for module in (onedal, compiled):
        files = converted(module, model, tmp_path / module.__name__)
        assert np.isposinf(artifact.read(tmp_path / module.__name__)[0].forest.threshold).any()
        np.testing.assert_allclose(outputs_of(module.load(files, 1).score(rows)), expected, rtol=1e-6)
