"""Whole models on engine onnx: pipelines with text and missing values, outputs, refusals, and what workers import."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.contracts import ModelInput
from batchscore.engines import choose, onnx, supports
from batchscore.engines.cache import loaded
from batchscore.errors import ModelError, SetupError
from tests.factories import models as factory
from tests.factories.converted import artifact_of, both, difference, saved
from tests.factories.models import batch_of
from tests.factories.onnx_graphs import edge_rows

NUMBERS = ["amount", "hour", "small"]
TEXTS = ["country", "channel"]
# XGBoost's probabilities are floats; all others are doubles.
ALLOWED = {"XGBClassifier": 2e-7}
DOUBLE = 1e-13
# The least double that rounds to an infinite float.
TOO_LARGE = 3.4028235677973366e38


def frame_of(missing=None):
    """Numbers of three types, a boolean, and text with missing values spelled as asked."""
    random = np.random.default_rng(11)
    frame = pd.concat([factory.mixed_frame()] * 3, ignore_index=True)
    frame["amount"] += random.normal(size=len(frame))
    frame["small"] = random.normal(size=len(frame)).astype("float32")
    frame["flag"] = random.random(len(frame)) < 0.5
    if missing is not None:
        frame["country"] = frame["country"].where(frame["country"].notna(), missing)
    return frame


def strange(frame):
    """The frame, the same rows with unseen, empty and missing values, and numbers at odd places."""
    random = np.random.default_rng(12)
    odd = frame.copy()
    for name in odd:
        if odd[name].dtype == object:
            for value in ("Atlantis", "", None, "?"):
                odd.loc[random.random(len(odd)) < 0.2, name] = value
        elif odd[name].dtype.kind == "f":
            odd.loc[random.random(len(odd)) < 0.2, name] = np.nan
    if "hour" in odd:
        odd.loc[random.random(len(odd)) < 0.2, "hour"] = 77
    splits = [("amount", float(value)) for value in (60, frame["amount"].median(), frame["amount"].mean())]
    return edge_rows(pd.concat([frame, odd], ignore_index=True), splits if "amount" in frame else [])


def numeric(*steps):
    from sklearn.pipeline import make_pipeline

    return "numbers", make_pipeline(*steps), NUMBERS


def preparations():
    """Name -> how missing text is spelled in training, and a column transformer."""
    from sklearn import preprocessing as p
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    nan = float("nan")
    ordinal = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
    ignoring = p.OneHotEncoder(handle_unknown="ignore")

    def columns(*parts, **options):
        return ColumnTransformer(list(parts), **options)

    def texts(*steps):
        return "texts", make_pipeline(*steps), TEXTS

    frequent = SimpleImputer(strategy="most_frequent")
    constant = SimpleImputer(strategy="constant", fill_value="none", missing_values=None)
    marked = SimpleImputer(strategy="most_frequent", missing_values="?")
    return {
        "one-hot, None": (None, columns(numeric(SimpleImputer(), p.StandardScaler()), texts(ignoring))),
        "one-hot, NaN": (nan, columns(numeric(SimpleImputer(strategy="median"), p.RobustScaler()), texts(ignoring))),
        "imputed, NaN": (nan, columns(numeric(SimpleImputer(), p.MinMaxScaler(clip=True)), texts(frequent, ignoring))),
        "imputed, None": (None, columns(numeric(SimpleImputer(add_indicator=True)), texts(constant, ignoring))),
        "imputed, ?": ("?", columns(numeric(SimpleImputer(), p.MaxAbsScaler()), texts(marked, ignoring))),
        "ordinal": (
            None,
            columns(numeric(SimpleImputer(strategy="most_frequent")), texts(p.OrdinalEncoder(**ordinal))),
        ),
        "ordinal, missing coded": (
            None,
            columns(numeric(SimpleImputer()), texts(p.OrdinalEncoder(encoded_missing_value=-2, **ordinal))),
        ),
        "rare categories": (
            None,
            columns(
                numeric(SimpleImputer(), p.StandardScaler(with_mean=False)),
                texts(p.OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=380, drop="first")),
            ),
        ),
        "target": (None, columns(numeric(SimpleImputer(), p.StandardScaler(with_std=False)), texts(p.TargetEncoder()))),
        "numbers one-hot": (
            None,
            columns(("amount", SimpleImputer(), ["amount"]), ("codes", ignoring, ["country", "hour", "flag"])),
        ),
        "remainder": (
            None,
            columns(
                ("text", p.OrdinalEncoder(**ordinal), ["channel"]),
                ("amount", SimpleImputer(), ["amount", "small"]),
                ("none", "drop", ["country"]),
                remainder="passthrough",
            ),
        ),
        "indicated": (
            nan,
            columns(
                numeric(SimpleImputer()),
                texts(SimpleImputer(strategy="most_frequent", add_indicator=True), p.OrdinalEncoder(**ordinal)),
            ),
        ),
        "selected": (None, columns(numeric(SimpleImputer(), VarianceThreshold(2.0)), texts(ignoring))),
    }


def finals():
    import lightgbm
    import xgboost
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    few = {"n_estimators": 10, "random_state": 1}
    return {
        "LogisticRegression": LogisticRegression(max_iter=500),
        "MLPClassifier": MLPClassifier((8, 4), max_iter=30, random_state=1),
        "HistGradientBoostingClassifier": HistGradientBoostingClassifier(max_iter=10),
        "GradientBoostingClassifier": GradientBoostingClassifier(**few),
        "RandomForestClassifier": RandomForestClassifier(max_depth=6, **few),
        "LGBMClassifier": lightgbm.LGBMClassifier(verbose=-1, n_jobs=1, **few),
        "XGBClassifier": xgboost.XGBClassifier(n_jobs=1, **few),
    }


def fitted(preparation, final):
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline

    missing, columns = preparations()[preparation]
    frame = frame_of(missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = factory.target(frame) ^ frame["flag"].to_numpy()
        return make_pipeline(clone(columns), finals()[final]).fit(frame, target), frame


CASES = [(name, "RandomForestClassifier", "predict") for name in preparations()]
CASES += [(name, "XGBClassifier", "predict_proba") for name in preparations()]
CASES += [("imputed, NaN", name, method) for name in finals() for method in ("predict", "predict_proba")]


@pytest.mark.parametrize(("preparation", "final", "method"), CASES)
def test_pipeline(tmp_path, preparation, final, method):
    estimator, frame = fitted(preparation, final)
    model = saved(tmp_path, estimator, frame, method)
    reference, engine = both(model, tmp_path)
    batch = batch_of(model, strange(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unknown categories
        expected = reference.score(batch)
    assert difference(expected, engine.score(batch)) <= ALLOWED.get(final, DOUBLE)
    assert engine.score(batch.slice(801, 37)).equals(engine.score(batch).slice(801, 37))
    # Columns that are there decide, so the comparison can fail.
    assert len(set(map(str, expected.column(0).to_pylist()))) > 1


def test_sparse_zeros_are_missing_to_xgboost():
    """The case above in which a sparse matrix reaches XGBoost is one."""
    estimator, _ = fitted("numbers one-hot", "XGBClassifier")
    assert estimator[0].sparse_output_


def linear_models():
    from sklearn import linear_model as m
    from sklearn.decomposition import PCA
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    return [
        (m.LogisticRegression(), "text", "predict"),
        (m.LogisticRegression(), "three", "predict_proba"),
        (m.LogisticRegressionCV(l1_ratios=(0,), use_legacy_attributes=False), "text", "predict_proba"),
        (m.SGDClassifier(loss="log_loss", random_state=1), "three", "predict_proba"),
        (m.RidgeClassifier(), "text", "predict"),
        (LinearSVC(), "three", "predict"),
        (MLPClassifier((8,), max_iter=20, random_state=1), "text", "predict"),
        (MLPClassifier((8, 6), max_iter=20, random_state=1), "three", "predict_proba"),
        (MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=1), "number", "predict"),
        (m.LinearRegression(), "number", "predict"),
        (m.Ridge(), "number", "predict"),
        (m.PoissonRegressor(), "positive", "predict"),
        (GridSearchCV(m.Lasso(), {"alpha": [0.1, 1]}), "number", "predict"),
        (make_pipeline(StandardScaler(), PCA(3), m.LogisticRegression()), "text", "predict_proba"),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("estimator", "target", "method"), linear_models(), ids=lambda value: str(value)[:40])
def test_linear_models_and_networks(tmp_path, dtype, estimator, target, method):
    from sklearn.base import clone

    random = np.random.default_rng(3)
    frame = pd.DataFrame(random.normal(size=(600, 4)).astype(dtype), columns=list("abcd"))
    raw = frame["a"] * 2 - frame["b"]
    targets = {
        "text": np.where(raw > 0, "yes", "no").astype(object),
        "three": np.digitize(raw, [-1, 1]),
        "number": raw * 10,
        "positive": raw.abs(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations
        model = saved(tmp_path, clone(estimator).fit(frame, targets[target]), frame, method)
    reference, engine = both(model, tmp_path)
    batch = batch_of(model, edge_rows(frame, []).clip(-10, 10))
    # Where all is float, sums of floats differ by their order.
    assert difference(reference.score(batch), engine.score(batch)) <= (1e-6 if dtype == "float32" else DOUBLE)


def test_scaled_floats_before_a_tree(tmp_path):
    """Each scaler's roundings are scikit-learn's: a threshold between two scaled floats finds every other one."""
    from sklearn import preprocessing as p
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeRegressor

    random = np.random.default_rng(8)
    for scaler in (p.StandardScaler(), p.RobustScaler(), p.MinMaxScaler(), p.MaxAbsScaler()):
        for trained, dtype in (("float32", "float32"), ("float64", "float32"), ("float64", "float64")):
            values = 1 + random.integers(0, 4_000, (1_500, 1)) * 2.0**-22
            # A double among them gives the scaler operands that no float holds.
            values[:2, 0] = 0.1, 3.3
            frame = pd.DataFrame(values.astype(trained), columns=["a"])
            estimator = make_pipeline(scaler, DecisionTreeRegressor()).fit(frame, random.normal(size=len(frame)))
            folder = tmp_path / f"{type(scaler).__name__} {trained} {dtype}"
            folder.mkdir()
            model = saved(folder, estimator, frame.astype(dtype))
            reference, engine = both(model, folder)
            every = pd.DataFrame({"a": (1 + np.arange(8_000) * 2.0**-23).astype(dtype)})
            assert difference(reference.score(batch_of(model, every)), engine.score(batch_of(model, every))) == 0


@pytest.mark.parametrize("kind", ["linear", "tree", "histogram", "imputed", "booster"])
def test_what_the_reference_refuses_is_refused(tmp_path, kind):
    """NaN, infinity and numbers beyond float, where the reference raises and nowhere else."""
    import xgboost
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeRegressor

    frame = pd.DataFrame({"wide": [1.0, 2, 3, 4], "small": np.array([4, 3, 1, 2], "float32"), "id": [1, 2, 3, 5]})
    target = np.arange(4.0)
    estimators = {
        "linear": Ridge(),
        "tree": DecisionTreeRegressor(),
        "histogram": HistGradientBoostingRegressor(max_iter=2),
        "imputed": make_pipeline(SimpleImputer(), Ridge()),
    }
    if kind == "booster":
        estimator = xgboost.train({"nthread": 1}, xgboost.DMatrix(frame, target), 2)
    else:
        estimator = estimators[kind].fit(frame, target)
    model = saved(tmp_path, estimator, frame)
    reference, engine = both(model, tmp_path)
    for column, value in [
        *[(name, value) for name in ("wide", "small") for value in (np.nan, np.inf, -np.inf)],
        *[("wide", value) for value in (3.4028235e38, np.nextafter(TOO_LARGE, 0), TOO_LARGE, -1e300)],
    ]:
        batch = batch_of(model, frame.assign(**{column: np.array([value] * 4, frame[column].dtype)}))
        try:
            expected = reference.score(batch)
        except ModelError:
            with pytest.raises(ModelError, match=f"in input {column}"):
                engine.score(batch)
        else:
            assert difference(expected, engine.score(batch)) <= DOUBLE
    with pytest.raises(ModelError, match="input id has nulls"):
        engine.score(batch_of(model, frame.assign(id=pd.array([1, None, 3, 4], dtype="Int64"))))


def test_unknown_categories_are_refused_where_the_encoder_refuses_them(tmp_path):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = frame_of()[["channel", "hour"]]
    columns = ColumnTransformer([("codes", OneHotEncoder(), ["channel", "hour"])])
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, frame["hour"] > 12)
    model = saved(tmp_path, estimator, frame)
    reference, engine = both(model, tmp_path)
    assert reference.score(batch_of(model, frame)).equals(engine.score(batch_of(model, frame)))
    for column, value, text in (("channel", "fax", "'fax'"), ("channel", None, "a null"), ("hour", 99, "99")):
        batch = batch_of(model, frame.assign(**{column: [value] * len(frame)}))
        with pytest.raises(ModelError):
            reference.score(batch)
        with pytest.raises(ModelError, match=f"input {column} has .*{text}"):
            engine.score(batch)


def test_columns_of_the_signature_in_another_order(tmp_path):
    estimator, frame = fitted("remainder", "LGBMClassifier")
    model = saved(
        tmp_path, estimator, frame[["flag", "small", "channel", "hour", "country", "amount"]], "predict_proba"
    )
    reference, engine = both(model, tmp_path)
    batch = batch_of(model, frame[[item.name for item in model.inputs]])
    assert difference(reference.score(batch), engine.score(batch)) <= DOUBLE


def test_probabilities_as_declared_columns(tmp_path):
    estimator, frame = fitted("ordinal", "HistGradientBoostingClassifier")
    outputs = [{"name": name, "type": "double"} for name in ("no", "yes")]
    model = saved(tmp_path, estimator, frame, "predict_proba", outputs=outputs)
    reference, engine = both(model, tmp_path)
    batch = batch_of(model, frame)
    assert engine.score(batch).schema.names == ["no", "yes"]
    assert difference(reference.score(batch), engine.score(batch)) <= DOUBLE
    assert engine.score(batch.slice(0, 0)).num_rows == 0
    wrong = dataclasses.replace(model, outputs=(*model.outputs, model.outputs[0]))
    with pytest.raises(ModelError, match="it has 2 columns"):
        onnx.load(artifact_of(wrong, tmp_path / "wrong"), 1).score(batch)


def test_an_array_as_input(pinned, tmp_path):
    settings = {"inputs": [{"name": "features", "type": "array<double>"}]}
    model, frame = pinned(factory.register_unnamed_tensor, signature=settings)
    reference, engine = both(model, tmp_path)
    batch = batch_of(model, frame)
    assert difference(reference.score(batch), engine.score(batch)) <= DOUBLE


def test_workers_import_no_training_library(tmp_path):
    estimator, frame = fitted("imputed, NaN", "LGBMClassifier")
    files = artifact_of(saved(tmp_path, estimator, frame), tmp_path / "artifact")
    code = f"""
import sys
import pyarrow as pa
from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelFiles, ModelInput, ModelOutput
from batchscore.engines.cache import loaded
from batchscore.arrow.values import array_of  # pa.array imports pandas
files = {files!r}
some = {{"string": "DE", "boolean": True}}
arrays = [array_of([some.get(item.type, 1)], to_arrow(item.type)) for item in files.inputs]
arrays = [
    pa.concat_arrays([array, pa.nulls(1, array.type) if array.type in (pa.string(), pa.float64()) else array])
    for array in arrays
]
batch = pa.RecordBatch.from_arrays(arrays, names=[item.name for item in files.inputs])
assert loaded("onnx", files, 1).score(batch).num_rows == 2
heavy = ("mlflow", "lightgbm", "sklearn", "pandas", "scipy", "onnx", "skl2onnx", "onnxmltools", "xgboost")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_same_model_gives_the_same_artifact(tmp_path):
    estimator, frame = fitted("numbers one-hot", "LogisticRegression")
    model = saved(tmp_path, estimator, frame)
    first, second = (artifact_of(model, tmp_path / name) for name in ("a", "b"))
    assert first.digest == second.digest
    assert str(tmp_path) not in (tmp_path / "a" / "conversion.json").read_text()


@pytest.mark.parametrize("damage", ["format", "json", "graph", "inputs"])
def test_a_damaged_artifact_is_told(tmp_path, damage):
    estimator, frame = fitted("ordinal", "LogisticRegression")
    files = artifact_of(saved(tmp_path, estimator, frame), tmp_path / "artifact")
    path = tmp_path / "artifact" / "conversion.json"
    if damage == "format":
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    elif damage == "json":
        path.write_text("{}")
    elif damage == "graph":
        (path.parent / "model.onnx").write_bytes(b"no graph")
    else:
        files = dataclasses.replace(files, inputs=files.inputs[1:])
    texts = {
        "format": "made by another version",
        "json": "cannot be read",
        "graph": "does not load the graph",
        "inputs": "of other inputs",
    }
    with pytest.raises(ModelError, match=texts[damage]):
        onnx.load(files, 1)


def refused():
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler

    forest = RandomForestClassifier(2)
    return [
        (KNeighborsClassifier(), "KNeighborsClassifier is not converted"),
        (make_pipeline(KBinsDiscretizer(quantile_method="averaged_inverted_cdf"), forest), "KBinsDiscretizer is not"),
        (make_pipeline(PCA(2), forest), "RandomForestClassifier behind a projection"),
        (make_pipeline(StandardScaler(), OneHotEncoder(handle_unknown="ignore"), forest), "OneHotEncoder behind"),
    ]


@pytest.mark.parametrize(("estimator", "text"), refused(), ids=lambda value: str(value)[:40])
def test_a_step_in_the_way_is_named(tmp_path, estimator, text):
    frame = pd.DataFrame(np.random.default_rng(1).normal(size=(60, 3)), columns=list("abc"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = saved(tmp_path, estimator.fit(frame, frame["a"] > 0), frame)
    with pytest.raises(ModelError, match=text) as caught:
        artifact_of(model, tmp_path / "artifact")
    assert "engine pyfunc" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"flavors": ("python_function", "sparkml")}, "converted are flavors lightgbm, xgboost, sklearn"),
        ({"params": ("any",)}, "inference parameters"),
        ({"inputs": (ModelInput("when", "timestamp_ntz"),)}, "input when is of type timestamp_ntz"),
        ({"inputs": (ModelInput("x", "double", shape=(-1, 2, 2)),)}, "shape \\[-1, 2, 2\\]"),
    ],
)
def test_a_model_that_cannot_be_converted(pinned, tmp_path, change, text):
    model, _ = pinned(factory.register_sklearn)
    assert supports("onnx", model) is None
    changed = dataclasses.replace(model, **change)
    reason = supports("onnx", changed)
    assert reason is not None
    with pytest.raises(ModelError, match=text):
        onnx.convert(changed, tmp_path)


def test_missing_libraries_are_named(pinned, tmp_path, monkeypatch):
    model, _ = pinned(factory.register_sklearn)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skl2onnx" else find(name))
    assert "skl2onnx not installed here: pip install batchscore[engines]" in supports("onnx", model)
    with pytest.raises(SetupError, match="skl2onnx not installed"):
        onnx.convert(model, tmp_path)


def test_what_needs_an_artifact_is_not_loaded_without(pinned, tmp_path):
    model, _ = pinned(factory.register_sklearn)
    graph, _ = pinned(factory.register_onnx)
    assert onnx.needs_artifact(model)
    assert not onnx.needs_artifact(graph)
    assert choose("auto", model) == "pyfunc"
    with pytest.raises(ModelError, match="is an ONNX graph already"):
        onnx.convert(graph, tmp_path)
    with pytest.raises(ModelError, match="its conversion is not in"):
        loaded("onnx", factory.files_of(model), 1)


def test_versions_name_what_can_change_a_score():
    versions = onnx.versions()
    assert {"onnx", "skl2onnx", "onnxruntime", "scikit-learn", "lightgbm"} <= set(versions)
    assert all(isinstance(value, str) and value for value in versions.values())


def test_floats_as_categories_know_minus_zero(tmp_path):
    """To an encoder -0.0 is 0.0, and NaN is a category of its own."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.DataFrame({"a": [0.0, 1.5, -2.25, np.nan] * 10, "b": np.array([0.1, 0.2, 0.3, 0.1] * 10, "float32")})
    estimator = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()).fit(frame, np.arange(40.0) % 4)
    model = saved(tmp_path, estimator, frame)
    reference, engine = both(model, tmp_path)
    rows = pd.DataFrame(
        {"a": [0.0, -0.0, 1.5, np.nextafter(1.5, 2), np.nan, 9.0], "b": np.array([0.1] * 5 + [0.7], "float32")}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference.score(batch_of(model, rows))
    assert difference(expected, engine.score(batch_of(model, rows))) <= DOUBLE
    values = expected.column(0).to_pylist()
    assert values[0] == values[1] != values[4]
    nulls = pa.RecordBatch.from_arrays([pa.nulls(1, pa.float64()), pa.array([0.1], pa.float32())], names=["a", "b"])
    assert abs(engine.score(nulls).column(0)[0].as_py() - values[4]) < DOUBLE
