"""Steps that skl2onnx converts: linear models, networks and projections."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.engines.onnx_convert.graph import FLOAT32, FLOAT64, OPSET, Dtype, Graph, Matrix
from batchscore.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto

# TreeEnsemble of version 5 takes the place of those that skl2onnx writes.
WRITTEN_ML = 3


# Those of which skl2onnx makes graphs of doubles that give scikit-learn's scores; of the others it does not (a label of
# KNeighborsClassifier, GaussianNB or BaggingClassifier flips, SVC and AdaBoostClassifier do not load).
TRANSFORMERS = ("PCA", "TruncatedSVD", "Normalizer")
REGRESSORS = (
    "LinearRegression",
    *("Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "Lars", "LassoLars", "BayesianRidge"),
    *("HuberRegressor", "SGDRegressor", "PoissonRegressor", "GammaRegressor", "MLPRegressor"),
)
CLASSIFIERS = ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "MLPClassifier")
# They have no probabilities, which is how skl2onnx must be told.
SCORED = ("RidgeClassifier", "RidgeClassifierCV", "LinearSVC")

HINT = "engine pyfunc serves it"


def append_transformer(graph: Graph, step: Any, features: Matrix) -> Matrix:  # noqa: ANN401  # any transformer
    """Adds a transformer of numbers.

    Raises:
        ModelError: its graph would not give scikit-learn's values.
    """
    _check(step, TRANSFORMERS)
    if features.sparse:
        raise ModelError(f"{_kind(step)} on a sparse matrix is not converted to ONNX", hint=HINT)
    expected = _asked(step, "transform", features)
    wide = graph.cast(features, FLOAT64)
    name = graph.include(_converted(step, wide), {"X": wide.name})[0]
    made = Matrix(name, FLOAT64, expected.shape[1], rounded=True)
    return graph.cast(made, np.dtype(expected.dtype))


def append_estimator(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401  # any estimator
    """Adds a last step that is not of trees.

    Returns:
        The output's name: scores, or positions of labels for a classifier's ``predict``.

    Raises:
        ModelError: its graph would not give scikit-learn's scores.
    """
    _check(model, (*REGRESSORS, *CLASSIFIERS, *SCORED))
    if _kind(model) in REGRESSORS:
        wide = graph.cast(features, _weights(model))
        return graph.include(_converted(model, wide), {"X": wide.name})[0]
    model = _with_positions(model)
    wide = graph.cast(features, _weights(model))
    label, probabilities = graph.include(_converted(model, wide), {"X": wide.name})[:2]
    return graph.op("Reshape", label, graph.constant(np.array([-1]))) if method == "predict" else probabilities


def _check(step: Any, known: Sequence[str]) -> None:  # noqa: ANN401
    if not type(step).__module__.startswith("sklearn.") or _kind(step) not in known:
        raise ModelError(f"{_kind(step)} is not converted to ONNX", allowed=known, hint=HINT)


def _with_positions(model: Any) -> Any:  # noqa: ANN401
    """A copy whose labels are their positions, so that no text leaves the graph."""
    if isinstance(model.classes_, list):
        raise ModelError(f"{_kind(model)} with several outputs is not converted to ONNX", hint=HINT)
    model = copy.copy(model)
    try:
        model.classes_ = np.arange(len(model.classes_))
    except AttributeError as error:
        raise ModelError(f"the labels of {_kind(model)} cannot be read", found=error, hint=HINT) from error
    return model


def _weights(model: Any) -> Dtype:  # noqa: ANN401
    """The type to compute in: that of a network's weights, else doubles."""
    layers = getattr(model, "coefs_", [])
    return FLOAT32 if layers and all(layer.dtype == FLOAT32 for layer in layers) else FLOAT64


def _asked(step: Any, method: str, features: Matrix) -> Any:  # noqa: ANN401
    """What a step makes of a row of zeros of the type that it gets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # columns without names: as asked
        return getattr(step, method)(np.zeros((1, features.width), features.dtype))


def result_dtype(model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401
    """The numpy type of what a scikit-learn estimator returns."""
    return str(np.asarray(_asked(model, method, features)).dtype)


def _converted(step: Any, features: Matrix) -> ModelProto:  # noqa: ANN401
    from skl2onnx import convert_sklearn  # noqa: PLC0415  # of no use to workers
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType  # noqa: PLC0415  # as above

    kind = DoubleTensorType if features.dtype == FLOAT64 else FloatTensorType
    options = {id(step): {"raw_scores": True}} if _kind(step) in SCORED else None
    if _kind(step) in CLASSIFIERS:
        options = {id(step): {"zipmap": False}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return convert_sklearn(  # type: ignore[no-any-return]  # skl2onnx publishes no types
                step,
                initial_types=[("X", kind([None, features.width]))],
                options=options,
                target_opset={"": OPSET, "ai.onnx.ml": WRITTEN_ML},
            )
    except Exception as error:  # skl2onnx's own errors share no base class
        raise ModelError(
            f"{_kind(step)} cannot be converted to ONNX",
            found=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            hint=HINT,
        ) from error


def _kind(step: Any) -> str:  # noqa: ANN401
    return type(step).__name__
