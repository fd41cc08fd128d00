"""The artifact that engine ``onnx`` makes of a model: a graph, and a description of what feeds it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscore.errors import ModelError

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
