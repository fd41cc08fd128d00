"""Trees of every library in one form: read exactly, walked exactly, and their thresholds found and rewritten."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchscore.contracts import ModelInput
from batchscore.engines.trees import artifact, of_lightgbm, of_sklearn, of_xgboost, read_forest, rewritten, thresholds
from batchscore.engines.trees.builder import bitset, codes_of
from batchscore.engines.trees.forest import TINY, above, at_most, load_forest, prepared
from batchscore.engines.trees.scores import Scores, labels
from batchscore.engines.trees.walk import sums_of
from batchscore.engines.unwrap import Unwrapped, unwrap
from batchscore.errors import ModelError
from tests.factories import models as factory
from tests.factories.boundaries import boundary_rows

WITH_SUMS = [
    *("lightgbm_binary", "lightgbm_multiclass", "lightgbm_zero_missing", "lightgbm_no_missing", "lightgbm_rf"),
    *("sklearn_boosting", "sklearn_boosting3_proba", "sklearn_histogram", "sklearn_histogram3_proba"),
    *("xgboost_binary", "xgboost_softprob", "xgboost_regression", "sklearn_forest3_proba", "sklearn_tree_regressor"),
]


def raw(estimator, frame):
    """The sums as the library itself gives them."""
    library = type(estimator).__module__.partition(".")[0]
    if library == "lightgbm":
        averaged = estimator.params.get("boosting") == "rf"  # its raw scores are not averaged yet
        return estimator.predict(frame, raw_score=not averaged, num_threads=1)
    if library == "xgboost":
        import xgboost

        return estimator.predict(xgboost.DMatrix(frame), output_margin=True)
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function(frame)
    return estimator.predict_proba(frame) if hasattr(estimator, "predict_proba") else estimator.predict(frame)


@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", WITH_SUMS)
def test_the_numpy_walk_is_exact(kind, dtype):
    estimator, frame, _ = factory.train_trees(kind, dtype)
    forest = read_forest(estimator)
    rows = boundary_rows(forest, frame)
    expected = raw(estimator, rows)
    assert np.array_equal(sums_of(forest, rows.to_numpy()), expected.reshape(len(rows), -1))


def test_the_walk_in_parts(monkeypatch):
    estimator, frame, _ = factory.train_trees("lightgbm_binary", "float64")
    forest = read_forest(estimator)
    whole = sums_of(forest, frame.to_numpy())
    monkeypatch.setattr("batchscore.engines.trees.walk.CELLS", 64)
    assert np.array_equal(sums_of(forest, frame.to_numpy()), whole)
    assert sums_of(forest, frame.to_numpy()[:0]).shape == (0, 1)


@pytest.mark.parametrize("kind", ["lightgbm_binary", "lightgbm_zero_missing", "lightgbm_no_missing", "lightgbm_rf"])
def test_rewritten_text_scores_float32_rows_bit_for_bit(kind):
    import lightgbm

    booster, frame, _ = factory.train_trees(kind, "float64")
    text = rewritten(booster.model_to_string(), "<=")
    other = lightgbm.Booster(model_str=text)
    with np.errstate(over="ignore"):
        rows = boundary_rows(read_forest(booster), frame).astype("float32")
    assert np.array_equal(other.predict(rows), booster.predict(rows))
    for values in read_forest(other).thresholds().values():
        assert np.array_equal(values, values.astype("float32"))
    assert not np.array_equal(lightgbm.Booster(model_str=_nearest(booster)).predict(rows), booster.predict(rows))


def _nearest(booster):
    """What converters do: each threshold becomes the nearest float32."""
    lines = booster.model_to_string().splitlines()
    for index, line in enumerate(lines):
        if line.startswith("threshold="):
            values = np.array(line.partition("=")[2].split(), "float64").astype("float32").astype("float64")
            lines[index] = "threshold=" + " ".join(map(repr, values.tolist()))
    return "\n".join(line for line in lines if not line.startswith("tree_sizes"))


def test_rewritten_for_less_than_moves_each_threshold_one_up():
    booster, _, _ = factory.train_trees("lightgbm_binary", "float64")
    text = booster.model_to_string()
    below, over = (of_lightgbm.read_text(rewritten(text, comparison)) for comparison in ("<=", "<"))
    chosen = below.numeric()
    assert np.array_equal(
        np.nextafter(below.threshold[chosen].astype("float32"), np.float32(np.inf)),
        over.threshold[chosen].astype("float32"),
    )
    with pytest.raises(ValueError, match="not a comparison"):
        rewritten(text, ">")


def test_features_named_as_the_texts_own_keys():
    import lightgbm

    frame = factory.tree_frame("lightgbm", "float64").set_axis(["threshold", "objective", "Tree", "num_class"], axis=1)
    goal = (frame["threshold"] > 0).to_numpy(int)
    params = {"objective": "binary", "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(frame, goal), 3)
    text = rewritten(booster.model_to_string(), "<=")
    narrow = frame.astype("float32")
    assert np.array_equal(lightgbm.Booster(model_str=text).predict(narrow), booster.predict(narrow))
    assert of_lightgbm.scores_of(booster, booster, "predict") == Scores("sigmoid", "vector")
    assert np.array_equal(sums_of(read_forest(booster), frame.to_numpy())[:, 0], booster.predict(frame, raw_score=True))


def test_rewriting_leaves_categories_alone():
    import lightgbm

    booster, frame = factory.train_lightgbm("booster")
    text = booster.model_to_string()
    other = lightgbm.Booster(model_str=rewritten(text, "<="))
    before, after = of_lightgbm.read_text(text), of_lightgbm.read_text(other.model_to_string())
    assert len(before.sets)
    assert np.array_equal(before.words, after.words)
    assert np.array_equal(other.predict(frame), booster.predict(frame))


@given(hnp.arrays(np.float64, 20, elements=st.floats(allow_nan=False)), hnp.arrays(np.float32, 20))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_float32_thresholds_part_float32_values_alike(values, rows):
    near = np.concatenate([rows[~np.isnan(rows)], at_most(values), above(values)])
    wanted = near[:, None].astype("float64") <= values
    assert np.array_equal(near[:, None] <= at_most(values), wanted)
    finite = np.isfinite(above(values))
    assert np.array_equal((near[:, None] < above(values))[:, finite], wanted[:, finite])


@given(st.sets(st.integers(0, 200), min_size=1))
def test_bitsets(codes):
    assert codes_of(bitset(np.array(sorted(codes)))).tolist() == sorted(codes)


def test_a_forest_is_stored_whole(tmp_path):
    estimator, frame, _ = factory.train_trees("lightgbm_binary", "float64")
    forest = read_forest(estimator)
    forest.save(tmp_path / "one.npz")
    forest.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    again = load_forest(tmp_path / "one.npz")
    for field in dataclasses.fields(forest):
        assert np.array_equal(getattr(again, field.name), getattr(forest, field.name)), field.name
    assert np.array_equal(sums_of(again, frame.to_numpy()), sums_of(forest, frame.to_numpy()))


def test_what_nodes_do_to_their_values():
    values = np.array([TINY, -TINY, np.nextafter(TINY, 1), 0.0, np.inf, np.nan])
    assert np.array_equal(prepared(values, 1), [0, 0, values[2], 0, np.inf, np.nan], equal_nan=True)
    assert np.array_equal(prepared(values, 2), [np.nan, np.nan, values[2], np.nan, np.inf, np.nan], equal_nan=True)


def inputs_of(frame, kind="double"):
    return tuple(ModelInput(str(name), kind) for name in frame)


@pytest.mark.parametrize("kind", factory.TREE_KINDS)
def test_thresholds_are_where_scores_change(kind):
    """At every threshold of a continuous column some row's score changes between the value and its neighbour."""
    estimator, frame, method = factory.train_trees(kind, "float64")
    forest = read_forest(estimator)
    found = thresholds(Unwrapped(estimator, kind.partition("_")[0], method), inputs_of(frame))
    assert set(found) <= set(frame.columns)
    assert "f0" in found
    if forest.compare == "float32":  # the double at which rounding to float32 changes the decision is among them
        for column, values in forest.thresholds().items():
            narrow = values[np.isfinite(values)].astype("float32")
            over = np.nextafter(narrow, np.float32(np.inf))
            middle = (narrow.astype("float64") + over.astype("float64")) / 2
            assert np.array_equal(np.isin(middle, found[f"f{column}"]), np.ones(len(middle), bool))
            turn = np.stack([np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf)]).astype("float32")
            assert np.array_equal(turn, [narrow, over])  # which is where rounding changes sides
    else:
        for column, values in forest.thresholds().items():
            assert set(values[np.isfinite(values)]) <= set(found[f"f{column}"])


def _pipeline(steps, frame, goal):
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline

    return make_pipeline(*steps, HistGradientBoostingClassifier(max_iter=4)).fit(frame, goal)


def test_thresholds_behind_steps_that_keep_columns():
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    frame = factory.mixed_frame()
    goal = factory.target(frame)
    unit = Unwrapped(None, "sklearn", "predict")
    declared = (*inputs_of(frame.iloc[:, :2]), *inputs_of(frame.iloc[:, 2:], "string"))
    columns = ColumnTransformer(
        [("texts", OneHotEncoder(sparse_output=False), ["channel"]), ("amount", SimpleImputer(), ["amount"])],
        remainder="drop",
    )
    pipeline = _pipeline([columns, FunctionTransformer()], frame, goal)
    found = thresholds(dataclasses.replace(unit, estimator=pipeline), declared)
    expected = read_forest(pipeline[-1]).thresholds()[3]  # after three columns of `channel`
    assert list(found) == ["amount"]
    assert set(expected) <= set(found["amount"])
    numbers = frame[["amount", "hour"]].assign(empty=np.nan)
    numbers = numbers[["empty", "hour", "amount"]]
    with warnings.catch_warnings(action="ignore"):  # the imputer says which column it drops
        imputed = _pipeline(["passthrough", SimpleImputer(add_indicator=True)], numbers, goal)
    found = thresholds(dataclasses.replace(unit, estimator=imputed), inputs_of(numbers))
    forest = read_forest(imputed[-1]).thresholds()
    assert set(forest[0]) <= set(found["hour"])  # `empty` is dropped by the imputer
    assert set(forest[1]) <= set(found["amount"])
    assert "empty" not in found
    scaled = _pipeline([StandardScaler()], frame[["amount", "hour"]], goal)
    assert thresholds(dataclasses.replace(unit, estimator=scaled), inputs_of(frame[["amount", "hour"]])) == {}


def test_no_thresholds_of_other_models(pinned):
    model, _ = pinned(factory.register_sklearn)
    assert thresholds(unwrap(model.path, model.inputs), model.inputs) == {}
    booster, frame, _ = factory.train_trees("lightgbm_binary", "float64")
    tensor = (ModelInput("all", "double", shape=(-1, 4)),)
    assert thresholds(Unwrapped(booster, "lightgbm", "predict"), tensor) == {}
    assert thresholds(Unwrapped(booster, "lightgbm", "predict"), inputs_of(frame)[:3]) == {}


def test_thresholds_leave_categories_out(pinned):
    model, _ = pinned(factory.register_lightgbm, "booster")
    found = thresholds(unwrap(model.path, model.inputs), model.inputs)
    assert set(found) <= {"amount", "hour"}
    assert "amount" in found


def test_models_that_are_refused():
    import lightgbm
    import xgboost
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import LinearRegression

    frame = factory.tree_frame("sklearn_tree", "float64")
    goal = frame["f0"].to_numpy()
    linear = lightgbm.train(
        {"linear_tree": True, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, goal, free_raw_data=False), 2
    )
    with pytest.raises(ModelError, match="linear models in its leaves"):
        read_forest(linear)
    dart = xgboost.train({"booster": "dart", "nthread": 1}, xgboost.DMatrix(frame, goal), 2)
    with pytest.raises(ModelError, match="dart"):
        read_forest(dart)
    vector = xgboost.train(
        {"multi_strategy": "multi_output_tree", "tree_method": "hist", "nthread": 1},
        xgboost.DMatrix(frame, np.stack([goal, goal], axis=1)),
        2,
    )
    with pytest.raises(ModelError, match="several values"):
        read_forest(vector)
    minus = xgboost.XGBRegressor(n_estimators=2, missing=-1.0, n_jobs=1).fit(frame, goal)
    with pytest.raises(ModelError, match="another value than NaN"):
        read_forest(minus)
    two = RandomForestRegressor(n_estimators=2).fit(frame, np.stack([goal, goal], axis=1))
    with pytest.raises(ModelError, match="one target"):
        read_forest(two)
    begun = GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(frame, goal)
    with pytest.raises(ModelError, match="begins with another model"):
        read_forest(begun)
    with pytest.raises(ModelError, match="no ensemble of trees"):
        read_forest(LinearRegression())


def test_methods_and_objectives_that_are_refused():
    import lightgbm
    import xgboost

    frame = factory.tree_frame("sklearn_tree", "float64")
    goal = (frame["f0"] > 0).to_numpy(int)
    booster, _, _ = factory.train_trees("lightgbm_binary", "float64")
    with pytest.raises(ModelError, match=r"Booster\.predict_proba"):
        of_lightgbm.scores_of(booster, booster, "predict_proba")
    lambdas = lightgbm.train(
        {"objective": "cross_entropy_lambda", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, goal), 2
    )
    with pytest.raises(ModelError, match="cross_entropy_lambda"):
        of_lightgbm.scores_of(lambdas, lambdas, "predict")
    hinge = xgboost.XGBClassifier(n_estimators=2, objective="binary:hinge", n_jobs=1).fit(frame, goal)
    with pytest.raises(ModelError, match="binary:hinge"):
        of_xgboost.scores_of(hinge.get_booster(), hinge, "predict")
    tree, _, _ = factory.train_trees("sklearn_tree", "float64")
    with pytest.raises(ModelError, match="predict_log_proba"):
        of_sklearn.scores_of(tree, "predict_log_proba")
    with pytest.raises(ModelError, match="neither numbers nor text"):
        labels(np.array([None, "a"], dtype=object))


def test_close_calls():
    scores = Scores("sigmoid", "vector")
    assert scores.close(np.array([[1e-7], [0.1]]), 1e-6).tolist() == [True, False]
    label = Scores("identity", "label", decision="argmax", classes=(0, 1, 2))
    assert label.close(np.array([[1.0, 1.0 + 1e-7, 0], [0, 1, 2]]), 1e-6).tolist() == [True, False]
    assert not Scores("identity", "vector").close(np.zeros((2, 1)), 1e-6).any()


def test_artifact_facts(tmp_path, tree_model):
    model, _ = tree_model("sklearn_forest", "float64")
    from batchscore.engines.trees import read_ensemble

    ensemble = read_ensemble(unwrap(model.path, model.inputs), model.inputs)
    artifact.write(ensemble, tmp_path, colour="blue")
    again, facts = artifact.read(tmp_path)
    assert facts["colour"] == "blue"
    assert (again.features, again.scores) == (ensemble.features, ensemble.scores)
    few = model.inputs[:2]
    with pytest.raises(ModelError, match="another number of columns"):
        read_ensemble(unwrap(model.path, model.inputs), few)


def test_one_leaf_and_no_tree():
    import lightgbm

    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, [1.0, 1, 1, 1]), 2)
    forest = read_forest(booster)
    assert np.array_equal(sums_of(forest, frame.to_numpy())[:, 0], booster.predict(frame))
