"""The exact walk in numpy: for the few rows that a fast engine is not exact on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.builder import WORD
from batchscore.engines.trees.forest import LEAF, Forest, prepared

CELLS = 2_000_000  # rows times trees that are walked at once


def sums_of(forest: Forest, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The sums of rows, as the model's library adds them.

    Args:
        forest: the model.
        matrix: (rows, features), float64, or float32 for any forest.

    Returns:
        (rows, K); the values are float32 where the forest adds floats.
    """
    if forest.compare == "float32" and matrix.dtype != np.float32:
        with np.errstate(over="ignore"):
            matrix = matrix.astype(np.float32)
    step = max(1, CELLS // max(len(forest.roots), 1))
    parts = [_sums(forest, matrix[start : start + step]) for start in range(0, len(matrix), step)]
    return np.concatenate(parts) if parts else np.empty((0, len(forest.base)))


def _sums(forest: Forest, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    slots = forest.slot[_leaves(forest, matrix)]
    sums = np.tile(forest.base.astype(forest.sums), (len(matrix), 1))
    values, width = forest.values.astype(forest.sums), forest.values.shape[1]
    for tree, first in enumerate(forest.target):  # in this order: floating sums depend on it
        sums[:, first : first + width] += values[slots[:, tree]]
    if forest.divisor != 1:
        sums /= forest.divisor
    return sums.astype(np.float64)


def _leaves(forest: Forest, matrix: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(rows, trees) the leaf that each row reaches."""
    at = np.tile(forest.roots.astype(np.int64), (len(matrix), 1))
    rules = [int(rule) for rule in np.unique(forest.rule)]
    kinds = {rule: prepared(matrix, rule) for rule in rules}
    while True:
        row, tree = np.nonzero(forest.feature[at] != LEAF)
        if not len(row):
            return at
        node = at[row, tree]
        values = np.empty(len(node), matrix.dtype)
        for rule in rules:
            chosen = forest.rule[node] == rule
            values[chosen] = kinds[rule][row[chosen], forest.feature[node[chosen]]]
        at[row, tree] = np.where(_goes_left(forest, node, values), forest.left[node], forest.right[node])


def _goes_left(forest: Forest, node: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    # A float32 compares with a double threshold as the double that it is.
    left = np.where(np.isnan(values), forest.default_left[node], values.astype(np.float64) <= forest.threshold[node])
    sets = forest.category_set[node]
    chosen = np.flatnonzero(sets >= 0)
    if len(chosen):
        left[chosen] = _in_sets(forest, sets[chosen], values[chosen], forest.default_left[node[chosen]])
    return np.asarray(left, np.bool_)


def _in_sets(
    forest: Forest, sets: npt.NDArray[Any], values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    start, size = forest.sets[sets, 0], forest.sets[sets, 1]
    known = (values > -1) & (values < size * WORD)
    codes = np.where(known, values, 0).astype(np.int64)
    bits = forest.words[start + codes // WORD] >> (codes % WORD).astype(np.uint32) & 1
    return np.where(np.isnan(values), missing, known & (bits == 1))
