"""Tree ensembles of any library in one form: arrays over all nodes, and what is done with a row before and after.

Every library's own way is brought to one here, without changing a decision:

* A numeric node sends a row left where ``x <= threshold``, in :attr:`Forest.compare`. XGBoost's ``x < t`` is
  ``x <= t'`` with the float32 just below ``t``.
* A categorical node sends a row left where the code is in its set.
* NaN goes where :attr:`Forest.default_left` says. Where LightGBM takes NaN for zero, that is zero's side.
* :attr:`Forest.rule` holds what a node does to its value first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from batchscore.errors import ModelError

Dtype: TypeAlias = Literal["float32", "float64"]
Doubles: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int32]

# LightGBM's kZeroThreshold: its reader of dense rows drops values this close to zero.
TINY = float(np.float32(1e-35))

# What a node does to its value first.
TINY_IS_ZERO = 1
TINY_IS_NAN = 2  # LightGBM's zero_as_missing

LEAF = -1


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """An ensemble of N nodes and T trees that gives K sums a row.

    Attributes:
        features: columns of the matrix.
        compare: the matrix is cast to this before anything else; float64 forests also take float32.
        sums: the library adds leaves in this type, tree by tree.
        divisor: the sums are divided by it; 1 where they are not averaged.
        allow_nan: the library scores NaN; else it raises.
        allow_inf: the library scores infinities, also those that a cast to float32 makes; else it raises.
        feature: (N,) column, :data:`LEAF` for a leaf.
        threshold: (N,) in ``compare``'s values.
        left: (N,) node; of a leaf itself.
        right: (N,) node; of a leaf itself.
        default_left: (N,) whether NaN goes left.
        rule: (N,) bits of what is done to the value first.
        category_set: (N,) row of ``sets``, -1 for a numeric node.
        slot: (N,) row of ``values`` for a leaf, else 0.
        roots: (T,) node.
        target: (T,) the first of the K sums that the tree adds to.
        values: (leaves, width): what a leaf adds to as many sums, starting with its tree's.
        base: (K,) what the sums begin with.
        sets: (sets, 2) start in ``words`` and number of words.
        words: uint32, bit c of a set's words stands for code c.
    """

    features: int
    compare: Dtype
    sums: Dtype
    divisor: int
    allow_nan: bool
    allow_inf: bool
    feature: Ints
    threshold: Doubles
    left: Ints
    right: Ints
    default_left: npt.NDArray[np.bool_]
    rule: npt.NDArray[np.uint8]
    category_set: Ints
    slot: Ints
    roots: Ints
    target: Ints
    values: Doubles
    base: Doubles
    sets: Ints
    words: npt.NDArray[np.uint32]

    def numeric(self) -> npt.NDArray[np.bool_]:
        """(N,) which nodes compare a number with a threshold."""
        return np.asarray((self.feature != LEAF) & (self.category_set < 0))

    def thresholds(self) -> dict[int, Doubles]:
        """Column → its sorted distinct thresholds; only columns that have some."""
        chosen = self.numeric()
        feature, threshold = self.feature[chosen], self.threshold[chosen]
        return {int(column): np.unique(threshold[feature == column]) for column in np.unique(feature)}

    def save(self, path: Path) -> None:
        """Writes the forest as a ``.npz`` file, the same bytes for the same forest."""
        with path.open("wb") as stream:
            np.savez(stream, **dataclasses.asdict(self))


def load_forest(path: Path) -> Forest:
    """Reads what :meth:`Forest.save` wrote.

    Raises:
        ModelError: the file is damaged, or of another version of batchscore.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = {name: stored[name] for name in stored.files}
        scalars = {name: value.item() for name, value in found.items() if not value.ndim}
        return Forest(**{**found, **scalars})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError("the converted model is damaged or of another version", found=error) from error


def at_most(thresholds: Doubles) -> npt.NDArray[np.float32]:
    """For each threshold the largest float32 that is not above it: ``x <= t`` is unchanged for every float32 ``x``.

    >>> float(at_most(np.array([0.1]))[0]) <= 0.1 < float(np.float32(0.1))
    True
    """
    with np.errstate(over="ignore"):
        near = np.asarray(thresholds, np.float64).astype(np.float32)
        return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def above(thresholds: Doubles) -> npt.NDArray[np.float32]:
    """For each threshold the smallest float32 above it: for every float32 ``x``, ``x < above`` where ``x <= t``."""
    with np.errstate(over="ignore"):
        return np.nextafter(at_most(thresholds), np.float32(np.inf))


def prepared(values: npt.NDArray[Any], rule: int) -> npt.NDArray[Any]:
    """Values as a node with this rule sees them; a copy where a value changes."""
    if rule & (TINY_IS_ZERO | TINY_IS_NAN):
        tiny = np.abs(values) <= values.dtype.type(TINY)
        values = np.where(tiny, values.dtype.type(0 if rule & TINY_IS_ZERO else np.nan), values)
    return values


def refusal(forest: Forest, values: npt.NDArray[Any] | Sequence[npt.NDArray[Any]]) -> str | None:
    """What the model's library says of values that it does not score, or None.

    Args:
        forest: the model.
        values: a matrix, or its columns, in the type that the forest compares.
    """
    parts = [values] if isinstance(values, np.ndarray) else values
    if not forest.allow_inf and any(np.isinf(part).any() for part in parts):
        return f"an input is infinite, or too large for {forest.compare}"
    if not forest.allow_nan and any(np.isnan(part).any() for part in parts):
        return "an input is missing, and the model takes no missing values"
    return None
