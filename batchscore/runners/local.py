"""A pool of worker processes on this machine; no JVM."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait

from batchscore.contracts import ScoringTask, TaskResult
from batchscore.errors import BatchscoreError
from batchscore.runners.base import Group, OnResult, SplitsWorker
from batchscore.runners.process import WorkerProcess


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_spares: list[WorkerProcess] = []


def start_ahead(module: str, workers: int | None = None) -> None:
    """Starts the worker processes of a run that is still being planned; :class:`LocalRunner` takes them over.

    Each imports ``module`` meanwhile. A process that nobody takes ends with this one, or by :func:`end_spares`.

    Args:
        module: the worker function's module.
        workers: processes; None: as many as this process may use cores.
    """
    while len(_spares) < (workers or cores()):
        _spares.append(WorkerProcess(module))


def end_spares() -> None:
    """Ends the processes that no run has taken over."""
    while _spares:
        _spares.pop().end()


class LocalRunner:
    """Runs groups of splits on a pool of processes.

    Args:
        workers: most processes at a time; None: as many as this process may use cores.
    """

    name = "local"

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or cores()

    def run_splits(
        self, worker: SplitsWorker, task: ScoringTask, groups: Sequence[Group], on_result: OnResult
    ) -> list[TaskResult]:
        """See :class:`batchscore.runners.base.Runner`. No process outlives the call, however it ends."""
        waiting = deque(enumerate(groups))
        results: dict[int, TaskResult] = {}
        pool: list[WorkerProcess] = []
        try:
            for _ in range(min(self._workers, len(groups))):
                pool.append(_spares.pop() if _spares else WorkerProcess(worker.__module__))
                pool[-1].begin(worker, task)
                pool[-1].give(*waiting.popleft())
            end_spares()
            while len(results) < len(groups):
                for process in _ready(pool):
                    index = process.index
                    outcome = process.take()
                    if isinstance(outcome, BatchscoreError):
                        raise outcome
                    if index is not None:
                        results[index] = outcome
                    on_result(outcome)
                    if waiting:
                        process.give(*waiting.popleft())
        finally:
            for process in pool:
                process.end()
        return [results[index] for index in range(len(groups))]


def _ready(pool: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    by_connection = {process.connection: process for process in pool if process.index is not None}
    ready = wait(list(by_connection))
    return [process for connection, process in by_connection.items() if connection in ready]
