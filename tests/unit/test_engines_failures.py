"""Memory that runs out is told apart from a model that raises: the one is tried again, the other is not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batchscore.engines.failures import raised
from batchscore.errors import BatchscoreError, ModelError, OutOfMemoryError, UnavailableError
from batchscore.runners.base import attempt
from batchscore.runners.spark import spark_error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        pa.ArrowMemoryError("malloc of size 64 failed"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["Python", "Arrow", "C++", "ONNX Runtime", "PyTorch"],
)
def test_memory_that_runs_out(error):
    found = raised("m 1", 7, error)
    assert isinstance(found, OutOfMemoryError)
    assert found.exit_code == UnavailableError.exit_code
    assert "7 rows" in found.problem


def test_a_model_that_raises():
    found = raised("m 1", 7, ValueError("no allocation for the region"), "a reason of its own")
    assert isinstance(found, ModelError)
    assert "a reason of its own" in found.text()


def test_a_worker_without_memory_says_so():
    def worker(task, work):
        raise MemoryError("no room")

    assert isinstance(attempt(worker, None, None), OutOfMemoryError)


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("Job aborted: Python worker exited unexpectedly (crashed)", True),
        ("ExecutorLostFailure: Container killed by YARN for exceeding memory limits", True),
        ("Command exited with code 137", True),
        ("ExecutorLostFailure: worker lost", False),
    ],
)
def test_spark_loses_a_worker(text, is_memory):
    found: BatchscoreError = spark_error(RuntimeError(text))
    assert isinstance(found, UnavailableError)
    assert isinstance(found, OutOfMemoryError) == is_memory
