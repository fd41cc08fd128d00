"""What each feature adds to the raw score of one row, by the model library's own SHAP values.

LightGBM (``pred_contrib``) and XGBoost (``pred_contribs``) compute TreeSHAP (Lundberg et al. 2020): the expected value
and the contributions add up to the raw score, which is checked here. scikit-learn and others give no such values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from batchscore.arrow.values import python_of
from batchscore.contracts import ModelFiles, ModelInput
from batchscore.engines.direct import NUMBERS, lightgbm_matrix, pin_threads
from batchscore.engines.frames import to_frame, to_tensor
from batchscore.engines.missing import missing_text
from batchscore.engines.unwrap import Unwrapped
from batchscore.errors import bounded

# LightGBM adds doubles; XGBoost's contributions and margins are floats, added up over all trees.
RELATIVE = {"lightgbm": 1e-9, "xgboost": 1e-4}
SCALES = {
    "binary": "log-odds",
    "cross_entropy": "log-odds",
    "multiclass": "logit of the class",
    "multiclassova": "log-odds of the class",
    "poisson": "logarithm",
    "gamma": "logarithm",
    "tweedie": "logarithm",
    "binary:logistic": "log-odds",
    "reg:logistic": "log-odds",
    "binary:logitraw": "log-odds",
    "multi:softprob": "logit of the class",
    "multi:softmax": "logit of the class",
    "count:poisson": "logarithm",
    "reg:gamma": "logarithm",
    "reg:tweedie": "logarithm",
}
Numbers: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature adds. ``value`` is the row's value as the table has it, or as the model's own steps made it."""

    feature: str
    value: object
    amount: float


@dataclass(frozen=True, slots=True)
class OutputContributions:
    """The contributions to one raw score, the largest first.

    Attributes:
        label: the class, '' where there is one score.
        expected: the score of an average row: what the contributions start from.
        raw: the library's own raw score of this row.
        items: one for each feature.
        adds_up: whether expected value and contributions are the raw score, but for rounding.
    """

    label: str
    expected: float
    raw: float
    items: tuple[Contribution, ...]
    adds_up: bool


@dataclass(frozen=True, slots=True)
class Contributions:
    """Contributions to each output; none, and why, where the model's library gives none.

    Attributes:
        library: ``lightgbm`` or ``xgboost``, or what the model is made of.
        scale: of what the raw score is, for example ``log-odds``.
        outputs: one, or one for each class.
        reason: why there are none, or ''.
    """

    library: str
    scale: str = ""
    outputs: tuple[OutputContributions, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Data:
    """What a booster takes of one row, and its features' names and values."""

    matrix: Any
    names: tuple[str, ...]
    values: tuple[object, ...]


def contributions(found: Unwrapped, files: ModelFiles, row: pa.RecordBatch) -> Contributions:
    """The contributions to the score of one row.

    Args:
        found: the estimator.
        files: the model.
        row: its inputs, as an engine takes them; a batch of one row.
    """
    steps, model = _taken_apart(found.estimator)
    library = type(model).__module__.partition(".")[0]
    if library not in RELATIVE:
        name = f"{library}.{type(model).__name__}"
        return Contributions(library, reason=f"{name}: {library or 'its library'} gives no contributions of features")
    pin_threads(model, 1)
    try:
        data = _data(steps, found, files, row)
        parts = _lightgbm(model, data) if library == "lightgbm" else _xgboost(model, data)
    except Exception as error:  # noqa: BLE001  # linear trees, objectives of one's own: the library says why not
        return Contributions(library, reason=bounded(f"{library} gave none: {type(error).__name__}: {error}"))
    return Contributions(library, parts.scale, _outputs(parts, data, _labels(model), RELATIVE[library]))


@dataclass(frozen=True, slots=True)
class _Parts:
    """Shapes: ``contributed`` (outputs, features + 1), the expected value last; ``raw`` (outputs,)."""

    contributed: Numbers
    raw: Numbers
    scale: str


def _taken_apart(estimator: Any) -> tuple[Any, Any]:  # noqa: ANN401  # any estimator
    """The steps of a scikit-learn pipeline before its last one, and that one; no steps for other estimators."""
    if type(estimator).__name__ == "Pipeline" and hasattr(estimator, "steps"):
        return estimator[:-1], estimator[-1]
    return None, estimator


def _data(steps: Any, found: Unwrapped, files: ModelFiles, row: pa.RecordBatch) -> _Data:  # noqa: ANN401
    if any(item.shape is not None for item in files.inputs):
        array = to_tensor(row.column(0), files.inputs[0])
        return _Data(array, _tensor_names(files.inputs[0], array.shape[-1]), tuple(array.reshape(-1).tolist()))
    names = tuple(item.name for item in files.inputs)
    values = tuple(python_of(column[0]) for column in row.columns)
    if steps is None and found.library == "lightgbm" and _is_plain(found, files):
        return _Data(lightgbm_matrix(row, files.inputs, found), names, values)
    frame = to_frame(row, files.inputs, found.categories, missing_text(found.estimator))
    if steps is None or not len(steps):
        return _Data(frame, names, values)
    return _transformed(steps, frame, dict(zip(names, values, strict=True)))


def _tensor_names(item: ModelInput, width: int) -> tuple[str, ...]:
    """The columns that feed a tensor, or its places where one column of arrays does."""
    if len(item.columns) == width:
        return item.columns
    name = (item.columns[0] if item.columns else item.name) or "input"
    return tuple(f"{name}[{index}]" for index in range(width))


def _is_plain(found: Unwrapped, files: ModelFiles) -> bool:
    return all(item.type in NUMBERS for item in files.inputs if item.name not in found.categories)


def _transformed(steps: Any, frame: Any, row: Mapping[str, object]) -> _Data:  # noqa: ANN401
    """The row as a pipeline's last step sees it; a feature that stands for one input keeps that one's value."""
    matrix = steps.transform(frame)
    width = matrix.shape[1]
    try:
        names = tuple(str(name) for name in steps.get_feature_names_out())
    except (AttributeError, ValueError):  # a step that does not say what it makes
        names = tuple(f"feature {index}" for index in range(width))
    made = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
    plain = tuple(name.rpartition("__")[2] for name in names)
    known = [name if plain.count(name) == 1 else "" for name in plain]
    values = tuple(row.get(name, number) for name, number in zip(known, made.reshape(-1).tolist(), strict=True))
    shown = tuple(name if name in row else full for name, full in zip(known, names, strict=True))
    return _Data(matrix, shown, values)


def _lightgbm(model: Any, data: _Data) -> _Parts:  # noqa: ANN401
    booster = getattr(model, "booster_", model)
    # Dense: for LightGBM a zero that is not stored is still a zero, and sparse rows give sparse contributions.
    matrix = data.matrix.toarray() if hasattr(data.matrix, "toarray") else data.matrix
    raw = np.asarray(booster.predict(matrix, raw_score=True, num_threads=1), np.float64).reshape(-1)
    found = np.asarray(booster.predict(matrix, pred_contrib=True, num_threads=1), np.float64)
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).partition(" ")[0]
    return _Parts(found.reshape(len(raw), -1), raw, SCALES.get(objective, ""))


def _xgboost(model: Any, data: _Data) -> _Parts:  # noqa: ANN401
    import xgboost  # noqa: PLC0415  # loaded with the model

    booster = model.get_booster() if hasattr(model, "get_booster") else model
    # scikit-learn's wrapper stops at the best iteration of an early stop, the booster itself does not.
    best = getattr(model, "best_iteration", None) if model is not booster else None
    used = (0, 0) if best is None else (0, int(best) + 1)
    # What counts as missing is the wrapper's to say, and the booster does not know it: `XGBClassifier(missing=-999)`.
    own = {} if model is booster else {name: getattr(model, name, None) for name in ("missing", "feature_types")}
    rows = xgboost.DMatrix(data.matrix, enable_categorical=True, **own)
    given: dict[str, Any] = {"iteration_range": used, "validate_features": False}
    raw = np.asarray(booster.predict(rows, output_margin=True, **given), np.float64).reshape(-1)
    found = np.asarray(booster.predict(rows, pred_contribs=True, **given), np.float64)
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    return _Parts(found.reshape(len(raw), -1), raw, SCALES.get(objective, ""))


def _labels(model: Any) -> Sequence[object]:  # noqa: ANN401
    classes = getattr(model, "classes_", None)
    return () if classes is None else list(classes)


def _outputs(parts: _Parts, data: _Data, labels: Sequence[object], relative: float) -> tuple[OutputContributions, ...]:
    several = len(parts.raw) > 1
    named = [str(labels[index]) if len(labels) == len(parts.raw) else str(index) for index in range(len(parts.raw))]
    return tuple(
        _output(row, float(raw), label if several else "", data, relative)
        for row, raw, label in zip(parts.contributed, parts.raw, named, strict=True)
    )


def _output(row: Numbers, raw: float, label: str, data: _Data, relative: float) -> OutputContributions:
    amounts, expected = row[:-1].tolist(), float(row[-1])
    items = [
        Contribution(name, value, amount) for name, value, amount in zip(data.names, data.values, amounts, strict=True)
    ]
    size = abs(raw) + abs(expected) + float(np.abs(row[:-1]).sum())
    adds_up = abs(float(row.sum()) - raw) <= relative * max(size, 1.0)
    ordered = sorted(items, key=lambda item: -abs(item.amount))
    return OutputContributions(label, expected, raw, tuple(ordered), adds_up)
