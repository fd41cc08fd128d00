"""A batch on which the model raises is halved until the rows that it raises on stand alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from batchscore.errors import BadRowsError, BatchscoreError, ModelError, ModelRaisedError, bounded

# Rows on which the model raised, and no batch that it scored: then it is the model, not the rows.
HOPELESS_ROWS = 16

_LOG = logging.getLogger(__name__)


class Scorer(Protocol):
    """What the core needs of an engine: see :class:`batchscore.engines.base.Engine`."""

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Model inputs in, model outputs out, row by row."""
        ...


@dataclass(frozen=True, slots=True)
class Scores:
    """``outputs`` of the rows that could be scored, in their order; None where there is none.

    ``raised`` are the others: each row's place in the batch and what the model raised on it.
    """

    outputs: pa.RecordBatch | None
    raised: tuple[tuple[int, str], ...] = ()


class Isolating:
    """An engine that gives up single rows instead of batches.

    Args:
        engine: the loaded model.
        max_rows: rows that a run may give up, or -1.
    """

    def __init__(self, engine: Scorer, max_rows: int = -1) -> None:
        self._engine = engine
        self._max_rows = max_rows
        self._has_scored = False
        self._given_up = 0
        self.takes_codes = bool(getattr(engine, "takes_codes", False))

    def scores(self, inputs: pa.RecordBatch) -> Scores:
        """The scores of a batch, and the rows on which the model raises.

        Raises:
            ModelError: it raises on whatever it is given, or returned something else than its signature says.
            BadRowsError: it raises on more rows than the run may quarantine.
        """
        if not inputs.num_rows:
            return Scores(None)
        tried = self._tried(inputs)
        if isinstance(tried, pa.RecordBatch):
            return Scores(tried)
        _LOG.info("the model raised on a batch of %d rows: %s", inputs.num_rows, bounded(_said(tried)))
        parts: list[pa.RecordBatch] = []
        raised: list[tuple[int, str]] = []
        self._halve(inputs, 0, tried, parts, raised)
        if not self._has_scored and inputs.num_rows > 1:
            raise _raises(inputs.num_rows, tried)
        outputs = pa.Table.from_batches(parts).combine_chunks().to_batches()[0] if parts else None
        return Scores(outputs, tuple(raised))

    def _tried(self, inputs: pa.RecordBatch) -> pa.RecordBatch | Exception:
        """The scores, or what the model raised."""
        try:
            outputs = self._engine.score(inputs)
        except ModelRaisedError as error:
            return error
        except (BatchscoreError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # a model is somebody's code and raises whatever it likes
            return error
        self._has_scored = True
        return outputs

    def _halve(
        self,
        inputs: pa.RecordBatch,
        start: int,
        error: Exception,
        parts: list[pa.RecordBatch],
        raised: list[tuple[int, str]],
    ) -> None:
        """Adds the scores of the rows that can be scored, in their order, and those that cannot."""
        if inputs.num_rows == 1:
            raised.append((start, bounded(_said(error))))
            self._give_up(error)
            return
        half = inputs.num_rows // 2
        for first, piece in ((0, inputs.slice(0, half)), (half, inputs.slice(half))):
            tried = self._tried(piece)
            if isinstance(tried, pa.RecordBatch):
                parts.append(tried)
            else:
                self._halve(piece, start + first, tried, parts, raised)

    def _give_up(self, error: Exception) -> None:
        self._given_up += 1
        if self._given_up < HOPELESS_ROWS:
            return
        if not self._has_scored:
            raise _raises(self._given_up, error) from error
        if 0 <= self._max_rows < self._given_up:
            raise BadRowsError(
                f"the model raises on more than the {self._max_rows:,} rows that may be quarantined; nothing was "
                "published",
                found=_said(error),
                hint="mend the model or the rows, or raise quarantine.max_fraction or quarantine.max_rows",
            ) from error


def _said(error: Exception) -> str:
    if isinstance(error, ModelRaisedError):
        return str(error.found or error.problem)
    return f"{type(error).__name__}: {error}"


def _raises(rows: int, error: Exception) -> ModelError:
    return ModelError(
        f"the model raised on each of {rows:,} rows",
        found=_said(error),
        hint="score a few rows in a notebook with mlflow.pyfunc.load_model to see the whole trace",
    )
