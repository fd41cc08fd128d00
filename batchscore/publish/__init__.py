"""The one commit by which predictions become visible, and what guards it."""

from __future__ import annotations

from batchscore.publish.cleanup import discard, discard_run, explain_failure, fence, may_publish
from batchscore.publish.leftovers import Leftover, clear, find, remove
from batchscore.publish.removal import check_removal
from batchscore.publish.swap import commit, withdraw
from batchscore.publish.target import check_target, inspect, prepare, published_files

__all__ = [
    "Leftover",
    "check_removal",
    "check_target",
    "clear",
    "commit",
    "discard",
    "discard_run",
    "explain_failure",
    "fence",
    "find",
    "inspect",
    "may_publish",
    "prepare",
    "published_files",
    "remove",
    "withdraw",
]
