"""A whole model: its columns, the steps before the last one, the last one, and what the reference refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.contracts import ModelInput, PinnedModel
from batchscore.engines.missing import missing_text
from batchscore.engines.onnx_artifact import GRAPH_FILE, Description, Vocabulary, write_description
from batchscore.engines.onnx_convert.features import Features
from batchscore.engines.onnx_convert.graph import Graph, Matrix
from batchscore.engines.onnx_convert.guards import guards_of
from batchscore.engines.onnx_convert.lightgbm_trees import append_lightgbm
from batchscore.engines.onnx_convert.others import append_estimator, result_dtype
from batchscore.engines.onnx_convert.sklearn_trees import appender
from batchscore.engines.onnx_convert.xgboost_trees import append_xgboost
from batchscore.engines.unwrap import Unwrapped, unwrap
from batchscore.errors import ModelError

METHODS = ("predict", "predict_proba")


def convert_model(model: PinnedModel, folder: Path) -> None:
    """Writes the graph and its description.

    Raises:
        ModelError: which step, type or option is in the way.
    """
    from onnx import helper  # noqa: PLC0415  # of no use to workers

    unwrapped = unwrap(model.path, model.inputs)
    if unwrapped.method not in METHODS:
        raise ModelError(f"method {unwrapped.method} is not converted to ONNX", allowed=METHODS)
    estimator = getattr(unwrapped.estimator, "best_estimator_", unwrapped.estimator)
    graph = Graph()
    features = Features(graph, model.inputs, missing_text(unwrapped.estimator), _vocabularies(unwrapped, model.inputs))
    *steps, last = _steps(estimator)
    matrix = features.before(steps)
    output, dtype = _append_last(graph, last, matrix, unwrapped.method)
    classes = _classes(last) if unwrapped.method == "predict" else None
    if classes is None:
        output = graph.op("Cast", output, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    guards = guards_of(unwrapped, model.inputs, features.feeds)
    proto = graph.model(output, np.dtype(np.int64 if classes else dtype), 1 if classes else 2)
    (folder / GRAPH_FILE).write_bytes(proto.SerializeToString(deterministic=True))
    write_description(Description(features.feeds, guards, output, classes, dtype), folder)


def _steps(estimator: Any) -> list[Any]:  # noqa: ANN401  # any model
    """The steps of a pipeline, the last one in full."""
    if type(estimator).__name__ != "Pipeline":
        return [estimator]
    *before, (_, last) = estimator.steps
    return [*(step for _, step in before), *_steps(last)]


def _append_last(graph: Graph, last: Any, matrix: Matrix, method: str) -> tuple[str, str]:  # noqa: ANN401
    """The output's name and numpy type."""
    library = type(last).__module__.partition(".")[0]
    trees = appender(last)
    if matrix.rounded and (trees is not None or library != "sklearn"):
        raise ModelError(
            f"{type(last).__name__} behind a projection is not converted to ONNX",
            found="the last bits of its features may differ, and a tree can take another branch",
            hint="use engine pyfunc",
        )
    if method != "predict" and not hasattr(last, method):
        raise ModelError(f"{type(last).__name__} has no {method}")
    if library == "lightgbm":
        return append_lightgbm(graph, last, matrix, method), "float64"
    if library == "xgboost":
        return append_xgboost(graph, last, matrix, method), "float32"
    if library != "sklearn":
        raise ModelError(f"{type(last).__name__} of {library} is not converted to ONNX", hint="use engine pyfunc")
    output = (trees or append_estimator)(graph, last, matrix, method)
    return output, result_dtype(last, matrix, method)


def _classes(last: Any) -> tuple[Any, ...] | None:  # noqa: ANN401
    """The labels of a classifier as Python values, or None for another model."""
    if not hasattr(last, "classes_"):
        return None
    labels = np.asarray(last.classes_)
    if labels.dtype.kind == "O" and not all(isinstance(label, str) for label in labels):
        raise ModelError("a classifier's labels are neither numbers nor text", found=labels[:3])
    return tuple(labels.tolist())


def _vocabularies(unwrapped: Unwrapped, inputs: tuple[ModelInput, ...]) -> Mapping[str, Vocabulary]:
    """The categories of a booster, in the order of their codes."""
    types = {item.name: item.type for item in inputs}
    return {
        name: Vocabulary(types[name], tuple(_python(categories))) for name, categories in unwrapped.categories.items()
    }


def _python(categories: pa.Array) -> list[Any]:
    return categories.to_pylist()  # type: ignore[no-any-return]  # pyarrow publishes no types
