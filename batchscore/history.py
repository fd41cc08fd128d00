"""The runs of a table, and one run in full."""

from __future__ import annotations

from batchscore import record
from batchscore.contracts import Manifest, RunRecord


def history(table: str, limit: int = 20) -> list[RunRecord]:
    """The newest runs of a table, newest first.

    Raises:
        InputError: there is no such table.
    """
    return record.history(table, limit)


def show(table: str, run: str) -> tuple[RunRecord, Manifest | None]:
    """One run by its id or a unique beginning of it, and its manifest if it wrote one.

    Raises:
        InputError: no such run; near ids are named.
    """
    return record.show(table, run)
