"""A row of a model's input as a short text: what is unusual in it first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import bounded

MAX_COLUMNS = 6
MAX_CHARS = 40


class Typical:
    """What is usual in each column, so that a text can begin with what is not.

    Args:
        batches: rows of one schema; the first batch tells what is usual.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        usual = batches[0] if batches else None
        self._numbers: dict[int, tuple[float, float]] = {}
        self._values: dict[int, frozenset[Any]] = {}
        for index, column in enumerate(usual.columns if usual is not None else ()):
            if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                self._numbers[index] = _middle(column)
            elif pa.types.is_string(column.type):
                self._values[index] = frozenset(column.unique()[:1_000].to_pylist())

    def describe(self, batch: pa.RecordBatch, row: int) -> str:
        """The row's inputs, the most unusual ones first, at most :data:`MAX_COLUMNS` of them."""
        ranks = np.array([self._unusual(index, column[row].as_py()) for index, column in enumerate(batch.columns)])
        order = np.argsort(-ranks, kind="stable")
        shown = [
            f"{batch.schema.names[index]}={_value(batch.column(index), row)}" for index in order[:MAX_COLUMNS].tolist()
        ]
        left = len(order) - len(shown)
        return "row " + ", ".join(shown) + (f" and {left} more" if left > 0 else "")

    def _unusual(self, index: int, value: object) -> float:
        if value is None:
            return np.inf
        if index in self._numbers and isinstance(value, int | float):
            middle, width = self._numbers[index]
            distance = abs(float(value) - middle) / width
            return float("inf") if np.isnan(distance) else distance
        return float(value not in self._values[index]) * 1e6 if index in self._values else 0.0


def _middle(column: pa.Array) -> tuple[float, float]:
    """Median and distance of the quartiles of the finite values."""
    values = column.cast(pa.float64(), safe=False)
    values = values.filter(pc.fill_null(pc.is_finite(values), False)).to_numpy(zero_copy_only=False)
    if not len(values):
        return 0.0, 1.0
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(high - low) or 1.0


def _value(column: pa.Array, row: int) -> str:
    """Numbers with all digits that tell them apart; a float as a float, not as the double that holds it."""
    value = column[row].as_py()
    if value is not None and pa.types.is_float32(column.type):
        return str(np.float32(value))
    return bounded(repr(value), MAX_CHARS)
