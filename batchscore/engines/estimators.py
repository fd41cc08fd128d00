"""The estimator of a model folder, read without MLflow where its files say how.

Importing MLflow takes 4 s, and all that its loaders for these flavors do is to open one file.
"""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscore.contracts import ModelInput
from batchscore.engines.pyfunc import FLAVOR
from batchscore.engines.unwrap import Unwrapped, unwrap
from batchscore.models.mlmodel import Document, read_mlmodel, referenced_file

# MLflow's loaders whose wrapper does nothing but call one method of the estimator: module -> flavor.
LOADERS = {"mlflow.lightgbm": "lightgbm", "mlflow.xgboost": "xgboost", "mlflow.sklearn": "sklearn"}
# MLflow's switch against code in model files; where somebody set it, MLflow decides.
GATE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
BOOSTER = "lightgbm.basic.Booster"
XGBOOST_BOOSTER = "xgboost.core.Booster"


def flavor_of(document: Document) -> str | None:
    """The flavor that pyfunc loads the model by, where its wrapper only calls one method; else None."""
    return LOADERS.get(str(document["flavors"].get(FLAVOR, {}).get("loader_module")))


def method_of(document: Document) -> str:
    """The method that pyfunc calls."""
    return str(document["flavors"].get(FLAVOR, {}).get("predict_fn") or "predict")


def read_estimator(path: str, inputs: tuple[ModelInput, ...]) -> Unwrapped:
    """The estimator of a model folder, as :func:`batchscore.engines.unwrap.unwrap` gives it.

    MLflow is imported only for a model that brings code of its own, or that names a format unknown here.

    Args:
        path: the model's folder, whose digest was verified.
        inputs: the model's inputs, in the order of its features.

    Raises:
        ModelError: a file is missing, or the model is of another flavor.
    """
    folder = Path(path)
    document = read_mlmodel(folder)
    flavor = flavor_of(document)
    estimator = None if flavor is None else _opened(folder, flavor, document["flavors"])
    if estimator is None:
        return unwrap(path, inputs)
    from batchscore.engines.categories import trained_categories  # noqa: PLC0415  # pandas, 0.5 s

    library = type(estimator).__module__.partition(".")[0]
    return Unwrapped(estimator, library, method_of(document), trained_categories(estimator, inputs))


def _opened(folder: Path, flavor: str, flavors: Mapping[str, Mapping[str, Any]]) -> Any:  # noqa: ANN401  # any estimator
    """The estimator, or None where MLflow must load it."""
    pyfunc, section = flavors[FLAVOR], flavors.get(flavor)
    if section is None or GATE in os.environ or pyfunc.get("code") or section.get("code"):
        return None
    name = pyfunc.get("model_path") if flavor == "sklearn" else section.get("data")
    if not isinstance(name, str):
        return None
    file = referenced_file(folder, name)
    if flavor == "xgboost":
        return _xgboost(file, str(section.get("model_class", XGBOOST_BOOSTER)))
    if flavor == "lightgbm" and section.get("model_class", BOOSTER) == BOOSTER:
        import lightgbm  # noqa: PLC0415  # 2 s to import

        return lightgbm.Booster(model_file=str(file))
    default = "pickle" if flavor == "sklearn" else "cloudpickle"  # MLflow's own, of before it wrote the format down
    return _unpickled(file, str(section.get("serialization_format") or default), section.get("skops_trusted_types"))


def _xgboost(file: Path, name: str) -> Any:  # noqa: ANN401
    module, _, kind = name.rpartition(".")
    if module.partition(".")[0] != "xgboost":
        return None
    model = getattr(importlib.import_module(module), kind)()
    model.load_model(str(file))
    return model


def _unpickled(file: Path, serialization: str, trusted: Any) -> Any:  # noqa: ANN401
    if serialization == "skops":
        skops = importlib.import_module("skops.io")  # comes with mlflow; models of this format alone need it
        return skops.load(file, trusted=trusted)
    if serialization not in ("pickle", "cloudpickle"):
        return None
    with file.open("rb") as stream:  # cloudpickle's files are read by pickle; it is imported by what they name
        return pickle.load(stream)  # noqa: S301  # the model's own file, whose digest was verified
