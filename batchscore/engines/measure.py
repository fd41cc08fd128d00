"""The speed of engines on rows of one input: what ``auto`` decides by.

Each engine is measured in a process of its own, so that its load time and memory are its own. The process ends by
itself when its time is over, and is killed when it does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from batchscore.contracts import ModelFiles
from batchscore.contracts.proof import Measurement
from batchscore.engines import ENGINES, engine_module
from batchscore.engines.base import Engine
from batchscore.errors import BatchscoreError, ModelError, UnavailableError, bounded

BATCH_SIZES = (4_096, 16_384, 65_536)
# Reading, casting and writing cost a share of each batch, too, which is not in the measurement: of sizes this
# close to the fastest the largest is taken. At 4,096 rows those parts took twice the time of a compiled engine.
CLOSE = 0.9
SECONDS = 1.5
MAX_BYTES = 64 << 20
MAX_SECONDS = 120.0  # for loading, and measuring
GRACE_SECONDS = 5
MIN_CALLS = 3
ERROR_CHARS = 400

_BOOT = (
    "import time; begun = time.perf_counter(); import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batchscore.engines.measure import serve; serve(sys.argv[2], begun)"
)
_REQUEST, _SAMPLE, _RESULT, _LOG = "request", "sample.arrow", "result", "log"


def measure(  # noqa: PLR0913  # what is measured, and the bounds
    engine: str,
    files: ModelFiles,
    sample: pa.RecordBatch,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> Measurement:
    """Measures an engine in a fresh process.

    Args:
        engine: a key of :data:`batchscore.engines.ENGINES`.
        files: what a worker loads: the model's files, or the engine's artifact.
        sample: rows of the input, at least one; more than fit into ``max_bytes`` are left out.
        threads: threads that the engine may use; 1 gives rows a second and core.
        seconds: time to score, over all batch sizes; after loading.
        max_bytes: bound on the bytes of a batch.
        max_seconds: bound on everything, after which the engine counts as unavailable.

    Returns:
        The speed at the largest of :data:`BATCH_SIZES` that is about as fast as the fastest.

    Raises:
        ModelError: the engine cannot load the model or score the sample.
        UnavailableError: it did not end in time, or its process died.
        SettingsError: there is no engine of this name.
    """
    if not sample.num_rows:
        raise ModelError(f"engine {engine} cannot be measured without rows")
    engine_module(engine)
    with tempfile.TemporaryDirectory(prefix="batchscore-measure-") as name:
        folder = Path(name)
        within = _enough(sample, max_bytes)
        with pa.OSFile(str(folder / _SAMPLE), "wb") as sink, pa.ipc.new_file(sink, sample.schema) as writer:
            writer.write_batch(within)
        request = (engine, ENGINES[engine], files, threads, seconds, max_seconds)
        (folder / _REQUEST).write_bytes(pickle.dumps(request))
        _run(engine, folder, max_seconds)
        result = _result(engine, folder)
    if isinstance(result, BatchscoreError):
        raise result
    return result


def _enough(sample: pa.RecordBatch, max_bytes: int) -> pa.RecordBatch:
    """As many rows as the largest batch has, by repetition, but not more than ``max_bytes`` hold."""
    most = int(sample.num_rows * max_bytes / max(sample.nbytes, 1))
    rows = max(min(max(BATCH_SIZES[-1], sample.num_rows), most), 1)
    times = -(-rows // sample.num_rows)
    return pa.Table.from_batches([sample] * times).combine_chunks().to_batches()[0].slice(0, rows)


def fastest(measurements: Sequence[Measurement]) -> Measurement:
    """The measurement with the most rows a second; of equal ones the first.

    Raises:
        ValueError: there are none.
    """
    return max(measurements, key=lambda measurement: measurement.rows_per_second)


def serve(folder: str, begun: float) -> None:
    """Measures what the request in ``folder`` asks for and leaves the result there; the child's entry point.

    Args:
        folder: where the request is.
        begun: ``time.perf_counter()`` before anything was imported.
    """
    engine, module, files, threads, seconds, max_seconds = pickle.loads(Path(folder, _REQUEST).read_bytes())  # noqa: S301  # from our own parent
    # Nobody is left to wait when the parent was killed; the default action reaches into foreign code, too.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max_seconds + GRACE_SECONDS)
    ENGINES[engine] = module
    result: Measurement | BatchscoreError
    try:
        result = _measured(engine, files, _sample(folder), threads, seconds, begun)
    except BatchscoreError as error:
        result = error
    except Exception as error:  # noqa: BLE001  # an engine may raise anything; the parent says so
        result = ModelError(f"engine {engine} failed while it was measured", found=f"{type(error).__name__}: {error}")
    partial = Path(folder, f"{_RESULT}.part")
    partial.write_bytes(pickle.dumps(result))
    partial.replace(Path(folder, _RESULT))
    sys.stderr.flush()
    os._exit(0)  # what libraries do on their way out is not measured, and can hang


def _run(engine: str, folder: Path, max_seconds: float) -> None:
    """Runs the child until it ends.

    Raises:
        UnavailableError: it did not end in time, or left no result.
    """
    paths = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # this interpreter, our own entry point
            [sys.executable, "-c", _BOOT, paths, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,  # what a model prints must not get into a document on the parent's stdout
            stderr=log,
            start_new_session=True,  # so that processes of its own end with it
        )
        try:
            code = process.wait(timeout=max_seconds)
        except subprocess.TimeoutExpired as error:
            hint = "it counts as unavailable; name another engine in scoring.engine"
            found = f"no answer within {max_seconds:g} s"
            raise UnavailableError(f"engine {engine} could not be measured", found=found, hint=hint) from error
        finally:
            _end(process)
    if not (folder / _RESULT).is_file():
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = (folder / _LOG).read_text(encoding="utf-8", errors="replace").strip()[-ERROR_CHARS:]
        raise UnavailableError(
            f"engine {engine} could not be measured", found=how, detail=[bounded(last, ERROR_CHARS)] if last else []
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _result(engine: str, folder: Path) -> Measurement | BatchscoreError:
    try:
        result = pickle.loads((folder / _RESULT).read_bytes())  # noqa: S301  # from our own child
    except Exception as error:  # an error of a class that this process does not know
        raise UnavailableError(f"engine {engine} could not be measured", found=error) from error
    if not isinstance(result, Measurement | BatchscoreError):
        raise UnavailableError(f"engine {engine} could not be measured", found=type(result).__name__)
    return result


# in the child --------------------------------------------------------------------------------------------------


def _measured(
    engine: str, files: ModelFiles, sample: pa.RecordBatch, threads: int, seconds: float, begun: float
) -> Measurement:
    from batchscore.engines.cache import loaded  # noqa: PLC0415  # counts as loading
    from batchscore.models.digest import model_files  # noqa: PLC0415  # as above

    model = loaded(engine, files, threads)
    model.score(sample.slice(0, min(sample.num_rows, BATCH_SIZES[0])))
    load_seconds = time.perf_counter() - begun
    rates = _rates(model, sample, seconds)
    rows = max(size for size in rates if rates[size] >= CLOSE * max(rates.values()))
    size = sum(file.stat().st_size for _, file in model_files(Path(files.path)))
    return Measurement(engine, rows, rates[rows], load_seconds, _peak_bytes(), size)


def _rates(model: Engine, sample: pa.RecordBatch, seconds: float) -> dict[int, float]:
    """Batch size → median rows a second."""
    sizes = sorted({min(size, sample.num_rows) for size in BATCH_SIZES})
    found: dict[int, float] = {}
    for size in sizes:
        share = seconds / len(sizes)
        if found and size * MIN_CALLS / max(found.values()) > seconds:
            break  # a slow engine: larger batches would take much longer than was asked for
        found[size] = statistics.median(_calls(model, sample, size, share))
    return found


def _calls(model: Engine, sample: pa.RecordBatch, size: int, seconds: float) -> Iterator[float]:
    """Rows a second of each call, for ``seconds``, at least :data:`MIN_CALLS` of them; of slow ones at least one."""
    begun = time.perf_counter()
    starts = list(range(0, sample.num_rows - size + 1, size))
    calls = 0
    while True:
        batch = sample.slice(starts[calls % len(starts)], size)
        before = time.perf_counter()
        model.score(batch)
        now = time.perf_counter()
        yield size / max(now - before, 1e-9)
        calls += 1
        spent = now - begun
        if spent >= seconds and (calls >= MIN_CALLS or spent >= MIN_CALLS * seconds):
            return


def _sample(folder: str) -> pa.RecordBatch:
    with pa.memory_map(str(Path(folder, _SAMPLE))) as source:
        return pa.ipc.open_file(source).get_batch(0)


def _peak_bytes() -> int:
    """The most memory that this process ever held.

    Not ``getrusage``: what it says begins with what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415  # elsewhere than on Linux

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
