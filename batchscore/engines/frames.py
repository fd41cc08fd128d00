"""Arrow batches as what MLflow's pyfunc takes: pandas frames, or arrays for tensor signatures. No loop over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.contracts import ModelInput
from batchscore.engines.categories import coded
from batchscore.errors import ModelRaisedError
from batchscore.schema import INTEGERS

if TYPE_CHECKING:
    import pandas as pd


def to_frame(
    batch: pa.RecordBatch,
    inputs: Sequence[ModelInput],
    categories: Mapping[str, pa.Array],
    missing_text: float | None = None,
) -> pd.DataFrame:
    """A batch as the frame that pandas itself would make of the same table.

    Apart from that:

    * inputs in ``categories`` are coded as in training;
    * a missing string is ``missing_text``: None, or NaN for a model that was trained on NaN;
    * an optional whole-number input that is null in every row is left out, which is how MLflow spells absence.

    Raises:
        ModelError: a whole-number input has nulls beside values: MLflow has no null for it, and a float would
            lose digits.
    """
    import pandas as pd  # noqa: PLC0415  # half a second, and the module is loaded for its version alone, too

    columns: dict[str, Any] = {}
    for item, array in zip(inputs, batch.columns, strict=True):
        if item.name in categories:
            columns[item.name] = coded(array, categories[item.name])
        elif item.type in INTEGERS and array.null_count:
            if item.required or array.null_count < len(array):
                raise _integer_null(item)
        else:
            columns[item.name] = _series(array, item, missing_text)
    return pd.DataFrame(columns, index=pd.RangeIndex(batch.num_rows))


def to_tensor(array: pa.Array, item: ModelInput, dtype: np.dtype[Any] | None = None) -> np.ndarray[Any, Any]:
    """A column as the array of a tensor input: its shape with the rows in front.

    Args:
        array: a plain column for shape (-1,) and (-1, 1), else lists, flattened in C order.
        item: the input.
        dtype: numpy type that the signature asks for; the column's own by default.

    Raises:
        ModelError: null lists, lists of other lengths, nulls in whole numbers, values that ``dtype`` does not hold.
    """
    rows = len(array)
    shape = (rows, *(item.shape or (-1,))[1:])
    flat = array
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise ModelRaisedError(
                f"input {item.name or '(unnamed)'} has null arrays", allowed=(f"arrays of shape {shape[1:]}",)
            )
        flat = array.flatten()
        if not _regular(array, len(flat)):
            raise _wrong_shape(item, "arrays of different lengths")
    if flat.null_count and not pa.types.is_floating(flat.type) and not pa.types.is_string(flat.type):
        raise _integer_null(item)
    values: np.ndarray[Any, Any] = flat.to_numpy(zero_copy_only=False)
    if dtype is not None and values.dtype != dtype:
        values = _retyped(values, dtype, item)
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise _wrong_shape(item, f"{len(flat)} values in {rows} rows") from error


def _series(array: pa.Array, item: ModelInput, missing_text: float | None) -> Any:  # noqa: ANN401  # pandas' or numpy's
    series = array.to_pandas()
    if item.type == "string" and missing_text is not None and array.null_count:
        return series.where(series.notna(), missing_text)
    return series


def _regular(array: pa.Array, values: int) -> bool:
    if pa.types.is_fixed_size_list(array.type) or not len(array):
        return True
    lengths = np.diff(array.offsets.to_numpy())
    return bool((lengths == values // len(array)).all())


def _retyped(values: np.ndarray[Any, Any], dtype: np.dtype[Any], item: ModelInput) -> np.ndarray[Any, Any]:
    if dtype.kind == "O":
        return values.astype(object)
    cast = values.astype(str if dtype.kind == "U" else dtype)
    if dtype.kind in "iu" and not np.array_equal(cast.astype(values.dtype), values):
        raise ModelRaisedError(f"a value of input {item.name or '(unnamed)'} does not fit the model's {dtype}")
    return cast


def _integer_null(item: ModelInput) -> ModelRaisedError:
    return ModelRaisedError(
        f"input {item.name or '(unnamed)'} has nulls, and MLflow has no null for type {item.type}",
        hint="fill them, or train the model with the column as double (which holds whole numbers up to 2^53)",
    )


def _wrong_shape(item: ModelInput, found: str) -> ModelRaisedError:
    shape = list(item.shape or (-1,))
    return ModelRaisedError(
        f"input {item.name or '(unnamed)'} has the wrong shape", found=found, allowed=(f"shape {shape}",)
    )
