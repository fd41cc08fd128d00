"""A forest as bit masks, as the kernel in ``masks.c`` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.forest import LEAF, TINY_IS_NAN, TINY_IS_ZERO, Dtype, Forest, Ints, at_most

BITS: Mapping[Dtype, int] = {"float32": 32, "float64": 64}  # of a word, which is as wide as a value
PADDING = 64  # a table of so many leaves is loaded whole
CODES = 4  # a column of categories; beside the forest's own rules, see masks.c
Long: TypeAlias = npt.NDArray[np.int64]

ABOVE, NOT_BELOW, SET = range(3)  # kinds of nodes: NaN goes left, NaN goes right, categories
NODES = {
    "float32": np.dtype([("clear", np.uint32), ("threshold", np.float32), ("column", np.int32), ("set", np.int32)]),
    "float64": np.dtype([("clear", np.uint64), ("threshold", np.float64), ("column", np.int32), ("set", np.int32)]),
}


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Every inner node once for each word of leaf bits that it clears.

    Attributes:
        nodes: of a type of :data:`NODES`, ordered by word and kind.
        first: (T + 1,) first word of each tree.
        leaf: (W + 1,) the leaf of a word's lowest bit; at the end, the number of leaves.
        runs: (W, 4) first node of each kind, and the end.
        values: leaves in the type of the sums, each tree's from left to right; :data:`PADDING` more.
        source: (C,) feature that a column is made of.
        rules: (C,) what is done to its values.
        sets: (sets, 3) start in the forest's ``words``, number of words, and whether NaN counts as inside.
    """

    nodes: npt.NDArray[Any]
    first: Ints
    leaf: Ints
    runs: Ints
    values: npt.NDArray[Any]
    source: Ints
    rules: npt.NDArray[np.uint8]
    sets: Ints


def size(forest: Forest, dtype: Dtype) -> int:
    """How many nodes :func:`masks_of` would make."""
    _, start, count = _leaves(forest)
    _, low, high = _ranges(forest, start, count)
    return int(_span(low, high, BITS[dtype]).sum())


def masks_of(forest: Forest, dtype: Dtype) -> Masks:
    """The masks of a forest for rows of ``dtype``; a float64 one for float32 rows with thresholds that part them alike.

    Args:
        forest: leaves of one value each.
        dtype: of the rows.
    """
    bits = BITS[dtype]
    tree, start, count = _leaves(forest)
    width = count[forest.roots]
    offset = np.cumsum(width) - width  # leaf number of each tree's first
    words = -(-width // bits)
    first = np.concatenate([[0], np.cumsum(words)]).astype(np.int32)

    leaf = forest.feature == LEAF
    values = np.zeros(int(width.sum()) + PADDING, forest.sums)
    values[offset[tree[leaf]] + start[leaf]] = forest.values[forest.slot[leaf], 0]

    node, word, clear = _cleared(forest, first[tree], start, count, bits)
    kind = np.where(forest.category_set >= 0, SET, np.where(forest.default_left, ABOVE, NOT_BELOW))[node]
    column, source, rules = _columns(forest)
    order = np.lexsort((column[node], kind, word))
    node, word, clear, kind = node[order], word[order], clear[order], kind[order]
    nodes = np.zeros(len(node), NODES[dtype])
    nodes["clear"] = clear
    nodes["column"] = column[node]
    nodes["set"] = forest.category_set[node]
    threshold = at_most(forest.threshold) if dtype == "float32" else forest.threshold
    nodes["threshold"] = threshold[node]
    places = np.searchsorted(word * 3 + kind, np.arange(int(first[-1]) * 3 + 1))
    runs = np.column_stack([places[:-1].reshape(-1, 3), places[3::3]])

    owner = np.repeat(np.arange(len(width)), words)
    lowest = np.append(offset[owner] + (np.arange(len(owner)) - first[owner]) * bits, width.sum())
    inside = np.zeros(len(forest.sets), np.int32)
    categorical = forest.category_set >= 0
    inside[forest.category_set[categorical]] = forest.default_left[categorical]
    sets = np.column_stack([forest.sets, inside])
    return Masks(
        nodes, first, lowest.astype(np.int32), runs.astype(np.int32), values, source, rules, sets.astype(np.int32)
    )


def _leaves(forest: Forest) -> tuple[Long, Long, Long]:
    """Each node's tree, the number of its leftmost leaf in it, and how many leaves are below it."""
    size = len(forest.feature)
    tree, start, count = (np.zeros(size, np.int64) for _ in range(3))
    level, levels = forest.roots.astype(np.int64), []
    tree[level] = np.arange(len(level))
    while len(level):
        levels.append(level)
        inner = level[forest.feature[level] != LEAF]
        level = np.concatenate([forest.left[inner], forest.right[inner]]).astype(np.int64)
        tree[level] = np.tile(tree[inner], 2)
    for level in reversed(levels):
        inner = forest.feature[level] != LEAF
        count[level] = np.where(inner, count[forest.left[level]] + count[forest.right[level]], 1)
    for level in levels:
        inner = level[forest.feature[level] != LEAF]
        start[forest.left[inner]] = start[inner]
        start[forest.right[inner]] = start[inner] + count[forest.left[inner]]
    return tree, start, count


def _ranges(forest: Forest, start: Long, count: Long) -> tuple[Long, Long, Long]:
    """The inner nodes, and the leaves on the left of each: the first, and the one behind the last."""
    inner = np.flatnonzero(forest.feature != LEAF)
    low = start[inner]
    return inner, low, low + count[forest.left[inner]]


def _span(low: Long, high: Long, bits: int) -> Long:
    """In how many words the leaves are."""
    return np.asarray((high - 1) // bits - low // bits + 1)


def _cleared(
    forest: Forest, first: Ints, start: Long, count: Long, bits: int
) -> tuple[Long, Long, npt.NDArray[np.uint64]]:
    """Node, word and bits, for every word in which a node has leaves on its left."""
    inner, low, high = _ranges(forest, start, count)
    span = _span(low, high, bits)
    node = np.repeat(inner, span)
    step = np.arange(len(node)) - np.repeat(np.cumsum(span) - span, span)
    word = np.repeat(low // bits, span) + step
    begin = np.maximum(np.repeat(low, span) - word * bits, 0)
    end = np.minimum(np.repeat(high, span) - word * bits, bits)
    every = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    clear = (every >> (64 - (end - begin)).astype(np.uint64)) << begin.astype(np.uint64)
    return node, first[node] + word, clear


def _columns(forest: Forest) -> tuple[Ints, Ints, npt.NDArray[np.uint8]]:
    """Each node's column; and of each column the feature and what is done to its values."""
    inner = forest.feature != LEAF
    rule = np.where(forest.category_set >= 0, CODES, forest.rule & (TINY_IS_ZERO | TINY_IS_NAN))
    key = forest.feature.astype(np.int64) << 8 | rule
    distinct = np.unique(key[inner])
    column = np.where(inner, np.searchsorted(distinct, key), 0).astype(np.int32)
    return column, (distinct >> 8).astype(np.int32), (distinct & 0xFF).astype(np.uint8)
