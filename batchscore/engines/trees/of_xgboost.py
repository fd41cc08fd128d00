"""XGBoost's boosters, read from their JSON.

How XGBoost 3 decides (``src/predictor/predict_fn.h``): rows are float32, ``x < t`` goes left, NaN the default way; a
category in a node's set goes right, any other one left. Leaves are added in float32, to the margin of the base score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.builder import Rules, Tree, forest_of
from batchscore.engines.trees.forest import LEAF, Doubles, Forest
from batchscore.engines.trees.scores import Link, Scores, labels
from batchscore.errors import ModelError

IDENTITY = (
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "binary:logitraw",
    "rank:pairwise",
    "rank:ndcg",
    "rank:map",
)
LOGISTIC = ("binary:logistic", "reg:logistic")
EXP = ("count:poisson", "reg:gamma", "reg:tweedie")
SOFTMAX = ("multi:softprob", "multi:softmax")


def read_booster(booster: Any, *, allow_inf: bool) -> Forest:  # noqa: ANN401  # xgboost publishes no types
    """The forest of a booster.

    Args:
        booster: ``xgboost.Booster``.
        allow_inf: whether it is asked in place, by a scikit-learn wrapper; a DMatrix refuses infinities.

    Raises:
        ModelError: not a plain tree booster with one value a leaf.
    """
    learner = json.loads(booster.save_raw(raw_format="json"))["learner"]
    name = learner["gradient_booster"]["name"]
    if name != "gbtree":
        raise ModelError("the tree engines do not know this booster of XGBoost", found=name, allowed=("gbtree",))
    model = learner["gradient_booster"]["model"]
    shape = learner["learner_model_param"]
    outputs = max(int(shape["num_class"]), int(shape.get("num_target", 1)), 1)
    if any(int(tree["tree_param"].get("size_leaf_vector", 1)) > 1 for tree in model["trees"]):
        raise ModelError("the model has leaves of several values (multi_output_tree), which no tree engine takes")
    trees = [_tree(tree, int(target)) for tree, target in zip(model["trees"], model["tree_info"], strict=True)]
    if not trees:
        raise ModelError("the model has no trees")
    base = _margins(json.loads(str(shape["base_score"])), str(learner["objective"]["name"]))
    rules = Rules(
        features=int(shape["num_feature"]),
        compare="float32",
        sums="float32",
        base=np.broadcast_to(base, (outputs,)),
        allow_inf=allow_inf,
    )
    return forest_of(trees, rules)


def booster_of(estimator: Any) -> Any:  # noqa: ANN401
    """The booster with the trees that the estimator's ``predict`` uses.

    Raises:
        ModelError: the estimator takes another value than NaN for missing.
    """
    if not hasattr(estimator, "get_booster"):
        return estimator
    missing = estimator.missing
    if missing is not None and not np.isnan(missing):
        raise ModelError("the model takes another value than NaN for missing", found=missing)
    booster = estimator.get_booster()
    try:
        return booster[: booster.best_iteration + 1]
    except AttributeError:  # trained without early stopping
        return booster


def scores_of(booster: Any, estimator: Any, method: str) -> Scores:  # noqa: ANN401
    """What the estimator's method makes of the booster's sums.

    Raises:
        ModelError: an objective or method that is not known here.
    """
    learner = json.loads(booster.save_config())["learner"]
    objective = str(learner["objective"]["name"])
    link = _link(objective)
    many = max(int(learner["learner_model_param"]["num_class"]), int(learner["learner_model_param"]["num_target"])) > 1
    kind = type(estimator).__name__
    if kind in {"XGBClassifier", "XGBRFClassifier"}:
        if objective not in (*SOFTMAX, "binary:logistic"):
            raise ModelError("the tree engines do not know how this classifier scores", found=f"objective {objective}")
        known = labels(estimator.classes_)
        if method == "predict":
            return Scores(link, "label", "float32", 1.0, "argmax" if many else "above_half", known, not many)
        return Scores(link, "matrix" if many else "pair", "float32", classes=known, epsilon=not many)
    if method != "predict":
        raise ModelError(f"the tree engines do not know {kind}.{method}", allowed=("predict",))
    if objective == "multi:softmax":
        classes = tuple(float(index) for index in range(int(learner["learner_model_param"]["num_class"])))
        return Scores("identity", "label", "float32", decision="argmax", classes=classes)
    return Scores(link, "matrix" if many else "vector", "float32", epsilon=link == "sigmoid")


def _link(objective: str) -> Link:
    known: dict[str, Link] = {
        **dict.fromkeys(IDENTITY, "identity"),
        **dict.fromkeys(LOGISTIC, "sigmoid"),
        **dict.fromkeys(EXP, "exp"),
        **dict.fromkeys(SOFTMAX, "softmax"),
    }
    if objective not in known:
        raise ModelError(
            "the tree engines do not know how this model scores", found=f"objective {objective}", allowed=tuple(known)
        )
    return known[objective]


def _margins(base_score: float | list[float], objective: str) -> Doubles:
    """The base score, which the file holds as a prediction, as sums."""
    scores = np.atleast_1d(np.asarray(base_score, np.float32))
    if objective in (*LOGISTIC, "binary:logitraw"):
        inverse = (np.float32(1) / scores - np.float32(1)).astype(np.float64)
        return (-np.log(inverse)).astype(np.float32).astype(np.float64)
    if objective in EXP:
        return np.log(scores.astype(np.float64)).astype(np.float32).astype(np.float64)
    return scores.astype(np.float64)


def _tree(tree: Mapping[str, Any], target: int) -> Tree:
    left = np.array(tree["left_children"], np.int64)
    right = np.array(tree["right_children"], np.int64)
    condition = np.array(tree["split_conditions"], np.float32)
    default_left = np.array(tree["default_left"], np.bool_)
    leaf = left < 0
    categories = _categories(tree)
    with np.errstate(over="ignore"):
        threshold = np.nextafter(condition, np.float32(-np.inf)).astype(np.float64)
    swapped = np.isin(np.arange(len(left)), list(categories))  # ours go left, XGBoost's right
    return Tree(
        feature=np.where(leaf, LEAF, np.array(tree["split_indices"], np.int64)),
        threshold=threshold,
        left=np.where(swapped, right, left),
        right=np.where(swapped, left, right),
        default_left=default_left ^ swapped,
        values=condition.astype(np.float64).reshape(-1, 1),
        target=target,
        rule=np.zeros(len(left)),
        categories=categories,
    )


def _categories(tree: Mapping[str, Any]) -> dict[int, npt.NDArray[np.int64]]:
    codes = np.array(tree.get("categories", []), np.int64)
    parts = zip(
        tree.get("categories_nodes", []),
        tree.get("categories_segments", []),
        tree.get("categories_sizes", []),
        strict=True,
    )
    return {int(node): codes[start : start + size] for node, start, size in parts}
