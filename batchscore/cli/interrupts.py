"""Ctrl-C and SIGTERM that do not get lost.

Python raises ``KeyboardInterrupt`` wherever the main thread happens to be, and not every place lets it out: the
start-up code of a C extension (Cython's, NumPy's ``import_array``) drops or replaces whatever is raised while it is
imported, and so do weak references' callbacks and ``__del__``. A job would go on as if nobody had asked it to stop.
So an interruption that nobody is handling is raised again until somebody does.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

REPEAT_SECONDS = 0.3


class AnsweredError(Exception):
    """An interrupted command has printed its own answer; raised while the interruption is still being handled."""


class Interruption:
    """Turns SIGINT and SIGTERM, which schedulers send, into a ``KeyboardInterrupt`` that arrives."""

    def __init__(self) -> None:
        self.received = False

    def watch(self) -> None:
        """Installs the handlers; for the main thread only. A SIGINT that is ignored stays so, as under ``nohup``."""
        signal.signal(signal.SIGTERM, self._interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)

    def settle(self) -> None:
        """Ends the repeating, once the process is on its way out.

        SIGINT is blocked from here on, so that the exit code stays ours: under ``python -m``, CPython ends itself by
        SIGINT when a ``KeyboardInterrupt`` has once left an ``exec``, as in the making of a dataclass.
        """
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def _interrupt(self, _number: int, _frame: FrameType | None) -> NoReturn:
        self.received = True
        signal.signal(signal.SIGALRM, self._repeat)
        signal.setitimer(signal.ITIMER_REAL, REPEAT_SECONDS, REPEAT_SECONDS)
        raise KeyboardInterrupt

    def _repeat(self, _number: int, _frame: FrameType | None) -> None:
        if not _being_handled():
            raise KeyboardInterrupt


def _being_handled() -> bool:
    """Whether the interrupted code runs in an ``except`` or ``finally`` that an interruption led to."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
