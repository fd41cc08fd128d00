"""A replay adds rows to units: none of them may be there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from batchscore.arrow.membership import KnownRows
from batchscore.arrow.values import shown_rows
from batchscore.contracts import Check, ScoringPlan, StagedFile, StagedOutput
from batchscore.errors import MAX_ITEMS, bounded
from batchscore.validate.staged import open_staged


def check_replayed(plan: ScoringPlan, staged: StagedOutput, published: Sequence[StagedFile]) -> Check:
    """Whether the keys of the staged rows are new to their units.

    Args:
        plan: a replay; its keys tell a row within a unit.
        staged: the rows that it adds.
        published: the files that the table holds of its units.

    Raises:
        UnavailableError: a file vanished or cannot be read.
    """
    names = [*plan.task.keys, *(name for name in plan.task.partition_by if name not in plan.task.keys)]
    ours = open_staged(plan, staged)
    added = pa.Table.from_batches(list(ours.batches(names)), schema=ours.schema(names))
    found = 0
    sample: list[str] = []
    if added.num_rows:
        known = KnownRows(added, names)
        for batch in open_staged(plan, replace(staged, files=tuple(published))).batches(names):
            there = batch.filter(known.among(batch))
            found += there.num_rows
            rows = shown_rows(there.slice(0, MAX_ITEMS - len(sample)))
            sample.extend(bounded(", ".join(f"{key}={row[key]}" for key in plan.task.keys)) for row in rows)
    text = f"{found} rows are published already" if found else "all new to their units"
    return Check(f"keys_not_published({', '.join(plan.task.keys)})", found == 0, text, found, tuple(sample))
