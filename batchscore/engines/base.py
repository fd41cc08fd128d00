"""What an engine is: one class in one file, with these two functions beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pyarrow as pa

from batchscore.contracts import ModelFiles, PinnedModel


class Engine(Protocol):
    """A loaded model.

    An engine whose attribute ``takes_codes`` is true takes text as dictionaries of Arrow, too. One whose attribute
    ``takes_any_row`` is true scores each row by itself and is harmed by none: it may be given rows whose scores nobody
    wants. One whose attribute ``lost`` is true scores nothing more: what it lived in is gone.
    """

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch.

        Args:
            inputs: one column per model input in signature order, named by the input, of the Arrow type of
                :func:`batchscore.arrow.types.to_arrow`; an input of shape (-1, k) as (fixed-size) lists.

        Returns:
            One column per output in order, named by the output ('' is called ``prediction``), with exactly
            ``inputs.num_rows`` rows and exactly the outputs' Arrow types. NaN stays NaN.

        Raises:
            ModelError: the model raised, or returned something else than it declares.
        """
        ...


class EngineModule(Protocol):
    """The functions of an engine's file."""

    def load(self, files: ModelFiles, threads: int) -> Engine:
        """Loads a model whose digest was verified.

        Raises:
            ModelError: the model cannot be loaded.
        """
        ...

    def supports(self, model: PinnedModel) -> str | None:
        """Why this engine cannot serve the model, or None where it can."""
        ...


class Converter(EngineModule, Protocol):
    """An engine that does not load the model's own files but an artifact that it makes of them.

    The artifact is made once, by the driver, and takes the place of the model's folder in what workers get: in
    :func:`load`, ``files.path`` and ``files.digest`` are the artifact's. Workers need none of the libraries that
    made it.
    """

    def convert(self, model: PinnedModel, folder: Path) -> None:
        """Writes the artifact into ``folder``, which exists and is empty.

        The same model and versions give the same scores, and nothing that depends on where it was made.

        Raises:
            ModelError: this model cannot be converted: which operator, feature or flavor is in the way.
            SetupError: something is missing here, for example a compiler.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Library → version of all that can change the artifact or its scores; a key of the cache."""
        ...
