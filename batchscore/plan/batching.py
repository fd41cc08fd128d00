"""How many rows go to the model at a time: what a worker's memory is bounded by."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from batchscore.contracts import Column, ModelInput
from batchscore.schema import element_of

# What a pyfunc call costs beside the model is about 1 ms for each column and call: at this size it is lost
# in the noise.
MAX_BATCH_ROWS = 65_536
BATCH_BYTES = 64 << 20
# Guesses for values whose size only the data tells.
TEXT_BYTES = 32
BINARY_BYTES = 65_536
ARRAY_ELEMENTS = 1_024
_FIXED_BYTES = 8


def batch_rows(inputs: Iterable[ModelInput], columns: Iterable[Column]) -> int:
    """Rows of a batch whose model inputs and table columns take about 64 MiB, at most 65,536.

    Args:
        inputs: the model's inputs; a tensor's shape tells its size.
        columns: the columns that are read for a row.

    >>> batch_rows([ModelInput("x", "double")], [Column("x", "double")])
    65536
    >>> batch_rows([ModelInput("image", "float", True, (-1, 3, 224, 224))], [])
    55
    """
    of_inputs = sum(_input_bytes(item) for item in inputs)
    of_columns = sum(_value_bytes(column.type) for column in columns)
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(1, of_inputs + of_columns)))


def _input_bytes(item: ModelInput) -> int:
    if item.shape is None:
        return _value_bytes(item.type)
    return prod(size if size > 0 else ARRAY_ELEMENTS for size in item.shape[1:]) * _FIXED_BYTES


def _value_bytes(name: str) -> int:
    element = element_of(name)
    if element is not None:
        return ARRAY_ELEMENTS * _value_bytes(element)
    return {"string": TEXT_BYTES, "binary": BINARY_BYTES}.get(name, _FIXED_BYTES)
