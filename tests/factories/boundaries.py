"""Rows at which a tree model could decide otherwise."""

from __future__ import annotations

import numpy as np
import pandas as pd

from batchscore.engines.trees.forest import LEAF, Forest

SPECIAL = (
    *(0.0, -0.0, 1e-35, -1e-35, 1e-36, -1e-36, 1e-34, -1e-34, 5e-324, 1e-45),
    float(np.float32(1e-35)),
    -float(np.float32(1e-35)),
    *(1.0 - 2**-53, 0.5 - 2**-54, float(np.uint64(0x3FE12345FFFFFFFF).view(np.float64))),  # low 32 bits all ones
    *(np.nan, np.inf, -np.inf, 3.4028234663852886e38, -3.4028234663852886e38, 1.7976931348623157e308, -1e300, 1e300),
)


def beside(values: np.ndarray) -> np.ndarray:
    """The values, their float64 neighbours, and the float32 on and around them, with their neighbours half way."""
    values = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
        below, over = np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))
        narrow = np.concatenate([near, below, over]).astype(np.float64)
        middle, lower, upper = (part.astype(np.float64) / 2 for part in (near, below, over))
        wide = np.concatenate([values, middle + lower, middle + upper])
        every = [wide, np.nextafter(wide, -np.inf), np.nextafter(wide, np.inf), narrow]
    return np.unique(np.concatenate(every))


def boundary_rows(forest: Forest, sample: pd.DataFrame) -> pd.DataFrame:
    """For each split a row that reaches it, with its value at the threshold and beside it; and special values.

    Rows that the model's library refuses are left out.
    """
    plain = sample.to_numpy(np.float64)
    rows = []
    for node, row in _reaching(forest, plain).items():
        values = beside(forest.threshold[[node]])
        block = np.tile(plain[row], (len(values), 1))
        block[:, forest.feature[node]] = values
        rows.append(block)
    random = np.random.default_rng(5)
    for column in range(forest.features):
        block = plain[random.integers(0, len(plain), 4 * len(SPECIAL))].copy()
        block[:, column] = np.tile(SPECIAL, 4)
        rows.append(block)
    pools = [np.concatenate([beside(forest.thresholds().get(c, np.zeros(1))), SPECIAL]) for c in range(forest.features)]
    rows.append(np.stack([random.choice(pool, 2_000) for pool in pools], axis=1))
    matrix = np.concatenate(rows)
    with np.errstate(over="ignore"):
        matrix = matrix.astype(str(sample.dtypes.iloc[0]))
        seen = matrix.astype(forest.compare)
    keep = np.ones(len(matrix), bool)
    if not forest.allow_inf:
        keep &= ~np.isinf(seen).any(axis=1)
    if not forest.allow_nan:
        keep &= ~np.isnan(seen).any(axis=1)
    return pd.DataFrame(matrix[keep], columns=sample.columns)


def _reaching(forest: Forest, plain: np.ndarray) -> dict[int, int]:
    """Numeric node -> a row of ``plain`` that comes by; only nodes that a row reaches."""
    found: dict[int, int] = {}
    waiting = [(int(root), np.arange(len(plain))) for root in forest.roots]
    while waiting:
        node, rows = waiting.pop()
        if forest.feature[node] == LEAF or not len(rows):
            continue
        values = plain[rows, forest.feature[node]]
        left = np.where(np.isnan(values), forest.default_left[node], values <= forest.threshold[node])
        if forest.category_set[node] < 0:
            found[node] = int(rows[0])
        waiting.append((int(forest.left[node]), rows[left]))
        waiting.append((int(forest.right[node]), rows[~left]))
    return found
