"""What a model returned, as a batch of exactly the declared outputs.

Nothing is dropped, guessed or cut: a missing, surplus or renamed output, another number of rows, another kind of
value is an error that says what the model returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from batchscore.contracts import ModelOutput
from batchscore.engines.arrays import MATRIX, batch_of, output_name
from batchscore.errors import ModelError, listed
from batchscore.schema import element_of


def to_batch(predicted: Any, outputs: Sequence[ModelOutput], rows: int, model: str) -> pa.RecordBatch:  # noqa: ANN401  # a model returns anything
    """The prediction of a batch of ``rows`` rows as a record batch with one column per declared output.

    Args:
        predicted: DataFrame, Series, array, list, or mapping of names to arrays.
        outputs: the declared outputs, in order.
        rows: rows that were given to the model.
        model: the model's name and version, for messages.

    Raises:
        ModelError: the prediction is not what the model declares.
    """
    columns = _columns(predicted, outputs, model)
    return batch_of([_plain(values) for values in columns], outputs, rows, model)


def _columns(predicted: Any, outputs: Sequence[ModelOutput], model: str) -> list[Any]:  # noqa: ANN401
    if isinstance(predicted, list) and predicted and isinstance(predicted[0], Mapping):
        predicted = pd.DataFrame(predicted)
    if isinstance(predicted, pd.DataFrame):
        if len(outputs) == 1 and element_of(outputs[0].type) and _is_wide(predicted, outputs[0]):
            return [predicted.to_numpy()]
        named = {str(name): predicted.iloc[:, index] for index, name in enumerate(predicted.columns)}
        if len(named) != predicted.shape[1]:
            raise _unfit(predicted, outputs, model, "two outputs have one name")
        # Columns without names of their own are numbered, and told apart by position.
        return _by_name(named, outputs, model, positional=isinstance(predicted.columns, pd.RangeIndex))
    if isinstance(predicted, Mapping):
        return _by_name({str(name): values for name, values in predicted.items()}, outputs, model, positional=False)
    if isinstance(predicted, pd.Series | list):
        return _single(predicted, outputs, model)
    if isinstance(predicted, np.ndarray):
        return _from_array(predicted, outputs, model)
    raise _unfit(predicted, outputs, model, "it is neither a frame, an array, a list nor a mapping")


def _is_wide(frame: pd.DataFrame, output: ModelOutput) -> bool:
    """Whether a frame holds the elements of one array output as its columns."""
    return frame.shape[1] > 1 or (
        not pd.api.types.is_object_dtype(frame.dtypes.iloc[0]) and str(frame.columns[0]) != output.name
    )


def _by_name(found: Mapping[str, Any], outputs: Sequence[ModelOutput], model: str, *, positional: bool) -> list[Any]:
    if len(found) != len(outputs):
        reason = "it has surplus outputs" if len(found) > len(outputs) else "outputs are missing"
        raise _unfit(found, outputs, model, reason)
    if positional or (len(outputs) == 1 and not outputs[0].name):
        return list(found.values())
    missing = [output.name for output in outputs if output.name not in found]
    if missing:
        raise _unfit(found, outputs, model, f"missing: {listed(missing)}")
    return [found[output.name] for output in outputs]


def _single(values: Any, outputs: Sequence[ModelOutput], model: str) -> list[Any]:  # noqa: ANN401
    if len(outputs) != 1:
        raise _unfit(values, outputs, model, "outputs are missing")
    return [values]


def _from_array(values: np.ndarray[Any, Any], outputs: Sequence[ModelOutput], model: str) -> list[Any]:
    if values.ndim == MATRIX and len(outputs) > 1:
        if values.shape[1] != len(outputs):
            raise _unfit(values, outputs, model, f"it has {values.shape[1]} columns")
        return [values[:, index] for index in range(values.shape[1])]
    return _single(values, outputs, model)


def _plain(values: Any) -> Any:  # noqa: ANN401
    """A series as a numpy array, or as an Arrow array where its type has nulls of its own (Int64, category)."""
    if hasattr(values, "toarray"):
        return values.toarray()  # a scipy sparse matrix
    if not isinstance(values, pd.Series):
        return values
    if isinstance(values.dtype, np.dtype) and values.dtype.kind != "M":
        return values.to_numpy()  # keeps NaN apart from null
    array = pa.array(values)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _described(predicted: Any) -> str:  # noqa: ANN401
    """What a model returned, in one line."""
    if isinstance(predicted, pd.DataFrame):
        columns = [f"{name} {dtype}" for name, dtype in predicted.dtypes.items()]
        return f"a frame of {len(predicted)} rows with {listed(columns)}"
    if isinstance(predicted, np.ndarray):
        return f"an array of {predicted.dtype}, shape {predicted.shape}"
    if isinstance(predicted, Mapping):
        return f"the outputs {listed(list(predicted))}"
    size = f" of {len(predicted)}" if hasattr(predicted, "__len__") else ""
    return f"{type(predicted).__name__}{size}"


def _unfit(predicted: Any, outputs: Sequence[ModelOutput], model: str, reason: str) -> ModelError:  # noqa: ANN401
    return ModelError(
        f"model {model} returned other outputs than it declares: {reason}",
        found=_described(predicted),
        allowed=[f"{output_name(output)} {output.type}" for output in outputs],
        hint="declare what the model returns: log it with its signature, or write signature.outputs in the settings",
    )
