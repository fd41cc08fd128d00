"""A small finished job in which commands are tried, in this process and within a time limit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from batchscore.cli import main

LIMIT_SECONDS = 20
MOST_CHARS = 4_000
FORESEEN = {0, 2, 3, 4, 5, 6, 7}
NOT_PUBLISHED = ("_batchscore",)


class TooLongError(BaseException):
    """A command did not end in time; no handler of errors may take it for one of its own."""


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Arena:
    """The job's folder, which is the current one."""

    folder: Path

    def published(self) -> str:
        """A digest of what readers of the table see: its log and data files."""
        total = hashlib.sha256()
        for path in sorted((self.folder / "out").rglob("*")):
            relative = path.relative_to(self.folder / "out")
            if path.is_file() and relative.parts[0] not in NOT_PUBLISHED:
                total.update(str(relative).encode() + path.read_bytes())
        return total.hexdigest()

    @contextlib.contextmanager
    def with_content(self, path: Path, content: bytes) -> Iterator[None]:
        """The file has this content inside the block, under its own modification time."""
        before, stat = path.read_bytes(), path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        try:
            yield
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@contextlib.contextmanager
def time_limit(seconds: float = LIMIT_SECONDS) -> Iterator[None]:
    """Ends what takes longer."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TooLongError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def called(*arguments: str) -> Answer:
    """Runs a command in this process, as the shell would."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), time_limit():
            main(arguments)
    except SystemExit as ending:
        code = ending.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert isinstance(code, int), "a command ends with an exit code"
    return Answer(code, out.getvalue(), err.getvalue())


def check_answer(answer: Answer, case: object) -> None:
    """Every answer: a code that means something, a message that can be read, and no stack trace."""
    told = f"{case!r:.2000}\n{answer.out[-1500:]}\n{answer.err[-3000:]}"
    assert answer.code in FORESEEN, f"exit {answer.code} for {told}"
    assert "Traceback" not in answer.out + answer.err, told
    _, _, message = answer.err.rpartition("error: ")
    assert answer.code == 0 or message, f"nothing was said for {told}"
    assert len(message) <= MOST_CHARS + 1, told
