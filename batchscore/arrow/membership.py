"""Which rows of a batch are among known rows, by several columns at once; null is a value like any other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.values import array_of, numbers_of, scalar_of

_Codes = npt.NDArray[np.int64]
_ABSENT = -1


class KnownRows:
    """Rows to be found again.

    Args:
        rows: the known rows.
        names: the columns by which they are told, of the same types in what is looked at later.

    >>> known = KnownRows(pa.table({"a": [1, 1], "b": ["x", None]}), ["a", "b"])
    >>> known.among(pa.RecordBatch.from_pydict({"a": [1, 1, 2], "b": ["x", "y", "x"]})).to_pylist()
    [True, False, False]
    """

    def __init__(self, rows: pa.Table, names: Sequence[str]) -> None:
        self._columns: list[tuple[str, pa.Array, _Codes]] = []
        self.rows = rows.num_rows
        codes = np.zeros(rows.num_rows, dtype=np.int64)
        for name in names:
            column = _plain(rows.column(name))
            values = column.unique()
            pairs = codes * len(values) + _places(column, values)
            # Dense codes again after each column, so that many columns do not overflow.
            distinct, codes = np.unique(pairs, return_inverse=True)
            codes = codes.astype(np.int64)
            self._columns.append((name, values, distinct))

    def among(self, batch: pa.RecordBatch) -> pa.Array:
        """For each row of ``batch`` whether it is known."""
        codes = np.zeros(batch.num_rows, dtype=np.int64)
        for name, values, distinct in self._columns:
            column = _plain(batch.column(name))
            places = _places(column if column.type == values.type else column.cast(values.type), values)
            pairs = np.where((codes < 0) | (places < 0), _ABSENT, codes * len(values) + places)
            found = np.minimum(np.searchsorted(distinct, pairs), max(len(distinct) - 1, 0))
            same = distinct[found] == pairs if len(distinct) else np.zeros(len(pairs), dtype=np.bool_)
            codes = np.where(same, found, _ABSENT)
        return array_of(codes >= 0, pa.bool_())


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _places(column: pa.Array, values: pa.Array) -> _Codes:
    found = pc.fill_null(pc.index_in(column, value_set=values), scalar_of(_ABSENT, pa.int32()))
    return numbers_of(found).astype(np.int64)
