"""Label and probability of one classifier side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from batchscore.engines.unwrap import Unwrapped

PROBABILITY = "probability"
BINARY = 2  # classes


def probability_type(found: Unwrapped) -> str | None:
    """The type of a classifier's probability: double, array<double> for more than two classes; None without one."""
    estimator = found.estimator
    classes = getattr(estimator, "classes_", None)
    if found.method not in ("predict", "predict_proba") or not hasattr(estimator, "predict_proba"):
        return None
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or len(classes) < BINARY or _custom(estimator):
        return None  # several labels a row, or an objective of the author's own, whose scores are no probabilities
    return "double" if len(classes) == BINARY else "array<double>"


def both(found: Unwrapped, call: Callable[[str], Callable[..., Any]]) -> Callable[..., tuple[Any, Any]]:
    """A function that gives what ``found.method`` gives, and the probability.

    Args:
        found: a classifier with a :func:`probability_type`.
        call: method name -> function of a batch.
    """
    proba = call("predict_proba")
    binary = len(found.estimator.classes_) == BINARY
    labels = _labels(found.estimator)
    predict = call("predict") if found.method == "predict" and labels is None else None

    def score(batch: Any) -> tuple[Any, Any]:  # noqa: ANN401  # whatever the caller takes
        matrix = np.asarray(proba(batch))
        probability = (matrix[:, 1] if binary else matrix).astype(np.float64)
        if found.method == "predict_proba":
            return matrix, probability
        return (labels(matrix) if labels is not None else predict(batch)), probability  # type: ignore[misc]  # one is set

    return score


def _custom(estimator: Any) -> bool:  # noqa: ANN401  # any classifier
    return callable(getattr(estimator, "objective_", getattr(estimator, "objective", None)))


def _labels(estimator: Any) -> Callable[[Any], Any] | None:  # noqa: ANN401
    """How ``predict`` makes labels of the probabilities, where it does nothing else; None: it must be called too.

    The rules are those of LightGBM's and XGBoost's own ``predict``. scikit-learn's linear models and boosters
    look at the sign of a score instead, which is not the same at a tie.
    """
    name = f"{type(estimator).__module__}.{type(estimator).__name__}"
    if name == "lightgbm.sklearn.LGBMClassifier":
        return lambda matrix: estimator.classes_[np.argmax(matrix, axis=1)]
    if name == "xgboost.sklearn.XGBClassifier" and estimator.objective == "binary:logistic":
        return lambda matrix: (matrix[:, 1] > 0.5).astype(np.int64)  # noqa: PLR2004  # XGBoost's own limit
    if name == "xgboost.sklearn.XGBClassifier" and estimator.objective == "multi:softprob":
        return lambda matrix: np.argmax(matrix, axis=1)
    return None
