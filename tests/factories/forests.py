"""Forests of random trees, and rows that meet their thresholds and sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchscore.engines.trees.builder import Rules, Tree, forest_of
from batchscore.engines.trees.forest import LEAF, Dtype, Forest
from tests.factories.boundaries import SPECIAL, beside

FEATURES = 5
CATEGORICAL = 4  # the last feature holds codes
KNOWN = [value for value in SPECIAL if not np.isnan(value)]


def stump(
    threshold: float,
    *,
    default_left: bool = True,
    rule: int = 0,
    compare: Dtype = "float64",
    categories: list[int] | None = None,
) -> Forest:
    """One node over one feature: 1 on its left, 2 on its right."""
    tree = Tree(
        feature=np.array([0, LEAF, LEAF]),
        threshold=np.array([threshold, 0, 0]),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        default_left=np.array([default_left, False, False]),
        values=np.array([[0.0], [1.0], [2.0]]),
        target=0,
        rule=np.array([rule, 0, 0]),
        categories={} if categories is None else {0: np.array(categories)},
    )
    return forest_of([tree], Rules(1, compare, "float64", np.zeros(1)))


def random_tree(random: np.random.Generator, leaves: int, target: int, width: int, lean: float) -> Tree:
    """A tree of so many leaves; the nearer ``lean`` is to 0 or 1, the deeper."""
    feature: list[int] = []
    left: list[int] = []
    right: list[int] = []
    categories: dict[int, Any] = {}

    def grow(count: int) -> int:
        node = len(feature)
        feature.append(LEAF)
        left.append(node)
        right.append(node)
        if count > 1:
            feature[node] = int(random.integers(FEATURES))
            if feature[node] == CATEGORICAL:
                categories[node] = np.flatnonzero(random.random(70) < 0.3)
            on_left = int(np.clip(round(count * random.beta(1, 1) if lean < 0 else count * lean), 1, count - 1))
            left[node] = grow(on_left)
            right[node] = grow(count - on_left)
        return node

    grow(leaves)
    size = len(feature)
    thresholds = random.choice(np.concatenate([random.normal(size=40), KNOWN]), size)
    coded = np.array(feature) == CATEGORICAL
    return Tree(
        feature=np.array(feature),
        threshold=np.where(coded, 0, thresholds),
        left=np.array(left),
        right=np.array(right),
        default_left=random.random(size) < 0.5,
        values=random.normal(size=(size, width)) * 10.0 ** random.integers(-3, 4, (size, 1)),
        target=target,
        rule=np.where(coded, 0, random.choice([0, 0, 1, 2], size)),
        categories=categories,
    )


def random_forest(seed: int, *, sums: Dtype = "float64", targets: int = 1, width: int = 1) -> Forest:
    """Trees of 1 to 300 leaves, balanced and not, with every kind of node."""
    random = np.random.default_rng(seed)
    leaves = [1, 2, *random.choice([3, 16, 17, 31, 32, 33, 63, 64, 65, 96, 128, 129, 300], 6).tolist()]
    leans = random.choice([-1.0, 0.5, 0.05, 0.95], len(leaves))
    trees = [
        random_tree(random, count, int(random.integers(targets)), width, lean)
        for count, lean in zip(leaves, leans, strict=True)
    ]
    if sums == "float32":
        for tree in trees:
            tree.values[:] = tree.values.astype(np.float32)
    return forest_of(
        trees, Rules(FEATURES, "float64", sums, random.normal(size=targets + width - 1).astype(np.float32))
    )


def rows_of(forest: Forest, seed: int, count: int) -> np.ndarray:
    """(count, features) of float64: thresholds, their neighbours, special values and random ones, and codes."""
    random = np.random.default_rng(seed)
    columns = []
    for feature in range(forest.features):
        pool = np.concatenate([beside(forest.thresholds().get(feature, np.zeros(1))), SPECIAL, random.normal(size=200)])
        if (forest.feature[forest.category_set >= 0] == feature).any():
            pool = np.concatenate([np.arange(-2.0, 75.0), SPECIAL, [0.5, -0.5, 31.9, 1e9, 3e9, 2.0**31]])
        columns.append(random.choice(pool, count))
    return np.stack(columns, axis=1)
