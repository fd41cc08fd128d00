"""From the sums of a forest to what the model's own method returns, and from there to the declared outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.arrow.values import array_of
from batchscore.contracts import ModelOutput
from batchscore.engines.arrays import batch_of
from batchscore.engines.trees.forest import Dtype
from batchscore.errors import ModelError

Link: TypeAlias = Literal["identity", "sigmoid", "softmax", "exp", "signed_square"]
Form: TypeAlias = Literal["vector", "matrix", "pair", "label"]
Decision: TypeAlias = Literal["", "above_half", "above_zero", "from_zero", "argmax"]
Sums: TypeAlias = npt.NDArray[np.float64]

RANK = 2
# The last bits of XGBoost's logistic function: its guard against overflow, and against a division by zero.
XGBOOST_LARGEST = np.float32(88.7)
XGBOOST_EPSILON = np.float32(1e-16)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model's method makes of its sums.

    Attributes:
        link: the function on the sums.
        form: ``vector`` (n,), ``matrix`` (n, K), ``pair`` (n, 2) of 1 - p and p, or ``label`` (n,).
        dtype: the library computes the link, and returns, in this type.
        scale: factor on a sum before a sigmoid.
        decision: how a label is chosen, of the linked values.
        classes: the labels, in the order of their codes.
        epsilon: whether the sigmoid is XGBoost's.
        by_numpy: the library computes the link with numpy, whose last bits are not always libm's.
    """

    link: Link
    form: Form
    dtype: Dtype = "float64"
    scale: float = 1.0
    decision: Decision = ""
    classes: tuple[Any, ...] = ()
    epsilon: bool = False
    by_numpy: bool = False

    def as_json(self) -> dict[str, Any]:
        """What :func:`from_json` reads."""
        return {**dataclasses.asdict(self), "classes": list(self.classes)}

    def linked(self, sums: Sums) -> npt.NDArray[Any]:
        """The link's values of (n, K) sums, in :attr:`dtype`, with numpy; last bits may differ from libm's."""
        values = sums.astype(self.dtype)
        with np.errstate(over="ignore"):
            if self.link == "sigmoid":
                return self._sigmoid(values)
            if self.link == "softmax":
                powers = np.exp(values - values.max(axis=1, keepdims=True))
                found: npt.NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
                return found
            if self.link == "exp":
                return np.asarray(np.exp(values))
        return values * np.abs(values) if self.link == "signed_square" else values

    def _sigmoid(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        one = values.dtype.type(1)
        if self.epsilon:
            return np.asarray(one / (np.exp(np.minimum(-values, XGBOOST_LARGEST)) + one + XGBOOST_EPSILON))
        return np.asarray(one / (one + np.exp(-values.dtype.type(self.scale) * values)))

    def columns(self, linked: npt.NDArray[Any]) -> list[Any]:
        """What the method returns, as arrays of a column each or one matrix.

        Args:
            linked: (n, K) values of the link.
        """
        if self.form == "label":
            return [_labels_array(self.classes).take(array_of(self._codes(linked), pa.int64()))]
        if self.form == "pair":
            return [np.stack([linked.dtype.type(1) - linked[:, 0], linked[:, 0]], axis=1)]
        return [linked if self.form == "matrix" else linked[:, 0]]

    def _codes(self, linked: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if self.decision == "argmax":
            return np.asarray(linked.argmax(axis=1), np.int64)
        first = linked[:, 0]
        if self.decision == "from_zero":
            return (first >= 0).astype(np.int64)
        return (first > (0.5 if self.decision == "above_half" else 0)).astype(np.int64)

    def close(self, sums: Sums, tolerance: float) -> npt.NDArray[np.bool_]:
        """(n,) rows whose most probable class may change when a sum changes by ``tolerance`` times its size."""
        size = np.maximum(np.abs(sums).max(axis=1), 1.0) * tolerance
        if sums.shape[1] > 1:
            top = np.partition(sums, -2, axis=1)[:, -2:]
            return np.asarray(top[:, 1] - top[:, 0] <= 2 * size)
        if self.decision or self.link == "sigmoid" or self.form == "pair":
            middle = 0.5 if self.link == "identity" and self.decision == "above_half" else 0.0
            return np.asarray(np.abs(sums[:, 0] - middle) <= size)
        return np.zeros(len(sums), np.bool_)


def from_json(stored: Mapping[str, Any]) -> Scores:
    """What :meth:`Scores.as_json` wrote."""
    return Scores(**{**stored, "classes": tuple(stored["classes"])})


def scored(scores: Scores, linked: npt.NDArray[Any], outputs: Sequence[ModelOutput], model: str) -> pa.RecordBatch:
    """The batch of the declared outputs, as MLflow's own result would become one.

    Args:
        scores: what the method returns.
        linked: (n, K) values of the link.
        outputs: the declared outputs, in order.
        model: name and version, for messages.

    Raises:
        ModelError: the values are not those that the model declares.
    """
    columns = scores.columns(linked)
    first = columns[0]
    if len(outputs) > 1:
        if not isinstance(first, np.ndarray) or first.ndim != RANK or first.shape[1] != len(outputs):
            width = first.shape[1] if isinstance(first, np.ndarray) and first.ndim == RANK else 1
            raise ModelError(
                f"model {model} returned other outputs than it declares",
                found=f"{width} columns",
                allowed=[f"{output.name} {output.type}" for output in outputs],
                hint="declare what the model returns: log it with its signature, or write signature.outputs",
            )
        columns = [first[:, index] for index in range(len(outputs))]
    return batch_of([_arrow(column) for column in columns], outputs, len(linked), model)


def _arrow(values: Any) -> Any:  # noqa: ANN401  # an array of either library
    """Values as Arrow takes them without a look at pandas; what does not fit is left to :func:`batch_of`."""
    if not isinstance(values, np.ndarray) or values.ndim > RANK:
        return values
    arrow = pa.float32() if values.dtype == np.float32 else pa.float64()
    if values.ndim == 1:
        return array_of(values, arrow)
    return pa.FixedSizeListArray.from_arrays(array_of(values.reshape(-1), arrow), values.shape[1])


def _labels_array(classes: tuple[Any, ...]) -> pa.Array:
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    return array_of(classes, kinds[type(classes[0])])


def labels(classes: Any) -> tuple[Any, ...]:  # noqa: ANN401  # an array or a list of labels
    """Class labels as plain values that JSON holds.

    Raises:
        ModelError: labels that are neither numbers, text nor booleans.
    """
    plain = tuple(np.asarray(classes).tolist())
    if not all(type(label) in (int, float, str, bool) for label in plain) or len({type(one) for one in plain}) > 1:
        raise ModelError("the model's class labels are neither numbers nor text", found=plain[:3])
    return plain
