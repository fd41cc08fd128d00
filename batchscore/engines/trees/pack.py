"""A forest as the walker in ``walk.c`` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.forest import LEAF, Dtype, Forest, Ints, at_most

INF_IS_MAX = 4  # beside the forest's own rules; see walk.c
NODES = {
    "float32": np.dtype([("threshold", np.float32), ("column", np.int32), ("left", np.int32)]),
    "float64": np.dtype([("threshold", np.float64), ("column", np.int32), ("left", np.int32)]),
}


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Nodes breadth first, tree by tree, siblings side by side.

    Attributes:
        nodes: of a type of :data:`NODES`; a categorical node has ``~column`` and its set as the threshold.
        slots: (N,) row of the forest's ``values``.
        roots: (T,) node.
        depths: (T,) steps to the deepest leaf.
        source: (C,) feature that a column is made of.
        rules: (C,) what is done to it.
        negated: (C,) whether the column holds -x.
        sets: (sets, 3) start in the forest's ``words``, number of words, and whether NaN counts as inside.
    """

    nodes: npt.NDArray[Any]
    slots: Ints
    roots: Ints
    depths: Ints
    source: Ints
    rules: npt.NDArray[np.uint8]
    negated: npt.NDArray[np.uint8]
    sets: Ints


def pack(forest: Forest, dtype: Dtype) -> Packed:
    """Packs a forest for rows of ``dtype``; a float64 one for float32 rows with thresholds that part them alike."""
    old, depths, tree = _breadth_first(forest)
    place = np.empty(len(old), np.int64)
    place[old] = np.arange(len(old))
    feature, categorical = forest.feature[old], forest.category_set[old] >= 0
    leaf = feature == LEAF
    # NaN goes to the first of two siblings; for a set, the second sibling is the inside.
    flipped = ~forest.default_left[old] & ~categorical & ~leaf
    left = np.where(flipped | (categorical & ~leaf), forest.right[old], forest.left[old])
    # No -x is above what lies below -inf, so +inf has to be a number where all numbers part from NaN.
    capped = flipped & np.isposinf(forest.threshold[old])
    rule = np.where(capped, forest.rule[old] | INF_IS_MAX, forest.rule[old])
    source, rules, negated, column = _columns(feature, rule, flipped)
    nodes = np.empty(len(old), NODES[dtype])
    nodes["left"] = place[left]
    nodes["column"] = np.where(categorical, ~column, column)
    threshold = _thresholds(forest.threshold[old], flipped, dtype)
    nodes["threshold"] = np.where(leaf, np.inf, np.where(categorical, forest.category_set[old], threshold))
    roots = np.searchsorted(tree, np.arange(len(forest.roots)))
    return Packed(nodes, forest.slot[old], roots.astype(np.int32), depths, source, rules, negated, _sets(forest))


def steps(forest: Forest) -> int:
    """How many steps a row takes in all trees: to the deepest leaf of each."""
    return int(_breadth_first(forest)[1].sum())


def _breadth_first(forest: Forest) -> tuple[npt.NDArray[Any], Ints, npt.NDArray[Any]]:
    """Old node, depth of each tree, and each node's tree, in the new order."""
    frontier, trees = forest.roots.astype(np.int64), np.arange(len(forest.roots))
    depths = np.zeros(len(trees), np.int32)
    nodes, owners = [frontier], [trees]
    categorical = forest.category_set >= 0
    while True:
        inner = forest.feature[frontier] != LEAF
        if not inner.any():
            break
        frontier, trees = frontier[inner], trees[inner]
        depths[trees] = len(nodes)
        second_first = ~forest.default_left[frontier] | categorical[frontier]
        first = np.where(second_first, forest.right[frontier], forest.left[frontier])
        second = np.where(second_first, forest.left[frontier], forest.right[frontier])
        frontier, trees = np.stack([first, second], axis=1).reshape(-1), np.repeat(trees, 2)
        nodes.append(frontier)
        owners.append(trees)
    every, owner = np.concatenate(nodes), np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return every[order], depths, owner[order]


def _columns(
    feature: Ints, rule: npt.NDArray[np.uint8], flipped: npt.NDArray[np.bool_]
) -> tuple[Ints, npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """The distinct (feature, rule, sign) as columns, and the column of each node; leaves look at the first."""
    leaf = feature == LEAF
    key = np.where(leaf, -1, (feature.astype(np.int64) << 9) | (rule.astype(np.int64) << 1) | flipped)
    distinct = np.unique(key[~leaf]) if not leaf.all() else np.zeros(1, np.int64)
    column = np.where(leaf, 0, np.searchsorted(distinct, key))
    return (
        (distinct >> 9).astype(np.int32),
        (distinct >> 1 & 0xFF).astype(np.uint8),
        (distinct & 1).astype(np.uint8),
        column,
    )


def _thresholds(threshold: npt.NDArray[np.float64], flipped: npt.NDArray[np.bool_], dtype: Dtype) -> npt.NDArray[Any]:
    """Thresholds in ``dtype``; x <= t is -x >= -t, so -x is above what lies just below -t."""
    values = at_most(threshold) if dtype == "float32" else threshold
    with np.errstate(over="ignore"):
        return np.where(flipped, np.nextafter(-values, values.dtype.type(-np.inf)), values)


def _sets(forest: Forest) -> Ints:
    inside = np.zeros(len(forest.sets), np.int32)
    categorical = forest.category_set >= 0
    inside[forest.category_set[categorical]] = forest.default_left[categorical]
    return np.ascontiguousarray(np.column_stack([forest.sets, inside]), np.int32)
