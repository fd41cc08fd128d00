"""What a runner is, and how a task's end travels back from another process."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

from batchscore.contracts import ScoringTask, Split, TaskResult
from batchscore.errors import BatchscoreError, OutOfMemoryError

_log = logging.getLogger(__name__)

Group: TypeAlias = tuple[Split, ...]
SplitsWorker: TypeAlias = Callable[[ScoringTask, Group], TaskResult]
OnResult: TypeAlias = Callable[[TaskResult], None]
# Errors cross process borders as values: raised there, they would arrive as text.
Outcome: TypeAlias = TaskResult | BatchscoreError
_Work = TypeVar("_Work")


class Runner(Protocol):
    """Calls the worker once for each group of splits, somewhere."""

    def run_splits(
        self, worker: SplitsWorker, task: ScoringTask, groups: Sequence[Group], on_result: OnResult
    ) -> list[TaskResult]:
        """The results in the order of ``groups``; ``on_result`` hears of each as it ends, from this thread.

        Raises:
            BatchscoreError: the first that a worker raised; the others are cancelled.
            UnavailableError: a worker process died.
        """


def attempt(worker: Callable[[ScoringTask, _Work], TaskResult], task: ScoringTask, work: _Work) -> Outcome:
    """The worker's result, or its error as a value."""
    try:
        return worker(task, work)
    except BatchscoreError as error:
        return error
    except MemoryError as error:  # Arrow's is one, too
        return OutOfMemoryError("a worker ran out of memory", found=error or None)
    except Exception as error:  # noqa: BLE001  # a bug must reach the driver as one error, whatever its class
        return unforeseen(error)


def unforeseen(error: BaseException) -> BatchscoreError:
    """An error that nobody meant to raise, with the place where it was raised."""
    text = "".join(traceback.format_exception(error))
    _log.debug("a worker raised\n%s", text)
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"in {frame.name}, {frame.filename}:{frame.lineno}" for frame in frames]
    return BatchscoreError(f"a worker raised {type(error).__name__}: {error}", detail=places)
