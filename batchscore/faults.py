"""Points of a run at which a test has something happen: the process is killed, stopped, delayed, or raises.

Nothing ever happens unless the environment variable :data:`VARIABLE` was set when the process began; the price of a
point is then one look at an empty dictionary. Its value names points and actions, for example
``commit.looked=sleep:2;commit.written=kill``; ``*`` stands for every point.

========================  =======================================================================================
action                    what happens
========================  =======================================================================================
``kill``                  SIGKILL of this process
``kill-once:PATH``        the same, but only in the process that creates the file PATH
``stop``                  SIGSTOP of this process, until somebody sends SIGCONT
``raise``                 :class:`FaultError`
``sleep:SECONDS``         a pause
``log:PATH``              a line with the point's name and the process id is added to the file PATH
========================  =======================================================================================
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "BATCHSCORE_TEST_FAULT"
EVERY = "*"
ACTIONS = ("kill", "kill-once", "stop", "raise", "sleep", "log")

POINTS: Mapping[str, str] = {
    "model.pinned": "the model's name is an exact version with local files",
    "source.pinned": "the input's version and files are known",
    "plan.made": "all is decided, nothing is written",
    "heartbeat.written": "other runs can see that this one works",
    "output.prepared": "the output's folder is marked as batchscore's",
    "score.begin": "no task has begun",
    "worker.opened": "in a worker: a data file is begun",
    "worker.closing": "in a worker: a data file has its rows, and no footer",
    "worker.closed": "in a worker: a data file is complete, and nobody was told",
    "score.end": "every task has ended",
    "validate.begin": "nothing is judged",
    "validate.end": "all may be published",
    "manifest.begin": "no manifest is written",
    "manifest.temporary": "the manifest is written under a temporary name",
    "manifest.end": "the manifest is durable, no commit names it",
    "commit.looked": "inside the compare-and-swap: the newest version was looked at, nothing is committed",
    "commit.written": "inside the compare-and-swap: the version is in the log, and was not read back",
    "commit.read_back": "the version holds what was staged; no checkpoint is written",
    "checkpoint.begin": "the log asks for a checkpoint",
    "checkpoint.end": "the checkpoint is written, the log is not cleaned",
    "commit.end": "the run is published, and not recorded",
    "discard.begin": "staged files that will not be published are known, and all there",
    "discard.deleted": "one of them is deleted",
    "ledger.begin": "the run has ended, the ledger does not know",
    "ledger.end": "the ledger knows, the heartbeat is there",
    "heartbeat.removed": "nothing is left to do",
    "clean.fenced": "a dead run may no longer publish, all it left is there",
    "clean.deleted": "one file of a dead run is deleted",
}


class FaultError(Exception):
    """What the action ``raise`` raises; no run foresees it."""


def parse(text: str) -> dict[str, list[str]]:
    """The actions of each point.

    Raises:
        ValueError: an unknown point or action.

    >>> parse("plan.made=sleep:0.1; commit.looked=kill")
    {'plan.made': ['sleep:0.1'], 'commit.looked': ['kill']}
    """
    armed: dict[str, list[str]] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        point, _, action = entry.partition("=")
        if point != EVERY and point not in POINTS:
            raise ValueError(f"{VARIABLE} names an unknown point: {point}")
        if action.partition(":")[0] not in ACTIONS:
            raise ValueError(f"{VARIABLE} names an unknown action: {action}; known are {', '.join(ACTIONS)}")
        armed.setdefault(point, []).append(action)
    return armed


_armed = parse(os.environ.get(VARIABLE, ""))


def reached(point: str) -> None:
    """Says that the process has come to ``point``, one of :data:`POINTS`.

    Raises:
        FaultError: a test asked for it.
    """
    if not _armed:
        return
    for action in (*_armed.get(EVERY, ()), *_armed.get(point, ())):
        _act(point, *action.partition(":")[::2])


def _act(point: str, action: str, argument: str) -> None:
    if action == "kill" or (action == "kill-once" and _first(Path(argument))):
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "sleep":
        time.sleep(float(argument))
    elif action == "log":
        with Path(argument).open("a", encoding="utf-8") as log:
            log.write(f"{point} {os.getpid()}\n")
    elif action == "raise":
        raise FaultError(f"at {point}")


def _first(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
