"""Which values of which columns the reference refuses, found by asking it.

scikit-learn's estimators raise for NaN, infinity or what a float cannot hold, each of them for some of these and in
some columns only; one such value fails its whole batch. ONNX has no such checks: the graph would score the row.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelInput
from batchscore.engines.frames import to_frame, to_tensor
from batchscore.engines.missing import missing_text
from batchscore.engines.onnx_artifact import FLOAT_OVERFLOW, Feed, Guard
from batchscore.engines.unwrap import Unwrapped
from batchscore.errors import ModelError
from batchscore.schema import FLOATS

ODD: Mapping[str, float] = {"nan": float("nan"), "infinity": float("inf"), "beyond float": FLOAT_OVERFLOW}


def guards_of(unwrapped: Unwrapped, inputs: Sequence[ModelInput], feeds: Sequence[Feed]) -> tuple[Guard, ...]:
    """What the reference raises for, by input of floats.

    Args:
        unwrapped: the reference.
        inputs: its inputs.
        feeds: what the graph is fed with; their vocabularies tell values that the reference takes.

    Raises:
        ModelError: it raises for a row of zeros and known categories.
    """
    known = {
        name: vocabulary.values[0]
        for feed in feeds
        for name, vocabulary in zip(feed.columns, feed.vocabularies, strict=True)
        if vocabulary is not None and vocabulary.values
    }
    row = {item.name: known.get(item.name, _nothing(item)) for item in inputs}
    error = _refusal(unwrapped, inputs, row)
    if error is not None:
        raise ModelError("the model raises for a row of zeros and known categories", found=error)
    refused: dict[str, list[str]] = {}
    for kind, value in ODD.items():
        for name in _refusing(unwrapped, inputs, row, value):
            refused.setdefault(name, []).append(kind)
    return tuple(Guard(name, tuple(kinds)) for name, kinds in refused.items())


def _refusing(
    unwrapped: Unwrapped, inputs: Sequence[ModelInput], row: Mapping[str, Any], value: float
) -> Iterable[str]:
    """The inputs in which the reference does not take the value."""
    wide = value == FLOAT_OVERFLOW
    asked = [item.name for item in inputs if item.type == "double" or (item.type in FLOATS and not wide)]
    if not asked or _refusal(unwrapped, inputs, {**row, **dict.fromkeys(asked, value)}) is None:
        return []
    return [name for name in asked if _refusal(unwrapped, inputs, {**row, name: value}) is not None]


def _refusal(unwrapped: Unwrapped, inputs: Sequence[ModelInput], row: Mapping[str, Any]) -> Exception | None:
    arrays = [_column(item, row[item.name]) for item in inputs]
    batch = pa.RecordBatch.from_arrays(arrays, names=[item.name for item in inputs])
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            _predict(unwrapped, inputs, batch)
    except Exception as error:  # noqa: BLE001  # any error is the answer
        return error
    return None


def _predict(unwrapped: Unwrapped, inputs: Sequence[ModelInput], batch: pa.RecordBatch) -> None:
    """Scores as the pyfunc engine does."""
    data: Any
    if inputs[0].shape is None:
        data = to_frame(batch, inputs, unwrapped.categories, missing_text(unwrapped.estimator))
    else:
        data = to_tensor(batch.column(0), inputs[0])
    if unwrapped.library == "xgboost" and not hasattr(unwrapped.estimator, "get_booster"):
        import xgboost  # noqa: PLC0415  # loaded with the model

        data = xgboost.DMatrix(data, enable_categorical=True)
    getattr(unwrapped.estimator, unwrapped.method)(data)


def _nothing(item: ModelInput) -> Any:  # noqa: ANN401  # a value of the input's type
    return {"string": "", "boolean": False}.get(item.type, 0)


def _column(item: ModelInput, value: Any) -> pa.Array:  # noqa: ANN401
    kind = to_arrow(item.type)
    if item.shape is None:
        return pa.array([value], kind)
    return pa.array([[value] * int(np.prod(item.shape[1:]))], pa.list_(kind))
