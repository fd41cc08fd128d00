"""Runs one candidate in processes of its own, and tells what that took."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscore.errors import BatchscoreError, bounded

SAMPLE_SECONDS = 0.5
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TAIL_LINES = 10
RESIDENT_FIELD = 1  # of /proc/PID/statm
_STAGE = re.compile(r"([a-z]+): ")
_NO_STAGES = ("note", "warning", "error", "hint")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a candidate's run took.

    Attributes:
        seconds: from the start of the command to its end, without ``session_seconds``.
        session_seconds: the start of the candidate's framework.
        stage_seconds: of the stages that batchscore tells of on stderr, ``start`` being what is before the first.
        peak_bytes: resident memory of all its processes together, at its highest; shared pages count in each.
        answer: the JSON document that the candidate printed.
    """

    seconds: float
    session_seconds: float
    stage_seconds: Mapping[str, float]
    peak_bytes: int
    answer: Mapping[str, Any]


def inherited() -> dict[str, str]:
    """This process's environment for a candidate's, without the variable that forbids to keep bytecode.

    Where it is set and packages were installed without bytecode, as uv does, each process compiles what it imports
    again, which took half of the time of a short run; the first round, which does not count, shall do that.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def timed(command: Sequence[str], folder: Path, environment: Mapping[str, str], limit_seconds: float) -> Outcome:
    """Runs a candidate to its end.

    Raises:
        BatchscoreError: it failed, or took longer than ``limit_seconds``; its processes are ended then.
    """
    before = set(_processes())
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = _Lines(process, started)
    memory = _Memory(before)
    try:
        output = process.stdout.read() if process.stdout else ""
        process.wait(limit_seconds)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        total = time.perf_counter() - started
        peak = memory.end()
        said.end()
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode:
        raise BatchscoreError(
            f"a candidate ended with exit code {process.returncode}",
            found=bounded(" ".join(Path(part).name for part in command), 400),
            detail=[line[:300] for line in said.text.splitlines()[-TAIL_LINES:]],
        )
    answer = _last_json(output)
    stages = stage_seconds(said.lines, total)
    session = float(answer.get("session_seconds", stages.get("session", 0.0)))
    return Outcome(total - session, session, stages, peak, answer)


def stage_seconds(lines: Sequence[tuple[float, str]], total: float) -> dict[str, float]:
    """How long each stage took; a stage ends with the line that begins another one.

    Args:
        lines: what was written, with the seconds since the process began; ``NAME: text`` tells of the stage NAME.
        total: seconds at which the process ended.

    >>> stage_seconds([(1.0, "plan: fraud/1"), (1.5, "note: old"), (2.0, "score: run 7"), (3.0, "score: 5 rows")], 4.0)
    {'start': 1.0, 'plan': 1.0, 'score': 2.0}
    """
    found: dict[str, float] = {}
    stage, since = "start", 0.0
    for at, line in lines:
        named = _STAGE.match(line)
        if named is not None and named[1] not in (stage, *_NO_STAGES):
            found[stage] = found.get(stage, 0.0) + at - since
            stage, since = named[1], at
    if stage != "start":
        found[stage] = found.get(stage, 0.0) + total - since
    return {name: round(seconds, 3) for name, seconds in found.items()}


class _Lines:
    """A process's stderr, with the moment of each line: batchscore says there which stage begins."""

    def __init__(self, process: subprocess.Popen[str], started: float) -> None:
        self._stream = process.stderr
        self._started = started
        self.lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        if self._stream is not None:
            with self._stream:
                for line in self._stream:
                    self.lines.append((time.perf_counter() - self._started, line))

    def end(self) -> None:
        self._thread.join(timeout=10)

    @property
    def text(self) -> str:
        return "".join(line for _, line in self.lines)


class _Memory:
    """Samples what the processes that began meanwhile hold, until it is ended."""

    def __init__(self, before: set[int]) -> None:
        self._before = before
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(_resident(pid) for pid in _processes() if pid not in self._before))

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        return self._peak


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[RESIDENT_FIELD]) * PAGE_BYTES
    except (OSError, IndexError):  # it has ended
        return 0


def _last_json(output: str) -> dict[str, Any]:
    """The JSON document at the end of what was printed, on one line or on several."""
    lines = output.rstrip().splitlines()
    for start in range(len(lines) - 1, -1, -1):
        if lines[start].startswith("{"):
            with contextlib.suppress(ValueError):
                return dict(json.loads("\n".join(lines[start:])))
    return {}
