"""The task: `batchscore run` for one date as a process of its own, with no shell between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

MEANINGS = {
    1: "an unforeseen error: a bug",
    2: "wrong usage or settings",
    3: "the model is unknown, damaged, raises, or does not fit the table",
    4: "validation refused to publish",
    5: "the input is missing, empty or unreadable",
    6: "fenced out: another run published other content, or took this run over",
    7: "storage, cluster or registry not reachable, or a live run is working on these partitions",
}
RETRY_EXIT_CODE = 7
SIGNAL_EXIT_CODES = 128  # 128 + n is how shells and batchscore itself (130) report an end by signal n
GRACE_S = 3.0  # Airflow sends SIGTERM, and SIGKILL 5 s later: what is to be ended is ended before that
POLL_S = 0.05

FIRST_LINES = 1_000  # of the log, as they come; a progress line a second fills a quarter of an hour
LAST_LINES = 200  # of a longer log, when it has ended
LINE_BYTES = 2_000
ANSWER_BYTES = 64_000  # of stdout, one JSON document
TEXT_CHARS = 500  # of one value of the answer: XComs live in Airflow's database


class BatchscoreRun(BaseOperator):  # type: ignore[misc]  # Airflow is not installed where mypy runs
    """Runs ``batchscore run --config SETTINGS --partition COLUMN=DAY --json`` and returns the run's record.

    The day is the start of the data interval. A run that found everything published succeeds. Exit code 7 and an
    end by a signal are retried as the task says; all others fail at once, because the same run would fail again.

    Args:
        settings: the job's settings file; its folder's parent is the working directory, to which relative paths
            in the settings refer.
        partition_column: column that gets the day; None scores the whole table.
        command: the batchscore executable and its leading arguments.
        **kwargs: those of every operator.
    """

    ui_color = "#e6f2ec"

    def __init__(
        self, *, settings: Path, partition_column: str | None, command: Sequence[str], **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.settings = str(settings)
        self.partition_column = partition_column
        self.command = list(command)
        self._child: subprocess.Popen[bytes] | None = None

    def execute(self, context: Context) -> dict[str, object]:
        """Runs the command to its end.

        Returns:
            the scalar values of the run's record: run_id, state, rows, table_version and others.

        Raises:
            AirflowFailException: the same run would fail again.
            AirflowException: worth a retry.
        """
        arguments = self._arguments(context)
        self.log.info("Runs %s", arguments)
        with tempfile.TemporaryFile() as stdout:
            code = self._run(arguments, stdout)
            stdout.seek(0)
            answer = _scalars(stdout.read(ANSWER_BYTES))
        if code != 0:
            raise _failure(code, answer)
        self.log.info("%s", answer)
        return answer

    def on_kill(self) -> None:
        """Ends the run and every process that it started, within `GRACE_S`; Airflow calls this on SIGTERM."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        os.killpg(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while not _has_ended(child.pid) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        # The leader is not reaped yet, so its group's number cannot belong to anyone else.
        os.killpg(child.pid, signal.SIGKILL)

    def _arguments(self, context: Context) -> list[str]:
        arguments = [*self.command, "run", "--config", self.settings, "--json"]
        if self.partition_column is None:
            return arguments
        start = context["dag_run"].data_interval_start
        if start is None:
            raise AirflowFailException(
                "this DAG run has no data interval, so there is no day to score: trigger it with a logical date"
            )
        return [*arguments, "--partition", f"{self.partition_column}={start:%Y-%m-%d}"]

    def _run(self, arguments: list[str], stdout: IO[bytes]) -> int:
        try:
            child = subprocess.Popen(  # noqa: S603  # a list, without a shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                cwd=Path(self.settings).parent.parent,
                start_new_session=True,  # a group of its own, so that its end takes the JVM along
            )
        except OSError as error:
            raise AirflowFailException(
                f"{arguments[0]} cannot be started: {error}; set BATCHSCORE_COMMAND to the batchscore executable"
            ) from error
        self._child = child
        assert child.stderr is not None  # noqa: S101  # it was asked for
        try:
            with child.stderr:
                for line in _bounded(child.stderr):
                    self.log.info("%s", line)
                # Reached when all who hold stderr are gone: the JVM too.
                return child.wait()
        finally:
            self.on_kill()  # a timeout of the task is raised here, between two lines


def _failure(code: int, answer: Mapping[str, object]) -> AirflowException:
    said = answer.get("problem") or answer.get("message") or "see the log above"
    if code < 0 or code > SIGNAL_EXIT_CODES:
        return AirflowException(f"batchscore was ended by a signal (exit code {code}); nothing became visible: {said}")
    text = f"batchscore ended with exit code {code}, {MEANINGS.get(code, 'which is unknown')}: {said}"
    return AirflowException(text) if code == RETRY_EXIT_CODE else AirflowFailException(text)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; leaves it to be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _bounded(stream: IO[bytes]) -> Iterator[str]:
    """The first lines as they come and, at the end, the last ones, with the number of those left out between."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    count = 0
    for raw in iter(lambda: stream.readline(LINE_BYTES), b""):
        count += 1
        line = raw.decode("utf-8", errors="replace").rstrip()
        if count <= FIRST_LINES:
            yield line
        else:
            last.append(line)
    left_out = count - FIRST_LINES - len(last)
    if left_out > 0:
        yield f"... {left_out} lines left out ..."
    yield from last


def _scalars(answer: bytes) -> dict[str, object]:
    """The texts, numbers and booleans of a JSON object, texts cut; empty where there is no JSON object."""
    try:
        document = json.loads(answer)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        name: value[:TEXT_CHARS] if isinstance(value, str) else value
        for name, value in document.items()
        if isinstance(value, str | int | float | bool)
    }
