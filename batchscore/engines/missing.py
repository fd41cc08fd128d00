"""How a scikit-learn model was shown a missing string: as None (Parquet, Arrow) or as NaN (CSV).

To an encoder the two are different categories, so a model trained on a CSV scores a null wrongly when it is None.
The fitted encoders and imputers say which one they saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

NAN = float("nan")
# Attributes through which scikit-learn's composite estimators hold others.
NESTED = ("steps", "transformers_", "transformer_list", "estimators_", "estimator", "base_estimator", "best_estimator_")


def missing_text(model: Any) -> float | None:  # noqa: ANN401  # any model
    """NaN for a model whose fitted parts saw missing strings as NaN, else None.

    Categories that a part has learned decide; without them, what an imputer of strings looks for.
    """
    imputes_nan = False
    for part in parts(model, set()):
        for categories in _learned(part):
            if any(value is None for value in categories):
                return None
            if any(_is_nan(value) for value in categories):
                return NAN
        statistics = getattr(part, "statistics_", None)
        if isinstance(statistics, np.ndarray) and statistics.dtype == np.dtype(object):
            imputes_nan = imputes_nan or _is_nan(getattr(part, "missing_values", None))
    return NAN if imputes_nan else None


def parts(model: Any, seen: set[int]) -> Iterator[Any]:  # noqa: ANN401
    """A model and the estimators inside it; ``seen`` are the ids of those that were given already."""
    if model is None or isinstance(model, str) or id(model) in seen:
        return
    seen.add(id(model))
    yield model
    for name in NESTED:
        held = getattr(model, name, None)
        for item in held if isinstance(held, list | tuple) else [held]:
            # Entries are (name, estimator) or (name, estimator, columns).
            yield from parts(item[1] if isinstance(item, tuple) and len(item) > 1 else item, seen)


def _learned(part: Any) -> Iterator[np.ndarray[Any, Any]]:  # noqa: ANN401
    held = getattr(part, "categories_", None)
    for categories in held if isinstance(held, list) else []:
        if isinstance(categories, np.ndarray) and categories.dtype == np.dtype(object):
            yield categories


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
