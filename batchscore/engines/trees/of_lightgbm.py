"""LightGBM's boosters, read from their text.

How LightGBM 4 decides (``include/LightGBM/tree.h``): a missing type of None takes NaN for zero; Zero sends zeros and
NaN the default way; NaN sends NaN the default way. A category that is not in a node's set, or missing, goes right.
Before all that its reader of dense rows makes zero of what is at most 1e-35 (as a float32) away from it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.builder import Rules, Tree, codes_of, forest_of
from batchscore.engines.trees.forest import (
    LEAF,
    TINY,
    TINY_IS_NAN,
    TINY_IS_ZERO,
    Doubles,
    Forest,
    above,
    at_most,
)
from batchscore.engines.trees.scores import Decision, Form, Link, Scores, labels
from batchscore.errors import ModelError

CATEGORICAL = 1
DEFAULT_LEFT = 2
MISSING_NONE, MISSING_ZERO = 0, 1

IDENTITY = (
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "quantile",
    "mape",
    "lambdarank",
    "rank_xendcg",
)
SIGMOID = ("binary", "cross_entropy", "multiclassova")
EXP = ("poisson", "gamma", "tweedie")
CLASSIFYING = ("binary", "multiclass", "multiclassova")

_THRESHOLDS = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_DECISIONS = re.compile(r"^decision_type=(.*)$", re.MULTILINE)
_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)


def read_text(text: str) -> Forest:
    """The forest of a booster's text.

    Raises:
        ModelError: it has linear leaves.
    """
    header, _, rest = text.partition("\nTree=")
    body = rest.partition("\nend of trees")[0]
    if "is_linear=1" in body:
        raise ModelError("the model has linear models in its leaves, which no tree engine takes")
    head = _fields(header)
    per_iteration = int(head["num_tree_per_iteration"])
    trees = [
        _tree(_fields(part), index % per_iteration) for index, part in enumerate(body.split("\nTree=") if body else [])
    ]
    if not trees:
        raise ModelError("the model has no trees")
    averaged = "\naverage_output" in header
    rules = Rules(
        features=int(head["max_feature_idx"]) + 1,
        compare="float64",
        sums="float64",
        base=np.zeros(per_iteration),
        divisor=len(trees) // per_iteration if averaged else 1,
    )
    return forest_of(trees, rules)


def rewritten(text: str, comparison: str) -> str:
    """A booster's text with float32 thresholds that decide on float32 rows as the double ones do.

    Converters round thresholds to the nearest float32, which moves some past values that rows can have. The text
    that this returns loads as a booster whose scores of float32 rows are the same bit for bit (for ``<=``).

    Args:
        text: ``booster.model_to_string()``.
        comparison: of the engine it is converted to: ``<=`` (the largest float32 not above the threshold) or ``<``
            (the smallest float32 above it).
    """
    if comparison not in {"<=", "<"}:
        raise ValueError(f"not a comparison: {comparison}")
    chosen = at_most if comparison == "<=" else above
    trees, end, rest = text.partition("\nend of trees")  # a feature's name may stand before a = in what follows
    decisions = iter(_DECISIONS.findall(trees))

    def replaced(match: re.Match[str]) -> str:
        thresholds, kinds = _doubles(match.group(1)), _integers(next(decisions))
        numeric = kinds & CATEGORICAL == 0
        narrow = chosen(thresholds).astype(np.float64)
        texts = [repr(float(value)) for value in np.where(numeric, narrow, thresholds)]
        return "threshold=" + " ".join(_whole(one) for one in texts)

    # LightGBM cuts the text by these sizes where they are given; without them it looks for the trees itself.
    return _SIZES.sub("", _THRESHOLDS.sub(replaced, trees), count=1) + end + rest


def scores_of(booster: Any, estimator: Any, method: str) -> Scores:  # noqa: ANN401  # lightgbm publishes no types
    """What the estimator's method makes of the booster's sums.

    Raises:
        ModelError: an objective or method that is not known here.
    """
    header = booster.model_to_string(num_iteration=1).partition("\nTree=")[0]
    objective, *settings = _fields(header).get("objective", "custom").split()
    link, scale = _link(objective, settings)
    classes = booster.num_model_per_iteration()
    kind = type(estimator).__name__
    if kind == "LGBMClassifier":
        if objective not in CLASSIFYING:
            raise ModelError("the tree engines do not know how this classifier scores", found=f"objective {objective}")
        form: Form = "label" if method == "predict" else "pair" if classes == 1 else "matrix"
        decision: Decision = "" if form != "label" else "above_half" if classes == 1 else "argmax"
        return Scores(link, form, scale=scale, decision=decision, classes=labels(estimator.classes_))
    if method != "predict":
        raise ModelError(f"the tree engines do not know {kind}.{method}", allowed=("predict",))
    return Scores(link, "vector" if classes == 1 else "matrix", scale=scale)


def _link(objective: str, settings: list[str]) -> tuple[Link, float]:
    if objective in IDENTITY or objective == "custom":
        return ("signed_square" if "sqrt" in settings else "identity"), 1.0
    if objective in SIGMOID:
        given = [setting.partition(":")[2] for setting in settings if setting.startswith("sigmoid:")]
        return "sigmoid", float(given[0]) if given else 1.0
    if objective in EXP:
        return "exp", 1.0
    if objective == "multiclass":
        return "softmax", 1.0
    raise ModelError(
        "the tree engines do not know how this model scores",
        found=f"objective {objective}",
        allowed=(*IDENTITY, *SIGMOID, *EXP, "multiclass"),
    )


def _tree(fields: dict[str, str], target: int) -> Tree:
    values = _doubles(fields["leaf_value"])
    leaves = len(values)
    if leaves == 1:
        nothing = np.zeros(1)
        return Tree(np.array([LEAF]), nothing, nothing, nothing, nothing, values.reshape(1, 1), target, nothing)
    kinds, threshold = _integers(fields["decision_type"]), _doubles(fields["threshold"])
    inner = len(kinds)
    categorical, missing = kinds & CATEGORICAL != 0, kinds >> 2 & 3
    tail = np.zeros(leaves)
    leaf_values = np.concatenate([np.zeros(inner), values])
    return Tree(
        feature=np.concatenate([_integers(fields["split_feature"]), np.full(leaves, LEAF)]),
        threshold=np.concatenate([np.where(categorical, 0.0, threshold), tail]),
        left=np.concatenate([_children(fields["left_child"], inner), tail.astype(np.int64)]),
        right=np.concatenate([_children(fields["right_child"], inner), tail.astype(np.int64)]),
        default_left=np.concatenate([_default_left(kinds, threshold), tail]),
        values=leaf_values.reshape(-1, 1),
        target=target,
        rule=np.concatenate([_rule(categorical, missing, threshold), tail]).astype(np.int64),
        categories={int(node): _codes(fields, int(threshold[node])) for node in np.flatnonzero(categorical)},
    )


def _default_left(kinds: npt.NDArray[np.int64], threshold: Doubles) -> npt.NDArray[np.bool_]:
    stated = kinds & DEFAULT_LEFT != 0
    left = np.where(kinds >> 2 & 3 == MISSING_NONE, threshold >= 0.0, stated)
    return np.asarray(left & (kinds & CATEGORICAL == 0))


def _rule(categorical: npt.NDArray[np.bool_], missing: npt.NDArray[np.int64], threshold: Doubles) -> npt.NDArray[Any]:
    """Zero and what is taken for it part only at thresholds among them."""
    parting = (threshold >= -TINY) & (threshold < TINY)
    rule = np.where(missing == MISSING_ZERO, TINY_IS_NAN, np.where(parting, TINY_IS_ZERO, 0))
    return np.where(categorical, 0, rule)


def _codes(fields: dict[str, str], index: int) -> npt.NDArray[np.int64]:
    bounds = _integers(fields["cat_boundaries"])
    words = np.array(fields["cat_threshold"].split(), np.uint32)
    return codes_of(words[bounds[index] : bounds[index + 1]])


def _children(text: str, inner: int) -> npt.NDArray[np.int64]:
    """LightGBM numbers leaf k as -(k + 1)."""
    children = _integers(text)
    return np.where(children < 0, inner + ~children, children)


def _fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _doubles(text: str) -> Doubles:
    return np.array(text.split(), np.float64)


def _integers(text: str) -> npt.NDArray[np.int64]:
    return np.array(text.split(), np.int64)


def _whole(text: str) -> str:
    return text.removesuffix(".0")
