"""ONNX Runtime, without MLflow and without pandas: on an ONNX-flavored model, or on a graph made of another model.

What :func:`convert` makes is served by ``onnx_converted.py``. The rest here serves ONNX-flavored models: values reach
the graph as MLflow's own ONNX wrapper gives them: a column of doubles that the graph takes as float is rounded to
float, because that is the model's own precision.
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
from batchscore.engines.base import Engine
from batchscore.engines.failures import raised
from batchscore.engines.onnx_artifact import is_artifact
from batchscore.engines.onnx_converted import load_converted
from batchscore.engines.onnx_tensors import DTYPES, arrow_of, column, open_session, stacked
from batchscore.errors import ModelError, listed
from batchscore.models.mlmodel import read_mlmodel, referenced_file
from batchscore.schema import element_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

FLAVOR = "onnx"


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
                node.name: column(
                    inputs.column(index),
                    np.dtype(DTYPES[node.type]),
                    self._files.inputs[index],
                    is_matrix=len(node.shape) == MATRIX,
                )
                for index, node in enumerate(self._nodes)
            }
        else:
            node = self._nodes[0]
            feeds = {node.name: stacked(inputs, np.dtype(DTYPES[node.type]), self._files.inputs)}
        try:
            results = self._session.run(self._fetch, feeds)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise raised(self._label, inputs.num_rows, error) from error
        columns = [
            arrow_of(_flat(values, is_list=element_of(output.type) is not None))
            for values, output in zip(results, self._files.outputs, strict=True)
        ]
        return batch_of(columns, self._files.outputs, inputs.num_rows, self._label)


def load(files: ModelFiles, threads: int) -> Engine:
    """Loads the graph with ``threads`` threads inside an operator and one operator at a time.

    ``files.path`` is either the folder of an ONNX-flavored model, or what :func:`convert` made of another one.

    Raises:
        ModelError: the graph does not fit what the model declares, or the folder holds no graph.
    """
    return load_on(files, threads, cuda=False)


def load_on(files: ModelFiles, threads: int, *, cuda: bool) -> Engine:
    """:func:`load` on the CPU, or on a GPU.

    Raises:
        ModelError: as :func:`load`.
        SetupError: there is no GPU that ONNX Runtime can use.
    """
    if is_artifact(Path(files.path)):
        return load_converted(files, threads, cuda=cuda)
    if FLAVOR not in files.flavors:
        raise ModelError(
            f"model {files.name} has no ONNX graph, and its conversion is not in {files.path}",
            hint="the driver converts it before workers load it",
        )
    return OnnxEngine(_session(Path(files.path), threads, cuda=cuda), files)


def needs_artifact(model: PinnedModel) -> bool:
    """Whether workers load what :func:`convert` makes, and not the model's own folder."""
    return FLAVOR not in model.flavors


def supports(model: PinnedModel) -> str | None:
    """Why ONNX Runtime cannot serve the model, or None.

    Loads the graph, where there is one. Of a model that must be converted only the flavors, the types and what is
    installed are looked at: :func:`convert` says which of its steps is in the way.
    """
    if needs_artifact(model):
        from batchscore.engines.onnx_convert import refusal  # noqa: PLC0415  # the driver's part, of no use to workers

        return refusal(model)
    try:
        session = _session(Path(model.path), threads=1)
    except Exception as error:  # noqa: BLE001  # an operator of another library, a newer opset: any error is the reason
        return f"ONNX Runtime does not load it: {error}"
    return _mismatch(session, model.inputs, model.outputs)


def convert(model: PinnedModel, folder: Path) -> None:
    """Writes ``model.onnx`` and a description of what feeds it; see :class:`batchscore.engines.base.Converter`.

    Raises:
        ModelError: a step of the model, a type or a flavor is in the way, or it is an ONNX graph already.
        SetupError: a library that converts is missing.
    """
    if not needs_artifact(model):
        raise ModelError(f"model {model.name} is an ONNX graph already", hint="load it from its own folder")
    from batchscore.engines.onnx_convert import convert as convert_model  # noqa: PLC0415  # as above

    convert_model(model, folder)


def versions() -> dict[str, str]:
    """Library → version of all that can change the graph or its scores."""
    from batchscore.engines.onnx_convert import versions as converting  # noqa: PLC0415  # as above

    return converting()


def _session(folder: Path, threads: int, *, cuda: bool = False) -> InferenceSession:
    flavor = read_mlmodel(folder)["flavors"].get(FLAVOR, {})
    # It can change the last bits of a score, so the model's own choice counts.
    level = (flavor.get("onnx_session_options") or {}).get("graph_optimization_level")
    return open_session(referenced_file(folder, str(flavor.get("data", "model.onnx"))), threads, level, cuda=cuda)


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


def _flat(values: Any, *, is_list: bool) -> Any:  # noqa: ANN401  # what the graph returned
    """(n, 1) as (n,) for a scalar output; anything else as it is."""
    array = np.asarray(values)
    return array.reshape(-1) if not is_list and array.ndim == MATRIX and array.shape[1] == 1 else array
