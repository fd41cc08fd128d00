"""The scoring core: Arrow batches in, Arrow batches of keys, predictions and lineage out.

``run_splits_task`` and ``run_batches_task`` are the worker functions that every runner calls.
"""

from __future__ import annotations

from batchscore.score.core import ScoredBatch, scorable_inputs, score_batch
from batchscore.score.worker import in_spark, load_ahead, run_batches_task, run_splits_task

__all__ = [
    "ScoredBatch",
    "in_spark",
    "load_ahead",
    "run_batches_task",
    "run_splits_task",
    "scorable_inputs",
    "score_batch",
]
