"""The certificate of an engine: it scores the probes as the reference does, or it is refused.

An engine may be exact in batches of thousands and wrong in small ones, so it is asked in several sizes. Where the
reference itself raises there is nothing to compare with: those rows are left out and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from batchscore.contracts.proof import Certificate
from batchscore.engines.base import Engine
from batchscore.engines.differences import differences, is_probability, layout_reason
from batchscore.engines.rowtext import Typical
from batchscore.errors import ModelError, bounded

BATCH_ROWS = 4_096
# Rows a call, and calls for each batch of probes, beside the pass over all rows in BATCH_ROWS.
SMALL_BATCHES = ((1, 8), (7, 4))
MAX_WORST = 5
MAX_REASON_CHARS = 1_000
Batches: TypeAlias = tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]  # inputs, expected, found
# A reference that refuses single values is asked again in halves, up to this often for one batch of probes.
MAX_HALVES = 400


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

    Returns:
        The certificate. A candidate that raises where the reference does not is refused with its error.

    Raises:
        ModelError: the reference raises on every probe, or there are no probes.
    """
    tally = _Tally(allowed_abs_diff, frozenset(probabilities), Typical([batch for _, batch in probes]))
    counts: dict[str, int] = {}
    skipped, error = 0, ""
    reason = ""
    for kind, chunk in ((kind, chunk) for kind, batch in probes for chunk in _chunks(batch, BATCH_ROWS)):
        calls = _Calls(reference)
        kept, expected = calls.score(chunk)
        skipped, error = skipped + chunk.num_rows - len(kept), error or calls.error
        if expected is None:
            continue
        counts[kind] = counts.get(kind, 0) + len(kept)
        asked = chunk if len(kept) == chunk.num_rows else chunk.take(pa.array(kept))
        reason = _compare(candidate, kind, asked, expected, tally)
        if reason:
            break
    if not counts:
        raise ModelError(
            f"engine {engine} cannot be compared: the reference {reference_name} scores none of the probes",
            found=error or "there are no probes",
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
        skipped=skipped,
    )


@dataclass
class _Calls:
    """Scores what can be scored of a batch.

    Attributes:
        engine: the reference.
        left: how often it may still be asked.
        error: the first error.
    """

    engine: Engine
    left: int = MAX_HALVES
    error: str = ""

    def score(self, batch: pa.RecordBatch) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], pa.RecordBatch | None]:
        """Positions of the rows that were scored, and their scores; None where there are none."""
        found = list(self._halves(batch, 0))
        if not found:
            return np.empty(0, np.int64), None
        kept = np.concatenate([np.arange(start, start + scored.num_rows) for start, scored in found])
        return kept, found[0][1] if len(found) == 1 else pa.concat_batches([scored for _, scored in found])

    def _halves(self, batch: pa.RecordBatch, start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        if self.left <= 0:
            return
        self.left -= 1
        try:
            yield start, self.engine.score(batch)
        except Exception as error:  # noqa: BLE001  # the model is the user's code: it may raise anything
            self.error = self.error or bounded(error, MAX_REASON_CHARS)
            middle = batch.num_rows // 2
            if middle:
                yield from self._halves(batch.slice(0, middle), start)
                yield from self._halves(batch.slice(middle), start + middle)


@dataclass(order=True)
class _Worst:
    """A row with a difference; the larger ``rank``, the worse."""

    rank: tuple[bool, bool, float]
    output: str = field(compare=False)
    text: str = field(compare=False)


class _Marks:
    """Which rows of one batch of probes differ, in whatever batch they were scored."""

    def __init__(self, rows: int) -> None:
        self.flips, self.missing, self.beyond = (np.zeros(rows, bool) for _ in range(3))


@dataclass
class _Tally:
    """Differences over all probes."""

    allowed: float
    probabilities: frozenset[str]
    typical: Typical
    absolute: float = 0.0
    relative: float = 0.0
    flips: int = 0
    missing: int = 0
    beyond: int = 0
    worst: list[_Worst] = field(default_factory=list)
    farthest: _Worst | None = None

    def compare(self, marks: _Marks, start: int, kind: str, batches: Batches) -> None:
        """Takes in scored rows, which begin at ``start`` of the probes that ``marks`` is about."""
        _, expected, found = batches
        rows = slice(start, start + expected.num_rows)
        for name, one, two in zip(expected.schema.names, expected.columns, found.columns, strict=True):
            apart = differences(one, two, probability=is_probability(name, self.probabilities))
            self.absolute = max(self.absolute, float(apart.absolute.max(initial=0.0)))
            self.relative = max(self.relative, float(apart.relative.max(initial=0.0)))
            marks.flips[rows] |= apart.flips
            marks.missing[rows] |= apart.missing
            marks.beyond[rows] |= apart.absolute > self.allowed
            order = np.lexsort((-apart.absolute, ~apart.flips, ~apart.missing))[:MAX_WORST]
            for row in (*order, int(apart.absolute.argmax())):
                rank = (bool(apart.missing[row]), bool(apart.flips[row]), float(apart.absolute[row]))
                self._keep(rank, name, kind, int(row), batches)

    def close(self, marks: _Marks) -> None:
        """Counts the rows of one batch of probes."""
        self.flips += int(marks.flips.sum())
        self.missing += int(marks.missing.sum())
        self.beyond += int(marks.beyond.sum())

    def reason(self, allowed_flips: int, rows: int) -> str:
        """Why the candidate is refused, or ''."""
        row = self.worst[0] if self.worst else None
        if self.missing:
            problem = f"has NaN or null where the reference has not, or the other way round, in {self.missing}"
        elif self.flips > allowed_flips:
            problem = f"gives another label than the reference (allowed in {allowed_flips} rows) in {self.flips}"
        elif self.absolute > self.allowed:
            row = self.farthest
            problem = f"differs by up to {self.absolute:.3g} (allowed {self.allowed:.3g}) in {self.beyond}"
        else:
            return ""
        return f"output {row.output} {problem} of {rows} rows; {row.text}" if row else problem

    def _keep(self, rank: tuple[bool, bool, float], output: str, kind: str, row: int, batches: Batches) -> None:
        among = any(rank) and (len(self.worst) < MAX_WORST or rank > self.worst[-1].rank)
        farthest = rank[2] > (self.farthest.rank[2] if self.farthest else 0.0)
        if not (among or farthest):
            return
        inputs, expected, found = batches
        one, two = (bounded(batch.column(output)[row].as_py(), 80) for batch in (expected, found))
        text = f"{kind} probe, {output} is {two} instead of {one}: {self.typical.describe(inputs, row)}"
        entry = _Worst(rank, output, text)
        if farthest:
            self.farthest = entry
        if among and text not in [known.text for known in self.worst]:
            self.worst = sorted([*self.worst, entry], reverse=True)[:MAX_WORST]


def _compare(candidate: Engine, kind: str, inputs: pa.RecordBatch, expected: pa.RecordBatch, tally: _Tally) -> str:
    """Asks the candidate for rows that the reference has scored; the reason where it gives nothing to compare."""
    marks = _Marks(inputs.num_rows)
    reason = _asked(candidate, kind, (inputs, expected), 0, tally, marks)
    for size, calls in SMALL_BATCHES:
        if inputs.num_rows <= size:
            break
        for start in np.linspace(0, inputs.num_rows - size, calls).astype(int):
            few = (inputs.slice(start, size), expected.slice(start, size))
            reason = reason or _asked(candidate, f"{kind} (in a batch of {size})", few, int(start), tally, marks)
    tally.close(marks)
    return reason


def _asked(
    candidate: Engine,
    kind: str,
    batches: tuple[pa.RecordBatch, pa.RecordBatch],
    start: int,
    tally: _Tally,
    marks: _Marks,
) -> str:
    inputs, expected = batches
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
