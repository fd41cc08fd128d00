"""What a model raised, as an error of batchscore."""

from __future__ import annotations

import re

from batchscore.errors import BatchscoreError, ModelRaisedError, OutOfMemoryError

# How libraries in C++ say that memory ran out (LightGBM, XGBoost, ONNX Runtime, PyTorch), in errors of their own.
_ALLOCATION = re.compile(r"bad_alloc|bad allocation|failed to allocate|can't allocate memory|unable to allocate", re.I)


def raised(label: str, rows: int, error: Exception, reason: str | None = None) -> BatchscoreError:
    """The error for a model that raised.

    Args:
        label: the model's name and version.
        rows: rows of the batch.
        error: what it raised.
        reason: its text, where that is not the error's own.

    Returns:
        OutOfMemoryError where that says so, which is tried again with smaller batches; else ModelRaisedError.

    >>> type(raised("m 1", 10, RuntimeError("std::bad_alloc"))).__name__
    'OutOfMemoryError'
    """
    found = f"{type(error).__name__}: {reason or error}"
    if isinstance(error, MemoryError) or _ALLOCATION.search(str(error)):
        return OutOfMemoryError(f"memory ran out while model {label} scored {rows} rows", found=found)
    return ModelRaisedError(f"model {label} raised while it scored {rows} rows", found=found)
