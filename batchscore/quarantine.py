"""What runs of a table left out: counts by reason, and a few rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchscore import manifests, record
from batchscore.contracts import REASONS
from batchscore.record.quarantine import QuarantineCount, QuarantinedRow


@dataclass(frozen=True, slots=True)
class QuarantineReport:
    """The rows of a quarantine table, counted.

    Attributes:
        table: the prediction table.
        uri: the quarantine table.
        counts: by run, reason and column, the newest run first.
        states: how each of these runs ended; what runs left out that published nothing counts for nobody.
        examples: rows of the newest of these runs.
        meanings: each reason in words.
        notes: what to do next.
    """

    table: str
    uri: str
    counts: tuple[QuarantineCount, ...]
    states: Mapping[str, str]
    examples: tuple[QuarantinedRow, ...]
    meanings: Mapping[str, str]
    notes: tuple[str, ...] = ()


def report(table: str, run: str | None, examples: int) -> QuarantineReport:
    """What is in the quarantine of a table.

    Args:
        table: the prediction table.
        run: only what this run left out; its id or the beginning of it.
        examples: rows to show.

    Raises:
        SettingsError: no such run.
        UnavailableError: storage could not be reached.
    """
    run_id = record.show(table, run)[0].run_id if run else None
    counts = tuple(record.quarantine.counts(table, run_id))
    runs = {entry.run_id: entry for entry in record.history(table, limit=10**9)}
    named = list(dict.fromkeys(count.run_id for count in counts))
    replayed = _replayed(table, named)
    states = {
        name: (f"replayed by {replayed[name]}" if name in replayed else runs[name].state)
        for name in named
        if name in runs
    }
    shown = record.quarantine.examples(table, named[0], examples) if named else []
    open_runs = [name for name in named if states.get(name) == "published"]
    notes = (f"after the fix: batchscore replay {open_runs[0]} …",) if open_runs else ()
    return QuarantineReport(
        table=table,
        uri=record.quarantine.quarantine_uri(table),
        counts=counts,
        states=states,
        examples=tuple(shown),
        meanings={str(reason): text for reason, text in REASONS.items()},
        notes=notes,
    )


def _replayed(table: str, runs: list[str]) -> dict[str, str]:
    """Which of the runs were replayed, and by which run."""
    if not runs:
        return {}
    heads = manifests.heads(table, (run for run in manifests.all_ids(table) if run > min(runs)))
    published = {entry.run_id for entry in record.history(table, limit=10**9) if entry.state == "published"}
    return {head.replays: head.run_id for head in heads.values() if head.replays and head.run_id in published}
