"""From a model's columns to the matrix that its last step is given, step by step as scikit-learn does it.

Followed are pipelines, column transformers and feature unions. Imputers and scalers of numbers are written here in
scikit-learn's own order of operations and roundings, because the operators that skl2onnx has for them round to float,
and a rounded value takes another branch of a tree. Encoders become tables (``lookup.py``). Others are given to
skl2onnx (``others.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from batchscore.contracts import ModelInput
from batchscore.engines.onnx_artifact import Feed, Vocabulary
from batchscore.engines.onnx_convert.graph import FLOAT64, Graph, Matrix
from batchscore.engines.onnx_convert.lookup import ENCODERS, IMPUTER, append_lookup, common_type, is_step
from batchscore.engines.onnx_convert.others import append_transformer
from batchscore.errors import ModelError
from batchscore.schema import FLOATS, INTEGERS

NUMBERS = (*FLOATS, *INTEGERS, "boolean")
HINT = "engine pyfunc serves it"

Vocabularies: TypeAlias = tuple[Vocabulary | None, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """Inputs of the model that are not in the graph yet, as a frame holds them."""

    items: tuple[ModelInput, ...]


Value: TypeAlias = Columns | Matrix


class Features:
    """Adds to a graph what comes before a model's last step.

    Args:
        graph: gets inputs and operators.
        inputs: the model's inputs, in the order of the signature.
        missing_text: how the reference spells a missing string.
        categories: vocabularies of the columns that a booster takes as categories, by input.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Sequence[ModelInput],
        missing_text: float | None,
        categories: Mapping[str, Vocabulary],
    ) -> None:
        self._graph = graph
        self._inputs = tuple(inputs)
        self._missing_text = missing_text
        self._categories = categories
        self._feeds: dict[tuple[object, ...], Feed] = {}
        self._matrices: dict[str, Matrix] = {}

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """The graph's inputs, in order."""
        return tuple(self._feeds.values())

    def before(self, steps: Sequence[Any]) -> Matrix:
        """The matrix after all of ``steps``, fitted transformers."""
        value: Value = Columns(self._inputs)
        if any(item.shape is not None for item in self._inputs):
            value = self._matrix(value)
        return self._matrix(self._chain(steps, value))

    def _chain(self, steps: Sequence[Any], value: Value) -> Value:
        """Steps one after the other."""
        remaining = [step for step in _flat(steps) if not _is_nothing(step)]
        while remaining:
            encoding = _encoders(remaining)
            if isinstance(value, Columns) and encoding:
                value = append_lookup(
                    self._graph, self._coded(value), remaining[:encoding], value.items, self._missing_text
                )
                remaining = remaining[encoding:]
            else:
                value = self._step(remaining.pop(0), value)
        return value

    def _step(self, step: Any, value: Value) -> Matrix:  # noqa: ANN401  # any transformer
        if is_step(step, ("ColumnTransformer",)):
            return self._column_transformer(step, value)
        if is_step(step, ("FeatureUnion",)):
            return self._beside([self._chain([part], value) for _, part in step.transformer_list], None, step)
        matrix = self._matrix(value)
        if is_step(step, (IMPUTER,)):
            return _imputed(self._graph, step, matrix)
        if is_step(step, SCALERS):
            return _scaled(self._graph, step, matrix)
        if is_step(step, ENCODERS):
            raise ModelError(f"{type(step).__name__} behind other transformers is not converted to ONNX", hint=HINT)
        if type(step).__module__.startswith("sklearn.") and hasattr(step, "get_support"):
            return self._graph.columns(matrix, step.get_support(indices=True).tolist())
        return append_transformer(self._graph, step, matrix)

    def _column_transformer(self, step: Any, value: Value) -> Matrix:  # noqa: ANN401
        parts: list[Value] = []
        for name, part, _ in step.transformers_:
            chosen = step._transformer_to_input_indices[name]
            if (isinstance(part, str) and part == "drop") or not len(chosen):
                continue
            parts.append(self._chain([part], self._chosen(value, step, chosen)))
        return self._beside(parts, step.sparse_output_, step)

    def _beside(self, parts: Sequence[Value], sparse: bool | None, step: Any) -> Matrix:  # noqa: ANN401
        if not parts:
            raise ModelError(f"{type(step).__name__} leaves no columns")
        together = self._graph.beside([self._matrix(part) for part in parts])
        return together if sparse is None else replace(together, sparse=sparse)

    def _chosen(self, value: Value, step: Any, chosen: Sequence[int]) -> Value:  # noqa: ANN401
        if isinstance(value, Matrix):
            return self._graph.columns(value, list(chosen))
        names = getattr(step, "feature_names_in_", None)
        if names is None:
            return Columns(tuple(value.items[index] for index in chosen))
        known = {item.name: item for item in value.items}
        missing = [names[index] for index in chosen if names[index] not in known]
        if missing:
            raise ModelError(f"{type(step).__name__} needs a column that the signature lacks", found=missing[0])
        return Columns(tuple(known[names[index]] for index in chosen))

    def _matrix(self, value: Value) -> Matrix:
        """Columns of numbers, or of categories that a booster takes, as a matrix."""
        if isinstance(value, Matrix):
            return value
        for item in value.items:
            if item.type not in NUMBERS and item.name not in self._categories:
                raise ModelError(
                    f"input {item.name} of type {item.type} reaches a step that is not converted for text",
                    allowed=(IMPUTER, *ENCODERS),
                    hint=HINT,
                )
        dtype = common_type(value.items)
        return self._fed(value.items, str(dtype), tuple(self._categories.get(item.name) for item in value.items))

    def _coded(self, value: Columns) -> Any:  # noqa: ANN401  # a function of vocabularies
        return lambda vocabularies: self._fed(value.items, "int64", vocabularies)

    def _fed(self, items: tuple[ModelInput, ...], dtype: str, vocabularies: Vocabularies) -> Matrix:
        key = (items, dtype, vocabularies)
        if key not in self._feeds:
            feed = Feed(f"x{len(self._feeds)}", dtype, tuple(item.name for item in items), vocabularies)
            width = len(items) if items[0].shape is None else int(np.prod(items[0].shape[1:]))
            self._matrices[feed.name] = self._graph.input(feed.name, np.dtype(dtype), width)
            self._feeds[key] = feed
        return self._matrices[self._feeds[key].name]


def _flat(steps: Sequence[Any]) -> Iterator[Any]:
    """The steps of pipelines within pipelines."""
    for step in steps:
        if is_step(step, ("Pipeline",)):
            yield from _flat([inner for _, inner in step.steps])
        else:
            yield step


def _is_nothing(step: Any) -> bool:  # noqa: ANN401
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return True
    return is_step(step, ("FunctionTransformer",)) and step.func is None


def _encoders(steps: Sequence[Any]) -> int:
    """How many of the first steps are imputers and encoders, up to the last encoder among them."""
    count = 0
    for index, step in enumerate(steps):
        if not is_step(step, (IMPUTER, *ENCODERS)):
            break
        if is_step(step, ENCODERS):
            count = index + 1
    return count


def _imputed(graph: Graph, step: Any, matrix: Matrix) -> Matrix:  # noqa: ANN401
    """SimpleImputer on numbers: missing values become the column's statistic."""
    statistics = np.asarray(step.statistics_).astype(step._fill_dtype).astype(np.float64)
    kept = np.flatnonzero(~np.isnan(statistics)) if not step.keep_empty_features else np.arange(matrix.width)
    if matrix.sparse:
        raise ModelError("SimpleImputer on a sparse matrix is not converted to ONNX", hint=HINT)
    missing = step.missing_values
    if missing is None or isinstance(missing, str):
        raise ModelError("SimpleImputer that looks for text among numbers is not converted to ONNX", found=missing)
    is_missing = (
        graph.op("IsNaN", matrix.name)
        if np.isnan(missing)
        else graph.op("Equal", matrix.name, graph.constant(np.array([missing], matrix.dtype)))
    )
    fill = graph.constant(np.nan_to_num(statistics).astype(matrix.dtype)[None, :])
    filled = replace(matrix, name=graph.op("Where", is_missing, fill, matrix.name))
    filled = graph.columns(filled, kept.tolist())
    if not step.add_indicator:
        return filled
    indicated = replace(graph.cast(replace(matrix, name=is_missing, dtype=np.dtype(bool)), matrix.dtype))
    return graph.beside([filled, graph.columns(indicated, step.indicator_.features_.tolist())])


# Attribute of a scaler -> the operation it is for, in scikit-learn's order.
OPERATIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "StandardScaler": (("Sub", "mean_"), ("Div", "scale_")),
    "RobustScaler": (("Sub", "center_"), ("Div", "scale_")),
    "MaxAbsScaler": (("Div", "scale_"),),
    "MinMaxScaler": (("Mul", "scale_"), ("Add", "min_")),
}
SCALERS = tuple(OPERATIONS)


def _scaled(graph: Graph, step: Any, matrix: Matrix) -> Matrix:  # noqa: ANN401
    """A scaler, its result in the type of the column."""
    kind = type(step).__name__
    if matrix.sparse:
        raise ModelError(f"{kind} on a sparse matrix is not converted to ONNX", hint=HINT)
    # StandardScaler rounds its operands to the type of the column, the others their results.
    inner = matrix.dtype if kind == "StandardScaler" else FLOAT64
    for operation, attribute in OPERATIONS[kind]:
        operand = getattr(step, attribute)
        if not _is_used(step, attribute) or operand is None:
            continue
        wide = graph.cast(matrix, inner)
        name = graph.op(operation, wide.name, graph.constant(np.asarray(operand, inner)[None, :]))
        matrix = graph.cast(replace(wide, name=name), matrix.dtype)
    if getattr(step, "clip", False):
        low, high = step.feature_range if kind == "MinMaxScaler" else (-1.0, 1.0)
        ends = [graph.constant(np.array(end, matrix.dtype)) for end in (low, high)]
        matrix = replace(matrix, name=graph.op("Clip", matrix.name, *ends))
    return matrix


def _is_used(step: Any, attribute: str) -> bool:  # noqa: ANN401
    """Whether an option of the scaler leaves the operation out although its operand is fitted."""
    if attribute == "mean_":
        return bool(step.with_mean)
    return bool(step.with_std) if attribute == "scale_" and hasattr(step, "with_std") else True
