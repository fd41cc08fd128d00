"""An ONNX graph that is being put together from single operators and from graphs of other converters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Dtype: TypeAlias = np.dtype[Any]

# The newest operators that skl2onnx writes for; ai.onnx.ml 5 brings TreeEnsemble, which works on doubles throughout.
OPSET = 18
OPSET_ML = 5
IR_VERSION = 10
ML = "ai.onnx.ml"

FLOAT32: Dtype = np.dtype(np.float32)
FLOAT64: Dtype = np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A tensor of the graph with shape (rows, width).

    Attributes:
        name: its name in the graph.
        dtype: type of its elements, as the reference has them at this step.
        width: number of columns.
        sparse: whether the reference holds it as a sparse matrix here.
        rounded: whether its last bits may differ from the reference's.
    """

    name: str
    dtype: Dtype
    width: int
    sparse: bool = False
    rounded: bool = False


class Graph:
    """Nodes, constants and inputs, under names that depend on nothing but their order."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._named = 0
        self._has_old_trees = False

    def input(self, name: str, dtype: Dtype, width: int) -> Matrix:
        """Declares an input of shape (rows, width)."""
        from onnx import helper  # noqa: PLC0415  # 1 s, and of no use to workers

        kind = helper.np_dtype_to_tensor_dtype(dtype)
        self._inputs.append(helper.make_tensor_value_info(name, kind, [None, width]))
        return Matrix(name, dtype, width)

    def constant(self, values: Any) -> str:  # noqa: ANN401  # what numpy makes an array of
        """Adds a constant and returns its name."""
        from onnx import numpy_helper  # noqa: PLC0415  # as above

        name = self._name("c")
        self._constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401  # as onnx has them
        """Adds an operator with one output and returns that output's name."""
        from onnx import helper  # noqa: PLC0415  # as above

        name = self._name(kind.lower())
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def cast(self, matrix: Matrix, dtype: Dtype) -> Matrix:
        """The same values in another type."""
        from onnx import helper  # noqa: PLC0415  # as above

        if matrix.dtype == dtype:
            return matrix
        name = self.op("Cast", matrix.name, to=helper.np_dtype_to_tensor_dtype(dtype))
        return replace(matrix, name=name, dtype=dtype)

    def columns(self, matrix: Matrix, chosen: Sequence[int]) -> Matrix:
        """Some of the columns, in the order asked for."""
        if list(chosen) == list(range(matrix.width)):
            return matrix
        name = self.op("Gather", matrix.name, self.constant(np.array(chosen, np.int64)), axis=1)
        return replace(matrix, name=name, width=len(chosen))

    def beside(self, parts: Sequence[Matrix]) -> Matrix:
        """Matrices side by side, in the type that numpy gives them together."""
        if len(parts) == 1:
            return parts[0]
        dtype = np.result_type(*[part.dtype for part in parts])
        name = self.op("Concat", *[self.cast(part, dtype).name for part in parts], axis=1)
        sparse, rounded = any(part.sparse for part in parts), any(part.rounded for part in parts)
        return Matrix(name, dtype, sum(part.width for part in parts), sparse, rounded)

    def include(self, model: ModelProto, feeds: Mapping[str, str]) -> list[str]:
        """Adds another converter's graph.

        Args:
            model: its graph, at most of opsets :data:`OPSET` and :data:`OPSET_ML`.
            feeds: its inputs' names → names here.

        Returns:
            The names here of its outputs.
        """
        from onnx import compose  # noqa: PLC0415  # as above

        prefix = self._name("p") + "_"
        part: GraphProto = compose.add_prefix_graph(model.graph, prefix)
        known = {prefix + theirs: ours for theirs, ours in feeds.items()}
        for node in part.node:
            for index, name in enumerate(node.input):
                node.input[index] = known.get(name, name)
        self._nodes.extend(part.node)
        self._constants.extend(part.initializer)
        self._has_old_trees |= any(node.op_type.startswith("TreeEnsemble") for node in model.graph.node)
        return [output.name for output in part.output]

    def model(self, output: str, dtype: Dtype, rank: int) -> ModelProto:
        """The whole graph with its one output, checked.

        Args:
            output: the tensor to return.
            dtype: its type.
            rank: 1 for shape (rows,), 2 for (rows, k).
        """
        from onnx import checker, helper  # noqa: PLC0415  # as above

        shape: list[int | None] = [None] * rank
        declared = helper.make_tensor_value_info(output, helper.np_dtype_to_tensor_dtype(dtype), shape)
        graph = helper.make_graph(self._nodes, "batchscore", self._inputs, [declared], initializer=self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, 3 if self._has_old_trees else OPSET_ML)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="batchscore")
        checker.check_model(model)
        return model

    def _name(self, hint: str) -> str:
        self._named += 1
        return f"{hint}_{self._named}"
