"""What reading a damaged Delta log ends with, as one kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from deltalake.exceptions import DeltaError

from batchscore import s3
from batchscore.errors import InputError

# A value that is missing, of another kind or beyond its type: each of these was met with single bytes changed.
_DAMAGE = (
    DeltaError,
    pa.ArrowException,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
# delta-rs panics on some logs; Python gets that as a BaseException whose class has no public name.
_PANIC = "PanicException"


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turns a panic of delta-rs inside the block into its own kind of error.

    Raises:
        DeltaError: instead of the panic.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise DeltaError(f"the library for Delta tables gave up: {error}") from error


def is_of_store(error: Exception) -> bool:
    """Whether an error of delta-rs comes from the object store and says nothing of the log."""
    return "Generic S3 error" in str(error) or "Error performing" in str(error)


@contextmanager
def damage_of(uri: str, hint: str) -> Iterator[None]:
    """Turns whatever a damaged log makes the libraries raise inside the block into one error.

    Args:
        uri: the table.
        hint: what to do next.

    Raises:
        InputError: naming the table.
        UnavailableError: it was the storage that failed.
    """
    try:
        with panics_as_errors():
            yield
    except _DAMAGE as error:
        if s3.is_s3(uri) and isinstance(error, DeltaError) and is_of_store(error):
            raise s3.failure(f"the table at {uri} could not be reached", error) from error
        raise InputError(
            f"the log of Delta table {uri} is damaged", found=f"{type(error).__name__}: {error}", hint=hint
        ) from error
