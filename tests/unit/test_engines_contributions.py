"""The model library's own SHAP values add up to its raw score, for every kind of tree model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.engines.contributions import contributions
from batchscore.engines.estimators import read_estimator
from batchscore.engines.native import NativeEngine
from tests.factories import models as factory
from tests.factories.models import TREE_KINDS, batch_of, files_of

BOOSTED = tuple(kind for kind in TREE_KINDS if not kind.startswith("sklearn"))
CLASSES = {"multiclass": 3, "ova": 3, "softprob": 3, "softmax": 3, "classifier3": 3}


def explained(model, sample, row):
    """The contributions to one row, and the library's prediction of it."""
    found = read_estimator(model.path, model.inputs)
    inputs = batch_of(model, sample.iloc[row : row + 1])
    files = files_of(model)
    return contributions(found, files, inputs), NativeEngine(found, files, 1).score(inputs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", BOOSTED)
def test_contributions_add_up(tree_model, kind, dtype):
    model, sample = tree_model(kind, dtype)
    missing = int(np.flatnonzero(sample.isna().any(axis=1))[0]) if sample.isna().any(axis=None) else 5
    for row in (0, 3, missing):
        given, _ = explained(model, sample, row)
        assert given.reason == ""
        name = kind.split("_", 1)[1].removesuffix("_proba")
        assert len(given.outputs) == CLASSES.get(name, 1)
        for output in given.outputs:
            assert output.adds_up
            total = output.expected + sum(item.amount for item in output.items)
            assert total == pytest.approx(output.raw, abs=1e-4, rel=1e-4)
            assert sorted(item.feature for item in output.items) == list(sample.columns)
            sizes = [abs(item.amount) for item in output.items]
            assert sizes == sorted(sizes, reverse=True)
            assert any(sizes), "nothing contributes: the wrong row was asked"


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        ("lightgbm_binary", lambda raw: 1 / (1 + np.exp(-1.7 * raw))),  # the factory's sigmoid
        ("lightgbm_classifier_proba", lambda raw: 1 / (1 + np.exp(-raw))),
        ("lightgbm_poisson", np.exp),
        ("lightgbm_regressor", lambda raw: raw),
        ("xgboost_binary", lambda raw: 1 / (1 + np.exp(-raw))),
        ("xgboost_poisson", np.exp),
        ("xgboost_regressor", lambda raw: raw),
    ],
)
def test_the_raw_score_is_that_of_the_prediction(tree_model, kind, link):
    model, sample = tree_model(kind, "float64")
    for row in (0, 11):
        given, scored = explained(model, sample, row)
        predicted = scored.column(0)[0].as_py()
        predicted = predicted[1] if isinstance(predicted, list) else predicted
        assert link(given.outputs[0].raw) == pytest.approx(predicted, rel=1e-5)


@pytest.mark.parametrize("kind", ["lightgbm_classifier3", "xgboost_classifier3"])
def test_the_class_with_the_highest_raw_score_is_the_predicted_one(tree_model, kind):
    model, sample = tree_model(kind, "float64")
    for row in range(6):
        given, scored = explained(model, sample, row)
        best = max(given.outputs, key=lambda output: output.raw)
        assert best.label == str(scored.column(0)[0].as_py())


@pytest.mark.parametrize("register", [factory.register_lightgbm, factory.register_xgboost])
@pytest.mark.parametrize("kind", ["booster", "classifier"])
def test_categories_and_missing_values(pinned, register, kind):
    model, sample = pinned(register, kind)
    row = int(np.flatnonzero(sample["country"].isna() & sample["amount"].isna())[0])
    for place in (0, row):
        given, _ = explained(model, sample, place)
        (output,) = given.outputs
        assert output.adds_up, given
        shown = {item.feature: item.value for item in output.items}
        assert set(shown) == set(sample.columns)
        expected = sample.iloc[place]
        assert shown["country"] == (None if pd.isna(expected["country"]) else expected["country"])
        assert shown["shop"] == expected["shop"]


def test_a_changed_feature_changes_its_contribution(tree_model):
    model, sample = tree_model("lightgbm_binary", "float64")
    changed = sample.copy()
    changed.loc[0, "f0"] = -5.0
    before, after = (explained(model, frame, 0)[0].outputs[0] for frame in (sample, changed))
    assert {item.feature: item.value for item in after.items}["f0"] == -5.0
    assert before.items != after.items


def test_the_last_step_of_a_pipeline(tmp_path, pin_folder):
    """The demo's model: what an encoder made of a text is told by the text."""
    import mlflow.sklearn

    from batchscore.demo.training import signature, train

    estimator, frame = train(2_000)
    mlflow.sklearn.save_model(
        estimator, tmp_path / "m", signature=signature(), pip_requirements=[], serialization_format="cloudpickle"
    )
    model = pin_folder(tmp_path / "m")
    given, scored = explained(model, frame, 0)
    (output,) = given.outputs
    assert (given.library, given.scale, output.adds_up) == ("lightgbm", "log-odds", True)
    assert 1 / (1 + np.exp(-output.raw)) == pytest.approx(scored.column(0)[0].as_py())
    assert {item.feature: item.value for item in output.items} == {
        name: frame[name].iloc[0] for name in (item.name for item in model.inputs)
    }


def test_one_hot_features_keep_their_own_names(tmp_path, pin_folder):
    from lightgbm import LGBMClassifier
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = factory.mixed_frame()
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=True)
    columns = ColumnTransformer([("n", "passthrough", ["amount", "hour"]), ("t", encoder, ["channel"])])
    trees = LGBMClassifier(n_estimators=5, num_leaves=5, min_child_samples=5, verbose=-1, n_jobs=1)
    estimator = make_pipeline(columns, trees).fit(frame[["amount", "hour", "channel"]], factory.target(frame))
    sample = frame[["amount", "hour", "channel"]]
    factory.save_estimator(tmp_path / "m", estimator, sample, estimator.predict(sample))
    given, _ = explained(pin_folder(tmp_path / "m"), sample, 1)
    (output,) = given.outputs
    assert output.adds_up
    shown = {item.feature: item.value for item in output.items}
    assert shown["hour"] == sample["hour"].iloc[1]
    assert sum(value for name, value in shown.items() if name.startswith("t__channel_")) == 1.0


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_what_counts_as_missing_is_the_estimators_own(tmp_path, pin_folder, in_pipeline):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from xgboost import XGBClassifier

    random = np.random.default_rng(7)
    frame = pd.DataFrame(random.normal(size=(400, 3)), columns=["f0", "f1", "f2"])
    missing = random.random(400) < 0.4
    frame.loc[missing, "f0"] = -999.0
    goal = (missing | (frame["f0"] > 0)).astype(int)  # as a number, -999 would be on the other side
    trees = XGBClassifier(n_estimators=5, max_depth=3, missing=-999.0, n_jobs=1)
    estimator = (make_pipeline(FunctionTransformer(), trees) if in_pipeline else trees).fit(frame, goal)
    factory.save_estimator(tmp_path / "m", estimator, frame, estimator.predict_proba(frame), "predict_proba")
    model = pin_folder(tmp_path / "m")
    for row in (int(np.flatnonzero(missing)[0]), int(np.flatnonzero(~missing)[0])):
        given, scored = explained(model, frame, row)
        (output,) = given.outputs
        assert output.adds_up
        assert 1 / (1 + np.exp(-output.raw)) == pytest.approx(scored.column(0)[0].as_py()[1], rel=1e-5)
        total = output.expected + sum(item.amount for item in output.items)
        assert total == pytest.approx(output.raw, rel=1e-4)


@pytest.mark.parametrize("kind", ["sklearn_forest", "sklearn_histogram"])
def test_what_gives_none_is_said(tree_model, kind):
    model, sample = tree_model(kind, "float64")
    given, _ = explained(model, sample, 0)
    assert given.outputs == ()
    assert "gives no contributions" in given.reason


def test_an_array_of_numbers(tmp_path, pin_folder):
    import lightgbm

    random = np.random.default_rng(3)
    matrix = random.normal(size=(400, 3))
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 5, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(matrix, (matrix[:, 0] > 0).astype(int)), 5,
    )  # fmt: skip
    factory.save_estimator(tmp_path / "m", booster, matrix, booster.predict(matrix))
    model = pin_folder(tmp_path / "m", signature={"inputs": [{"name": "features", "type": "array<double>"}]})
    row = pa.RecordBatch.from_arrays([pa.array([matrix[0].tolist()])], names=[model.inputs[0].name])
    given = contributions(read_estimator(model.path, model.inputs), files_of(model), row)
    (output,) = given.outputs
    assert output.adds_up
    assert {item.feature for item in output.items} == {f"features[{index}]" for index in range(3)}
