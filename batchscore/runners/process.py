"""A worker process of the local runner, and the parent's end of it.

The process is started afresh (never forked: Arrow has threads) with an entry point of its own, so the user's
``__main__`` is not imported again. Parent and child share one socket. A thread in the child reads it, and
ends the child at once when the other end is gone, so that not even a killed parent leaves a process behind.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from batchscore.contracts import ScoringTask
from batchscore.errors import BatchscoreError, OutOfMemoryError, UnavailableError
from batchscore.redaction import learn_environment
from batchscore.runners.base import Group, Outcome, SplitsWorker, attempt, unforeseen

TRIES = 3  # of a group; Spark tries a task of a cluster four times
# A try that failed only after so long has waited for the storage again and again by itself: another would not help.
TRY_AGAIN_SECONDS = 30

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batchscore.runners.process import serve; serve(int(sys.argv[2]), sys.argv[3])"
)


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a process does with the groups that follow; ``worker`` is a module's function, pickled by its name."""

    worker: SplitsWorker
    task: ScoringTask


class WorkerProcess:
    """The parent's end of one worker process, which scores one group at a time.

    Args:
        module: what the process imports at once, while the parent still plans.

    Attributes:
        connection: readable when a group has ended, or the process.
        index: the group it has in hand, or None.
    """

    def __init__(self, module: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            paths = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
            options = [f"-W{option}" for option in sys.warnoptions]
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter, our own entry point
                [sys.executable, *options, "-c", _BOOT, paths, str(theirs.fileno()), module],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # What a model prints must not get into a document on the parent's stdout.
                stdout=2,
            )
        self.connection: Connection[bytes, bytes] = Connection(ours.detach())
        self.index: int | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def begin(self, worker: SplitsWorker, task: ScoringTask) -> None:
        """Tells the process what it will do with each group; once more for another task, when no group is in hand."""
        self._send(pickle.dumps(_Beginning(worker, task)))

    def give(self, index: int, group: Group) -> None:
        """Hands the process its next group."""
        self.index = index
        self._send(pickle.dumps(group))

    def take(self) -> Outcome:
        """How its group ended.

        Raises:
            UnavailableError: the process died.
        """
        try:
            outcome: Outcome = pickle.loads(self.connection.recv_bytes())  # noqa: S301  # from our own child
        except (EOFError, ConnectionError) as error:
            raise self._death() from error
        self.index = None
        return outcome

    def end(self) -> None:
        """Ends the process now and waits until it is gone."""
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def _send(self, message: bytes) -> None:
        try:
            self.connection.send_bytes(message)
        except ConnectionError as error:
            raise self._death() from error

    def _death(self) -> UnavailableError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        kind = OutOfMemoryError if code == -signal.SIGKILL else UnavailableError
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = "most often memory ran out: use fewer workers, or smaller scoring.batch_rows"
        return kind(f"worker process {self.pid} was lost", found=how, hint=hint)


def serve(descriptor: int, module: str) -> None:
    """Imports ``module``, then scores the groups that arrive on the socket ``descriptor``; never returns."""
    learn_environment(os.environ)  # a model's error may tell of it
    # Ctrl-C goes to the whole foreground group; the parent alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection[bytes, bytes] = Connection(descriptor)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    with contextlib.suppress(Exception):  # what the worker needs is imported again with it, and fails there
        importlib.import_module(module)
    work: Callable[[Group], Outcome] | None = None
    while True:
        message = inbox.get()
        try:
            content = pickle.loads(message)  # noqa: S301  # from our own parent
        except Exception as error:  # noqa: BLE001  # importing the worker's module may raise anything
            work = functools.partial(_fail, unforeseen(error))
            continue
        if isinstance(content, _Beginning):
            work = functools.partial(_outcome, content.worker, content.task)
        elif work is not None:
            connection.send_bytes(pickle.dumps(work(content)))


def _fail(error: BatchscoreError, _: Group) -> BatchscoreError:
    return error


def _outcome(worker: SplitsWorker, task: ScoringTask, group: Group) -> Outcome:
    """How the group ended; it is tried again where storage failed. What takes too much memory would take it again."""
    until = time.monotonic() + TRY_AGAIN_SECONDS
    for _ in range(TRIES - 1):
        outcome = attempt(worker, task, group)
        if not isinstance(outcome, UnavailableError) or isinstance(outcome, OutOfMemoryError):
            return outcome
        if time.monotonic() >= until:
            return outcome
    return attempt(worker, task, group)


def _read(connection: Connection[bytes, bytes], inbox: SimpleQueue[bytes]) -> None:
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        sys.stderr.flush()
        os._exit(0)
