"""Small real models of each flavor, registered in a SQLite registry.

``register_<kind>(registry)`` trains, logs and registers a model and returns its name and a frame of sample inputs.
Python models are defined inside functions, so that they are pickled whole and load where the tests are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelFiles, PinnedModel

ROWS = 400
SEED = 20261101


@dataclass(frozen=True)
class Registry:
    """A SQLite registry and its artifact folder."""

    tracking_uri: str
    experiment_id: str


class Registered(NamedTuple):
    """A registered model's name and inputs that it scores."""

    name: str
    sample: pd.DataFrame


def make_registry(folder: Path) -> Registry:
    """A new registry below ``folder``."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder / 'registry.db'}"
    experiment = MlflowClient(tracking_uri=uri).create_experiment(
        "models", artifact_location=(folder / "files").as_uri()
    )
    return Registry(uri, experiment)


def register(registry: Registry, name: str, log: Callable[..., Any], **arguments: Any) -> str:
    """Logs a model with one of MLflow's ``log_model`` functions and registers it; returns its model URI."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        with mlflow.start_run(experiment_id=registry.experiment_id):
            # Requirements are given because inferring them starts a process that loads the model again.
            info = log(name="model", registered_model_name=name, pip_requirements=["mlflow"], **arguments)
    finally:
        mlflow.set_tracking_uri(before)
    return str(info.model_uri)


def register_python(registry: Registry, name: str, predict: Callable[..., Any], **arguments: Any) -> str:
    """Registers ``predict(frame, params)`` as a custom Python model."""
    import mlflow.pyfunc

    class Custom(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):  # MLflow's signature
            return predict(model_input, params)

    return register(registry, name, mlflow.pyfunc.log_model, python_model=Custom(), **arguments)


def mixed_frame() -> pd.DataFrame:
    """Numbers, text and both with missing values."""
    random = np.random.default_rng(SEED)
    frame = pd.DataFrame(
        {
            "amount": random.gamma(2.0, 40.0, ROWS),
            "hour": random.integers(0, 24, ROWS),
            "country": random.choice(["DE", "FR", "US", "JP"], ROWS).astype(object),
            "channel": random.choice(["web", "app", "shop"], ROWS).astype(object),
        }
    )
    frame.loc[::7, "amount"] = np.nan
    frame.loc[::5, "country"] = None
    return frame


def target(frame: pd.DataFrame) -> np.ndarray:
    """A target that depends on a number and on a category."""
    return ((frame["amount"].fillna(0) > 60) ^ (frame["country"] == "US") ^ (frame["hour"] > 18)).astype(int).to_numpy()


def _pipeline() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["amount", "hour"]),
            ("texts", OneHotEncoder(handle_unknown="ignore"), ["country", "channel"]),
        ]
    )
    return make_pipeline(prepare, LogisticRegression(max_iter=500))


def register_sklearn(registry: Registry, name: str = "pipeline") -> Registered:
    """A scikit-learn pipeline with text and missing values; predicts labels."""
    import mlflow.sklearn
    from mlflow.models import infer_signature

    frame = mixed_frame()
    model = _pipeline().fit(frame, target(frame))
    register(
        registry,
        name,
        mlflow.sklearn.log_model,
        sk_model=model,
        signature=infer_signature(frame, model.predict(frame)),
        serialization_format="cloudpickle",
    )
    return Registered(name, frame)


def register_probabilities(registry: Registry, name: str = "probabilities", missing: float | None = None) -> Registered:
    """The same pipeline, logged to call ``predict_proba``; ``missing`` is how training data spells a missing text."""
    import mlflow.sklearn
    from mlflow.models import infer_signature

    frame = mixed_frame()
    if missing is not None:
        frame["country"] = frame["country"].where(frame["country"].notna(), missing)
    model = _pipeline().fit(frame, target(frame))
    register(
        registry,
        name,
        mlflow.sklearn.log_model,
        sk_model=model,
        pyfunc_predict_fn="predict_proba",
        signature=infer_signature(frame, model.predict_proba(frame)),
        serialization_format="cloudpickle",
    )
    return Registered(name, frame)


def categorical_frame() -> pd.DataFrame:
    """The mixed frame with ``category`` columns: of text, of whole numbers, and an ordered one of text."""
    frame = mixed_frame()
    random = np.random.default_rng(SEED + 1)
    frame["country"] = frame["country"].astype("category")
    frame["channel"] = pd.Categorical(frame["channel"], categories=["web", "shop", "app"], ordered=True)
    # More digits than a double holds.
    frame["shop"] = pd.Categorical(random.choice([2**60 + 1, 2**60 + 3, 2**60 + 7], ROWS))
    return frame


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame as a table holds it: categories become values."""
    columns = {}
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            whole = column.cat.categories.dtype == "int64"
            columns[name] = column.astype("int64") if whole else column.astype(object).where(column.notna(), None)
        else:
            columns[name] = column
    return pd.DataFrame(columns)


def _target_of(frame: pd.DataFrame) -> np.ndarray:
    return target(frame.assign(country=frame["country"].astype(object))) ^ (frame["shop"] == 2**60 + 3).to_numpy()


def train_lightgbm(kind: str) -> tuple[Any, pd.DataFrame]:
    """A LightGBM ``booster`` or ``classifier`` on categorical features, and its training frame."""
    import lightgbm

    frame = categorical_frame()
    if kind == "classifier":
        model = lightgbm.LGBMClassifier(n_estimators=20, num_leaves=7, min_child_samples=5, verbose=-1, n_jobs=1)
        return model.fit(frame, _target_of(frame)), frame
    params = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1}
    return lightgbm.train(params, lightgbm.Dataset(frame, _target_of(frame)), 20), frame


def register_lightgbm(registry: Registry, kind: str = "booster") -> Registered:
    """A LightGBM booster (probabilities) or classifier (labels) with categorical features."""
    import mlflow.lightgbm
    from mlflow.models import infer_signature

    model, frame = train_lightgbm(kind)
    name = f"lightgbm_{kind}"
    signature = infer_signature(plain(frame), model.predict(frame))
    register(registry, name, mlflow.lightgbm.log_model, lgb_model=model, signature=signature)
    return Registered(name, plain(frame))


def train_xgboost(kind: str) -> tuple[Any, pd.DataFrame]:
    """An XGBoost ``booster`` or ``classifier`` on categorical features, and its training frame."""
    import xgboost

    frame = categorical_frame()
    if kind == "classifier":
        model = xgboost.XGBClassifier(n_estimators=20, max_depth=4, enable_categorical=True, n_jobs=1)
        return model.fit(frame, _target_of(frame)), frame
    data = xgboost.DMatrix(frame, _target_of(frame), enable_categorical=True)
    return xgboost.train({"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, data, 20), frame


def register_xgboost(registry: Registry, kind: str = "booster") -> Registered:
    """An XGBoost booster (probabilities) or classifier (labels) with categorical features."""
    import mlflow.xgboost
    import xgboost
    from mlflow.models import infer_signature

    model, frame = train_xgboost(kind)
    name = f"xgboost_{kind}"
    data = xgboost.DMatrix(frame, enable_categorical=True) if kind == "booster" else frame
    signature = infer_signature(plain(frame), model.predict(data))
    register(registry, name, mlflow.xgboost.log_model, xgb_model=model, signature=signature)
    return Registered(name, plain(frame))


def numeric_frame() -> pd.DataFrame:
    """Five float columns."""
    random = np.random.default_rng(SEED + 2)
    return pd.DataFrame({f"f{index}": random.normal(size=ROWS).astype("float32") for index in range(5)})


def convert_classifier(zipmap: bool = False) -> tuple[Any, pd.DataFrame]:
    """A logistic regression as an ONNX graph with one matrix as input, and its training frame."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    frame = numeric_frame()
    model = LogisticRegression().fit(frame.to_numpy(), (frame["f0"] + frame["f1"] > 0).astype(int))
    return to_onnx(model, frame.to_numpy()[:1], options={"zipmap": zipmap}), frame


def convert_regressor() -> tuple[Any, pd.DataFrame]:
    """A linear regression as an ONNX graph with one matrix as input and one output, and its training frame."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    frame = numeric_frame()
    model = LinearRegression().fit(frame.to_numpy(), frame["f0"] * 2 + frame["f1"])
    return to_onnx(model, frame.to_numpy()[:1]), frame


def register_onnx(registry: Registry, name: str = "onnx_columns") -> Registered:
    """An ONNX regression with a column signature."""
    import mlflow.onnx
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    graph, frame = convert_regressor()
    signature = ModelSignature(
        inputs=Schema([ColSpec("float", column) for column in frame.columns]),
        outputs=Schema([ColSpec("float", "variable")]),
    )
    register(registry, name, mlflow.onnx.log_model, onnx_model=graph, signature=signature)
    return Registered(name, frame)


def register_onnx_tensor(registry: Registry, name: str = "onnx_tensor") -> Registered:
    """An ONNX classifier with a tensor signature: label and probabilities; the sample has one array column."""
    import mlflow.onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph, frame = convert_classifier()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 5), "X")]),
        outputs=Schema(
            [TensorSpec(np.dtype("int64"), (-1,), "label"), TensorSpec(np.dtype("float32"), (-1, 2), "probabilities")]
        ),
    )
    register(registry, name, mlflow.onnx.log_model, onnx_model=graph, signature=signature)
    return Registered(name, pd.DataFrame({"X": list(frame.to_numpy())}))


def register_onnx_mixed(registry: Registry, name: str = "onnx_mixed") -> Registered:
    """A whole pipeline as an ONNX graph with one input a column: text, double and int64."""
    import mlflow.onnx
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = mixed_frame()[["amount", "hour", "channel"]]
    frame["amount"] = frame["amount"].fillna(1.0)
    prepare = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["amount"]),
            ("hours", StandardScaler(), ["hour"]),
            ("texts", OneHotEncoder(), ["channel"]),
        ]
    )
    model = make_pipeline(prepare, LinearRegression()).fit(frame, frame["amount"] * 2)
    kinds = {"amount": DoubleTensorType, "hour": Int64TensorType, "channel": StringTensorType}
    graph = convert_sklearn(model, initial_types=[(column, kind([None, 1])) for column, kind in kinds.items()])
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", "amount"), ColSpec("long", "hour"), ColSpec("string", "channel")]),
        outputs=Schema([ColSpec("double", "variable")]),
    )
    register(registry, name, mlflow.onnx.log_model, onnx_model=graph, signature=signature)
    return Registered(name, frame)


def register_params(registry: Registry, name: str = "params") -> Registered:
    """A custom model whose score is ``amount * factor + shift``."""
    from mlflow.models import infer_signature

    frame = pd.DataFrame({"amount": [1.0, 2.5, np.nan]})
    params = {"factor": 2.0, "shift": 1, "label": "x"}
    register_python(
        registry,
        name,
        lambda data, given: data["amount"].to_numpy() * given["factor"] + given["shift"],
        signature=infer_signature(frame, np.zeros(3), params=params),
    )
    return Registered(name, frame)


def register_outputs(registry: Registry, kind: str = "frame") -> Registered:
    """A custom model with the outputs ``score`` (double) and ``name`` (string), as ``frame`` or ``dict``."""
    from mlflow.models import infer_signature

    frame = pd.DataFrame({"amount": [1.0, 2.5, 3.0]})

    def predict(data: pd.DataFrame, _: object) -> Any:
        result = {"score": data["amount"].to_numpy() * 2, "name": [f"n{value}" for value in data["amount"]]}
        return pd.DataFrame(result) if kind == "frame" else result

    name = f"outputs_{kind}"
    signature = infer_signature(frame, pd.DataFrame(predict(frame, None)))
    register_python(registry, name, predict, signature=signature)
    return Registered(name, frame)


def register_unnamed_tensor(registry: Registry, name: str = "unnamed_tensor") -> Registered:
    """A scikit-learn regression with one unnamed tensor as input; the sample is one array column."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    frame = numeric_frame()
    values = frame.to_numpy().astype("float64")
    model = LinearRegression().fit(values, values @ np.arange(5.0))
    register(
        registry,
        name,
        mlflow.sklearn.log_model,
        sk_model=model,
        signature=infer_signature(values, model.predict(values)),
        serialization_format="cloudpickle",
    )
    return Registered(name, pd.DataFrame({"features": list(values)}))


def register_no_signature(registry: Registry, name: str = "no_signature") -> Registered:
    """A custom model without a signature: ``amount * 2``."""
    register_python(registry, name, lambda data, _: data["amount"] * 2)
    return Registered(name, pd.DataFrame({"amount": [1.0, 2.0, np.nan]}))


def _bad(kind: str) -> Callable[..., Any]:
    """A misbehaving ``predict``; a local function, so that it is pickled whole."""

    def predict(data: pd.DataFrame, _: object) -> Any:
        amounts = data["amount"].to_numpy()
        if kind == "few_rows":
            return amounts[:-1]
        if kind == "raises" and (amounts > 100).any():
            raise ValueError("an amount above 100")
        if kind == "strings":
            return np.array(["high"] * len(data), dtype=object)
        return np.full(len(data), np.nan) if kind == "nan" else amounts

    return predict


def register_bad(registry: Registry, kind: str) -> Registered:
    """A model that misbehaves: ``few_rows``, ``raises`` (above 100), ``strings`` or ``nan``; declared as a double."""
    from mlflow.models import infer_signature

    frame = pd.DataFrame({"amount": [1.0, 2.0, 3.0]})
    name = f"bad_{kind}"
    register_python(registry, name, _bad(kind), signature=infer_signature(frame, np.zeros(3)))
    return Registered(name, frame)


def files_of(model: PinnedModel) -> ModelFiles:
    """What a worker gets of a pinned model."""
    return ModelFiles(
        model.path, model.digest, model.name, model.version, model.flavors, model.inputs, model.outputs, model.params
    )


def batch_of(model: PinnedModel, frame: pd.DataFrame) -> pa.RecordBatch:
    """A frame, whose columns are in the order of the model's inputs, as the scoring core hands it to an engine."""
    arrays = []
    for index, item in enumerate(model.inputs):
        column, arrow = frame.iloc[:, index], to_arrow(item.type)
        if item.shape is None:
            arrays.append(pa.array(column, arrow, from_pandas=True))
        else:
            arrays.append(pa.array(list(column), pa.list_(arrow)))
    return pa.RecordBatch.from_arrays(arrays, names=[item.name for item in model.inputs])


def register_types(registry: Registry, name: str = "types") -> Registered:
    """A custom model with an input of every type; it returns what it was given as text."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array

    frame = pd.DataFrame(
        {
            "flag": pd.Series([True, None], dtype=object),
            "small": np.array([1, -(2**31)], dtype="int32"),
            "id": [2**63 - 1, 2**53 + 1],
            "ratio": np.array([0.1, np.nan], dtype="float32"),
            "amount": [0.1, np.nan],
            "text": ["a", None],
            "raw": [b"\x00", None],
            "time": pd.Series([pd.Timestamp("2026-11-01T12:00:00.000001"), pd.NaT]),
            "tags": [np.array(["x"], object), np.array(["y", "z"], object)],  # as pandas reads Parquet
        }
    )
    kinds = ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
    columns = [ColSpec(kind, column, required=False) for kind, column in zip(kinds, frame.columns, strict=False)]

    def predict(data: pd.DataFrame, _: object) -> Any:
        dtypes = " ".join(f"{column}:{dtype}" for column, dtype in data.dtypes.items())
        return np.array([f"{dtypes} {list(row)}" for row in data.itertuples(index=False)], dtype=object)

    columns.append(ColSpec(Array("string"), "tags"))
    signature = ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec("string")]))
    register_python(registry, name, predict, signature=signature)
    return Registered(name, frame)


# Kinds of tree models for `register_trees`: name -> estimator and what is logged.
TREE_KINDS = (
    "lightgbm_binary",
    "lightgbm_multiclass",
    "lightgbm_ova",
    "lightgbm_regression",
    "lightgbm_poisson",
    "lightgbm_rf",
    "lightgbm_zero_missing",
    "lightgbm_no_missing",
    "lightgbm_classifier",
    "lightgbm_classifier3",
    "lightgbm_classifier_proba",
    "lightgbm_classifier3_proba",
    "lightgbm_regressor",
    "xgboost_binary",
    "xgboost_softprob",
    "xgboost_softmax",
    "xgboost_regression",
    "xgboost_poisson",
    "xgboost_forest",
    "xgboost_classifier",
    "xgboost_classifier3",
    "xgboost_classifier3_proba",
    "xgboost_classifier_proba",
    "xgboost_regressor",
    "sklearn_tree",
    "sklearn_tree_proba",
    "sklearn_tree_regressor",
    "sklearn_forest",
    "sklearn_forest_proba",
    "sklearn_forest3_proba",
    "sklearn_forest_regressor",
    "sklearn_extra_proba",
    "sklearn_boosting",
    "sklearn_boosting_proba",
    "sklearn_boosting3_proba",
    "sklearn_boosting_exponential_proba",
    "sklearn_boosting_regressor",
    "sklearn_histogram",
    "sklearn_histogram_proba",
    "sklearn_histogram3_proba",
    "sklearn_histogram_regressor",
    "sklearn_histogram_poisson",
)
TREE_ROWS = 1_500
TREE_COLUMNS = 4


def tree_frame(kind: str, dtype: str) -> pd.DataFrame:
    """Continuous columns, one of whole numbers, one with many zeros; values missing where the library takes them."""
    random = np.random.default_rng(SEED + 3)
    values = random.normal(size=(TREE_ROWS, TREE_COLUMNS))
    values[:, 1] = random.integers(-3, 4, TREE_ROWS)
    values[random.random(TREE_ROWS) < 0.4, 2] = 0.0
    if not any(part in kind for part in ("boosting", "no_missing", "sklearn_tree", "zero_missing")):
        values[random.random((TREE_ROWS, TREE_COLUMNS)) < 0.05] = np.nan
    return pd.DataFrame(values.astype(dtype), columns=[f"f{index}" for index in range(TREE_COLUMNS)])


def _tree_targets(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes, three classes, and positive numbers."""
    first, second, third, fourth = (frame[column].fillna(0.7).to_numpy(np.float64) for column in frame.columns)
    score = np.sin(3 * first) + 0.4 * second * (third > 0) - np.abs(third) + 0.3 * fourth
    two = (score > np.median(score)).astype(int)
    three = np.digitize(score, np.quantile(score, [0.3, 0.7]))
    return two, three, np.exp(score)


def train_trees(kind: str, dtype: str) -> tuple[Any, pd.DataFrame, str]:
    """A tree model of one of :data:`TREE_KINDS`, its training frame, and the method that is logged."""
    frame = tree_frame(kind, dtype)
    library, name = kind.split("_", 1)
    method = "predict_proba" if name.endswith("_proba") else "predict"
    train = {"lightgbm": _train_lightgbm, "xgboost": _train_xgboost, "sklearn": _train_sklearn}[library]
    return train(name.removesuffix("_proba"), frame, *_tree_targets(frame)), frame, method


def _train_lightgbm(name: str, frame: pd.DataFrame, two: np.ndarray, three: np.ndarray, real: np.ndarray) -> Any:
    import lightgbm

    common = {"num_leaves": 9, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}
    texts = np.array(["low", "middle", "high"])
    if name.startswith("classifier"):
        labels = texts[three] if name.endswith("3") else texts[two]
        return lightgbm.LGBMClassifier(n_estimators=8, **common).fit(frame, labels)
    if name == "regressor":
        return lightgbm.LGBMRegressor(n_estimators=12, **common).fit(frame, real)
    special: dict[str, tuple[dict[str, Any], np.ndarray]] = {
        "binary": ({"objective": "binary", "sigmoid": 1.7}, two),
        "multiclass": ({"objective": "multiclass", "num_class": 3}, three),
        "ova": ({"objective": "multiclassova", "num_class": 3}, three),
        "regression": ({"objective": "regression", "reg_sqrt": True}, real),
        "poisson": ({"objective": "poisson"}, real),
        "rf": ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, "objective": "regression"}, real),
        "zero_missing": ({"objective": "binary", "zero_as_missing": True}, two),
        "no_missing": ({"objective": "binary", "use_missing": False}, two),
    }
    params, goal = special[name]
    return lightgbm.train({**common, **params, "seed": 1}, lightgbm.Dataset(frame, goal), 10)


def _train_xgboost(name: str, frame: pd.DataFrame, two: np.ndarray, three: np.ndarray, real: np.ndarray) -> Any:
    import xgboost

    if name.startswith("classifier"):
        model = xgboost.XGBClassifier(n_estimators=8, max_depth=4, n_jobs=1)
        return model.fit(frame, three if name.endswith("3") else two)
    if name == "regressor":
        return xgboost.XGBRegressor(n_estimators=12, max_depth=4, n_jobs=1).fit(frame, real)
    special: dict[str, tuple[dict[str, Any], np.ndarray]] = {
        "binary": ({"objective": "binary:logistic"}, two),
        "softprob": ({"objective": "multi:softprob", "num_class": 3}, three),
        "softmax": ({"objective": "multi:softmax", "num_class": 3}, three),
        "regression": ({"objective": "reg:squarederror"}, real),
        "poisson": ({"objective": "count:poisson"}, real),
        "forest": ({"objective": "binary:logistic", "num_parallel_tree": 3, "subsample": 0.5}, two),
    }
    params, goal = special[name]
    data = xgboost.DMatrix(frame, goal)
    return xgboost.train({"max_depth": 4, "nthread": 1, "seed": 1, **params}, data, 10)


def _train_sklearn(name: str, frame: pd.DataFrame, two: np.ndarray, three: np.ndarray, real: np.ndarray) -> Any:
    from sklearn import ensemble, tree
    from threadpoolctl import threadpool_limits

    texts = np.array(["no", "yes"])
    small: dict[str, Any] = {"n_estimators": 7, "max_depth": 5, "random_state": 1}
    made: dict[str, tuple[Any, np.ndarray]] = {
        "tree": (tree.DecisionTreeClassifier(max_depth=5), texts[two]),
        "tree_regressor": (tree.DecisionTreeRegressor(max_depth=5), real),
        "forest": (ensemble.RandomForestClassifier(**small), texts[two]),
        "forest3": (ensemble.RandomForestClassifier(**small), three),
        "forest_regressor": (ensemble.RandomForestRegressor(**small), real),
        "extra": (ensemble.ExtraTreesClassifier(**small), two),
        "boosting": (ensemble.GradientBoostingClassifier(**small), texts[two]),
        "boosting3": (ensemble.GradientBoostingClassifier(**small), three),
        "boosting_exponential": (ensemble.GradientBoostingClassifier(loss="exponential", **small), two),
        "boosting_regressor": (ensemble.GradientBoostingRegressor(**small), real),
        "histogram": (ensemble.HistGradientBoostingClassifier(max_iter=8), texts[two]),
        "histogram3": (ensemble.HistGradientBoostingClassifier(max_iter=8), three),
        "histogram_regressor": (ensemble.HistGradientBoostingRegressor(max_iter=12), real),
        "histogram_poisson": (ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=8), real),
    }
    model, goal = made[name]
    with threadpool_limits(1):  # OpenMP's threads spin while others use the cores
        return model.fit(frame, goal)


def save_trees(folder: Path, kind: str, dtype: str) -> pd.DataFrame:
    """Saves a tree model of one of :data:`TREE_KINDS` with inputs of ``float32`` or ``float64``; returns a sample."""
    model, frame, method = train_trees(kind, dtype)
    data: Any = frame
    if kind.startswith("xgboost") and not hasattr(model, "get_booster"):
        import xgboost

        data = xgboost.DMatrix(frame)
    save_estimator(folder, model, frame, getattr(model, method)(data), method)
    return frame


def save_estimator(folder: Path, model: Any, frame: Any, predicted: Any, method: str = "predict") -> None:
    """Saves an estimator as its library's own flavor, or scikit-learn's where ``method`` is not ``predict``."""
    from mlflow.models import infer_signature

    library = type(model).__module__.partition(".")[0]
    if library == "sklearn" or method != "predict":
        import mlflow.sklearn as flavor

        arguments = {"sk_model": model, "pyfunc_predict_fn": method, "serialization_format": "cloudpickle"}
    elif library == "lightgbm":
        import mlflow.lightgbm as flavor

        arguments = {"lgb_model": model}
    else:
        import mlflow.xgboost as flavor

        arguments = {"xgb_model": model}
    # Requirements are given because inferring them starts a process that loads the model again.
    signature = infer_signature(frame, predicted)
    flavor.save_model(path=str(folder), signature=signature, pip_requirements=["mlflow"], **arguments)
