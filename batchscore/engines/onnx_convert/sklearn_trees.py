"""scikit-learn's trees, forests and boosted trees, read from their fitted arrays.

Trees and forests round values to float and compare those with thresholds of doubles; histogram boosting compares
doubles. All of them add up doubles, from the first tree to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from batchscore.engines.onnx_convert.ensemble import (
    AT_MOST,
    Link,
    Tree,
    above,
    both_classes,
    constant_tree,
    in_float,
    linked,
    most_probable,
    tree_sums,
)
from batchscore.engines.onnx_convert.graph import FLOAT64, Graph, Matrix
from batchscore.errors import ModelError

HINT = "engine pyfunc serves it"

# By the names of the losses' links in scikit-learn.
LINKS: Mapping[str, Link] = {
    "IdentityLink": "identity",
    "LogLink": "exp",
    "LogitLink": "sigmoid",
    "MultinomialLogit": "softmax",
}


def _single(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401  # no types
    return _averaged(graph, [model], features, method)


def _forest(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401
    return _averaged(graph, model.estimators_, features, method)


def _averaged(graph: Graph, models: Sequence[Any], features: Matrix, method: str) -> str:
    """A forest's mean, or one tree's leaf; each class has trees of its own, because a leaf has one value here."""
    first = models[0]
    _check_outputs(first)
    is_classifier = hasattr(first, "classes_")
    # One class tells the other's probability, but not which one is the label when both are nearly the same.
    classes = range(first.n_classes_) if is_classifier else (0,)
    chosen = (1,) if is_classifier and first.n_classes_ == 2 and method == "predict_proba" else classes  # noqa: PLR2004
    trees = [
        _tree(model.tree_, target, model.tree_.value[:, 0, column])
        for model in models
        for target, column in enumerate(chosen)
    ]
    sums = tree_sums(graph, graph.cast(in_float(graph, features), FLOAT64), trees, len(chosen))
    count = graph.constant(np.array([len(models)], np.float64))
    mean = replace(sums, name=graph.op("Div", sums.name, count))
    if not is_classifier:
        return mean.name
    if len(classes) > len(chosen):
        return both_classes(graph, mean).name
    return most_probable(graph, mean) if method == "predict" else mean.name


def _gradient(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401
    """Gradient boosting of trees that each predict one number."""
    if model.init_ != "zero" and not type(model.init_).__name__.startswith("Dummy"):
        raise ModelError(f"{type(model).__name__} with a model of its own as init is not converted", hint=HINT)
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0]
    trees = [constant_tree(target, float(value)) for target, value in enumerate(base)]
    for stage in model.estimators_:
        trees += [
            _tree(one.tree_, target, model.learning_rate * one.tree_.value[:, 0, 0]) for target, one in enumerate(stage)
        ]
    raw = tree_sums(graph, graph.cast(in_float(graph, features), FLOAT64), trees, len(base))
    if not hasattr(model, "classes_"):
        return raw.name
    if method == "predict":
        # Zero is the second class here, but the first one in histogram boosting.
        return above(graph, raw, 0.0, or_equal=True) if raw.width == 1 else most_probable(graph, raw)
    if type(model._loss).__name__ == "ExponentialLoss":
        raw = replace(raw, name=graph.op("Mul", raw.name, graph.constant(np.array([2.0]))))
    return _probabilities(graph, raw)


def _histogram(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401
    """Histogram boosting."""
    if model.is_categorical_ is not None:
        raise ModelError(
            f"{type(model).__name__} with categorical features is not converted to ONNX",
            found=f"categorical_features={model.categorical_features!r}",
            hint="encode them one-hot, or use engine pyfunc",
        )
    trees = [constant_tree(target, float(value)) for target, value in enumerate(model._baseline_prediction[0])]
    for stage in model._predictors:
        trees += [_histogram_tree(one.nodes, target) for target, one in enumerate(stage)]
    raw = tree_sums(graph, graph.cast(features, FLOAT64), trees, model.n_trees_per_iteration_)
    if not hasattr(model, "classes_"):
        link = type(model._loss.link).__name__
        if link not in LINKS:
            raise ModelError(f"{type(model).__name__} with loss {model.loss} is not converted to ONNX", hint=HINT)
        return linked(graph, raw, LINKS[link]).name
    if method == "predict":
        return above(graph, raw, 0.0) if raw.width == 1 else most_probable(graph, raw)
    return _probabilities(graph, raw)


def _probabilities(graph: Graph, raw: Matrix) -> str:
    if raw.width == 1:
        return both_classes(graph, linked(graph, raw, "sigmoid")).name
    return linked(graph, raw, "softmax").name


def _tree(fitted: Any, target: int, values: np.ndarray[Any, Any]) -> Tree:  # noqa: ANN401
    """A ``sklearn.tree._tree.Tree`` with a value for each of its nodes."""
    is_split = fitted.children_left >= 0
    at = np.where(is_split, np.cumsum(is_split) - 1, ~(np.cumsum(~is_split) - 1))
    splits = int(is_split.sum())
    return Tree(
        target=target,
        feature=fitted.feature[is_split],
        threshold=fitted.threshold[is_split],
        mode=np.full(splits, AT_MOST),
        missing=fitted.missing_go_to_left[is_split].astype(bool),
        yes=at[fitted.children_left[is_split]],
        no=at[fitted.children_right[is_split]],
        leaves=values[~is_split],
        members={},
    )


def _histogram_tree(nodes: np.ndarray[Any, Any], target: int) -> Tree:
    is_split = nodes["is_leaf"] == 0
    at = np.where(is_split, np.cumsum(is_split) - 1, ~(np.cumsum(~is_split) - 1))
    splits = nodes[is_split]
    return Tree(
        target=target,
        feature=splits["feature_idx"].astype(np.int64),
        threshold=splits["num_threshold"],
        mode=np.full(len(splits), AT_MOST),
        missing=splits["missing_go_to_left"].astype(bool),
        yes=at[splits["left"].astype(np.int64)],
        no=at[splits["right"].astype(np.int64)],
        leaves=nodes["value"][~is_split],
        members={},
    )


def _check_outputs(model: Any) -> None:  # noqa: ANN401
    if model.n_outputs_ != 1:
        raise ModelError(f"{type(model).__name__} with several outputs is not converted to ONNX", hint=HINT)


Append = Callable[[Graph, Any, Matrix, str], str]

# By class name, for models whose class is scikit-learn's own.
TREES: Mapping[str, Append] = {
    **dict.fromkeys(("DecisionTree", "ExtraTree"), _single),
    **dict.fromkeys(("RandomForest", "ExtraTrees"), _forest),
    "GradientBoosting": _gradient,
    "HistGradientBoosting": _histogram,
}


def appender(model: Any) -> Append | None:  # noqa: ANN401
    """What adds the trees of a scikit-learn model to a graph, or None for a model that is not of trees.

    It takes the graph, the model, its features and the method, and returns the output's name: scores, or positions
    of labels for a classifier's ``predict``.
    """
    kind = type(model)
    if not kind.__module__.startswith("sklearn."):
        return None
    return TREES.get(kind.__name__.removesuffix("Classifier").removesuffix("Regressor"))
