"""Trees that engine onnx converts take, at every boundary, the branch that their own library takes."""

import warnings

import numpy as np
import onnx.reference
import onnxruntime
import pandas as pd
import pytest

from batchscore.errors import ModelError
from tests.factories import models as factory
from tests.factories.converted import both, difference, saved
from tests.factories.models import batch_of
from tests.factories.onnx_graphs import EXTREMES, as_version_3, edge_rows, lightgbm_with_a_flip, plain_onnxmltools

ROWS = 1_000
TREES = 12
# The last bits: exp, division and, for float32 models, a probability's rounding.
DOUBLE, SINGLE = 1e-14, 2e-7


def numbers(dtype, nan=True):
    """Five columns: with NaN, with many zeros, rounded, tiny values around zero, and plain."""
    random = np.random.default_rng(7)
    values = random.normal(size=(ROWS, 5))
    values[::3, 1] = 0
    values[:, 2] = values[:, 2].round(1)
    values[:, 3] *= 1e-35
    frame = pd.DataFrame(values.astype(dtype), columns=list("abcde"))
    if nan:
        frame.loc[::7, "a"] = np.nan
    return frame


def targets(frame):
    clean = frame.fillna(0.5)
    return {
        "binary": ((clean["b"] > 0) ^ (clean["c"] > 0.3) ^ (clean["a"] > 0.2)).astype(int).to_numpy(),
        "text": np.where((clean["b"] > 0) ^ (clean["c"] > 0.3), "yes", "no").astype(object),
        "three": np.digitize(clean["a"] + clean["c"], [-0.5, 0.6]),
        "number": (clean["b"] * 100 + clean["c"] * 1000 + (clean["d"] > 0) * 500).to_numpy(),
        "positive": (clean["b"].abs() + clean["c"].abs() + 0.1).to_numpy(),
    }


def compared(model, folder, rows):
    reference, engine = both(model, folder)
    batch = batch_of(model, rows)
    expected, found = reference.score(batch), engine.score(batch)
    assert pd.Series(map(str, expected.column(0).to_pylist())).nunique() > 1
    return difference(expected, found)


def lightgbm_splits(booster):
    table = booster.trees_to_dataframe()
    table = table[table["decision_type"] == "<="]
    return list(zip(table["split_feature"], table["threshold"].astype(float), strict=True))


def xgboost_splits(booster):
    table = booster.trees_to_dataframe()
    table = table[table["Feature"] != "Leaf"].dropna(subset="Split")
    return list(zip(table["Feature"], table["Split"], strict=True))


def sklearn_splits(model, names):
    trees = [model] if hasattr(model, "tree_") else list(np.ravel(getattr(model, "estimators_", [])))
    found = [(tree.tree_.feature, tree.tree_.threshold) for tree in trees]
    for stage in getattr(model, "_predictors", []):
        found += [
            (one.nodes["feature_idx"], np.where(one.nodes["is_leaf"], np.nan, one.nodes["num_threshold"]))
            for one in stage
        ]
    return [
        (names[feature], float(threshold))
        for features, thresholds in found
        for feature, threshold in zip(features, thresholds, strict=True)
        if feature >= 0
    ]


LIGHTGBM = [
    ("binary", {"objective": "binary"}),
    ("binary", {"objective": "binary", "sigmoid": 2.5, "zero_as_missing": True}),
    ("binary", {"objective": "binary", "use_missing": False}),
    ("binary", {"objective": "cross_entropy"}),
    ("number", {"objective": "regression"}),
    ("number", {"objective": "regression", "reg_sqrt": True}),
    ("number", {"objective": "quantile"}),
    ("number", {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
    ("number", {"objective": "regression", "boosting": "dart"}),
    ("positive", {"objective": "poisson"}),
    ("three", {"objective": "multiclass", "num_class": 3}),
    ("three", {"objective": "multiclassova", "num_class": 3, "zero_as_missing": True}),
    ("binary", {"objective": "binary", "min_data_in_leaf": 2_000}),  # trees of one leaf
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("target", "params"), LIGHTGBM, ids=str)
def test_lightgbm(tmp_path, dtype, target, params):
    import lightgbm

    frame = numbers(dtype)
    params = {"num_leaves": 12, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, **params}
    booster = lightgbm.train(params, lightgbm.Dataset(frame, targets(frame)[target]), TREES)
    model = saved(tmp_path, booster, frame)
    rows = edge_rows(frame, lightgbm_splits(booster), EXTREMES)
    if params["min_data_in_leaf"] > ROWS:
        reference, engine = both(model, tmp_path)
        assert difference(reference.score(batch_of(model, rows)), engine.score(batch_of(model, rows))) == 0
    else:
        assert compared(model, tmp_path, rows) <= DOUBLE


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("binary", "LGBMClassifier"),
        ("text", "LGBMClassifier"),
        ("three", "LGBMClassifier"),
        ("number", "LGBMRegressor"),
    ],
)
def test_lightgbm_as_scikit_learn_has_it(tmp_path, target, kind):
    import lightgbm

    frame = numbers("float64")
    estimator = getattr(lightgbm, kind)(n_estimators=TREES, num_leaves=12, verbose=-1, n_jobs=1)
    estimator.fit(frame, targets(frame)[target])
    model = saved(tmp_path, estimator, frame)
    assert compared(model, tmp_path, edge_rows(frame, lightgbm_splits(estimator.booster_), EXTREMES)) == 0


def test_best_iteration(tmp_path):
    import lightgbm
    import xgboost

    from batchscore.engines.onnx_convert.lightgbm_trees import read_booster

    frame = numbers("float64")
    target = targets(frame)["number"]
    estimator = xgboost.XGBRegressor(n_estimators=60, learning_rate=0.9, early_stopping_rounds=3, n_jobs=1)
    estimator.fit(frame[:600], target[:600], eval_set=[(frame[600:], target[600:])], verbose=False)
    assert estimator.get_booster().num_boosted_rounds() > estimator.best_iteration + 1
    assert compared(saved(tmp_path, estimator, frame), tmp_path, frame) == 0
    # MLflow saves a LightGBM booster up to its best iteration; a pickled one has all.
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, target), TREES)
    booster.best_iteration = 5
    assert len(read_booster(booster).trees) == 5


@pytest.mark.parametrize("first", [0, 1])
def test_lightgbm_numbers_as_categories(tmp_path, first):
    """LightGBM cuts a category to a whole number, so 2.7 is 2, -0.5 is 0 and -1 is none."""
    import lightgbm

    frame = numbers("float64")
    random = np.random.default_rng(3)
    frame["k"] = random.integers(first, 30, ROWS) * 41.0
    target = (frame["k"] / 41 % 3 == 0).astype(int) ^ (frame["b"] > 0)
    params = {
        "objective": "binary",
        "min_data_in_leaf": 3,
        "min_data_per_group": 1,
        "cat_smooth": 1,
        "verbose": -1,
        "num_threads": 1,
    }
    booster = lightgbm.train(params, lightgbm.Dataset(frame, target, categorical_feature=["k"]), TREES)
    assert (booster.trees_to_dataframe()["decision_type"] == "==").any()
    model = saved(tmp_path, booster, frame)
    rows = edge_rows(frame, lightgbm_splits(booster))
    odd = [number * 41 + part for number in range(6) for part in (-0.5, 0.0, 0.7, 1.0)]
    odd += [-1.0, -1e-36, 1e9, 3e9, 1e300, np.nan, np.inf, -np.inf]
    rows.loc[: 40 * len(odd) - 1, "k"] = np.repeat(odd, 40)
    assert compared(model, tmp_path, rows) <= DOUBLE
    if not first:
        return  # onnx's evaluator reads a set only up to a zero
    # ONNX Runtime cuts values itself before it looks them up, ONNX does not: its own evaluator needs the graph's cut.
    evaluator = onnx.reference.ReferenceEvaluator(str(tmp_path / "artifact" / "model.onnx"))
    few = rows[: 40 * len(odd) : 20]
    (values,) = evaluator.run(None, {"x0": few.to_numpy()})
    assert np.abs(values.reshape(-1) - booster.predict(few)).max() <= DOUBLE


XGBOOST = [
    ("binary", {"objective": "binary:logistic"}),
    ("binary", {"objective": "binary:logistic", "base_score": 0.2}),
    ("binary", {"objective": "binary:hinge"}),
    ("binary", {"objective": "binary:logitraw"}),
    ("number", {"objective": "reg:squarederror"}),
    ("number", {"objective": "reg:absoluteerror"}),
    ("number", {"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.5}),
    ("number", {"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5}),
    ("positive", {"objective": "count:poisson"}),
    ("positive", {"objective": "reg:gamma"}),
    ("three", {"objective": "multi:softprob", "num_class": 3}),
    ("three", {"objective": "multi:softmax", "num_class": 3}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("target", "params"), XGBOOST, ids=str)
def test_xgboost(tmp_path, dtype, target, params):
    import xgboost

    frame = numbers(dtype)
    data = xgboost.DMatrix(frame, targets(frame)[target])
    booster = xgboost.train({"max_depth": 4, "nthread": 1, **params}, data, TREES)
    model = saved(tmp_path, booster, frame)
    # A DMatrix takes no infinity: see test_engines_onnx_convert.py.
    rows = edge_rows(frame, xgboost_splits(booster), [np.nan])
    assert compared(model, tmp_path, rows) <= (SINGLE if target != "number" or "booster" in params else 0)


@pytest.mark.parametrize(
    ("target", "kind"),
    [("binary", "XGBClassifier"), ("three", "XGBClassifier"), ("number", "XGBRegressor"), ("number", "XGBRFRegressor")],
)
def test_xgboost_as_scikit_learn_has_it(tmp_path, target, kind):
    import xgboost

    frame = numbers("float64")
    estimator = getattr(xgboost, kind)(n_estimators=TREES, max_depth=4, n_jobs=1)
    estimator.fit(frame, targets(frame)[target])
    model = saved(tmp_path, estimator, frame)
    rows = edge_rows(frame, xgboost_splits(estimator.get_booster()), EXTREMES)
    assert compared(model, tmp_path, rows) == 0


@pytest.mark.parametrize("kind", ["booster", "classifier"])
@pytest.mark.parametrize("register", [factory.register_lightgbm, factory.register_xgboost])
def test_categories(pinned, tmp_path, register, kind):
    """Unseen and missing categories, the empty string, and a number that one double away is a known one."""
    model, frame = pinned(register, kind)
    rows = pd.concat([frame] * 2, ignore_index=True)
    for column, odd in (("country", ["Atlantis", "", None]), ("channel", ["fax", "", None]), ("shop", [2**60 + 2, 0])):
        for index, value in enumerate(odd):
            rows.loc[range(len(frame) + index, len(rows), 2 * len(odd)), column] = value
    assert compared(model, tmp_path, rows) <= SINGLE


SKLEARN = [
    ("DecisionTreeClassifier", "text", {"max_depth": 6}),
    ("DecisionTreeRegressor", "number", {"max_depth": 7}),
    ("ExtraTreeClassifier", "three", {"max_depth": 6}),
    ("RandomForestClassifier", "binary", {"n_estimators": TREES, "max_depth": 6, "min_samples_leaf": 3}),
    ("RandomForestClassifier", "three", {"n_estimators": TREES, "max_depth": 6}),
    ("RandomForestRegressor", "number", {"n_estimators": TREES, "max_depth": 6}),
    ("ExtraTreesClassifier", "text", {"n_estimators": TREES, "max_depth": 6}),
    ("GradientBoostingClassifier", "binary", {"n_estimators": TREES}),
    ("GradientBoostingClassifier", "text", {"n_estimators": TREES, "loss": "exponential"}),
    ("GradientBoostingClassifier", "three", {"n_estimators": TREES}),
    ("GradientBoostingRegressor", "number", {"n_estimators": TREES}),
    ("GradientBoostingRegressor", "number", {"n_estimators": TREES, "init": "zero"}),
    ("HistGradientBoostingClassifier", "text", {"max_iter": TREES}),
    ("HistGradientBoostingClassifier", "three", {"max_iter": TREES}),
    ("HistGradientBoostingRegressor", "number", {"max_iter": TREES}),
    ("HistGradientBoostingRegressor", "positive", {"max_iter": TREES, "loss": "poisson"}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "target", "params"), SKLEARN, ids=str)
def test_scikit_learn(tmp_path, dtype, kind, target, params):
    import sklearn.ensemble
    import sklearn.tree

    frame = numbers(dtype, nan=not kind.startswith("Gradient"))
    maker = getattr(sklearn.ensemble, kind, None) or getattr(sklearn.tree, kind)
    estimator = maker(random_state=1, **params).fit(frame, targets(frame)[target])
    extremes = EXTREMES if kind.startswith("Hist") else [np.nan] if frame.isna().any(axis=None) else []
    rows = edge_rows(frame, sklearn_splits(estimator, list(frame)), extremes)
    for method in ("predict", "predict_proba") if hasattr(estimator, "classes_") else ("predict",):
        (tmp_path / method).mkdir()
        model = saved(tmp_path / method, estimator, frame, method)
        assert compared(model, tmp_path / method, rows) <= (0 if "Regressor" in kind and target == "number" else DOUBLE)


def test_ties_between_classes_are_scikit_learns(tmp_path):
    """Thirds in the leaves: sums that are equal on paper differ in their last bits, and these decide."""
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(5)
    frame = pd.DataFrame(random.integers(0, 3, (ROWS, 4)).astype("float64"), columns=list("abcd"))
    estimator = RandomForestClassifier(24, max_depth=2, min_samples_leaf=3, random_state=2)
    estimator.fit(frame[:40], random.integers(0, 3, 40))
    probabilities = np.sort(estimator.predict_proba(frame), axis=1)
    assert (probabilities[:, 2] - probabilities[:, 1] < 1e-2).any()
    assert compared(saved(tmp_path, estimator, frame), tmp_path, frame) == 0


@pytest.mark.parametrize(
    ("kind", "label"), [("GradientBoostingClassifier", "b"), ("HistGradientBoostingClassifier", "a")]
)
def test_a_sum_of_zero_is_the_second_class_or_the_first(tmp_path, kind, label):
    import sklearn.ensemble

    frame = pd.DataFrame({"a": np.zeros(40)})
    estimator = getattr(sklearn.ensemble, kind)().fit(frame, np.repeat(["a", "b"], 20).astype(object))
    assert estimator.decision_function(frame)[0] == 0
    model = saved(tmp_path, estimator, frame)
    reference, engine = both(model, tmp_path)
    batch = batch_of(model, frame)
    assert set(engine.score(batch).column(0).to_pylist()) == {label}
    assert engine.score(batch).equals(reference.score(batch))


@pytest.mark.parametrize("params", [{}, {"use_missing": False}, {"objective": "poisson"}], ids=str)
def test_leafparity_proves_every_input(params):
    """For every double there is, NaN and infinities included, each tree reaches the booster's leaf.

    leafparity does not read TreeEnsemble of ai.onnx.ml 5, so it is given the same doubles in the older operator; and
    it does not read the nodes before and after the trees, so neither zeros as missing nor categories are in here.
    """
    import lightgbm
    from leafparity import analyze

    from batchscore.engines.onnx_convert.graph import FLOAT64, Graph
    from batchscore.engines.onnx_convert.lightgbm_trees import append_lightgbm

    frame = numbers("float64")
    params = {"objective": "regression", "num_leaves": 10, "verbose": -1, "num_threads": 1, **params}
    booster = lightgbm.train(params, lightgbm.Dataset(frame, targets(frame)["positive"]), TREES)
    graph = Graph()
    output = append_lightgbm(graph, booster, graph.input("x", FLOAT64, frame.shape[1]), "predict")
    ours = analyze(booster, as_version_3(graph.model(output, FLOAT64, 2)), include_inf=True)
    assert (ours.verdict["status"], ours.verdict["distinct_problems"]) == ("EQUIVALENT", 0)
    if params["objective"] == "regression":
        assert analyze(booster, plain_onnxmltools(booster, frame.shape[1])).verdict["status"] == "NOT EQUIVALENT"


def test_the_plain_conversion_flips(tmp_path):
    booster, frame = lightgbm_with_a_flip()
    expected = booster.predict(frame)
    assert expected[0] < 0.01
    assert expected[-1] > 0.99
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    plain = onnxruntime.InferenceSession(plain_onnxmltools(booster, 2), options)
    _, probabilities = plain.run(None, {"X": frame.to_numpy()})
    assert probabilities[-1, 1] < 0.01
    assert compared(saved(tmp_path, booster, frame), tmp_path, frame) <= DOUBLE


@pytest.mark.parametrize("case", ["linear", "mixed zeros", "gblinear", "missing", "several outputs", "histogram"])
def test_what_has_no_operator_is_named(tmp_path, case):
    import lightgbm
    import xgboost
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.pipeline import make_pipeline

    frame = numbers("float64", nan=False)
    target = targets(frame)["number"]
    quiet = {"verbose": -1, "num_threads": 1}
    if case == "linear":
        model, text = lightgbm.train({**quiet, "linear_tree": True}, lightgbm.Dataset(frame, target), 3), "linear trees"
    elif case == "mixed zeros":
        first = lightgbm.train({**quiet, "zero_as_missing": True}, lightgbm.Dataset(frame, target), 3)
        model = lightgbm.train(quiet, lightgbm.Dataset(frame, target), 3, init_model=first)
        text = "zeros of a LightGBM feature"
    elif case == "gblinear":
        model, text = xgboost.XGBRegressor(booster="gblinear", n_estimators=3), "gblinear"
    elif case == "missing":
        model, text = make_pipeline(xgboost.XGBRegressor(missing=0.0, n_estimators=3)), "missing value of its own"
    elif case == "several outputs":
        model, text, target = RandomForestRegressor(3), "several outputs", np.stack([target, target], axis=1)
    else:
        frame["c"] = frame["c"].round().abs()
        model, text = (
            HistGradientBoostingRegressor(max_iter=3, categorical_features=[2]),
            "categorical_features=\\[2\\]",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model if hasattr(model, "num_trees") else model.fit(frame, target)
    with pytest.raises(ModelError, match=text):
        both(saved(tmp_path, model, frame), tmp_path)
