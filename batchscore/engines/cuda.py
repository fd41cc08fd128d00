"""ONNX Runtime on an NVIDIA GPU: whether it can be used here, and a session on it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.errors import SetupError, listed

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"
LIBRARY = "libonnxruntime_providers_cuda.so"  # in the wheel onnxruntime-gpu alone
DRIVERS = ("/proc/driver/nvidia", "/dev/dxg")  # of Linux, and of Linux within Windows
SPARK_RESOURCE = "gpu"
HINT = "install onnxruntime-gpu in place of onnxruntime on hosts with an NVIDIA driver, or set scoring.device to cpu"


def missing() -> str | None:
    """Why there is no GPU to be used here, or None; a look at files alone, which imports nothing."""
    found = importlib.util.find_spec("onnxruntime")
    places = [Path(place) for place in (found.submodule_search_locations or ())] if found is not None else []
    if not places:
        return "ONNX Runtime is not installed"
    if not any((place / "capi" / LIBRARY).is_file() for place in places):
        return f"ONNX Runtime has no {PROVIDER} here"
    return None if any(Path(driver).exists() for driver in DRIVERS) else "there is no NVIDIA driver here"


def require() -> None:
    """Refuses to go on where no GPU can be used.

    Raises:
        SetupError: naming what ONNX Runtime has here.
    """
    reason = missing()
    if reason is None:
        return
    offered: list[str] = []
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime  # noqa: PLC0415  # the exception, not the rule

        offered = onnxruntime.get_available_providers()
    raise SetupError(reason, found=f"scoring.device cuda; providers here: {listed(offered)}", hint=HINT)


def open_on_gpu(graph: Path, options: SessionOptions) -> InferenceSession:
    """A session on a GPU: the one that Spark gave the task, else the first that is visible.

    Matrix products keep the precision of their type: TF32, which is ONNX Runtime's default there, has 10 bits.

    Raises:
        SetupError: ONNX Runtime offers none here; it would go on with the CPU and say so in a log alone.
    """
    import onnxruntime  # noqa: PLC0415  # as the session's own

    offered = onnxruntime.get_available_providers()
    if PROVIDER not in offered:
        raise SetupError(f"ONNX Runtime has no {PROVIDER} here", found=f"providers {listed(offered)}", hint=HINT)
    wanted = {"device_id": _device(), "use_tf32": 0}
    session = onnxruntime.InferenceSession(
        str(graph), sess_options=options, providers=[(PROVIDER, wanted), CPU_PROVIDER]
    )
    if PROVIDER not in session.get_providers():
        raise SetupError(
            "ONNX Runtime cannot use a GPU here", found=f"providers {listed(session.get_providers())}", hint=HINT
        )
    return session


def _device() -> int:
    """Number of the GPU that Spark's scheduler gave this task, where it schedules them; else 0."""
    if "pyspark" not in sys.modules:
        return 0
    from pyspark import TaskContext  # noqa: PLC0415  # a Spark worker has it already

    context = TaskContext.get()
    given = context.resources().get(SPARK_RESOURCE) if context is not None else None
    return int(given.addresses[0]) if given is not None and given.addresses else 0
