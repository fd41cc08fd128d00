"""scikit-learn's trees, forests and gradient boosters.

Trees, forests and the older boosters cast rows to float32 and compare them with double thresholds; histogram
boosters compare doubles. Leaves are added in doubles, tree by tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batchscore.engines.trees.builder import Rules, Tree, forest_of
from batchscore.engines.trees.forest import LEAF, Doubles, Forest, at_most
from batchscore.engines.trees.scores import Decision, Form, Link, Scores, labels
from batchscore.errors import ModelError

SINGLE = ("DecisionTree", "ExtraTree")
FORESTS = ("RandomForest", "ExtraTrees")
BOOSTERS = ("GradientBoosting",)
HISTOGRAMS = ("HistGradientBoosting",)
KINDS = tuple(
    family + role for family in SINGLE + FORESTS + BOOSTERS + HISTOGRAMS for role in ("Classifier", "Regressor")
)
CONSTANT = ("DummyClassifier", "DummyRegressor")


def read_estimator(estimator: Any) -> Forest:  # noqa: ANN401  # sklearn publishes no types
    """The forest of one of :data:`KINDS`.

    Raises:
        ModelError: several targets, categorical features, or a booster that begins with another model.
    """
    family = _family(estimator)
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise ModelError("the tree engines take models of one target", found=f"{estimator.n_outputs_} targets")
    if family in HISTOGRAMS:
        return _histogram(estimator)
    if family in BOOSTERS:
        return _booster(estimator)
    members = estimator.estimators_ if family in FORESTS else [estimator]
    trees = [_tree(member.tree_, 1.0, 0) for member in members]
    width = trees[0].values.shape[1]
    return forest_of(trees, _rules(estimator, np.zeros(width), len(members)))


def scores_of(estimator: Any, method: str) -> Scores:  # noqa: ANN401
    """What the estimator's method makes of its sums.

    Raises:
        ModelError: a method or loss that is not known here.
    """
    family, kind = _family(estimator), type(estimator).__name__
    if kind.endswith("Regressor"):
        if method != "predict":
            raise ModelError(f"the tree engines do not know {kind}.{method}", allowed=("predict",))
        return Scores(_inverse(estimator) if family in HISTOGRAMS else "identity", "vector", by_numpy=True)
    if method not in {"predict", "predict_proba"}:
        raise ModelError(f"the tree engines do not know {kind}.{method}", allowed=("predict", "predict_proba"))
    known = labels(estimator.classes_)
    if family in SINGLE + FORESTS:
        form: Form = "label" if method == "predict" else "matrix"
        return Scores("identity", form, decision="argmax" if form == "label" else "", classes=known)
    sums = estimator.n_trees_per_iteration_
    if method == "predict":
        binary: Decision = "above_zero" if family in HISTOGRAMS else "from_zero"
        return Scores("identity", "label", decision=binary if sums == 1 else "argmax", classes=known)
    scale = 2.0 if type(estimator._loss).__name__ == "ExponentialLoss" else 1.0  # the fitted loss
    if sums == 1:
        return Scores("sigmoid", "pair", scale=scale, classes=known)
    return Scores("softmax", "matrix", classes=known, by_numpy=True)


def _family(estimator: Any) -> str:  # noqa: ANN401
    return type(estimator).__name__.removesuffix("Classifier").removesuffix("Regressor")


def _rules(estimator: Any, base: Doubles, divisor: int = 1) -> Rules:  # noqa: ANN401
    from sklearn.utils import get_tags  # noqa: PLC0415  # loaded with the model

    return Rules(
        features=estimator.n_features_in_,
        compare="float32",
        sums="float64",
        base=base,
        divisor=divisor,
        allow_nan=bool(get_tags(estimator).input_tags.allow_nan),
        allow_inf=False,
    )


def _tree(tree: Any, scale: float, target: int) -> Tree:  # noqa: ANN401
    left = np.asarray(tree.children_left, np.int64)
    missing = getattr(tree, "missing_go_to_left", None)
    return Tree(
        feature=np.where(left < 0, LEAF, tree.feature),
        threshold=at_most(np.asarray(tree.threshold, np.float64)).astype(np.float64),
        left=left,
        right=np.asarray(tree.children_right, np.int64),
        default_left=np.zeros(len(left), np.bool_) if missing is None else np.asarray(missing, np.bool_),
        values=scale * np.asarray(tree.value, np.float64)[:, 0, :],
        target=target,
        rule=np.zeros(len(left)),
    )


def _booster(estimator: Any) -> Forest:  # noqa: ANN401
    init = estimator.init_
    if init != "zero" and type(init).__name__ not in CONSTANT:
        raise ModelError("the model begins with another model, which no tree engine takes", found=type(init).__name__)
    row = np.zeros((1, estimator.n_features_in_), np.float32)
    base = estimator._raw_predict_init(row)[0]  # a prior of the classes: only it knows the loss
    trees = [
        _tree(member.tree_, estimator.learning_rate, target)
        for stage in estimator.estimators_
        for target, member in enumerate(stage)
    ]
    return forest_of(trees, _rules(estimator, base))


def _histogram(estimator: Any) -> Forest:  # noqa: ANN401
    if estimator.is_categorical_ is not None and np.any(estimator.is_categorical_):
        raise ModelError("the model has categorical features, whose codes its own encoder makes")
    trees = [
        _predictor(predictor.nodes, target)
        for stage in estimator._predictors  # there is no public name for them
        for target, predictor in enumerate(stage)
    ]
    if not trees:
        raise ModelError("the model has no trees")
    base = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)
    return forest_of(trees, Rules(estimator.n_features_in_, "float64", "float64", base))


def _predictor(nodes: Any, target: int) -> Tree:  # noqa: ANN401
    leaf = nodes["is_leaf"].astype(np.bool_)
    return Tree(
        feature=np.where(leaf, LEAF, nodes["feature_idx"]),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        default_left=nodes["missing_go_to_left"].astype(np.bool_),
        values=nodes["value"].astype(np.float64).reshape(-1, 1),
        target=target,
        rule=np.zeros(len(leaf)),
    )


def _inverse(estimator: Any) -> Link:  # noqa: ANN401
    link = type(estimator._loss.link).__name__  # the fitted loss
    known: dict[str, Link] = {"IdentityLink": "identity", "LogLink": "exp"}
    if link not in known:
        raise ModelError("the tree engines do not know how this model scores", found=link, allowed=tuple(known))
    return known[link]
