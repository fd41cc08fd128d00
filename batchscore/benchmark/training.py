"""The models that score: trained once, registered in a registry of the benchmark's own."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.benchmark.cases import Case
from batchscore.benchmark.data import features, matrix

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

TRAINING_ROWS = 50_000
SEED = 7
HIDDEN = 64  # units of a network's second layer


def register(case: Case, folder: Path, tracking_uri: str) -> Path:
    """Trains and registers the case's model unless it is there.

    Returns:
        The folder of the model's files.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri, tracking_uri)
    place = folder / case.model_name
    try:
        client.get_model_version(case.model_name, "1")
    except MlflowException:
        _save(case, place)
        _version(client, case.model_name, place)
    return place


def _version(client: MlflowClient, name: str, place: Path) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, place.resolve().as_uri(), await_creation_for=0)


def _save(case: Case, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    {"lightgbm": _lightgbm, "xgboost": _xgboost, "pipeline": _pipeline, "mlp": _mlp}[case.model](case, place)


def _lightgbm(case: Case, place: Path) -> None:
    import lightgbm
    import mlflow.lightgbm

    values, labels = _sample(case)
    data = lightgbm.Dataset(values, labels, feature_name=features(case))
    options = {"objective": "binary", "num_leaves": case.size, "verbose": -1, "seed": SEED, "deterministic": True}
    booster = lightgbm.train({**options, "num_threads": 1}, data, case.trees)
    mlflow.lightgbm.save_model(booster, place, signature=_signature(case))


def _xgboost(case: Case, place: Path) -> None:
    import mlflow.xgboost
    import xgboost

    values, labels = _sample(case)
    data = xgboost.DMatrix(values, labels, feature_names=features(case))
    options = {"objective": "binary:logistic", "max_depth": case.size, "nthread": 1, "seed": SEED}
    booster = xgboost.train(options, data, case.trees)
    mlflow.xgboost.save_model(booster, place, signature=_signature(case, output="float"))


def _pipeline(_: Case, place: Path) -> None:
    """The demo's: an encoder for text columns and a LightGBM booster."""
    import mlflow.sklearn

    from batchscore.demo import training

    model = training.train(TRAINING_ROWS)[0]
    mlflow.sklearn.save_model(model, place, signature=training.signature(), serialization_format="cloudpickle")


def _mlp(case: Case, place: Path) -> None:
    import mlflow.onnx
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(SEED)
    widths = (case.columns, case.size, HIDDEN, 1)
    nodes, weights, last = [], [], "features"
    for layer, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        scale = np.sqrt(2.0 / wide)
        weights.append(numpy_helper.from_array((rng.standard_normal((wide, narrow)) * scale).astype("f4"), f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(narrow, "f4"), f"b{layer}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"z{layer}"]))
        last = f"a{layer}" if layer < len(widths) - 2 else "prediction"
        nodes.append(helper.make_node("Relu" if last != "prediction" else "Sigmoid", [f"z{layer}"], [last]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", case.columns])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    mlflow.onnx.save_model(model, place, signature=_signature(case, output="float"))


def _sample(case: Case) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Values, and labels that depend on eight of the columns, with noise."""
    values = matrix(case, TRAINING_ROWS, SEED)
    rng = np.random.default_rng(SEED)
    signal = values[:, :8].astype(np.float64) @ rng.standard_normal(8) + values[:, 0] * values[:, 1]
    return values, (signal + rng.standard_normal(TRAINING_ROWS) > 1).astype(int)


def _signature(case: Case, output: str = "double") -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    kind = {"float32": "float", "float64": "double"}[case.dtype]
    return ModelSignature(
        inputs=Schema([ColSpec(kind, name) for name in features(case)]), outputs=Schema([ColSpec(output, "prediction")])
    )
