"""Values into Arrow arrays and out of them, without pandas.

``pa.scalar``, ``pa.array``, ``Array.to_numpy`` and a plain Python value as argument of a compute function import
pandas where it is installed: 0.2 s of a core in every process that would otherwise never load it. Buffers do not.
(Filtering by an expression does, through ``pyarrow.dataset``.)
"""

from __future__ import annotations

import datetime as dt
import itertools
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow

EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  # of times with a zone and of those without


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


def array_of(values: Sequence[Any] | npt.NDArray[Any], arrow: pa.DataType) -> pa.Array:
    """Text, numbers, booleans, or dates and times as whole numbers, as an Arrow array without nulls.

    Args:
        values: one-dimensional; a numpy array of ``arrow``'s own type is not copied.
        arrow: what they become.

    >>> array_of(["a", "b"], pa.string()).to_pylist(), array_of([0, 1], pa.bool_()).to_pylist()
    (['a', 'b'], [False, True])
    """
    if pa.types.is_string(arrow):
        return _text_array([str(value) for value in values])
    if pa.types.is_boolean(arrow):
        data: npt.NDArray[Any] = np.packbits(np.asarray(values, np.bool_), bitorder="little")
    else:
        data = np.ascontiguousarray(values, numpy_type(arrow))
    return pa.Array.from_buffers(arrow, len(values), [None, pa.py_buffer(data)])


def scalar_of(value: object, arrow: pa.DataType) -> pa.Scalar:
    """One such value, or a null.

    >>> scalar_of(2, pa.int8()).as_py(), scalar_of(None, pa.string()).as_py()
    (2, None)
    """
    return (pa.nulls(1, arrow) if value is None else array_of([value], arrow))[0]


def python_of(scalar: pa.Scalar) -> Any:  # noqa: ANN401  # any of Python's values
    """As ``as_py``, which imports pandas for a time with a zone; such a time is in UTC here.

    Raises:
        OverflowError: for a date or time outside of the years 1 to 9999, which Arrow has and Python has not.

    >>> python_of(scalar_of(0, pa.timestamp("us", tz="UTC"))).isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    if not pa.types.is_timestamp(scalar.type) or not scalar.is_valid:
        return scalar.as_py()
    moment = EPOCH + dt.timedelta(microseconds=scalar.cast(pa.timestamp("us", scalar.type.tz)).value)
    return moment.replace(tzinfo=dt.UTC) if scalar.type.tz else moment


def shown(scalar: pa.Scalar) -> Any:  # noqa: ANN401  # any of Python's values
    """As :func:`python_of`, for people to read: a date or time that Python has not, such as an infinity, is text.

    >>> shown(scalar_of(2_932_897, pa.date32())), shown(scalar_of(2**63 - 1, pa.timestamp("us")))
    ('10000-01-01', '<value out of range: 9223372036854775807>')
    """
    try:
        return python_of(scalar)
    except OverflowError:
        if isinstance(scalar, pa.ListScalar):
            return [shown(value) for value in scalar.values]
        zoned = pa.types.is_timestamp(scalar.type) and scalar.type.tz is not None
        # With a zone Arrow writes years beyond 32767 as others.
        text = str((scalar.cast(pa.timestamp(scalar.type.unit)) if zoned else scalar).cast(pa.string()).as_py())
        return f"{text}Z" if zoned and text[-1].isdigit() else text


def shown_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """As ``to_pylist``, for people to read: see :func:`shown`."""
    names = batch.schema.names
    return [
        {name: shown(column[index]) for name, column in zip(names, batch.columns, strict=True)}
        for index in range(batch.num_rows)
    ]


def numbers_of(array: pa.Array) -> npt.NDArray[Any]:
    """Flat numbers or booleans as numpy has them; a null float is NaN, other nulls there must not be."""
    if array.null_count:
        values: npt.NDArray[Any] = (
            pa.RecordBatch.from_arrays([array], names=["values"]).to_tensor(null_to_nan=True).to_numpy()
        )
        return values.reshape(-1)
    if pa.types.is_boolean(array.type):
        return numbers_of(array.cast(pa.uint8())).astype(np.bool_)
    dtype = numpy_type(array.type)
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]


def numpy_type(arrow: pa.DataType) -> np.dtype[Any]:
    """Of numbers, dates and times; pyarrow's own table of types imports pandas too."""
    if pa.types.is_temporal(arrow):
        return np.dtype(f"int{arrow.bit_width}")
    return np.dtype({"halffloat": "float16", "float": "float32", "double": "float64"}.get(str(arrow), str(arrow)))


def places_in(array: pa.Array, known: pa.Array, *, skip_nulls: bool = False) -> pa.Array:
    """Where each value stands among ``known``, null where it does not; of a dictionary each text is looked up once.

    >>> known, text = array_of(["a", "b"], pa.string()), array_of(["b", "c", "b"], pa.string())
    >>> places_in(text.dictionary_encode(), known).to_pylist()
    [1, None, 1]
    """
    if not pa.types.is_dictionary(array.type):
        return pc.index_in(array, value_set=known, skip_nulls=skip_nulls)
    found = pc.index_in(array.dictionary, value_set=known, skip_nulls=skip_nulls).take(array.indices)
    of_null = pc.index_in(pa.nulls(1, known.type), value_set=known, skip_nulls=skip_nulls)[0]
    return found if not array.null_count or not of_null.is_valid else pc.if_else(array.is_valid(), found, of_null)


def table_of(stream: Any) -> pa.Table:  # noqa: ANN401  # another library's table
    """A table of another library that speaks Arrow's C interface; ``pa.table`` asks pandas first."""
    return pa.RecordBatchReader.from_stream(stream).read_all()


def _text_array(values: Sequence[str]) -> pa.Array:
    encoded = [value.encode() for value in values]
    offsets = array("i", itertools.accumulate(map(len, encoded), initial=0))
    return pa.Array.from_buffers(
        pa.string(), len(encoded), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(encoded))]
    )
