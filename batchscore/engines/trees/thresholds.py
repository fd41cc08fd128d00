"""The values of a model's inputs at which a tree decides otherwise: where engines differ, if they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from batchscore.contracts import ModelInput
from batchscore.engines.trees.forest import TINY, Doubles, Forest
from batchscore.engines.trees.read import read_forest
from batchscore.engines.unwrap import Unwrapped
from batchscore.errors import ModelError

# For each column that a step gives on, the model's input that it is a copy of, or None.
Origins: TypeAlias = "list[int | None]"

NESTED = ("Pipeline",)
KEEPING = ("FunctionTransformer",)


def thresholds(unwrapped: Unwrapped, inputs: Sequence[ModelInput]) -> dict[str, Doubles]:
    """Where the trees of a model split its inputs.

    Args:
        unwrapped: the estimator: an ensemble of trees, or a pipeline that ends in one.
        inputs: the model's inputs, in the order of its features.

    Returns:
        Input name → sorted float64 values in the input's own units: for every split on a number, the threshold; for
        a library that rounds its inputs to float32, also the last double that it rounds down; 1e-35 and its
        negative where LightGBM parts what it takes for zero. Inputs behind a step that computes are left out;
        {} for other models and for an input of arrays.
    """
    if any(item.shape is not None for item in inputs):
        return {}
    try:
        estimator, origins = _last(unwrapped.estimator, list(range(len(inputs))))
        forest = read_forest(estimator)
    except ModelError:
        return {}
    if len(origins) != forest.features:
        return {}
    found: dict[str, list[Doubles]] = {}
    for column, values in forest.thresholds().items():
        origin = origins[column]
        if origin is not None and inputs[origin].name not in unwrapped.categories:
            found.setdefault(inputs[origin].name, []).append(_boundaries(forest, column, values))
    return {name: np.unique(np.concatenate(parts)) for name, parts in found.items()}


def _boundaries(forest: Forest, column: int, values: Doubles) -> Doubles:
    finite = values[np.isfinite(values)]
    parts = [finite]
    if forest.compare == "float32":
        with np.errstate(over="ignore"):
            upper = np.nextafter(finite.astype(np.float32), np.float32(np.inf)).astype(np.float64)
        # Half way to the next float32 a double changes the float32 that it is rounded to.
        parts.append(finite + (upper - finite) / 2)
        # XGBoost's thresholds are written as the value that is not below them.
        parts.append(upper)
    if (forest.rule[forest.feature == column] != 0).any():
        parts.append(np.array([-TINY, TINY]))
    every = np.concatenate(parts)
    return np.unique(every[np.isfinite(every)])


def _last(estimator: Any, origins: Origins) -> tuple[Any, Origins]:  # noqa: ANN401  # an estimator of any library
    """The last step of a pipeline, nested ones too, and where its columns come from."""
    while type(estimator).__name__ in NESTED:
        for _, step in estimator.steps[:-1]:
            origins = _through(step, origins)
        estimator = estimator.steps[-1][1]
    return estimator, origins


def _through(step: Any, origins: Origins) -> Origins:  # noqa: ANN401
    """Where the columns that a step gives on come from; [] where that cannot be told."""
    kind = type(step).__name__
    if step is None or step == "passthrough" or (kind in KEEPING and step.func is None):
        return origins
    if kind in NESTED:
        for _, inner in step.steps:
            origins = _through(inner, origins)
        return origins
    if kind == "SimpleImputer":
        return _imputed(step, origins)
    if kind == "ColumnTransformer":
        return _by_columns(step, origins)
    return [None] * _width(step)


def _imputed(step: Any, origins: Origins) -> Origins:  # noqa: ANN401
    statistics = np.asarray(step.statistics_, object)
    empty = [isinstance(value, float) and np.isnan(value) for value in statistics]
    keep = step.keep_empty_features or step.strategy == "constant"
    kept: Origins = [origin for origin, gone in zip(origins, empty, strict=True) if keep or not gone]
    indicators = step.indicator_.features_ if getattr(step, "indicator_", None) is not None else ()
    return kept + [None] * len(indicators)


def _by_columns(step: Any, origins: Origins) -> Origins:  # noqa: ANN401
    spans = step.output_indices_
    found: Origins = [None] * max((span.stop for span in spans.values()), default=0)
    chosen = step._transformer_to_input_indices  # there is no public name for them
    for name, transformer, _ in step.transformers_:
        span = spans.get(name, slice(0, 0))
        if span.stop == span.start or transformer == "drop":
            continue
        inner = _through(transformer, [origins[index] for index in chosen[name]])
        if len(inner) == span.stop - span.start:
            found[span] = inner
    return found


def _width(step: Any) -> int:  # noqa: ANN401
    try:
        return len(step.get_feature_names_out())
    except (AttributeError, TypeError, ValueError):
        return 0
