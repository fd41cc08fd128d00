"""The artifact that engine ``onnx`` makes of a model: a graph and how the model's columns feed it.

Text never reaches the graph. ONNX has no missing string, and a string costs a Python object each; so a text column is
coded here, by position in the values that the model knows, with codes of their own for null and for any other value.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelFiles, ModelInput
from batchscore.engines.arrays import MATRIX, batch_of, empty_batch
from batchscore.engines.onnx_tensors import column, open_session, stacked
from batchscore.errors import ModelError
from batchscore.schema import FLOATS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

GRAPH_FILE = "model.onnx"
DESCRIPTION_FILE = "conversion.json"
FORMAT = 1

# The least double that rounds to infinity as a float.
FLOAT_OVERFLOW = float.fromhex("0x1.ffffffp+127")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The values of a column that the model tells apart, in the order of their codes.

    In a tensor of whole numbers null has the code ``len(values)`` and any other value ``len(values) + 1``; in one of
    floats both are NaN.

    Attributes:
        type: the column's type.
        values: of that type.
        null: whether the model takes a null; where it raises, so does the engine.
        unseen: whether the model takes other values.
    """

    type: str
    values: tuple[Any, ...]
    null: bool = True
    unseen: bool = True


@dataclass(frozen=True, slots=True)
class Feed:
    """One input of the graph, a matrix with one column per model input in ``columns``.

    Attributes:
        name: the graph's name for it.
        dtype: ``float32``, ``float64`` or ``int64``.
        columns: names of model inputs; one input with a shape feeds a whole matrix.
        vocabularies: one per column, None for a column of numbers that enter as they are.
    """

    name: str
    dtype: str
    columns: tuple[str, ...]
    vocabularies: tuple[Vocabulary | None, ...]


@dataclass(frozen=True, slots=True)
class Guard:
    """Values of a column for which the reference raises: ``nan``, ``infinity`` or ``beyond float``."""

    column: str
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """How a model's columns feed the graph and what the graph returns.

    Attributes:
        feeds: the graph's inputs.
        guards: what may not reach it.
        output: the graph's one output; shape (rows,) or (rows, k).
        classes: the labels, where the output is their positions.
        dtype: numpy type of the reference's values.
    """

    feeds: tuple[Feed, ...]
    guards: tuple[Guard, ...]
    output: str
    classes: tuple[Any, ...] | None
    dtype: str


def is_artifact(folder: Path) -> bool:
    """Whether the folder holds an artifact of engine ``onnx``."""
    return (folder / DESCRIPTION_FILE).is_file()


def write_description(description: Description, folder: Path) -> None:
    """Writes the description; the same one gives the same bytes."""
    document = {"format": FORMAT, **dataclasses.asdict(description)}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def read_description(folder: Path) -> Description:
    """Reads what :func:`write_description` wrote.

    Raises:
        ModelError: it is damaged, or of another version of batchscore.
    """
    try:
        document = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ModelError("the artifact was made by another version", found=document["format"], allowed=(FORMAT,))
        return Description(
            feeds=tuple(_feed(item) for item in document["feeds"]),
            guards=tuple(Guard(item["column"], tuple(item["refused"])) for item in document["guards"]),
            output=document["output"],
            classes=None if document["classes"] is None else tuple(document["classes"]),
            dtype=document["dtype"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{DESCRIPTION_FILE} cannot be read",
            found=f"{type(error).__name__}: {error}",
            hint="the artifact is damaged: remove it, and it is made again",
        ) from error


def _feed(item: dict[str, Any]) -> Feed:
    known = [
        None if entry is None else Vocabulary(entry["type"], tuple(entry["values"]), entry["null"], entry["unseen"])
        for entry in item["vocabularies"]
    ]
    return Feed(item["name"], item["dtype"], tuple(item["columns"]), tuple(known))


class ConvertedEngine:
    """A converted model.

    Args:
        session: the loaded graph.
        description: what feeds it.
        files: the model.

    Raises:
        ModelError: the artifact is of another model's inputs.
    """

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
        self._classes = None if description.classes is None else pa.array(description.classes)

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
            raise ModelError(f"model {self._label} raised while it scored", found=error) from error
        return batch_of(self._columns(values), outputs, inputs.num_rows, self._label)

    def _columns(self, values: np.ndarray[Any, Any]) -> list[Any]:
        """One array per declared output, as the reference maps an array to them."""
        if self._classes is not None:
            return [self._classes.take(pa.array(values.reshape(-1)))]
        values = values.astype(self._description.dtype, copy=False)
        outputs = self._files.outputs
        if values.ndim == MATRIX and len(outputs) > 1:
            if values.shape[1] != len(outputs):
                raise ModelError(
                    f"model {self._label} returned other outputs than it declares: it has {values.shape[1]} columns",
                    allowed=[f"{output.name or 'prediction'} {output.type}" for output in outputs],
                )
            return [values[:, index] for index in range(values.shape[1])]
        if len(outputs) != 1:
            raise ModelError(f"model {self._label} returned other outputs than it declares: outputs are missing")
        return [values]


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
        self._null, self._other = (np.nan, np.nan) if dtype.kind == "f" else (count, count + 1)
        self._dtype = dtype
        self._values = pa.array(known.values, to_arrow(known.type))
        if known.type in FLOATS:
            floats = self._values.to_numpy()
            self._order = np.argsort(floats)
            self._sorted = floats[self._order]

    def codes(self, array: pa.Array, item: ModelInput) -> np.ndarray[Any, Any]:
        """Codes of shape (rows,).

        Raises:
            ModelError: a null, or a value that is not in the vocabulary, which the model refuses.
        """
        is_float = self._known.type in FLOATS
        found, nulls = self._float_positions(array) if is_float else self._positions(array)
        codes = np.where(found < 0, self._other, found).astype(self._dtype)
        codes[nulls] = self._null
        unseen = (found < 0) & ~nulls
        if not self._known.null and nulls.any():
            raise _refused(item, "a null")
        if not self._known.unseen and unseen.any():
            raise _refused(item, f"a value that it was not trained on: {array[int(unseen.argmax())].as_py()!r}")
        return codes

    def _positions(self, array: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        found = pc.fill_null(pc.index_in(array, value_set=self._values, skip_nulls=True), -1)
        return found.to_numpy(), array.is_null().to_numpy(zero_copy_only=False)

    def _float_positions(self, array: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """-0.0 is 0.0 here, unlike in Arrow's hash, and NaN is null."""
        values = array.to_numpy(zero_copy_only=False)
        nearest = np.minimum(np.searchsorted(self._sorted, values), max(len(self._sorted) - 1, 0))
        if not len(self._sorted):
            return np.full(len(values), -1), np.isnan(values)
        found = np.where(self._sorted[nearest] == values, self._order[nearest], -1)
        return found, np.isnan(values)


def _check(array: pa.Array, guard: Guard, label: str) -> None:
    """Refuses what the reference refuses: there one such value fails its whole batch."""
    flat = array.flatten() if pa.types.is_nested(array.type) else array
    values = flat.to_numpy(zero_copy_only=False)
    for kind in guard.refused:
        if kind == "nan":
            bad = np.isnan(values)
        elif kind == "infinity":
            bad = np.isinf(values)
        else:
            bad = np.abs(values) >= FLOAT_OVERFLOW
        if bad.any():
            raise ModelError(
                f"model {label} raised while it scored",
                found=f"{values[int(bad.argmax())]} in input {guard.column}, which the model does not take",
            )


def _refused(item: ModelInput, what: str) -> ModelError:
    return ModelError(f"input {item.name} has {what}, which the model does not take")


def load_converted(files: ModelFiles, threads: int) -> ConvertedEngine:
    """Loads an artifact.

    Raises:
        ModelError: it is damaged, or ONNX Runtime does not know an operator of it.
    """
    folder = Path(files.path)
    description = read_description(folder)
    try:
        session = open_session(folder / GRAPH_FILE, threads)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ModelError(f"ONNX Runtime does not load the graph of model {files.name}", found=error) from error
    return ConvertedEngine(session, description, files)
