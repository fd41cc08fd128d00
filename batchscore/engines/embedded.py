"""Spark Connect in interpreters without a main file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def main_with_a_file() -> Iterator[None]:
    """For imports of ``pyspark.ml.connect``, which ends a process whose main module has neither file nor spec.

    It takes the process for a run of its own doctests; ``python -c`` and embedded interpreters look the same. MLflow's
    Spark flavor and Great Expectations import it.
    """
    main = sys.modules["__main__"]
    if hasattr(main, "__file__") or getattr(main, "__spec__", None) is not None:
        yield
        return
    main.__file__ = ""
    try:
        yield
    finally:
        del main.__file__
