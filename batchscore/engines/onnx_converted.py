"""Serves the artifact that engine ``onnx`` makes of a model.

Text never reaches the graph. ONNX has no missing string, and a string costs a Python object each; so a text column is
coded here, by position in the values that the model knows, with codes of their own for null and for any other value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import array_of, numbers_of, places_in
from batchscore.contracts import ModelFiles, ModelInput
from batchscore.engines.arrays import MATRIX, batch_of, empty_batch
from batchscore.engines.failures import raised
from batchscore.engines.onnx_artifact import (
    FLOAT_OVERFLOW,
    GRAPH_FILE,
    Description,
    Feed,
    Guard,
    Vocabulary,
    read_description,
)
from batchscore.engines.onnx_tensors import arrow_of, column, open_session, stacked
from batchscore.errors import ModelError, ModelRaisedError, SetupError
from batchscore.schema import FLOATS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class ConvertedEngine:
    """A converted model.

    Args:
        session: the loaded graph.
        description: what feeds it.
        files: the model.

    Raises:
        ModelError: the artifact is of another model's inputs.
    """

    takes_codes = True

    def __init__(self, session: InferenceSession, description: Description, files: ModelFiles) -> None:
        positions = {item.name: index for index, item in enumerate(files.inputs)}
        missing = {name for feed in description.feeds for name in feed.columns} - set(positions)
        if missing:
            raise ModelError(f"the artifact of model {files.name} is of other inputs", found=sorted(missing))
        self._session = session
        self._files = files
        self._label = f"{files.name} {files.version}".strip()
        self._description = description
        self._feeds = [_Feeding(feed, files.inputs, positions) for feed in description.feeds]
        self._guards = [(positions[guard.column], guard) for guard in description.guards]
        self._classes = None if description.classes is None else _labels(description.classes)

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch; see :class:`batchscore.engines.base.Engine`."""
        outputs = self._files.outputs
        if inputs.num_rows == 0:
            return empty_batch(outputs)
        for index, guard in self._guards:
            _check(inputs.column(index), guard, self._label)
        feeds = {feeding.name: feeding.tensor(inputs) for feeding in self._feeds}
        try:
            values = self._session.run([self._description.output], feeds)[0]
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise raised(self._label, inputs.num_rows, error) from error
        return batch_of(self._columns(values), outputs, inputs.num_rows, self._label)

    def _columns(self, values: np.ndarray[Any, Any]) -> list[Any]:
        """One array per declared output, as the reference maps an array to them."""
        if self._classes is not None:
            return [self._classes.take(arrow_of(values.reshape(-1)))]
        values = values.astype(self._description.dtype, copy=False)
        outputs = self._files.outputs
        if values.ndim == MATRIX and len(outputs) > 1:
            if values.shape[1] != len(outputs):
                raise ModelError(
                    f"model {self._label} returned other outputs than it declares: it has {values.shape[1]} columns",
                    allowed=[f"{output.name or 'prediction'} {output.type}" for output in outputs],
                )
            return [arrow_of(values[:, index]) for index in range(values.shape[1])]
        if len(outputs) != 1:
            raise ModelError(f"model {self._label} returned other outputs than it declares: outputs are missing")
        return [arrow_of(values)]


class _Feeding:
    """One of the graph's inputs, ready to be filled from batches."""

    def __init__(self, feed: Feed, inputs: Sequence[ModelInput], positions: dict[str, int]) -> None:
        self.name = feed.name
        self._dtype = np.dtype(feed.dtype)
        self._indices = [positions[name] for name in feed.columns]
        self._items = [inputs[index] for index in self._indices]
        self._coders = [None if known is None else _Coder(known, self._dtype) for known in feed.vocabularies]

    def tensor(self, inputs: pa.RecordBatch) -> np.ndarray[Any, Any]:
        """The matrix of shape (rows, columns)."""
        if self._items[0].shape is not None:
            return column(inputs.column(self._indices[0]), self._dtype, self._items[0], is_matrix=True)
        if not any(self._coders):
            whole = len(self._indices) == inputs.num_columns and self._indices == sorted(self._indices)
            return stacked(inputs if whole else inputs.select(self._indices), self._dtype, self._items)
        matrix = np.empty((inputs.num_rows, len(self._indices)), dtype=self._dtype)
        for position, (index, item, coder) in enumerate(zip(self._indices, self._items, self._coders, strict=True)):
            array = inputs.column(index)
            if coder is None:
                matrix[:, position] = column(array, self._dtype, item, is_matrix=False)
            else:
                matrix[:, position] = coder.codes(array, item)
        return matrix


class _Coder:
    """Values of one column as codes."""

    def __init__(self, known: Vocabulary, dtype: np.dtype[Any]) -> None:
        self._known = known
        count = len(known.values)
        codes = (np.nan, np.nan) if dtype.kind == "f" else (count, count + 1)
        self._null, self._other = (dtype.type(code) for code in codes)
        self._dtype = dtype
        arrow = to_arrow(known.type)
        values = array_of(known.values, arrow)
        self._set = pa.concat_arrays([values, pa.nulls(1, arrow)])  # null is found behind the values
        if known.type in FLOATS:
            floats = numbers_of(values)
            self._order = np.argsort(floats)
            self._sorted = floats[self._order]

    def codes(self, array: pa.Array, item: ModelInput) -> np.ndarray[Any, Any]:
        """Codes of shape (rows,).

        Raises:
            ModelError: a null, or a value that is not in the vocabulary, which the model refuses.
        """
        found = self._among_floats(array) if self._known.type in FLOATS else self._found(array)
        count = len(self._known.values)
        nulls, unseen = found == count, found > count
        codes = found.astype(self._dtype)
        codes[nulls], codes[unseen] = self._null, self._other
        if not self._known.null and nulls.any():
            raise _refused(item, "a null")
        if not self._known.unseen and unseen.any():
            raise _refused(item, f"a value that it was not trained on: {array[int(unseen.argmax())].as_py()!r}")
        return codes

    def _found(self, array: pa.Array) -> np.ndarray[Any, Any]:
        """Positions; of a null the first behind the values, of other values the second."""
        found = numbers_of(places_in(array, self._set).cast(pa.float64()))
        return np.where(np.isnan(found), len(self._set), found).astype(np.int64)

    def _among_floats(self, array: pa.Array) -> np.ndarray[Any, Any]:
        """The same, where -0.0 is 0.0, unlike in Arrow's hash, and NaN is null."""
        values = numbers_of(array)
        found = np.full(len(values), len(self._set))
        if len(self._sorted):
            nearest = np.minimum(np.searchsorted(self._sorted, values), len(self._sorted) - 1)
            found = np.where(self._sorted[nearest] == values, self._order[nearest], found)
        return np.where(np.isnan(values), len(self._set) - 1, found)


def _check(array: pa.Array, guard: Guard, label: str) -> None:
    """Refuses what the reference refuses: there one such value fails its whole batch."""
    flat = array.flatten() if pa.types.is_nested(array.type) else array
    values = numbers_of(flat)
    for kind in guard.refused:
        if kind == "nan":
            bad = np.isnan(values)
        elif kind == "infinity":
            bad = np.isinf(values)
        else:
            bad = np.abs(values) >= FLOAT_OVERFLOW
        if bad.any():
            raise ModelRaisedError(
                f"model {label} raised while it scored",
                found=f"{values[int(bad.argmax())]} in input {guard.column}, which the model does not take",
            )


def _labels(classes: Sequence[Any]) -> pa.Array:
    """Labels as the types that pyarrow gives them."""
    kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return array_of(classes, kinds[type(classes[0])])


def _refused(item: ModelInput, what: str) -> ModelRaisedError:
    return ModelRaisedError(f"input {item.name} has {what}, which the model does not take")


def load_converted(files: ModelFiles, threads: int, *, cuda: bool = False) -> ConvertedEngine:
    """Loads an artifact, on the CPU or on a GPU.

    Raises:
        ModelError: it is damaged, or ONNX Runtime does not know an operator of it.
        SetupError: there is no GPU that ONNX Runtime can use.
    """
    folder = Path(files.path)
    description = read_description(folder)
    try:
        session = open_session(folder / GRAPH_FILE, threads, cuda=cuda)
    except SetupError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ModelError(f"ONNX Runtime does not load the graph of model {files.name}", found=error) from error
    return ConvertedEngine(session, description, files)
