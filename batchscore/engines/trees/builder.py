"""Puts the trees of a library together to one :class:`Forest`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.forest import LEAF, Doubles, Dtype, Forest

WORD = 32  # bits


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree with nodes numbered from its root, 0.

    Attributes:
        feature: (n,) column, :data:`LEAF` for a leaf.
        threshold: (n,)
        left: (n,) node; anything for a leaf.
        right: (n,) node; anything for a leaf.
        default_left: (n,)
        values: (n, width) of leaves; anything for the others.
        target: the first sum that it adds to.
        rule: (n,)
        categories: categorical node → codes that go left.
    """

    feature: npt.NDArray[Any]
    threshold: Doubles
    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    default_left: npt.NDArray[Any]
    values: Doubles
    target: int
    rule: npt.NDArray[Any]
    categories: dict[int, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for a whole forest; see :class:`Forest`."""

    features: int
    compare: Dtype
    sums: Dtype
    base: Doubles
    divisor: int = 1
    allow_nan: bool = True
    allow_inf: bool = True


def forest_of(trees: list[Tree], rules: Rules) -> Forest:
    """The forest of these trees, added up in their order."""
    sizes = np.array([len(tree.feature) for tree in trees], np.int64)
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    offset = np.repeat(roots, sizes)
    feature = np.concatenate([tree.feature for tree in trees]).astype(np.int32)
    itself = np.arange(len(feature))
    leaf = feature == LEAF
    slot = np.where(leaf, np.cumsum(leaf) - 1, 0)
    values = np.concatenate([tree.values for tree in trees])[leaf]
    category_set, sets, words = _sets(trees, roots, len(feature))
    return Forest(
        features=rules.features,
        compare=rules.compare,
        sums=rules.sums,
        divisor=rules.divisor,
        allow_nan=rules.allow_nan,
        allow_inf=rules.allow_inf,
        feature=feature,
        threshold=np.concatenate([tree.threshold for tree in trees]).astype(np.float64),
        left=np.where(leaf, itself, np.concatenate([tree.left for tree in trees]) + offset).astype(np.int32),
        right=np.where(leaf, itself, np.concatenate([tree.right for tree in trees]) + offset).astype(np.int32),
        default_left=np.concatenate([tree.default_left for tree in trees]).astype(np.bool_),
        rule=np.where(leaf, 0, np.concatenate([tree.rule for tree in trees])).astype(np.uint8),
        category_set=category_set,
        slot=slot.astype(np.int32),
        roots=roots.astype(np.int32),
        target=np.array([tree.target for tree in trees], np.int32),
        values=np.ascontiguousarray(values, np.float64),
        base=np.asarray(rules.base, np.float64),
        sets=sets,
        words=words,
    )


def _sets(trees: list[Tree], roots: npt.NDArray[Any], nodes: int) -> tuple[Any, Any, Any]:
    category_set = np.full(nodes, -1, np.int32)
    sets: list[tuple[int, int]] = []
    words: list[npt.NDArray[np.uint32]] = []
    start = 0
    for tree, root in zip(trees, roots, strict=True):
        for node, codes in tree.categories.items():
            bits = bitset(codes)
            category_set[root + node] = len(sets)
            sets.append((start, len(bits)))
            words.append(bits)
            start += len(bits)
    joined = np.concatenate(words) if words else np.empty(0, np.uint32)
    return category_set, np.array(sets, np.int32).reshape(-1, 2), joined


def bitset(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Codes, none negative, as the bits of words.

    >>> bitset(np.array([0, 2, 33])).tolist()
    [5, 2]
    """
    words = np.zeros(int(codes.max(initial=0)) // WORD + 1, np.uint32)
    np.bitwise_or.at(words, codes // WORD, np.left_shift(np.uint32(1), (codes % WORD).astype(np.uint32)))
    return words


def codes_of(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """The codes of a bitset.

    >>> codes_of(np.array([5, 2], np.uint32)).tolist()
    [0, 2, 33]
    """
    bits = np.unpackbits(np.ascontiguousarray(words, "<u4").view(np.uint8), bitorder="little")
    return np.flatnonzero(bits)
