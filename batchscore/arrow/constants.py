"""Arrow arrays of constants without pandas.

``pa.scalar`` and ``pa.array`` import pandas where it is installed, half a second in every worker that would
otherwise never load it. Text buffers that are cast do not. (Filtering by an expression does, through
``pyarrow.dataset``.)
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow


def typed_array(values: Sequence[str | int | float | bool], kind: str) -> pa.Array:
    """The values as an array of a type of :mod:`batchscore.schema`.

    Args:
        values: numbers and booleans, or text as SQL spells a value of the type; an instant without a zone is
            in UTC.
        kind: the type's name.

    Raises:
        pa.ArrowInvalid: when a text is no value of the type.

    >>> typed_array(["2026-11-21"], "date")[0].as_py(), typed_array([True], "boolean")[0].as_py()
    (datetime.date(2026, 11, 21), True)
    """
    texts = _text_array([str(value) for value in values])
    if kind != "timestamp":
        return texts.cast(to_arrow(kind))
    parts = [_instant(text) for text in texts]
    return pa.concat_arrays(parts) if parts else texts.cast(to_arrow(kind))


def _instant(text: pa.StringScalar) -> pa.Array:
    """One instant; Arrow wants all of an array's texts with a zone, or none."""
    one = pa.repeat(text, 1)
    target = to_arrow("timestamp")
    try:
        return one.cast(target)
    except pa.ArrowInvalid:
        return pc.assume_timezone(one.cast(to_arrow("timestamp_ntz")), target.tz)


def null_scalar(kind: str) -> pa.Scalar:
    """The null of a type."""
    return pa.nulls(1, to_arrow(kind))[0]


def _text_array(values: Sequence[str]) -> pa.Array:
    encoded = [value.encode() for value in values]
    offsets = array("i", itertools.accumulate(map(len, encoded), initial=0))
    return pa.Array.from_buffers(
        pa.string(), len(encoded), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(encoded))]
    )
