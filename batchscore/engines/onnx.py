"""ONNX Runtime on the files of an ONNX-flavored model, without MLflow and without pandas.

Values reach the graph as MLflow's own ONNX wrapper gives them: a column of doubles that the graph takes as float is
rounded to float, because that is the model's own precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelFiles, ModelInput, ModelOutput, PinnedModel
from batchscore.engines.arrays import MATRIX, batch_of, empty_batch
from batchscore.errors import ModelError, listed
from batchscore.models.mlmodel import read_mlmodel, referenced_file
from batchscore.schema import element_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

FLAVOR = "onnx"
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


class OnnxEngine:
    """A session, and how the model's columns feed it.

    Args:
        session: the loaded graph.
        files: the model.

    Raises:
        ModelError: the graph's inputs or outputs are not those that the model declares.
    """

    def __init__(self, session: InferenceSession, files: ModelFiles) -> None:
        reason = _mismatch(session, files.inputs, files.outputs)
        if reason is not None:
            raise ModelError(f"model {files.name} cannot be served by ONNX Runtime alone", found=reason)
        self._session = session
        self._files = files
        self._label = f"{files.name} {files.version}".strip()
        self._nodes = _ordered(session.get_inputs(), [item.name for item in files.inputs])
        self._fetch = [node.name for node in _ordered(session.get_outputs(), [item.name for item in files.outputs])]

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch; see :class:`batchscore.engines.base.Engine`."""
        if inputs.num_rows == 0:
            return empty_batch(self._files.outputs)
        if len(self._nodes) == inputs.num_columns:
            feeds = {
                node.name: _column(inputs.column(index), node, self._files.inputs[index])
                for index, node in enumerate(self._nodes)
            }
        else:
            node = self._nodes[0]
            feeds = {node.name: _stacked(inputs, node, self._files.inputs)}
        try:
            results = self._session.run(self._fetch, feeds)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"model {self._label} raised while it scored", found=error) from error
        columns = [
            _flat(values, is_list=element_of(output.type) is not None)
            for values, output in zip(results, self._files.outputs, strict=True)
        ]
        return batch_of(columns, self._files.outputs, inputs.num_rows, self._label)


def load(files: ModelFiles, threads: int) -> OnnxEngine:
    """Loads the graph with ``threads`` threads inside an operator and one operator at a time.

    Raises:
        ModelError: the graph does not fit what the model declares.
    """
    return OnnxEngine(_session(Path(files.path), threads), files)


def supports(model: PinnedModel) -> str | None:
    """Why ONNX Runtime cannot serve the model by itself, or None. Loads the graph, where there is one."""
    if FLAVOR not in model.flavors:
        return f"the model has no ONNX graph, its flavors are {listed(model.flavors)}"
    try:
        session = _session(Path(model.path), threads=1)
    except Exception as error:  # noqa: BLE001  # an operator of another library, a newer opset: any error is the reason
        return f"ONNX Runtime does not load it: {error}"
    return _mismatch(session, model.inputs, model.outputs)


def _session(folder: Path, threads: int) -> InferenceSession:
    import onnxruntime  # noqa: PLC0415  # the plan asks `supports` of models without a graph too

    flavor = read_mlmodel(folder)["flavors"].get(FLAVOR, {})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Idle threads that spin take the cores of the other tasks on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    level = (flavor.get("onnx_session_options") or {}).get("graph_optimization_level")
    if level is not None:  # it can change the last bits of a score, so the model's own choice counts
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
    graph = referenced_file(folder, str(flavor.get("data", "model.onnx")))
    return onnxruntime.InferenceSession(str(graph), sess_options=options, providers=["CPUExecutionProvider"])


def _ordered(nodes: Sequence[NodeArg], names: Sequence[str]) -> list[NodeArg]:
    """The graph's nodes in the order of the declared names, or as they are where there is only one."""
    by_name = {node.name: node for node in nodes}
    return [by_name[name] for name in names] if set(by_name) == set(names) else list(nodes)


def _mismatch(session: InferenceSession, inputs: Sequence[ModelInput], outputs: Sequence[ModelOutput]) -> str | None:
    """Why the graph and the declared inputs and outputs do not meet, or None."""
    return _input_mismatch(session.get_inputs(), inputs) or _output_mismatch(session.get_outputs(), outputs)


def _input_mismatch(nodes: Sequence[NodeArg], inputs: Sequence[ModelInput]) -> str | None:
    names = [node.name for node in nodes]
    for node in nodes:
        if node.type not in DTYPES:
            return f"the graph's input {node.name} is a {node.type}"
    if len(nodes) == 1 and len(inputs) >= 1:
        width = nodes[0].shape[1] if len(nodes[0].shape) == MATRIX else None
        if len(inputs) > 1 and isinstance(width, int) and width != len(inputs):
            return f"the graph takes {width} columns, the signature has {len(inputs)}"
        if len(inputs) > 1 and len(nodes[0].shape) != MATRIX:
            return f"the graph takes one input of shape {nodes[0].shape}, the signature has {len(inputs)} columns"
        fed = [(nodes[0], item) for item in inputs]
    elif sorted(names) == sorted(item.name for item in inputs):
        fed = list(zip(_ordered(nodes, [item.name for item in inputs]), inputs, strict=True))
    else:
        return f"the graph's inputs are {listed(names)}, the signature's {listed([item.name for item in inputs])}"
    return next((reason for node, item in fed if (reason := _type_mismatch(node, item)) is not None), None)


def _type_mismatch(node: NodeArg, item: ModelInput) -> str | None:
    arrow = to_arrow(element_of(item.type) or item.type)
    wanted = np.dtype(DTYPES[node.type])
    if pa.types.is_string(arrow) or wanted.kind == "O":
        fits = pa.types.is_string(arrow) and wanted.kind == "O"
    elif wanted.kind in "iu":
        fits = pa.types.is_integer(arrow)
    elif wanted.kind == "b":
        fits = pa.types.is_boolean(arrow)
    else:
        fits = pa.types.is_integer(arrow) or pa.types.is_floating(arrow) or pa.types.is_boolean(arrow)
    return None if fits else f"input {item.name or node.name} is {item.type}, the graph takes {node.type}"


def _output_mismatch(nodes: Sequence[NodeArg], outputs: Sequence[ModelOutput]) -> str | None:
    names = [node.name for node in nodes]
    for node in nodes:
        if node.type not in DTYPES:
            return f"the graph's output {node.name} is a {node.type}, not a tensor: convert with zipmap=False"
    declared = [output.name for output in outputs]
    if len(nodes) == len(outputs) and (sorted(names) == sorted(declared) or declared == [""]):
        return None
    wanted = [name or "one unnamed" for name in declared]
    return f"the graph's outputs are {listed(names)}, the declared ones {listed(wanted)}"


def _column(array: pa.Array, node: NodeArg, item: ModelInput) -> np.ndarray[Any, Any]:
    """One column as the tensor that the graph takes."""
    dtype = np.dtype(DTYPES[node.type])
    rows = len(array)
    if _is_nested(array.type):
        if array.null_count:
            raise _null(item)
        flat = _values(array.flatten(), dtype, item)
        shape = (rows, *(item.shape[1:] if item.shape is not None else (-1,)))
        if not _is_rectangular(array, len(flat), rows):
            raise ModelError(
                f"the arrays of input {item.name or node.name} differ in length", allowed=(f"shape {shape}",)
            )
        return flat.reshape(shape)
    values = _values(array, dtype, item)
    return values.reshape(rows, 1) if len(node.shape) == MATRIX else values


def _is_nested(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))


def _is_rectangular(array: pa.Array, values: int, rows: int) -> bool:
    if pa.types.is_fixed_size_list(array.type):
        return True
    lengths = np.diff(array.offsets.to_numpy())
    return bool((lengths == values // rows).all())


def _stacked(inputs: pa.RecordBatch, node: NodeArg, items: Sequence[ModelInput]) -> np.ndarray[Any, Any]:
    """All columns side by side, as the one matrix that the graph takes."""
    dtype = np.dtype(DTYPES[node.type])
    first = inputs.schema.field(0).type
    if pa.types.is_floating(first) and all(field.type == first for field in inputs.schema):
        tensor = inputs.to_tensor(null_to_nan=True, row_major=True)  # 13 M rows/s for 30 columns
        stacked: np.ndarray[Any, Any] = tensor.to_numpy()
        return stacked.astype(dtype, copy=False)
    matrix = np.empty((inputs.num_rows, inputs.num_columns), dtype=dtype)
    for index, item in enumerate(items):
        matrix[:, index] = _values(inputs.column(index), dtype, item)
    return matrix


def _values(array: pa.Array, dtype: np.dtype[Any], item: ModelInput) -> np.ndarray[Any, Any]:
    """A flat array in the graph's element type; whole numbers keep every digit, a null float becomes NaN."""
    if array.null_count and not pa.types.is_floating(array.type):
        raise _null(item)
    if dtype.kind in "iu":
        try:
            array = array.cast(pa.from_numpy_dtype(dtype))
        except pa.ArrowInvalid as error:
            raise ModelError(f"a value of input {item.name} does not fit the graph's {dtype}", found=error) from error
    values: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    if dtype.kind == "f" and values.dtype.kind in "iu":
        values = values.astype(np.float64)  # the way that pandas takes in MLflow's wrapper
    return values.astype(dtype, copy=False)


def _null(item: ModelInput) -> ModelError:
    return ModelError(
        f"input {item.name or '(unnamed)'} has nulls, and an ONNX graph knows none for type {item.type}",
        hint="fill them before scoring, or quarantine the rows",
    )


def _flat(values: Any, *, is_list: bool) -> Any:  # noqa: ANN401  # what the graph returned
    """(n, 1) as (n,) for a scalar output; anything else as it is."""
    array = np.asarray(values)
    return array.reshape(-1) if not is_list and array.ndim == MATRIX and array.shape[1] == 1 else array
