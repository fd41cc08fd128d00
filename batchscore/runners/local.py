"""A pool of worker processes on this machine; no JVM."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait

from batchscore.contracts import ScoringTask, TaskResult
from batchscore.errors import BatchscoreError
from batchscore.processors import usable_cores
from batchscore.runners.base import Group, OnResult, SplitsWorker
from batchscore.runners.process import WorkerProcess

_spares: list[WorkerProcess] = []


def start_ahead(module: str, workers: int | None = None) -> None:
    """Starts the worker processes of a run that is still being planned; :class:`LocalRunner` takes them over.

    Each imports ``module`` meanwhile. A process that nobody takes ends with this one, or by :func:`end_spares`.

    Args:
        module: the worker function's module.
        workers: processes; None: as many as this process may use cores.
    """
    while len(_spares) < (workers or usable_cores()):
        _spares.append(WorkerProcess(module))


def end_spares() -> None:
    """Ends the processes that no run has taken over."""
    while _spares:
        _spares.pop().end()


class LocalRunner:
    """Runs groups of splits on a pool of processes.

    Args:
        workers: most processes at a time; None: as many as this process may use cores.
        keep: processes stay for the next run, with what they have imported and the model that they have loaded, until
            :func:`end_spares`.
    """

    name = "local"

    def __init__(self, workers: int | None = None, *, keep: bool = False) -> None:
        self._workers = workers or usable_cores()
        self._keep = keep

    def run_splits(
        self, worker: SplitsWorker, task: ScoringTask, groups: Sequence[Group], on_result: OnResult
    ) -> list[TaskResult]:
        """See :class:`batchscore.runners.base.Runner`. No process outlives the call, unless they are kept."""
        waiting = deque(enumerate(groups))
        results: dict[int, TaskResult] = {}
        pool: list[WorkerProcess] = []
        try:
            for _ in range(min(self._workers, len(groups))):
                pool.append(_spare() or WorkerProcess(worker.__module__))
                pool[-1].begin(worker, task)
                pool[-1].give(*waiting.popleft())
            self._end_unneeded()
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
            self._let_go(pool)
        return [results[index] for index in range(len(groups))]

    def _end_unneeded(self) -> None:
        if not self._keep:
            end_spares()

    def _let_go(self, pool: Sequence[WorkerProcess]) -> None:
        for process in pool:
            # One with a group in hand is in the middle of a run that has failed.
            if self._keep and process.index is None:
                _spares.append(process)
            else:
                process.end()


def _spare() -> WorkerProcess | None:
    """A process that waits for work; one that died meanwhile, as for lack of memory, is no more."""
    while _spares:
        try:
            process = _spares.pop()
        except IndexError:  # a run on another thread was quicker
            return None
        if process.alive:
            return process
        process.end()
    return None


def _ready(pool: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    by_connection = {process.connection: process for process in pool if process.index is not None}
    ready = wait(list(by_connection))
    return [process for connection, process in by_connection.items() if connection in ready]
