"""Models saved to a folder and scored by the reference and by engine ``onnx``."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from batchscore import models
from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.engines import onnx, pyfunc
from batchscore.models.digest import digest_folder
from tests.factories.models import files_of


def saved(folder: Path, estimator: Any, frame: Any, method: str = "predict", **signature: Any) -> PinnedModel:
    """An estimator saved with the MLflow flavor of its library, and pinned.

    Args:
        folder: where it goes.
        estimator: fitted, of scikit-learn, LightGBM or XGBoost, or a pipeline that ends with one.
        frame: its inputs, from which the signature is made.
        method: what pyfunc calls.
        signature: ``outputs``, where they are not those that are inferred.
    """
    import mlflow
    from mlflow.models import infer_signature

    library = type(estimator).__module__.partition(".")[0]
    known: dict[str, tuple[Any, str]] = {
        "sklearn": (mlflow.sklearn, "sk_model"),
        "lightgbm": (mlflow.lightgbm, "lgb_model"),
        "xgboost": (mlflow.xgboost, "xgb_model"),
    }
    flavor, argument = known[library]
    data = frame
    if library == "xgboost" and not hasattr(estimator, "get_booster"):
        import xgboost

        data = xgboost.DMatrix(frame)
    arguments: dict[str, Any] = {argument: estimator, "path": str(folder / "model"), "pip_requirements": ["mlflow"]}
    if library == "sklearn":
        arguments |= {"serialization_format": "cloudpickle", "pyfunc_predict_fn": method}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = getattr(estimator, method)(data)
        flavor.save_model(**arguments, signature=infer_signature(frame, outputs))
    settings = {"signature": signature} if signature else {}
    return models.pin(
        str(folder / "model"),
        tracking_uri=f"sqlite:///{folder / 'none.db'}",
        cache_dir=folder / "pinned",
        **settings,
    )


def artifact_of(model: PinnedModel, folder: Path) -> ModelFiles:
    """The model converted into ``folder``, as workers get it."""
    folder.mkdir()
    onnx.convert(model, folder)
    return dataclasses.replace(files_of(model), path=str(folder), digest=digest_folder(folder))


def both(model: PinnedModel, folder: Path) -> tuple[Any, Any]:
    """The pyfunc engine and the converted one."""
    return pyfunc.load(files_of(model), 1), onnx.load(artifact_of(model, folder / "artifact"), 1)


def difference(reference: pa.RecordBatch, found: pa.RecordBatch) -> float:
    """The largest difference of numbers, relative where they are above 1; labels and NaN must be the same."""
    assert found.schema == reference.schema
    largest = 0.0
    for theirs, ours in zip(reference.columns, found.columns, strict=True):
        if not _is_float(theirs.type):
            assert ours.equals(theirs), pd.Series(ours.to_pylist()).compare(pd.Series(theirs.to_pylist()))
            continue
        expected, values = (np.array(column.to_pylist(), float) for column in (theirs, ours))
        assert np.array_equal(np.isnan(expected), np.isnan(values))
        same = (expected == values) | np.isnan(expected)
        with np.errstate(invalid="ignore"):
            off = np.abs(values - expected) / np.maximum(np.abs(expected), 1)
        largest = max(largest, float(np.where(same, 0, off).max(initial=0)))
        if expected.ndim > 1:  # probabilities of classes
            assert np.array_equal(expected.argmax(axis=1), values.argmax(axis=1))
    return largest


def _is_float(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_nested(kind) else kind
    return bool(pa.types.is_floating(inner))
