"""XGBoost's trees, read from its JSON model. XGBoost rounds values to float, compares with < and adds up floats."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from batchscore.engines.onnx_convert.ensemble import (
    BELOW,
    MEMBER,
    Tree,
    above,
    both_classes,
    constant_tree,
    in_float,
    linked,
    most_probable,
    tree_sums,
)
from batchscore.engines.onnx_convert.graph import FLOAT32, Graph, Matrix
from batchscore.errors import ModelError

LOGISTIC = ("binary:logistic", "reg:logistic")
EXPONENTIAL = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
PLAIN = (
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "binary:logitraw",
    "binary:hinge",
    "rank:ndcg",
    "rank:map",
    "rank:pairwise",
    "multi:softprob",
    "multi:softmax",
)
HINT = "engine pyfunc serves it"


def append_xgboost(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401  # no types
    """Adds an XGBoost model, a booster or of the scikit-learn API.

    Args:
        graph: gets the operators.
        model: the model.
        features: what it is given; of a sparse matrix it takes zeros as missing.
        method: ``predict`` or ``predict_proba``.

    Returns:
        The output's name: float32 scores, or positions of labels for a classifier's ``predict``.

    Raises:
        ModelError: the model has something that cannot be expressed.
    """
    is_classifier = hasattr(model, "classes_")
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    if not math.isnan(getattr(model, "missing", np.nan)):
        raise ModelError("an XGBoost model with a missing value of its own is not converted", hint=HINT)
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    if objective not in (*LOGISTIC, *EXPONENTIAL, *PLAIN) or (is_classifier and objective == "multi:softmax"):
        raise ModelError(f"XGBoost's objective {objective} is not converted to ONNX", hint=HINT)
    base = _base_margins(learner, objective)
    trees = [constant_tree(target, float(value)) for target, value in enumerate(base)]
    trees += _trees(learner["gradient_booster"], model)
    sums = tree_sums(graph, in_float(graph, _with_missing(graph, features)), trees, len(base))
    return _objective(graph, sums, objective, method if is_classifier else "")


def _base_margins(learner: Mapping[str, Any], objective: str) -> np.ndarray[Any, Any]:
    """What the sums begin with, one per target; the file has it as a score."""
    sizes = learner["learner_model_param"]
    base = np.atleast_1d(np.array(json.loads(sizes["base_score"]), np.float32))
    if objective in LOGISTIC:
        base = -np.log(np.float32(1) / base - np.float32(1))
    elif objective in EXPONENTIAL:
        base = np.log(base)
    targets = max(int(sizes["num_class"]), int(sizes["num_target"]), 1)
    return np.broadcast_to(base, (targets,))


def _trees(boosted: Mapping[str, Any], model: Any) -> list[Tree]:  # noqa: ANN401
    weights: Sequence[float] | None = None
    if boosted["name"] == "dart":
        weights, boosted = boosted["weight_drop"], boosted["gbtree"]
    elif boosted["name"] != "gbtree":
        raise ModelError(f"XGBoost's booster {boosted['name']} has no trees to convert", hint=HINT)
    document = boosted["model"]
    count = len(document["trees"])
    # Only the scikit-learn API stops at the best iteration by itself.
    if hasattr(model, "get_booster") and model.get_booster().attr("best_iteration") is not None:
        count = document["iteration_indptr"][int(model.best_iteration) + 1]
    trees = []
    for index, (tree, target) in enumerate(zip(document["trees"][:count], document["tree_info"], strict=False)):
        if tree["tree_param"]["size_leaf_vector"] not in ("0", "1"):
            raise ModelError("an XGBoost tree with several outputs is not converted to ONNX", hint=HINT)
        trees.append(_tree(tree, target, 1.0 if weights is None else weights[index]))
    return trees


def _tree(document: Mapping[str, Any], target: int, weight: float) -> Tree:
    left = np.array(document["left_children"])
    right = np.array(document["right_children"])
    is_split = left >= 0
    at = np.where(is_split, np.cumsum(is_split) - 1, ~(np.cumsum(~is_split) - 1))
    conditions = np.array(document["split_conditions"], np.float32)
    chosen = np.flatnonzero(is_split)
    is_category = np.array(document["split_type"])[chosen] == 1
    yes, no = at[left[chosen]], at[right[chosen]]
    default_left = np.array(document["default_left"], bool)[chosen]
    sets = _category_sets(document)
    return Tree(
        target=target,
        feature=np.array(document["split_indices"])[chosen],
        threshold=np.where(is_category, 0, conditions[chosen]),
        mode=np.where(is_category, MEMBER, BELOW),
        # The categories of a set go to the right.
        missing=np.where(is_category, ~default_left, default_left),
        yes=np.where(is_category, no, yes),
        no=np.where(is_category, yes, no),
        leaves=conditions[~is_split] * np.float32(weight),
        members={split: sets[int(node)] for split, node in enumerate(chosen) if is_category[split]},
    )


def _category_sets(document: Mapping[str, Any]) -> dict[int, list[int]]:
    segments = zip(
        document["categories_nodes"], document["categories_segments"], document["categories_sizes"], strict=True
    )
    return {node: document["categories"][start : start + size] for node, start, size in segments}


def _with_missing(graph: Graph, features: Matrix) -> Matrix:
    """Of a sparse matrix, XGBoost takes what is not stored as missing."""
    if not features.sparse:
        return features
    is_zero = graph.op("Equal", features.name, graph.constant(np.zeros(1, features.dtype)))
    nan = graph.constant(np.array([np.nan], features.dtype))
    return Matrix(graph.op("Where", is_zero, nan, features.name), features.dtype, features.width)


def _objective(graph: Graph, sums: Matrix, objective: str, method: str) -> str:
    """The scores; ``method`` is '' for what is not a classifier."""
    if objective in ("binary:hinge", "binary:logitraw") and method:
        raise ModelError(f"an XGBoost classifier with objective {objective} is not converted to ONNX", hint=HINT)
    if objective == "binary:hinge":
        return graph.cast(Matrix(above(graph, sums, 0.0), np.dtype(np.int64), 1), FLOAT32).name
    if objective == "multi:softmax":
        return graph.cast(Matrix(most_probable(graph, sums), np.dtype(np.int64), 1), FLOAT32).name
    if objective == "multi:softprob":
        scores = linked(graph, sums, "softmax")
    elif objective in LOGISTIC:
        scores = linked(graph, sums, "sigmoid")
    else:
        return linked(graph, sums, "exp").name if objective in EXPONENTIAL else sums.name
    if method and scores.width == 1:
        if method == "predict":
            return above(graph, scores, 0.5)
        scores = both_classes(graph, scores)
    return most_probable(graph, scores) if method == "predict" else scores.name
