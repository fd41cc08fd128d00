"""What the peers' scripts share: the job, the timing of a framework's start, and the ONNX model's inputs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Clock:
    """Seconds that the framework's own start took; they are told apart from the work."""

    def __init__(self) -> None:
        self.session_seconds = 0.0

    @contextmanager
    def session(self) -> Iterator[None]:
        """Around the framework's start."""
        started = time.perf_counter()
        yield
        self.session_seconds += time.perf_counter() - started


def main(run: Callable[[dict[str, Any], Clock], dict[str, Any]]) -> None:
    """Runs a script's work on the job that the command line names, and prints what came of it.

    Args:
        run: scores and writes; returns the settings that it chose.
    """
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    clock = Clock()
    settings = run(job, clock)
    sys.stdout.write("\n" + json.dumps({"session_seconds": clock.session_seconds, "settings": settings}) + "\n")


class OnnxModel:
    """The job's ONNX model on one thread, fed with Arrow columns.

    Numbers become one matrix; text is coded by its position among the values that the model knows, as the graph
    takes it.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
        self._feeds = job["feeds"]
        self._output = job["onnx_output"]

    def predict(self, column: Callable[[str], Any]) -> Any:
        """Scores of shape (rows,) from a function that gives a column's Arrow array."""
        feeds = {feed["name"]: matrix(feed, column) for feed in self._feeds}
        return self._session.run([self._output], feeds)[0].reshape(-1)

    def predict_matrix(self, values: Any) -> Any:
        """Scores of shape (rows,) from one matrix of numbers."""
        return self._session.run([self._output], {self._feeds[0]["name"]: values})[0].reshape(-1)


def matrix(feed: dict[str, Any], column: Callable[[str], Any]) -> Any:
    """One input of a graph, of shape (rows, columns)."""
    import numpy as np

    arrays = [_numbers(column(name), known) for name, known in zip(feed["columns"], feed["vocabularies"], strict=True)]
    values = np.empty((len(arrays[0]), len(arrays)), dtype=feed["dtype"])
    for index, array in enumerate(arrays):
        values[:, index] = array
    return values


def _numbers(array: Any, known: dict[str, Any] | None) -> Any:
    """A column as numbers: itself, with NaN for null, or the codes of its text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if known is None:
        return array.to_numpy(zero_copy_only=False)
    values = pa.array(known["values"])
    codes = pc.index_in(array.cast(values.type), values).fill_null(len(values) + 1)
    return np.where(array.is_null().to_numpy(zero_copy_only=False), len(values), codes.to_numpy(zero_copy_only=False))
