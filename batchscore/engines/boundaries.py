"""Values at which engines that compute the same model come apart, for each type of input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.schema import INTEGERS

Values = np.ndarray[Any, Any]

LOW_BITS = np.uint64(0xFFFFFFFF)
LIMIT_OF_ZERO = 1e-35  # LightGBM takes what is not larger for zero
# Doubles whose low 32 bits are all ones: tl2cgen reads them as missing.
ALL_ONES = (1 - 2.0**-53, -(1 - 2.0**-53), 2 - 2.0**-52, 0.5 - 2.0**-54)
UNSEEN = ("\N{LATIN SMALL LETTER E WITH ACUTE}unseen", "", " ", "nan", "None")
BOOLEANS = (False, True)
EPOCH_MICROS = (0, 1, -1, -2_208_988_800_000_000, 4_102_444_800_000_000)  # 1970, 1900 and 2100


def edges(thresholds: Values, kind: str) -> Values | None:
    """Each threshold and its neighbours among the values that an input of type ``kind`` can take.

    Args:
        thresholds: finite or not, in any order; shape (n,).
        kind: ``float``: the nearest float and one on either side, of which one is the largest not above the
            threshold and one the smallest above it. ``double``: the threshold and the double on either side,
            and the same three floats. Whole numbers: two on either side. ``boolean``: both.

    Returns:
        Shape (m, w) in the input's own numpy type, a row for each of the m distinct finite thresholds; None for
        a type that is not compared with thresholds.

    >>> edges(np.array([2.5]), "long").tolist()
    [[1, 2, 3, 4]]
    """
    finite = np.unique(np.asarray(thresholds, np.float64))
    finite = finite[np.isfinite(finite)]
    if kind == "boolean":
        return np.array([BOOLEANS] * min(len(finite), 1))
    if kind in INTEGERS:
        return _whole(finite, kind)
    if kind not in ("float", "double"):
        return None
    with np.errstate(over="ignore", under="ignore"):
        floats = _neighbours(finite.astype(np.float32))
    if kind == "float":
        return floats
    return np.concatenate([_neighbours(finite), floats.astype(np.float64)], axis=1)


def specials(kind: str, thresholds: Values | None = None) -> tuple[list[Any], list[Any]]:
    """Finite values, and the others, at which engines are known to differ, for an input of type ``kind``.

    Args:
        kind: type name of the input, or of a tensor's elements.
        thresholds: of which some are taken with their low 32 bits all ones.
    """
    if kind in ("float", "double"):
        return _finite_floats(kind, thresholds), [np.nan, np.inf, -np.inf]
    if kind in INTEGERS:
        info = np.iinfo(to_arrow(kind).to_pandas_dtype())
        around = [0, 1, -1, 2**24 + 1, -(2**24) - 1, 2**31, 2**53 + 1, -(2**53) - 1, info.min, info.max, info.max - 1]
        return [value for value in around if info.min <= value <= info.max], []
    if kind == "boolean":
        return list(BOOLEANS), []
    if kind in ("timestamp", "timestamp_ntz"):
        return list(EPOCH_MICROS), []
    return ([b"", b"\x00"], []) if kind == "binary" else ([], [])


def spellings(known: pa.Array, limit: int) -> list[Any]:
    """Known categories, and values beside them: unseen, empty, in other case, with a blank.

    Args:
        known: categories or values of the input, of text or of numbers; nulls do not count.
        limit: known categories to take at most.
    """
    values = [value for value in dict.fromkeys(known.to_pylist()) if value is not None]
    taken = values[:limit]
    if pa.types.is_string(known.type):
        variants = [change(value) for value in taken[:20] for change in (str.upper, str.lower, str.title)]
        variants += [f"{value} " for value in taken[:2]]
        return list(dict.fromkeys([*taken, *UNSEEN, *variants]))
    if pa.types.is_integer(known.type):
        info = np.iinfo(known.type.to_pandas_dtype())
        beside = {value + step for value in taken for step in (-1, 1)} | {-1, 0, info.min, info.max}
        return taken + sorted(value for value in beside - set(taken) if info.min <= value <= info.max)
    if pa.types.is_floating(known.type):
        return [*taken, -1.0, 0.5]
    return taken


def column(values: list[Any] | Values, kind: str) -> pa.Array:
    """Values as an array of the input's type. NaN stays NaN."""
    arrow = to_arrow(kind)
    if isinstance(values, np.ndarray):
        return pa.array(values).cast(arrow)
    if pa.types.is_timestamp(arrow):
        return pa.array(values, pa.int64()).cast(arrow)
    if pa.types.is_floating(arrow):
        with np.errstate(over="ignore"):
            return pa.array(np.asarray(values, arrow.to_pandas_dtype()))
    return pa.array(values, arrow)


def _neighbours(values: Values) -> Values:
    with np.errstate(over="ignore", under="ignore"):
        below, above = np.nextafter(values, values.dtype.type(-np.inf)), np.nextafter(values, values.dtype.type(np.inf))
    found: Values = np.stack([below, values, above], axis=1)
    limits = np.finfo(values.dtype)
    return np.clip(found, limits.min, limits.max)


def _whole(thresholds: Values, kind: str) -> Values:
    info = np.iinfo(to_arrow(kind).to_pandas_dtype())
    # With room for the neighbours; the largest double below 2**63 is 1024 less.
    low, high = max(info.min + 1, -(2**63) + 1024), min(info.max - 2, 2**63 - 1024)
    base = np.clip(np.floor(thresholds), float(low), float(high)).astype(np.int64)
    found: Values = (base[:, None] + np.array([-1, 0, 1, 2])).astype(info.dtype)
    return found


def _finite_floats(kind: str, thresholds: Values | None) -> list[float]:
    own = np.float32 if kind == "float" else np.float64
    zero = np.float32(LIMIT_OF_ZERO)
    around = [float(value) for value in _neighbours(np.array([zero]))[0]]
    if kind == "double":
        around += [float(value) for value in _neighbours(np.array([LIMIT_OF_ZERO]))[0]]
    limits = [np.finfo(np.float32), np.finfo(own)]
    positive = [*around, 1e-36, 1e-34, 1.0, 2.0**24 + 1, 2.0**31, 1e18]
    positive += [float(value) for limit in limits for value in (limit.max, limit.tiny, limit.smallest_subnormal)]
    found = [0.0, -0.0, *positive, *(-value for value in positive)]
    if kind == "double":
        found += [*ALL_ONES, 1e39, -1e39, 2.0**53 + 2, *_ones(thresholds)]
    return [*dict.fromkeys(found), -0.0]  # which a dict takes for 0.0


def _ones(thresholds: Values | None, limit: int = 8) -> list[float]:
    """Some thresholds with their low 32 bits all ones."""
    if thresholds is None or not len(thresholds):
        return []
    chosen = np.unique(np.asarray(thresholds, np.float64))
    chosen = chosen[np.linspace(0, len(chosen) - 1, limit).astype(int)]
    found = (chosen.view(np.uint64) | LOW_BITS).view(np.float64)
    return [float(value) for value in found if np.isfinite(value)]
