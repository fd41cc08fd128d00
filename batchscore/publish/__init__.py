"""The one commit by which predictions become visible, and what guards it."""

from __future__ import annotations

from batchscore.publish.cleanup import discard, discard_run, fence
from batchscore.publish.removal import check_removal
from batchscore.publish.swap import commit
from batchscore.publish.target import check_target, inspect, prepare, published_files

__all__ = [
    "check_removal",
    "check_target",
    "commit",
    "discard",
    "discard_run",
    "fence",
    "inspect",
    "prepare",
    "published_files",
]
