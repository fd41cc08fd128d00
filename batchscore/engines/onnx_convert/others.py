"""Steps that skl2onnx converts: all but trees, encoders, imputers and scalers."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.engines.onnx_convert.graph import FLOAT32, FLOAT64, OPSET, Graph, Matrix
from batchscore.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto

# TreeEnsemble of version 5 takes the place of those that skl2onnx writes.
WRITTEN_ML = 3


def append_transformer(graph: Graph, step: Any, features: Matrix) -> Matrix:  # noqa: ANN401  # any transformer
    """Adds a transformer of numbers.

    Raises:
        ModelError: skl2onnx does not know it, or what it makes of it has another type than scikit-learn's.
    """
    expected = _asked(step, "transform", features)
    model = _converted(step, features)
    dtype, width = _declared(model, 0)
    name = graph.include(model, {"X": features.name})[0]
    if hasattr(expected, "toarray") or features.sparse:
        raise ModelError(f"{_kind(step)} gives sparse matrices, which are not converted to ONNX")
    made = Matrix(name, dtype, width or expected.shape[1], None if features.sparse is None else False)
    return graph.cast(made, np.dtype(expected.dtype))


def append_estimator(graph: Graph, model: Any, features: Matrix, method: str) -> str:  # noqa: ANN401  # any estimator
    """Adds a last step that is not of trees.

    Returns:
        The output's name: float64 scores, or positions of labels for a classifier's ``predict``.

    Raises:
        ModelError: skl2onnx does not know the estimator.
    """
    from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415  # of no use to workers

    if not (is_classifier(model) or is_regressor(model)):
        raise ModelError(f"{_kind(model)} is neither a classifier nor a regressor", hint="use engine pyfunc")
    if is_classifier(model):
        model = _with_positions(model)
    # Weights are doubles, and so are products of floats with them.
    features = features if _has_float_weights(model) else graph.cast(features, FLOAT64)
    names = graph.include(_converted(model, features), {"X": features.name})
    if not is_classifier(model):
        return names[0]
    return graph.op("Reshape", names[0], graph.constant(np.array([-1]))) if method == "predict" else names[1]


def _with_positions(model: Any) -> Any:  # noqa: ANN401
    """A copy whose labels are their positions, so that no text leaves the graph."""
    if isinstance(model.classes_, list):
        raise ModelError(f"{_kind(model)} with several outputs is not converted to ONNX", hint="use engine pyfunc")
    model = copy.copy(model)
    try:
        model.classes_ = np.arange(len(model.classes_))
    except AttributeError as error:
        raise ModelError(f"the labels of {_kind(model)} cannot be read", found=error, hint="use engine pyfunc") from error
    return model


def _has_float_weights(model: Any) -> bool:  # noqa: ANN401
    weights = getattr(model, "coefs_", None) or [getattr(model, "coef_", np.zeros(1))]
    return all(np.asarray(weight).dtype == FLOAT32 for weight in weights)


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
    options = {id(step): {"zipmap": False}} if hasattr(step, "predict_proba") else None
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
            hint="engine pyfunc serves it",
        ) from error


def _declared(model: ModelProto, index: int) -> tuple[np.dtype[Any], int]:
    """Type and width of an output; width 0 where it is not declared."""
    from onnx import helper  # noqa: PLC0415  # as above

    kind = model.graph.output[index].type.tensor_type
    dimensions = kind.shape.dim
    return np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), dimensions[-1].dim_value if dimensions else 0


def _kind(step: Any) -> str:  # noqa: ANN401
    return type(step).__name__
