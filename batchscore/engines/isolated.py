"""An engine that runs in the model's own environment: a child process, spoken to in Arrow."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import pickle
import signal
import socket
import subprocess
from pathlib import Path

import pyarrow as pa

from batchscore.contracts import ModelFiles
from batchscore.engines.child import LOAD, RESULT, SCORE, decoded, encoded, receive, send
from batchscore.engines.environment import restored
from batchscore.errors import ModelError, ModelRaisedError, UnavailableError

# -I leaves out the worker's PYTHONPATH and folder: nothing of this environment may get into the model's.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from batchscore.engines.child import serve; serve(int(sys.argv[2]))"


class IsolatedEngine:
    """The parent's end: sends batches, waits for scores.

    Args:
        interpreter: of the model's environment.
        module: the engine's module.
        files: the model.
        threads: threads that the engine may use.

    Raises:
        ModelError: the model cannot be loaded there.
        UnavailableError: the process ended.
    """

    def __init__(self, interpreter: Path, module: str, files: ModelFiles, threads: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # the interpreter that was restored, our own entry point
                [str(interpreter), "-I", "-c", _BOOT, _code_path(interpreter), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a model prints must not get into a document on stdout
            )
        self._connection = ours
        self._label = f"{files.name} {files.version}".strip()
        atexit.register(self.close)
        try:
            self._ask(LOAD, pickle.dumps((module, files, threads), protocol=4))
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether the process has ended: this engine scores nothing more."""
        return self._process.poll() is not None

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch; see :class:`batchscore.engines.base.Engine`."""
        return decoded(self._ask(SCORE, memoryview(encoded(inputs))))

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        atexit.unregister(self.close)

    def _ask(self, tag: bytes, body: bytes | memoryview) -> bytearray:
        try:
            send(self._connection, tag, body)
            answer, content = receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._death() from error
        except BaseException:
            self.close()  # part of a message is still under way: no later one would be understood
            raise
        if answer == RESULT:
            return content
        facts = json.loads(content)
        kind = ModelRaisedError if tag == SCORE and facts["error"] == ModelRaisedError.__name__ else ModelError
        raise kind(
            f"model {self._label}, in its own environment: {facts['problem']}",
            found=facts.get("found"),
            allowed=facts.get("allowed") or (),
            hint=facts.get("hint"),
            detail=facts.get("detail") or (),
        )

    def _death(self) -> UnavailableError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        self.close()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return UnavailableError(
            f"the process of model {self._label} in its own environment was lost",
            found=how,
            hint="most often memory ran out: use smaller scoring.batch_rows",
        )


def load(module: str, files: ModelFiles, threads: int) -> IsolatedEngine:
    """Restores the model's environment where this host has none yet, and loads the model in it.

    Raises:
        SetupError: the environment cannot be made.
        ModelError: the model cannot be loaded in it.
    """
    return IsolatedEngine(restored(files.path, files.digest), module, files, threads)


def _code_path(interpreter: Path) -> str:
    """An entry for ``sys.path`` under which there is this package and nothing else.

    It is kept beside the environment: a worker that is killed leaves nothing behind.
    """
    package = Path(__file__).parents[1]
    if not package.is_dir():  # inside the zip that an executor was sent
        return str(package.parent)
    name = hashlib.sha256(os.fsencode(package)).hexdigest()[:16]
    folder = interpreter.parents[1] / "batchscore" / name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        Path(folder, "batchscore").symlink_to(package, target_is_directory=True)
    return str(folder)
