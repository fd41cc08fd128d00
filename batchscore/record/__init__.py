"""The ledger: one row for each run of a table, and what can be learned of a run afterwards."""

from __future__ import annotations

from batchscore.record.ledger import append, history, ledger_uri, rebuild, show
from batchscore.record.masked import MaskedLedger, mask

__all__ = ["MaskedLedger", "append", "history", "ledger_uri", "mask", "rebuild", "show"]
