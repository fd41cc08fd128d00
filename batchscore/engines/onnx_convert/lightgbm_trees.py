"""LightGBM's trees, read from the text that a booster writes of itself: its arrays, every digit of them.

LightGBM compares doubles. Of a row it takes |x| ≤ 1e-35 as 0 before any comparison; that is put into the thresholds
here, where it costs nothing: one within that band moves to the end of it, so that all of the band goes where 0 goes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from batchscore.engines.onnx_convert.ensemble import (
    AT_MOST,
    MEMBER,
    Tree,
    above,
    both_classes,
    linked,
    most_probable,
    tree_sums,
)
from batchscore.engines.onnx_convert.graph import FLOAT64, Graph, Matrix
from batchscore.errors import ModelError

# kZeroThreshold, a float in LightGBM.
ZERO = float(np.float32(1e-35))

# Bits of decision_type.
CATEGORICAL, DEFAULT_LEFT = 1, 2
MISSING_NONE, MISSING_ZERO = 0, 1

WORD_BITS = 32

# Objectives whose scores are the sums themselves, and those with the exponential.
PLAIN = ("regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom")
EXPONENTIAL = ("poisson", "gamma", "tweedie")


@dataclass(frozen=True, slots=True, eq=False)
class Booster:
    """What the text says.

    Attributes:
        objective: its words, for example ``("binary", "sigmoid:1")``.
        targets: trees an iteration.
        averages: whether the sum is divided by the number of iterations.
        trees: in the order in which they are added up.
        zero_is_missing: features whose zeros are missing values.
        categorical: features that some split takes as a category.
    """

    objective: tuple[str, ...]
    targets: int
    averages: bool
    trees: tuple[Tree, ...]
    zero_is_missing: frozenset[int]
    categorical: frozenset[int]


def read_booster(booster: Any) -> Booster:  # noqa: ANN401  # lightgbm publishes no types
    """Reads a ``lightgbm.Booster`` up to its best iteration, as its ``predict`` does.

    Raises:
        ModelError: linear trees, or a feature whose zeros are missing in some trees only.
    """
    head, *texts = re.split(r"^Tree=\d+$", booster.model_to_string(), flags=re.MULTILINE)
    header = _entries(head)
    targets = int(header["num_tree_per_iteration"])
    sections = [_entries(text.partition("end of trees")[0]) for text in texts]
    if any(section.get("is_linear") == "1" for section in sections):
        raise ModelError("LightGBM's linear trees have no ONNX operator", hint="engine pyfunc serves them")
    kinds = _missing_kinds(sections)
    return Booster(
        objective=tuple(header.get("objective", "custom").split()),
        targets=targets,
        averages="average_output" in head.splitlines(),
        trees=tuple(_tree(section, index % targets) for index, section in enumerate(sections)),
        zero_is_missing=frozenset(feature for feature, kind in kinds if kind == MISSING_ZERO),
        categorical=frozenset(_categorical(sections)),
    )


def _entries(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _numbers(section: Mapping[str, str], key: str, dtype: Any = np.int64) -> np.ndarray[Any, Any]:  # noqa: ANN401
    return np.array(section.get(key, "").split(), dtype=dtype)


def _decisions(section: Mapping[str, str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return _numbers(section, "split_feature"), _numbers(section, "decision_type")


def _missing_kinds(sections: list[dict[str, str]]) -> set[tuple[int, int]]:
    """(feature, what is missing) of all numeric splits."""
    kinds: set[tuple[int, int]] = set()
    for section in sections:
        features, decisions = _decisions(section)
        numeric = (decisions & CATEGORICAL) == 0
        kinds |= set(zip(features[numeric].tolist(), (decisions[numeric] >> 2).tolist(), strict=True))
    zeros = {feature for feature, kind in kinds if kind == MISSING_ZERO}
    mixed = sorted(feature for feature, kind in kinds if feature in zeros and kind != MISSING_ZERO)
    if mixed:
        raise ModelError(
            "zeros of a LightGBM feature are missing values in some trees and zeros in others",
            found=f"feature {mixed[0]}",
            hint="engine pyfunc serves it",
        )
    return kinds


def _categorical(sections: list[dict[str, str]]) -> set[int]:
    found: set[int] = set()
    for section in sections:
        features, decisions = _decisions(section)
        found |= set(features[(decisions & CATEGORICAL) != 0].tolist())
    return found


def _tree(section: Mapping[str, str], target: int) -> Tree:
    features, decisions = _decisions(section)
    thresholds = _numbers(section, "threshold", np.float64)
    is_category = (decisions & CATEGORICAL) != 0
    default_left = (decisions & DEFAULT_LEFT) != 0
    # NaN counts as 0 where nothing is missing; as a category it is in no set.
    missing = np.where(decisions >> 2 == MISSING_NONE, thresholds >= 0, default_left) & ~is_category
    sets = _category_sets(section)
    return Tree(
        target=target,
        feature=features,
        threshold=np.where(is_category, 0.0, _around_zero(thresholds)),
        mode=np.where(is_category, MEMBER, AT_MOST),
        missing=missing,
        yes=_numbers(section, "left_child"),
        no=_numbers(section, "right_child"),
        leaves=_numbers(section, "leaf_value", np.float64),
        members={int(split): sets[int(thresholds[split])] for split in np.flatnonzero(is_category)},
    )


def _around_zero(thresholds: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Thresholds for rows whose values near zero were not made zero."""
    above_zero = np.where((thresholds >= 0) & (thresholds < ZERO), ZERO, thresholds)
    return np.where((thresholds < 0) & (thresholds >= -ZERO), np.nextafter(-ZERO, -np.inf), above_zero)


def _category_sets(section: Mapping[str, str]) -> list[list[int]]:
    bounds = _numbers(section, "cat_boundaries")
    words = _numbers(section, "cat_threshold", np.uint32)
    sets = []
    for start, stop in itertools.pairwise(bounds):
        bits = np.unpackbits(words[start:stop].astype("<u4").view(np.uint8), bitorder="little")
        sets.append(np.flatnonzero(bits).tolist())
    return sets


def append_lightgbm(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401  # any of its classes
    """Adds a LightGBM model, a booster or of the scikit-learn API.

    Args:
        graph: gets the operators.
        model: the model.
        features: what it is given.
        method: ``predict`` or ``predict_proba``.

    Returns:
        The output's name: float64 scores, or positions of labels for a classifier's ``predict``.

    Raises:
        ModelError: the model has something that cannot be expressed.
    """
    read = read_booster(getattr(model, "booster_", model))
    is_classifier = hasattr(model, "classes_")
    if is_classifier and callable(model.objective):
        raise ModelError("a LightGBM classifier with an objective of its own has no link", hint="use engine pyfunc")
    prepared = _prepared(graph, graph.cast(features, FLOAT64), read)
    sums = tree_sums(graph, prepared, read.trees, read.targets)
    if read.averages:
        count = np.array([len(read.trees) // read.targets], np.float64)
        sums = replace(sums, name=graph.op("Div", sums.name, graph.constant(count)))
    scores = _objective(graph, sums, read.objective)
    if not is_classifier:
        return scores.name
    if scores.width == 1:
        if method == "predict":
            return above(graph, scores, 0.5)  # the first of two equal probabilities wins
        scores = both_classes(graph, scores)
    return most_probable(graph, scores) if method == "predict" else scores.name


def _prepared(graph: Graph, features: Matrix, read: Booster) -> Matrix:
    """Zeros that are missing as NaN, and categories cut to whole numbers."""
    name = features.name
    if read.zero_is_missing:
        near = graph.op("LessOrEqual", graph.op("Abs", name), graph.constant(np.array([ZERO])))
        near = graph.op("And", near, graph.constant(_mask(features.width, read.zero_is_missing)))
        name = graph.op("Where", near, graph.constant(np.array([np.nan])), name)
    if read.categorical:
        whole = graph.op("Mul", graph.op("Sign", name), graph.op("Floor", graph.op("Abs", name)))
        name = graph.op("Where", graph.constant(_mask(features.width, read.categorical)), whole, name)
    return replace(features, name=name)


def _mask(width: int, chosen: frozenset[int]) -> np.ndarray[Any, Any]:
    return np.array([[index in chosen for index in range(width)]])


def _objective(graph: Graph, sums: Matrix, objective: tuple[str, ...]) -> Matrix:
    kind, *words = objective
    options = dict(word.split(":", 1) for word in words if ":" in word)
    if kind == "regression" and "sqrt" in words:
        square = graph.op("Mul", sums.name, graph.op("Abs", sums.name))
        return replace(sums, name=square)
    if kind == "regression" or kind in PLAIN:
        return sums
    if kind in EXPONENTIAL:
        return linked(graph, sums, "exp")
    if kind == "multiclass":
        return linked(graph, sums, "softmax")
    if kind == "cross_entropy":
        return linked(graph, sums, "sigmoid")
    if kind in ("binary", "multiclassova"):
        steep = graph.op("Mul", sums.name, graph.constant(np.array([float(options.get("sigmoid", 1))])))
        return linked(graph, replace(sums, name=steep), "sigmoid")
    raise ModelError(f"LightGBM's objective {kind} is not converted to ONNX", hint="engine pyfunc serves it")
