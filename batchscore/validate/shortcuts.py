"""Leaves out two things that Great Expectations does over every row and that judge nothing.

Over 8 million rows they took 2 of 2.3 s: a search for ``Decimal`` objects, value by value, in columns that hold
none because they are numbers; and a fingerprint of the whole frame, which only its own data documents show.
"""

from __future__ import annotations

import importlib
from typing import Any


def shorten() -> None:
    """Puts the shortcuts in place; a version of the package without these functions is left as it is."""
    util = importlib.import_module("great_expectations.util")
    search = getattr(util, "does_ndarray_contain_decimal_dtype", None)
    if search is not None and not hasattr(search, "searched"):
        util.does_ndarray_contain_decimal_dtype = _in_objects_alone(search)  # type: ignore[attr-defined]  # untyped
    engine = importlib.import_module("great_expectations.execution_engine.pandas_execution_engine")
    if hasattr(engine, "hash_pandas_dataframe"):
        engine.hash_pandas_dataframe = lambda _: ""  # type: ignore[attr-defined]  # untyped


def _in_objects_alone(search: Any) -> Any:  # noqa: ANN401  # the package publishes no types
    def contains_decimals(data: Any) -> bool:  # noqa: ANN401  # a numpy array
        return data.dtype == object and bool(search(data))

    contains_decimals.searched = search  # type: ignore[attr-defined]  # marks what is in place already
    return contains_decimals
