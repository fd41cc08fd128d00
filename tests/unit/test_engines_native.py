"""The native engine gives the pyfunc engine's scores, for every kind of model, at the boundaries."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.contracts import ModelInput, ModelOutput
from batchscore.engines import native, parity, probes, pyfunc
from batchscore.engines.direct import caller, pin_threads
from batchscore.engines.estimators import read_estimator
from batchscore.errors import ModelError
from tests.factories import models as factory
from tests.factories.models import batch_of, files_of

# scikit-learn sums its input to look for infinities.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid|overflow).* encountered in:RuntimeWarning")

TENSOR = {"signature": {"inputs": [{"name": "features", "type": "array<double>"}]}}
EXACT = {"allowed_abs_diff": 0.0, "allowed_label_flips": 0}
FACTS = {"engine": "native", "model_digest": "m", "artifact_digest": "", "versions": {}, "created_at": "2026-11-01"}


def trained(kind, dtype="float64", classes=2):
    """A small model on numbers, and its training frame."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame({f"f{i}": random.normal(size=1_500).round(2).astype(dtype) for i in range(5)})
    frame.loc[::9, "f1"] = np.nan
    if kind.endswith("mixed"):
        frame["f2"] = (frame["f2"] * 10).astype("int64")
        frame["f3"] = frame["f3"] > 0
    total = frame["f0"] + frame["f1"].fillna(0) * frame["f2"] + 0.3 * frame["f4"]
    label = pd.qcut(total + random.normal(size=1_500) * 0.1, classes, labels=False)
    return *fitted(kind.removesuffix("_mixed"), frame, label), frame


def fitted(kind, frame, label):  # noqa: PLR0911  # one return a kind
    import lightgbm
    import xgboost

    small = {"n_estimators": 20, "n_jobs": 1}
    if kind == "lightgbm_booster":
        params = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1}
        return "lightgbm", lightgbm.train(params, lightgbm.Dataset(frame, label), 20)
    if kind == "lightgbm_classifier":
        return "lightgbm", lightgbm.LGBMClassifier(num_leaves=15, verbose=-1, **small).fit(frame, label)
    if kind == "lightgbm_regressor":
        return "lightgbm", lightgbm.LGBMRegressor(num_leaves=15, verbose=-1, **small).fit(frame, label)
    if kind == "xgboost_classifier":
        return "xgboost", xgboost.XGBClassifier(max_depth=4, **small).fit(frame, label)
    if kind == "xgboost_missing":
        return "xgboost", xgboost.XGBClassifier(max_depth=4, missing=0.1, **small).fit(frame, label)
    if kind == "sklearn_forest":
        from sklearn.ensemble import RandomForestClassifier

        return "sklearn", RandomForestClassifier(12, max_depth=6, random_state=0, n_jobs=2).fit(frame, label)
    if kind == "xgboost_linear":
        params = {"objective": "binary:logistic", "nthread": 1, "booster": "gblinear", "updater": "coord_descent"}
        return "xgboost", xgboost.train(params, xgboost.DMatrix(frame, label), 20)
    booster = "dart" if kind == "xgboost_dart" else "gbtree"
    params = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "booster": booster}
    return "xgboost", xgboost.train(params, xgboost.DMatrix(frame, label), 20)


def log(registry, kind, dtype="float64", classes=2, method="predict"):
    """Registers a model of numbers; returns it as the factories do."""
    import importlib

    import xgboost
    from mlflow.models import infer_signature

    flavor, model, frame = trained(kind, dtype, classes)
    module = importlib.import_module(f"mlflow.{flavor}")
    data = xgboost.DMatrix(frame) if isinstance(model, xgboost.Booster) else frame
    name = f"native_{kind}_{dtype}_{classes}_{method}"
    given = {{"lightgbm": "lgb_model", "xgboost": "xgb_model", "sklearn": "sk_model"}[flavor]: model}
    if flavor == "sklearn":
        given |= {"pyfunc_predict_fn": method, "serialization_format": "cloudpickle"}
    signature = infer_signature(frame, getattr(model, method)(data))
    factory.register(registry, name, module.log_model, signature=signature, **given)
    return factory.Registered(name, frame)


def thresholds(model):
    """Split values of a LightGBM or XGBoost model; for others some values of the sample."""
    found = read_estimator(model.path, model.inputs)
    if found.library == "xgboost":
        booster = getattr(found.estimator, "get_booster", lambda: found.estimator)()
        if "gblinear" in booster.save_config():
            return {}
        table = booster.trees_to_dataframe().query("Feature != 'Leaf'")
        return {name: part["Split"].dropna().to_numpy() for name, part in table.groupby("Feature")}
    if found.library == "lightgbm":
        table = getattr(found.estimator, "booster_", found.estimator).trees_to_dataframe()
        table = table[table["decision_type"] == "<="].astype({"threshold": float})
        names = dict(zip(read_names(found), [item.name for item in model.inputs], strict=True))
        return {names[name]: part["threshold"].to_numpy() for name, part in table.groupby("split_feature")}
    return {}


def read_names(found):
    return getattr(found.estimator, "booster_", found.estimator).feature_name()


def compared(model, sample, candidate=None):
    """The certificate of the native engine."""
    batch = batch_of(model, sample)
    found = read_estimator(model.path, model.inputs)
    rows = probes.build(model.inputs, batch, thresholds(model), found.categories, rows=4_000, seed=1)
    reference = pyfunc.load(files_of(model), 1)
    candidate = candidate or native.load(files_of(model), 1)
    return parity.certify(reference, candidate, rows, **FACTS, **EXACT), rows


@pytest.mark.parametrize(
    ("make", "arguments", "settings"),
    [
        (factory.register_sklearn, (), {}),
        (factory.register_probabilities, (), {}),
        (factory.register_probabilities, ("trained_on_nan", float("nan")), {}),
        (factory.register_lightgbm, ("booster",), {}),
        (factory.register_lightgbm, ("classifier",), {}),
        (factory.register_xgboost, ("booster",), {}),
        (factory.register_xgboost, ("classifier",), {}),
        (factory.register_unnamed_tensor, (), TENSOR),
        *((log, (kind,), {}) for kind in ("lightgbm_booster", "lightgbm_classifier", "xgboost_booster")),
        *((log, (kind,), {}) for kind in ("xgboost_classifier", "xgboost_dart", "xgboost_linear", "xgboost_missing")),
        *((log, (kind, "float32"), {}) for kind in ("lightgbm_booster", "xgboost_booster", "xgboost_classifier")),
        *((log, (f"{kind}_mixed",), {}) for kind in ("lightgbm_booster", "lightgbm_regressor", "xgboost_booster")),
        *((log, (kind, "float64", 3), {}) for kind in ("lightgbm_classifier", "xgboost_classifier")),
        (log, ("sklearn_forest", "float64", 3, "predict_proba"), {}),
    ],
)
def test_native_is_pyfunc_to_the_last_bit(pinned, make, arguments, settings):
    model, sample = pinned(make, *arguments, **settings)
    assert native.supports(model) is None
    certificate, _ = compared(model, sample)
    if arguments[:1] == ("sklearn_forest",):  # pyfunc leaves it two threads, which add up the trees as they end
        assert certificate.max_abs_diff < 1e-14
    else:
        assert certificate.reason == ""
        assert (certificate.max_abs_diff, certificate.label_flips) == (0.0, 0)
    assert dict(certificate.probes)["input"] >= 400
    # What pyfunc itself refuses is little: else this test would compare nothing.
    assert certificate.skipped < sum(rows for _, rows in certificate.probes) / 3


def test_the_comparison_asks_the_boundaries(pinned):
    """A LightGBM engine that rounds doubles to floats is found, though no random row shows it."""
    model, sample = pinned(log, "lightgbm_booster")

    class Rounding:
        def __init__(self):
            self.inner = native.load(files_of(model), 1)

        def score(self, batch):
            columns = [column.cast(pa.float32()).cast(pa.float64()) for column in batch.columns]
            return self.inner.score(pa.RecordBatch.from_arrays(columns, names=batch.schema.names))

    certificate, _ = compared(model, sample, Rounding())
    assert certificate.verdict == "refused"
    assert "threshold probe" in certificate.reason


def test_infinities_are_refused_where_pyfunc_refuses_them(pinned):
    model, sample = pinned(log, "xgboost_booster")
    batch = batch_of(model, sample.head(3).assign(f0=np.inf))
    for engine in (pyfunc, native):
        with pytest.raises(ModelError, match="contains `inf`"):
            engine.load(files_of(model), 1).score(batch)


def test_nulls_in_whole_numbers_are_refused(pinned):
    model, sample = pinned(log, "lightgbm_booster_mixed")
    batch = batch_of(model, sample.head(3))
    nulls = batch.set_column(2, "f2", pa.array([1, None, 3], pa.int64()))
    for engine in (pyfunc, native):
        with pytest.raises(ModelError, match="has nulls"):
            engine.load(files_of(model), 1).score(nulls)


def test_neither_mlflow_nor_a_frame_for_a_booster(pinned):
    """The booster gets a matrix, in a process that never imports MLflow."""
    model, sample = pinned(log, "lightgbm_booster")
    other, _ = pinned(factory.register_lightgbm, "classifier")
    code = """
import pickle, sys
from batchscore.engines import native
for path in sys.argv[1:]:
    files, batch = pickle.load(open(path, "rb"))
    print(native.load(files, 1).score(batch).num_rows)
print("mlflow" in sys.modules, "matplotlib" in sys.modules)
"""
    paths = []
    folder = Path(model.path).parent.parent
    for index, (item, frame) in enumerate(
        ((model, sample), (other, pinned(factory.register_lightgbm, "classifier")[1]))
    ):
        paths.append(folder / f"request_{index}_{os.getpid()}")
        import pickle

        paths[-1].write_bytes(pickle.dumps((files_of(item), batch_of(item, frame))))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1500", "400", "False", "False"]


def test_what_only_mlflow_can_load(pinned, tmp_path, monkeypatch):
    """A model with code of its own, or where somebody forbids pickles, goes through MLflow."""
    from batchscore.engines import estimators

    model, _ = pinned(factory.register_sklearn)
    asked = []
    monkeypatch.setattr(estimators, "unwrap", lambda path, inputs: asked.append(path))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    estimators.read_estimator(model.path, model.inputs)
    assert asked == [model.path]
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION")
    estimators.read_estimator(model.path, model.inputs)
    assert asked == [model.path]
    folder = tmp_path / "coded"
    folder.mkdir()
    text = (
        Path(model.path, "MLmodel")
        .read_text()
        .replace("loader_module: mlflow.sklearn", "loader_module: mlflow.sklearn\n    code: code")
    )
    (folder / "MLmodel").write_text(text)
    estimators.read_estimator(str(folder), model.inputs)
    assert asked[1:] == [str(folder)]


def test_forbidden_pickles_stay_forbidden(pinned, monkeypatch):
    model, _ = pinned(factory.register_sklearn)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(Exception, match="disallowed"):
        native.load(files_of(model), 1)


@pytest.mark.parametrize(
    ("make", "text"),
    [(factory.register_params, "loaded by mlflow.pyfunc.model"), (factory.register_onnx, "loaded by mlflow.onnx")],
)
def test_other_wrappers_are_not_bypassed(pinned, make, text):
    model, _ = pinned(make)
    assert text in native.supports(model)
    assert native.outputs(model) == ("prediction",)


def test_inputs_that_mlflow_converts_in_ways_of_its_own(pinned):
    model, _ = pinned(log, "lightgbm_booster")
    for item in (ModelInput("x", "double", shape=(-1, 5)), ModelInput("x", "array<double>")):
        assert "input x is" in native.supports(dataclasses.replace(model, inputs=(item,)))


def test_params_reach_xgboost(pinned):
    from mlflow.models import infer_signature

    def make(registry):
        import mlflow.xgboost
        import xgboost

        _, model, frame = trained("xgboost_booster")
        signature = infer_signature(
            frame, model.predict(xgboost.DMatrix(frame)), params={"output_margin": True, "other": 1}
        )
        factory.register(registry, "native_params", mlflow.xgboost.log_model, xgb_model=model, signature=signature)
        return factory.Registered("native_params", frame)

    model, sample = pinned(make)
    certificate, _ = compared(model, sample)
    assert certificate.reason == ""
    plain, _ = pinned(log, "xgboost_booster")
    scores = [native.load(files_of(item), 1).score(batch_of(item, sample)) for item in (model, plain)]
    assert not np.allclose(scores[0].column(0), scores[1].column(0))


# threads


def test_threads_are_pinned(pinned):
    """One thread more than before is none: libraries keep thread counts of their own."""
    model, sample = pinned(log, "sklearn_forest", "float64", 3, "predict_proba")
    booster, _ = pinned(log, "lightgbm_classifier")
    found = read_estimator(model.path, model.inputs)
    assert found.estimator.n_jobs == 2
    pin_threads(found.estimator, 1)
    assert found.estimator.n_jobs == 1
    given = []
    found = read_estimator(booster.path, booster.inputs)
    pin_threads(found.estimator, 1)
    inner = found.estimator.booster_.predict
    found.estimator._Booster.predict = lambda *a, **k: given.append(k["num_threads"]) or inner(*a, **k)
    caller(found, files_of(booster), 1)(batch_of(booster, sample))
    assert given == [1]
    pinned_booster = read_estimator(pinned(log, "xgboost_booster")[0].path, ()).estimator
    pin_threads(pinned_booster, 3)
    assert json.loads(pinned_booster.save_config())["learner"]["generic_param"]["nthread"] == "3"


def test_threads_reach_a_lightgbm_booster(pinned):
    model, sample = pinned(log, "lightgbm_booster")
    found = read_estimator(model.path, model.inputs)
    given = []

    class Spy:
        __name__ = "Booster"

        def predict(self, data, **settings):
            given.append((type(data), settings))
            return found.estimator.predict(data, **settings)

    spy = type("Booster", (Spy,), {})()
    caller(dataclasses.replace(found, estimator=spy), files_of(model), 1)(batch_of(model, sample))
    assert given == [(np.ndarray, {"num_threads": 1})]


# label and probability


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (factory.register_sklearn, ()),
        (factory.register_probabilities, ()),
        (factory.register_lightgbm, ("classifier",)),
        (factory.register_xgboost, ("classifier",)),
        *(
            (log, (kind, "float64", classes))
            for kind in ("lightgbm_classifier", "xgboost_classifier")
            for classes in (2, 3)
        ),
        (log, ("sklearn_forest", "float64", 3, "predict_proba")),
    ],
)
def test_label_and_probability_side_by_side(pinned, make, arguments):
    model, sample = pinned(make, *arguments)
    assert native.outputs(model) == ("prediction", "probability")
    wider = native.with_probability(model)
    engine = native.load(files_of(wider), 1)
    estimator = read_estimator(model.path, model.inputs).estimator
    labels = native.load(files_of(model), 1)
    found = read_estimator(model.path, model.inputs)
    proba = caller(dataclasses.replace(found, method="predict_proba"), files_of(model), 1)
    pin_threads(found.estimator, 1)
    batches = [batch_of(model, sample), *(batch for _, batch in compared(model, sample)[1])]
    scorable = []
    for batch in batches:
        part = batch.slice(0, 700)
        try:
            scorable.append((part, labels.score(part)))
        except ModelError:
            continue  # scikit-learn refuses infinities
    assert len(scorable) >= 2
    for part, plain in scorable:
        scored, expected = engine.score(part), np.asarray(proba(part), np.float64)
        assert scored.schema.names == ["prediction", "probability"]
        assert scored.column(0).equals(plain.column(0))
        if len(estimator.classes_) == 2:
            assert scored.schema.types[1] == pa.float64()
            assert np.array_equal(scored.column(1).to_numpy(), expected[:, 1])
        else:
            assert np.array_equal(np.array(scored.column(1).to_pylist()), expected)
    empty = engine.score(batches[0].slice(0, 0))
    assert (empty.num_rows, empty.schema) == (0, scored.schema)


def test_labels_at_ties_are_those_of_predict(pinned):
    """Probabilities of exactly one half, and equal ones of several classes, are labelled as ``predict`` does."""
    from batchscore.engines.probability import _labels

    for kind in ("lightgbm_classifier", "xgboost_classifier"):
        _, model, _ = trained(kind)
        labels = _labels(model)
        half = np.array([[0.5, 0.5], [0.4, 0.6], [0.6, 0.4]])
        assert labels(half).tolist() == [0, 1, 0]


def test_a_model_without_probability(pinned):
    for kind in ("lightgbm_booster", "lightgbm_regressor_mixed"):
        model, _ = pinned(log, kind)
        assert native.outputs(model) == ("prediction",)
        with pytest.raises(ModelError, match="no probability beside"):
            native.with_probability(model)


def test_an_own_output_of_that_name_is_kept(pinned):
    """Two columns of probabilities, of which the second is called so, are not taken for an extra one."""
    settings = {"outputs": [{"name": "other", "type": "double"}, {"name": "probability", "type": "double"}]}
    model, sample = pinned(factory.register_probabilities, signature=settings)
    scored = native.load(files_of(model), 1).score(batch_of(model, sample))
    assert np.allclose(scored.column(0).to_numpy() + scored.column(1).to_numpy(), 1)
    with pytest.raises(ModelError, match="no probability beside"):
        native.with_probability(model)
    three = dataclasses.replace(model, outputs=(ModelOutput("a", "double"), ModelOutput("b", "double")))
    wider = native.load(files_of(native.with_probability(three)), 1).score(batch_of(model, sample))
    assert wider.schema.names == ["a", "b", "probability"]
    assert wider.column(2).equals(wider.column(1))


def test_versions_name_the_libraries():
    assert {"lightgbm", "numpy", "scikit-learn"} <= set(native.versions())
