"""The differences between two engines over all probes: counts, extremes, and the worst rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from batchscore.engines.differences import differences, is_probability, rounding
from batchscore.engines.rowtext import Typical
from batchscore.errors import bounded

MAX_WORST = 5
Batches: TypeAlias = tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]  # inputs, expected, found


@dataclass(order=True)
class Worst:
    """A row with a difference; the larger ``rank``, the worse."""

    rank: tuple[bool, bool, float]
    output: str = field(compare=False)
    row: str = field(compare=False)
    text: str = field(compare=False)


class Marks:
    """Which rows of one batch of probes differ, in whatever batch they were scored."""

    def __init__(self, rows: int) -> None:
        self.flips, self.missing, self.beyond = (np.zeros(rows, bool) for _ in range(3))


@dataclass
class Tally:
    """Differences over all probes."""

    allowed: float
    probabilities: frozenset[str]
    typical: Typical
    absolute: float = 0.0
    relative: float = 0.0
    flips: int = 0
    missing: int = 0
    beyond: int = 0
    worst: list[Worst] = field(default_factory=list)
    farthest: Worst | None = None

    def compare(self, marks: Marks, start: int, kind: str, batches: Batches) -> None:
        """Takes in scored rows, which begin at ``start`` of the probes that ``marks`` is about."""
        _, expected, found = batches
        rows = slice(start, start + expected.num_rows)
        for name, one, two in zip(expected.schema.names, expected.columns, found.columns, strict=True):
            apart = differences(one, two, probability=is_probability(name, self.probabilities))
            self.absolute = max(self.absolute, float(apart.absolute.max(initial=0.0)))
            self.relative = max(self.relative, float(apart.relative.max(initial=0.0)))
            marks.flips[rows] |= apart.flips
            marks.missing[rows] |= apart.missing
            beyond = apart.absolute > self.allowed
            if self.allowed:  # 0 asks for the same bits
                beyond &= apart.relative > rounding(one.type)
            marks.beyond[rows] |= beyond
            order = np.lexsort((-apart.absolute, ~apart.flips, ~apart.missing))[:MAX_WORST]
            for row in (*order, int(apart.absolute.argmax())):
                rank = (bool(apart.missing[row]), bool(apart.flips[row]), float(apart.absolute[row]))
                self._keep(rank, name, kind, int(row), batches)

    def close(self, marks: Marks) -> None:
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
        elif self.beyond:
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
        where = self.typical.describe(inputs, row)
        entry = Worst(rank, output, where, f"{kind} probe, {output} is {two} instead of {one}: {where}")
        if farthest:
            self.farthest = entry
        if among and where not in [known.row for known in self.worst]:  # a row may be scored in several batches
            self.worst = sorted([*self.worst, entry], reverse=True)[:MAX_WORST]
