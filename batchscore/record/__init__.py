"""The ledger: one row for each run of a table, and what can be learned of a run afterwards."""

from __future__ import annotations

from batchscore.record import quarantine
from batchscore.record.given import versions_given
from batchscore.record.ledger import append, history, ledger_uri, rebuild, show
from batchscore.record.masked import MaskedLedger, mask
from batchscore.record.published import published_records

__all__ = [
    "MaskedLedger",
    "append",
    "history",
    "ledger_uri",
    "mask",
    "published_records",
    "quarantine",
    "rebuild",
    "show",
    "versions_given",
]
