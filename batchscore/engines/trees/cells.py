"""Which rows of doubles may be rounded to float32 without another decision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.forest import Forest

# Bits of the table that most values are looked up in; a table of 1 MiB stays in a core's cache.
BITS = 20
SPREAD = np.uint32(2_654_435_761)  # Knuth's multiplicative hash


class Cells:
    """The float32 values that some threshold of a forest is rounded to.

    Rounding keeps order, so a double and a threshold are compared alike after both are rounded, but where they are
    rounded to the same float32 and the double was none.

    Args:
        forest: a model that compares doubles.
    """

    def __init__(self, forest: Forest) -> None:
        chosen = forest.numeric()
        with np.errstate(over="ignore"):
            narrow = forest.threshold[chosen].astype(np.float32)
        self._keys = np.unique(_keys(forest.feature[chosen], narrow))
        self._table = np.zeros(1 << BITS, np.bool_)
        self._table[_places(narrow)] = True

    def narrowed(self, matrix: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
        """Rows as float32, and which of them may take another way than the doubles; None for none of them."""
        with np.errstate(over="ignore"):
            narrow: npt.NDArray[np.float32] = matrix.astype(np.float32)
        seen = np.flatnonzero(self._table[_places(narrow)])
        if not len(seen):
            return narrow, None
        row, column = np.divmod(seen, matrix.shape[1])
        values = narrow[row, column]
        known = np.isin(_keys(column, values), self._keys) & (values != matrix[row, column])
        if not known.any():
            return narrow, None
        rows = np.zeros(len(matrix), np.bool_)
        rows[row[known]] = True
        return narrow, rows


def _keys(column: npt.NDArray[Any], values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Column and value in one number; both zeros are one value."""
    bits = (values + np.float32(0)).view(np.uint32).astype(np.uint64)
    return column.astype(np.uint64) << np.uint64(32) | bits


def _places(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    bits = (values + np.float32(0)).view(np.uint32)
    return bits * SPREAD >> np.uint32(32 - BITS)
