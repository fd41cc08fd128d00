"""What an engine is: one class in one file, with these two functions beside it."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from batchscore.contracts import ModelFiles, PinnedModel


class Engine(Protocol):
    """A loaded model."""

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
