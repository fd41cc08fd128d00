"""Arrow columns as the tensors of an ONNX graph, and the session that runs it. No MLflow and no pandas here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.arrow.values import numbers_of
from batchscore.contracts import ModelInput
from batchscore.engines.arrays import MATRIX
from batchscore.engines.cuda import CPU_PROVIDER, open_on_gpu
from batchscore.errors import ModelRaisedError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


def open_session(graph: Path, threads: int, optimization: int | None = None, *, cuda: bool = False) -> InferenceSession:
    """A session with ``threads`` threads inside an operator and one operator at a time.

    Args:
        graph: the ONNX file.
        threads: threads that one call may use.
        optimization: ONNX Runtime's graph optimization level; its own default where None.
        cuda: whether it runs on a GPU; operators that have no kernel there run on the CPU.

    Raises:
        SetupError: there is no GPU that ONNX Runtime can use.
    """
    import onnxruntime  # noqa: PLC0415  # the plan asks `supports` of models without a graph too

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Idle threads that spin take the cores of the other tasks on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if optimization is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(optimization)
    if cuda:
        return open_on_gpu(graph, options)
    return onnxruntime.InferenceSession(str(graph), sess_options=options, providers=[CPU_PROVIDER])


def column(array: pa.Array, dtype: np.dtype[Any], item: ModelInput, *, is_matrix: bool) -> np.ndarray[Any, Any]:
    """One column as the tensor that the graph takes.

    Args:
        array: values, or lists of one length for an input with a shape.
        dtype: type of the tensor's elements.
        item: the input.
        is_matrix: whether the graph takes plain values in shape (rows, 1).

    Raises:
        ModelError: nulls that are not floats, lists of other lengths, values that ``dtype`` does not hold.
    """
    rows = len(array)
    if _is_nested(array.type):
        if array.null_count:
            raise _null(item)
        flat = values_of(array.flatten(), dtype, item)
        shape = (rows, *(item.shape[1:] if item.shape is not None else (-1,)))
        if not _is_rectangular(array, len(flat), rows):
            raise ModelRaisedError(
                f"the arrays of input {item.name or '(unnamed)'} differ in length", allowed=(f"shape {shape}",)
            )
        return flat.reshape(shape)
    values = values_of(array, dtype, item)
    return values.reshape(rows, 1) if is_matrix else values


def _is_nested(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))


def _is_rectangular(array: pa.Array, values: int, rows: int) -> bool:
    if pa.types.is_fixed_size_list(array.type):
        return True
    lengths = np.diff(array.offsets.to_numpy())
    return bool((lengths == values // rows).all())


def stacked(inputs: pa.RecordBatch, dtype: np.dtype[Any], items: Sequence[ModelInput]) -> np.ndarray[Any, Any]:
    """All columns side by side: a matrix of shape (rows, columns) and type ``dtype``; a null float is NaN."""
    first = inputs.schema.field(0).type
    if pa.types.is_floating(first) and all(field.type == first for field in inputs.schema):
        tensor = inputs.to_tensor(null_to_nan=True, row_major=True)  # 13 M rows/s for 30 columns
        values: np.ndarray[Any, Any] = tensor.to_numpy()
        return values.astype(dtype, copy=False)
    matrix = np.empty((inputs.num_rows, inputs.num_columns), dtype=dtype)
    for index, item in enumerate(items):
        matrix[:, index] = values_of(inputs.column(index), dtype, item)
    return matrix


def values_of(array: pa.Array, dtype: np.dtype[Any], item: ModelInput) -> np.ndarray[Any, Any]:
    """A flat array in the graph's element type; whole numbers keep every digit, a null float becomes NaN."""
    if array.null_count and not pa.types.is_floating(array.type):
        raise _null(item)
    if dtype.kind in "iu":
        try:
            array = array.cast(pa.from_numpy_dtype(dtype))
        except pa.ArrowInvalid as error:
            raise ModelRaisedError(
                f"a value of input {item.name} does not fit the graph's {dtype}", found=error
            ) from error
    values = numbers_of(array) if dtype.kind in "iufb" else array.to_numpy(zero_copy_only=False)
    if dtype.kind == "f" and values.dtype.kind in "iu":
        values = values.astype(np.float64)  # the way that pandas takes in MLflow's wrapper
    return values.astype(dtype, copy=False)


def arrow_of(values: np.ndarray[Any, Any]) -> pa.Array | np.ndarray[Any, Any]:
    """Numbers of shape (rows,), (rows, 1) or (rows, k) as an Arrow array, of lists where k > 1; else as they are."""
    if values.dtype.kind not in "iuf" or values.ndim not in (1, MATRIX):
        return values
    flat = np.ascontiguousarray(values).reshape(-1)
    array = pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])
    if values.ndim == MATRIX and values.shape[1] != 1:
        return pa.FixedSizeListArray.from_arrays(array, values.shape[1])
    return array


def _null(item: ModelInput) -> ModelRaisedError:
    return ModelRaisedError(
        f"input {item.name or '(unnamed)'} has nulls, and an ONNX graph knows none for type {item.type}",
        hint="fill them before scoring, or quarantine the rows",
    )
