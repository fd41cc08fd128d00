"""The certificate of an engine: it scores the probes as the reference does, or it is refused.

An engine may be exact in batches of thousands and wrong in small ones, so it is asked in several sizes. Where the
reference itself raises there is nothing to compare with: those rows are left out and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from batchscore.contracts.proof import Certificate
from batchscore.engines.base import Engine
from batchscore.engines.differences import layout_reason
from batchscore.engines.rowtext import Typical
from batchscore.engines.tally import Marks, Tally
from batchscore.errors import ModelError, bounded

BATCH_ROWS = 4_096
MAX_REASON_CHARS = 1_000
Pair: TypeAlias = tuple[pa.RecordBatch, pa.RecordBatch]  # inputs, and what the reference makes of them


@dataclass(frozen=True, slots=True)
class Effort:
    """How often engines are asked, for each batch of probes.

    Attributes:
        halves: a reference that refuses single values is asked again in halves, up to this often.
        small_batches: rows a call, and calls, beside the pass over all rows.
    """

    halves: int = 400
    small_batches: tuple[tuple[int, int], ...] = ((1, 8), (7, 4))


FULL = Effort()


class IncomparableError(ModelError):
    """The reference scores none of the probes, so that there is nothing to compare with."""


def certify(  # noqa: PLR0913  # the facts of a certificate, spelled out
    reference: Engine,
    candidate: Engine,
    probes: Sequence[tuple[str, pa.RecordBatch]],
    *,
    engine: str,
    model_digest: str,
    artifact_digest: str,
    versions: Mapping[str, str],
    allowed_abs_diff: float,
    allowed_label_flips: int,
    created_at: str,
    reference_name: str = "pyfunc",
    probabilities: Collection[str] = (),
    effort: Effort = FULL,
) -> Certificate:
    """Compares an engine with the reference.

    Args:
        reference: the registered model as MLflow loads it.
        candidate: the engine in question.
        probes: (kind, batch), see :func:`batchscore.engines.probes.build`.
        engine: the candidate's name.
        model_digest: of the model's folder.
        artifact_digest: of the candidate's artifact, '' for one that works from the model's own files.
        versions: of everything that can change a score.
        allowed_abs_diff: largest difference of a number.
        allowed_label_flips: rows whose label may differ; see :mod:`batchscore.engines.differences` for what a label
            and a tie are. A NaN or null that the other does not have is never allowed.
        created_at: ISO 8601, UTC.
        reference_name: the reference's name.
        probabilities: names of outputs that are probabilities, beside those whose name says so.
        effort: how often the reference may be asked.

    Returns:
        The certificate. A candidate that raises where the reference does not is refused with its error.

    Raises:
        IncomparableError: the reference raises on every probe, or there are no probes.
    """
    tally = Tally(allowed_abs_diff, frozenset(probabilities), Typical([batch for _, batch in probes]))
    counts: dict[str, int] = {}
    asking = _Reference(reference, effort)
    reason = ""
    for kind, chunk in ((kind, chunk) for kind, batch in probes for chunk in _chunks(batch, BATCH_ROWS)):
        for inputs, expected in asking.scored(chunk):
            counts[kind] = counts.get(kind, 0) + inputs.num_rows
            reason = reason or _compare(asking, candidate, kind, (inputs, expected), tally)
        if reason:
            break
    if not counts:
        raise IncomparableError(
            f"engine {engine} cannot be compared: the reference {reference_name} scores none of the probes",
            found=asking.error or "there are no probes",
            hint="check that the model scores rows of this input with engine pyfunc",
        )
    reason = reason or tally.reason(allowed_label_flips, sum(counts.values()))
    return Certificate(
        engine=engine,
        reference=reference_name,
        model_digest=model_digest,
        artifact_digest=artifact_digest,
        versions=tuple(sorted(versions.items())),
        probes=tuple(counts.items()),
        max_abs_diff=tally.absolute,
        max_rel_diff=tally.relative,
        label_flips=tally.flips,
        nan_mismatches=tally.missing,
        verdict="refused" if reason else "equal",
        reason=bounded(reason, MAX_REASON_CHARS),
        worst=tuple(row.text for row in tally.worst),
        allowed_abs_diff=allowed_abs_diff,
        allowed_label_flips=allowed_label_flips,
        created_at=created_at,
        skipped=asking.skipped,
    )


@dataclass
class _Reference:
    """The reference, which may refuse values that probes contain.

    Attributes:
        engine: the engine.
        skipped: rows that it refused.
        error: the first error.
    """

    engine: Engine
    effort: Effort
    skipped: int = 0
    error: str = ""

    def scored(self, batch: pa.RecordBatch) -> list[Pair]:
        """What can be scored of a batch: one batch without the rows that are refused, or several where that raises.

        The candidate is given just these batches, because the last bits of a model may depend on the rows beside.
        """
        pieces = list(self._halves(batch, 0, [self.effort.halves]))
        self.skipped += batch.num_rows - sum(piece.num_rows for _, piece in pieces)
        inputs = [batch.slice(start, piece.num_rows) for start, piece in pieces]
        if len(pieces) > 1:
            together = pa.concat_batches(inputs)
            expected = self.few(together)
            if expected is not None:
                return [(together, expected)]
        return [(part, piece) for part, (_, piece) in zip(inputs, pieces, strict=True)]

    def few(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        """The scores of a batch, or None where it is refused."""
        try:
            return self.engine.score(batch)
        except Exception as error:  # noqa: BLE001  # the model is the user's code: it may raise anything
            self.error = self.error or bounded(error, MAX_REASON_CHARS)
            return None

    def _halves(self, batch: pa.RecordBatch, start: int, left: list[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Start and scores of the parts that are not refused; ``left`` counts down how often to ask."""
        if left[0] <= 0:
            return
        left[0] -= 1
        expected = self.few(batch)
        middle = batch.num_rows // 2
        if expected is not None:
            yield start, expected
        elif middle:
            yield from self._halves(batch.slice(0, middle), start, left)
            yield from self._halves(batch.slice(middle), start + middle, left)


def _compare(reference: _Reference, candidate: Engine, kind: str, pair: Pair, tally: Tally) -> str:
    """Asks the candidate for rows that the reference has scored; the reason where it gives nothing to compare.

    In small batches the reference is asked again: where its own last bits depend on the size, that is not held
    against the candidate.
    """
    inputs, _ = pair
    marks = Marks(inputs.num_rows)
    reason = _asked(candidate, kind, pair, 0, tally, marks)
    for size, calls in reference.effort.small_batches:
        if inputs.num_rows <= size:
            break
        for start in np.unique(np.linspace(0, inputs.num_rows - size, calls).astype(int)):
            few = inputs.slice(start, size)
            expected = None if reason else reference.few(few)
            if expected is not None:
                reason = _asked(candidate, f"{kind} (in a batch of {size})", (few, expected), int(start), tally, marks)
    tally.close(marks)
    return reason


def _asked(
    candidate: Engine,
    kind: str,
    pair: Pair,
    start: int,
    tally: Tally,
    marks: Marks,
) -> str:
    inputs, expected = pair
    try:
        found = candidate.score(inputs)
    except Exception as error:  # noqa: BLE001  # a library may raise anything; that is a reason, not a failure
        row, cause = _offender(candidate, inputs, error)
        where = tally.typical.describe(inputs, row)
        return f"it raises where the reference scores, on a {kind} probe: {_first(cause)}; {where}"
    reason = layout_reason(expected, found)
    if reason is None:
        tally.compare(marks, start, kind, (inputs, expected, found))
        return ""
    return f"on {inputs.num_rows} {kind} probes {reason}"


def _chunks(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _offender(candidate: Engine, inputs: pa.RecordBatch, error: Exception) -> tuple[int, Exception]:
    """A row on which the candidate raises, found by halves, and what it raises there."""
    start, stop = 0, inputs.num_rows
    while stop - start > 1:
        middle = (start + stop) // 2
        for low, high in ((start, middle), (middle, stop)):
            try:
                candidate.score(inputs.slice(low, high - low))
            except Exception as smaller:  # noqa: BLE001  # see above
                start, stop, error = low, high, smaller
                break
        else:
            break  # it raises on the whole alone
    return start, error


def _first(error: Exception) -> str:
    return bounded(" ".join(str(error).split()), 400)
