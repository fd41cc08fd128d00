"""An engine's input batch as one matrix of numbers, described in text that a worker loads with nothing but Arrow.

What a booster sees of a table is decided by its library's way with pandas frames: booleans and whole numbers become
floats, categories become the codes of the training set, whatever is missing becomes NaN. A :class:`Features` says all
that of one model; it is made by the driver and stored in the artifact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import array_of, places_in
from batchscore.contracts import ModelInput
from batchscore.errors import ModelError, ModelRaisedError, listed
from batchscore.schema import FLOATS, INTEGERS, element_of

Matrix: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Dtype: TypeAlias = Literal["float32", "float64"]
RANK = 2
WIDTH: Mapping[Dtype, int] = {"float32": 4, "float64": 8}  # bytes
# Types whose every value is a float32: the libraries choose float64 for all others.
NARROW = ("boolean", "byte", "short", "float")


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of a model.

    Attributes:
        name: of the input.
        type: its type name.
        categories: its training categories in the order of their codes, or None for a number.
        width: values a row; more than one for an input of arrays.
    """

    name: str
    type: str
    categories: tuple[Any, ...] | None = None
    width: int = 1


@dataclass(frozen=True, slots=True)
class Features:
    """How a batch becomes a matrix.

    Attributes:
        columns: the inputs, in the order of the model's features.
        dtype: of the matrix.
        by_way_of_double: whole numbers are rounded to float64 before they are rounded to float32.
    """

    columns: tuple[Feature, ...]
    dtype: Dtype
    by_way_of_double: bool = False

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return sum(column.width for column in self.columns)

    def matrix(self, batch: pa.RecordBatch) -> Matrix:
        """The batch as a row-major matrix of shape (rows, :attr:`width`); null is NaN. May share Arrow's memory.

        Raises:
            ModelError: null in an input that has no null, or arrays of another length than the model takes.
        """
        if self._is_one_array:
            return self._from_lists(batch.column(0))
        arrays = self._arrays(batch)
        numbers = pa.RecordBatch.from_arrays(arrays, names=[str(index) for index in range(len(arrays))])
        if not batch.num_rows:
            return np.empty((0, self.width), self.dtype)
        found: Matrix = numbers.to_tensor(null_to_nan=True, row_major=True).to_numpy()
        return found

    def separate(self, batch: pa.RecordBatch) -> list[Matrix]:
        """The columns of :meth:`matrix`, each contiguous. May share Arrow's memory.

        Raises:
            ModelError: as of :meth:`matrix`.
        """
        if self._is_one_array:
            return list(np.ascontiguousarray(self._from_lists(batch.column(0)).T))
        if not batch.num_rows:
            return [np.empty(0, self.dtype)] * self.width
        missing = array_of([np.nan], self._wanted)[0]  # `pa.scalar` would import pandas
        arrays = [array.fill_null(missing) if array.null_count else array for array in self._arrays(batch)]
        return [
            np.frombuffer(array.buffers()[1], self.dtype, len(array), array.offset * WIDTH[self.dtype])
            for array in arrays
        ]

    @property
    def _is_one_array(self) -> bool:
        return len(self.columns) == 1 and element_of(self.columns[0].type) is not None

    @property
    def _wanted(self) -> pa.DataType:
        return pa.float32() if self.dtype == "float32" else pa.float64()

    def _arrays(self, batch: pa.RecordBatch) -> list[pa.Array]:
        return [
            self._numbers(array, column, self._wanted)
            for array, column in zip(batch.columns, self.columns, strict=True)
        ]

    def as_json(self) -> dict[str, Any]:
        """What :func:`from_json` reads."""
        columns = [
            {
                "name": column.name,
                "type": column.type,
                "categories": None if column.categories is None else list(column.categories),
                "width": column.width,
            }
            for column in self.columns
        ]
        return {"dtype": self.dtype, "by_way_of_double": self.by_way_of_double, "columns": columns}

    def _numbers(self, array: pa.Array, column: Feature, wanted: pa.DataType) -> pa.Array:
        if column.categories is not None:
            values = array_of(column.categories, to_arrow(column.type))
            return places_in(array, values, skip_nulls=True).cast(wanted)
        if array.null_count and not pa.types.is_floating(array.type):
            raise _null(column)
        if array.type == wanted:
            return array
        if self.by_way_of_double and pa.types.is_integer(array.type):
            array = array.cast(pa.float64(), safe=False)
        return array.cast(wanted, safe=False)

    def _from_lists(self, array: pa.Array) -> Matrix:
        column = self.columns[0]
        if column.width == 1 and not pa.types.is_nested(array.type):
            array = pa.FixedSizeListArray.from_arrays(array, 1)
        flat = array.flatten()
        if array.null_count or len(flat) != len(array) * column.width or not _regular(array, column.width):
            raise ModelRaisedError(
                f"input {column.name or '(unnamed)'} has the wrong shape",
                found="null arrays" if array.null_count else "arrays of another length",
                allowed=(f"arrays of {column.width} values",),
            )
        if flat.null_count and not pa.types.is_floating(flat.type):
            raise _null(column)
        if not len(flat):
            return np.empty((0, column.width), self.dtype)
        one = pa.RecordBatch.from_arrays([flat.cast(self._wanted, safe=False)], names=["values"])
        values: Matrix = one.to_tensor(null_to_nan=True).to_numpy()
        return values.reshape(len(array), column.width)


def describe(
    inputs: Sequence[ModelInput],
    categories: Mapping[str, pa.Array],
    compare: Dtype,
    *,
    by_way_of_double: bool = False,
) -> Features:
    """How the inputs of a model that compares in ``compare`` become its matrix.

    Args:
        inputs: the model's inputs, in the order of its features.
        categories: of each categorical input; see ``categories.py``.
        compare: float32 for a library that casts its inputs, else float64.
        by_way_of_double: see :class:`Features`; of scikit-learn, where not all inputs are whole numbers.

    Raises:
        ModelError: an input is not a number, or an array beside other inputs.
    """
    reason = unfit(inputs, categories)
    if reason is not None:
        raise ModelError("the model's inputs do not fit one matrix of numbers", found=reason)
    columns = tuple(_feature(item, categories) for item in inputs)
    kinds = [element_of(item.type) or item.type for item in inputs if item.name not in categories]
    narrow = compare == "float32" or all(kind in NARROW for kind in kinds)
    whole = all(kind in (*INTEGERS, "boolean") for kind in kinds)
    return Features(columns, "float32" if narrow else "float64", by_way_of_double and not whole)


def unfit(inputs: Sequence[ModelInput], categories: Mapping[str, pa.Array] | None) -> str | None:
    """Why the inputs cannot be one matrix of numbers, or None.

    Args:
        inputs: the model's inputs.
        categories: of each categorical input; None where they are not known yet: then text may be one.
    """
    for item in inputs:
        kind = element_of(item.type) or item.type
        coded = kind == "string" if categories is None else item.name in categories
        if kind not in (*INTEGERS, *FLOATS, "boolean") and not coded:
            return f"input {item.name or '(unnamed)'} is {item.type}, without categories that the model was trained on"
        is_array = item.shape is not None or element_of(item.type) is not None
        if is_array and (len(inputs) > 1 or item.shape is None or len(item.shape) != RANK or item.shape[1] < 1):
            names = listed([other.name or "(unnamed)" for other in inputs])
            return f"input {item.name or '(unnamed)'} of {names} is not one matrix of known width"
    return None


def from_json(stored: Mapping[str, Any]) -> Features:
    """What :meth:`Features.as_json` wrote."""
    columns = tuple(
        Feature(
            str(column["name"]),
            str(column["type"]),
            None if column["categories"] is None else tuple(column["categories"]),
            int(column["width"]),
        )
        for column in stored["columns"]
    )
    dtype: Dtype = "float32" if stored["dtype"] == "float32" else "float64"
    return Features(columns, dtype, bool(stored["by_way_of_double"]))


def survives_float32(matrix: Matrix) -> bool:
    """Whether every value is NaN or exactly a float32.

    >>> survives_float32(np.array([[0.5, np.nan]])), survives_float32(np.array([[0.1]]))
    (True, False)
    """
    if matrix.dtype == np.float32:
        return True
    narrow = _narrowed(matrix, "float32")
    # NaN differs from itself: where a value differs after the round trip, only NaN may.
    changed = narrow != matrix
    return not bool(changed.any()) or bool(np.isnan(matrix[changed]).all())


def _feature(item: ModelInput, categories: Mapping[str, pa.Array]) -> Feature:
    if item.shape is not None:  # `unfit` has seen that it is (-1, k)
        return Feature(item.name, f"array<{element_of(item.type) or item.type}>", None, item.shape[1])
    known = categories.get(item.name)
    return Feature(item.name, item.type, None if known is None else tuple(known.to_pylist()))


def _narrowed(values: Matrix, dtype: str) -> Matrix:
    with np.errstate(over="ignore"):  # beyond float32 lies infinity, as in the libraries' own casts
        return values.astype(dtype, copy=False)


def _regular(array: pa.Array, width: int) -> bool:
    return bool(pc.all(pc.equal(pc.list_value_length(array), width), min_count=0).as_py())


def _null(column: Feature) -> ModelRaisedError:
    return ModelRaisedError(
        f"input {column.name or '(unnamed)'} has nulls, and MLflow has no null for type {column.type}",
        hint="fill them, or train the model with the column as double (which holds whole numbers up to 2^53)",
    )
