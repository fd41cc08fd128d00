"""The one commit by which predictions become visible, and what guards it."""

from __future__ import annotations

from batchscore.publish.cleanup import discard, discard_run, fence
from batchscore.publish.horizon import DataFile, Reach, data_files, forgotten_files, writable
from batchscore.publish.removal import check_removal
from batchscore.publish.retention import RetentionPlan, delete_files, plan_retention, retention_days_of, sweep
from batchscore.publish.rollback import RollbackPlan, RowsOfRun, plan_rollback, roll_back
from batchscore.publish.swap import MAX_ATTEMPTS, backoff, commit
from batchscore.publish.target import check_target, inspect, prepare

__all__ = [
    "MAX_ATTEMPTS",
    "DataFile",
    "Reach",
    "RetentionPlan",
    "RollbackPlan",
    "RowsOfRun",
    "backoff",
    "check_removal",
    "check_target",
    "commit",
    "data_files",
    "delete_files",
    "discard",
    "discard_run",
    "fence",
    "forgotten_files",
    "inspect",
    "plan_retention",
    "plan_rollback",
    "prepare",
    "retention_days_of",
    "roll_back",
    "sweep",
    "writable",
]
