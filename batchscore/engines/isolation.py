"""A batch on which the model raises is halved until the rows that it raises on stand alone.

Until one scores, all pieces of one size are tried before any is halved again, so that bad rows side by side do not hide
the good ones.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from batchscore.errors import BadRowsError, BatchscoreError, ModelError, ModelRaisedError, bounded

# A batch of so many rows of which none scores, and no row that scored before: then it is the model, not the rows.
HOPELESS_ROWS = 16
# Of a longer batch so many rows, spread over it, stand for all: to ask each of 65,536 rows took minutes.
HOPELESS_PROBES = 256
# Multiples of it spread evenly without a period, which bad rows could have, too.
GOLDEN_RATIO = 0.6180339887498949

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


@dataclass(frozen=True, slots=True)
class _Failing:
    """A piece of a batch on which the model raised, from row ``start`` on."""

    start: int
    rows: pa.RecordBatch
    error: Exception


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
        self._takes_any_row = bool(getattr(engine, "takes_any_row", False))

    def scores(self, inputs: pa.RecordBatch, kept: pa.BooleanArray | None = None) -> Scores:
        """The scores of a batch, and the rows on which the model raises.

        Args:
            inputs: as an engine takes them.
            kept: which rows are wanted; None for all. The places of what is returned count these alone.

        Raises:
            ModelError: it raises on whatever it is given, or returned something else than its signature says.
            BadRowsError: it raises on more rows than the run may quarantine.
        """
        if kept is not None and self._takes_any_row and kept.true_count * 2 > len(kept):
            every = self._tried(inputs)  # cheaper than to copy the rows that stay
            if isinstance(every, pa.RecordBatch):
                return Scores(every.filter(kept))
        return self._scores(inputs if kept is None else inputs.filter(kept))

    def _scores(self, inputs: pa.RecordBatch) -> Scores:
        if not inputs.num_rows:
            return Scores(None)
        tried = self._tried(inputs)
        if isinstance(tried, pa.RecordBatch):
            return Scores(tried)
        _LOG.info("the model raised on a batch of %d rows: %s", inputs.num_rows, bounded(_said(tried)))
        parts: dict[int, pa.RecordBatch] = {}
        raised: list[tuple[int, str]] = []
        failing = deque([_Failing(0, inputs, tried)])
        while failing:
            if not self._has_scored and len(failing) >= HOPELESS_PROBES:
                self._refuse_hopeless(inputs, tried)
            # One after the other once a row has scored: of too many bad rows the first ones are enough to end the run.
            pieces = [failing.popleft() for _ in range(1 if self._has_scored else len(failing))]
            failing.extendleft(reversed(self._halved(pieces, parts, raised)))
        if not self._has_scored and inputs.num_rows >= HOPELESS_ROWS:
            raise _raises(inputs.num_rows, tried)
        self._refuse_excess(tried)
        ordered = [parts[start] for start in sorted(parts)]
        outputs = pa.Table.from_batches(ordered).combine_chunks().to_batches()[0] if ordered else None
        return Scores(outputs, tuple(sorted(raised)))

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

    def _halved(
        self, failing: list[_Failing], parts: dict[int, pa.RecordBatch], raised: list[tuple[int, str]]
    ) -> list[_Failing]:
        """Tries both halves of each piece; adds what scores by its first row, and single rows that do not."""
        left: list[_Failing] = []
        for piece in failing:
            if piece.rows.num_rows == 1:
                raised.append((piece.start, bounded(_said(piece.error))))
                self._given_up += 1
                if self._has_scored:
                    self._refuse_excess(piece.error)
                continue
            half = piece.rows.num_rows // 2
            for first, rows in ((0, piece.rows.slice(0, half)), (half, piece.rows.slice(half))):
                tried = self._tried(rows)
                if isinstance(tried, pa.RecordBatch):
                    parts[piece.start + first] = tried
                else:
                    left.append(_Failing(piece.start + first, rows, tried))
        return left

    def _refuse_hopeless(self, inputs: pa.RecordBatch, error: Exception) -> None:
        """Ends where none of some rows, spread over a batch, scores alone."""
        for probe in range(HOPELESS_PROBES):
            place = int(probe * GOLDEN_RATIO % 1 * inputs.num_rows)
            if isinstance(self._tried(inputs.slice(place, 1)), pa.RecordBatch):
                return
        raise _raises(HOPELESS_PROBES, error) from error

    def _refuse_excess(self, error: Exception) -> None:
        """Ends where more rows are given up than the run may quarantine."""
        if self._given_up < HOPELESS_ROWS or not 0 <= self._max_rows < self._given_up:
            return
        if not self._has_scored:
            raise _raises(self._given_up, error) from error
        raise BadRowsError(
            f"the model raises on more than the {self._max_rows:,} rows that may be quarantined; nothing was published",
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
