"""The one commit by which predictions become visible, and what guards it."""

from __future__ import annotations

from batchscore.publish.cleanup import discard, discard_run, explain_failure, fence, may_publish
from batchscore.publish.horizon import DataFile, Reach, data_files, forgotten_files, writable
from batchscore.publish.landing import Outcome, Tried, outcome_of
from batchscore.publish.leftovers import Leftover, clear, find, remove
from batchscore.publish.removal import check_removal
from batchscore.publish.retention import (
    MOST_DAYS,
    RetentionPlan,
    delete_files,
    plan_retention,
    retention_days_of,
    sweep,
)
from batchscore.publish.rollback import RollbackPlan, RowsOfRun, plan_rollback, roll_back
from batchscore.publish.swap import MAX_ATTEMPTS, backoff, commit, withdraw
from batchscore.publish.target import check_target, inspect, prepare, published_files

__all__ = [
    "MAX_ATTEMPTS",
    "MOST_DAYS",
    "DataFile",
    "Leftover",
    "Outcome",
    "Reach",
    "RetentionPlan",
    "RollbackPlan",
    "RowsOfRun",
    "Tried",
    "backoff",
    "check_removal",
    "check_target",
    "clear",
    "commit",
    "data_files",
    "delete_files",
    "discard",
    "discard_run",
    "explain_failure",
    "fence",
    "find",
    "forgotten_files",
    "inspect",
    "may_publish",
    "outcome_of",
    "plan_retention",
    "plan_rollback",
    "prepare",
    "published_files",
    "remove",
    "retention_days_of",
    "roll_back",
    "sweep",
    "withdraw",
    "writable",
]
