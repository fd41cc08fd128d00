"""How an estimator is called without MLflow: a numpy matrix where its library compares bare numbers, else a frame.

Which values reach the library is what MLflow's wrapper would pass on: whole numbers and truth values become doubles
on the way into LightGBM, doubles become floats inside XGBoost.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.contracts import ModelFiles, ModelInput
from batchscore.engines.frames import to_frame, to_tensor
from batchscore.engines.missing import missing_text, parts
from batchscore.engines.unwrap import Unwrapped
from batchscore.errors import ModelRaisedError
from batchscore.models.mlmodel import read_mlmodel
from batchscore.models.signature import signature_part
from batchscore.schema import FLOATS, INTEGERS

Call: TypeAlias = Callable[[pa.RecordBatch], Any]
NUMBERS = (*FLOATS, *INTEGERS, "boolean")


def pin_threads(estimator: Any, threads: int) -> None:  # noqa: ANN401  # any estimator
    """Sets the thread counts that an estimator and those inside it keep themselves: OpenMP's limit does not reach them.

    scikit-learn's forests add up their trees in the order in which threads end; with one thread that is always the
    same.
    """
    for part in parts(estimator, set()):
        if hasattr(part, "n_jobs"):
            part.n_jobs = threads
        if type(part).__module__.startswith("xgboost"):
            booster = part.get_booster() if hasattr(part, "get_booster") else part
            booster.set_param({"nthread": threads})


def caller(found: Unwrapped, files: ModelFiles, threads: int) -> Call:
    """The function that makes of a batch what ``found.method`` returns."""
    kind = f"{found.library}.{'booster' if type(found.estimator).__name__ == 'Booster' else 'estimator'}"
    if any(item.shape is not None for item in files.inputs):
        return _on_array(found, files, kind)
    names = [item.name for item in files.inputs]
    plain = all(item.type in NUMBERS for item in files.inputs if item.name not in found.categories)
    method = getattr(found.estimator, found.method)
    if kind == "lightgbm.booster" and plain:
        return lambda batch: method(lightgbm_matrix(batch, files.inputs, found), num_threads=threads)
    if kind == "lightgbm.estimator" and plain and not found.categories:
        import pandas as pd  # noqa: PLC0415  # loaded with LightGBM

        return lambda batch: method(
            pd.DataFrame(lightgbm_matrix(batch, files.inputs, found), columns=names, copy=False)
        )
    if found.library == "xgboost" and _takes_floats(found, files):
        return _on_floats(found, files, kind)
    return _on_frame(found, files, kind)


def _on_frame(found: Unwrapped, files: ModelFiles, kind: str) -> Call:
    text = missing_text(found.estimator)
    method = (
        _xgboost_method(found, files, kind) if found.library == "xgboost" else getattr(found.estimator, found.method)
    )
    times = [item.name for item in files.inputs if item.type == "timestamp_ntz"]

    def call(batch: pa.RecordBatch) -> Any:  # noqa: ANN401  # what the estimator returns
        frame = to_frame(batch, files.inputs, found.categories, text)
        for name in times:
            frame[name] = frame[name].astype("datetime64[ns]")  # MLflow's enforcement does this, and nothing else
        return method(frame)

    return call


def _on_array(found: Unwrapped, files: ModelFiles, kind: str) -> Call:
    item = files.inputs[0]
    stated = signature_part(read_mlmodel(Path(files.path)), "inputs")
    dtype = np.dtype(stated[0]["tensor-spec"]["dtype"]) if stated else None
    method = (
        _xgboost_method(found, files, kind) if found.library == "xgboost" else getattr(found.estimator, found.method)
    )
    return lambda batch: method(to_tensor(batch.column(0), item, dtype))


def _xgboost_method(found: Unwrapped, files: ModelFiles, kind: str) -> Callable[[Any], Any]:
    """XGBoost's ``predict`` as MLflow's wrapper calls it, with the inference parameters that it knows."""
    import xgboost  # noqa: PLC0415  # loaded with the model

    method = getattr(found.estimator, found.method)
    known = inspect.signature(method).parameters
    given = {
        item.name: list(item.value) if isinstance(item.value, tuple) else item.value
        for item in files.params
        if item.name in known
    }
    if kind != "xgboost.booster":
        return lambda data: method(data, **given)
    categorical = bool(found.categories)
    return lambda data: method(
        xgboost.DMatrix(data, enable_categorical=categorical), **({"validate_features": True} | given)
    )


def _takes_floats(found: Unwrapped, files: ModelFiles) -> bool:
    """Whether XGBoost does the same with a matrix of floats as with the frame."""
    estimator = found.estimator
    if found.categories or files.params or any(item.type not in FLOATS for item in files.inputs):
        return False
    booster = estimator.get_booster() if hasattr(estimator, "get_booster") else estimator
    names = [item.name for item in files.inputs]
    learner = json.loads(booster.save_config())["learner"]["gradient_booster"]["name"]
    return bool(booster.feature_names == names and learner != "gblinear")


def _on_floats(found: Unwrapped, files: ModelFiles, kind: str) -> Call:
    """XGBoost compares floats, so rounding here is what it would do; and it need not build a matrix of its own."""
    if kind != "xgboost.booster":
        method = getattr(found.estimator, found.method)
        return lambda batch: method(_floats(batch))
    on_frame = _on_frame(found, files, kind)

    def call(batch: pa.RecordBatch) -> Any:  # noqa: ANN401
        matrix = _floats(batch)
        if np.isinf(matrix).any():
            return on_frame(batch)  # XGBoost refuses infinities there, but not here
        return found.estimator.inplace_predict(matrix)

    return call


def _floats(batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        return _matrix(batch).astype(np.float32, copy=False)


def _matrix(batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
    """Columns of floats side by side; null becomes NaN."""
    first = batch.schema.field(0).type
    if all(field.type == first for field in batch.schema):
        stacked: np.ndarray[Any, Any] = batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()
        return stacked
    matrix = np.empty((batch.num_rows, batch.num_columns), np.float64)
    for index, column in enumerate(batch.columns):
        matrix[:, index] = column.to_numpy(zero_copy_only=False)
    return matrix


def lightgbm_matrix(batch: pa.RecordBatch, inputs: Sequence[ModelInput], found: Unwrapped) -> np.ndarray[Any, Any]:
    """The matrix that LightGBM would make of the frame: numbers, and codes of categories.

    Raises:
        ModelError: null in an input that has none.
    """
    if all(item.type in FLOATS and item.name not in found.categories for item in inputs):
        return _matrix(batch)
    matrix = np.empty((batch.num_rows, batch.num_columns), np.float64)
    for index, (item, column) in enumerate(zip(inputs, batch.columns, strict=True)):
        values = column
        if item.name in found.categories:
            values = pc.index_in(column, value_set=found.categories[item.name], skip_nulls=True).cast(pa.float64())
        elif item.type not in FLOATS and column.null_count:
            raise ModelRaisedError(f"input {item.name} has nulls, and the model knows none for type {item.type}")
        matrix[:, index] = values.to_numpy(zero_copy_only=False)
    return matrix
