"""Engine ``onnx`` on an NVIDIA GPU. An engine of its own, because its scores, speed and memory are its own.

Certificates tell graphs apart that a GPU computes with other last bits, and ``auto`` measures both: a tree ensemble has
no kernel there and is no faster, a wide network is.
"""

from __future__ import annotations

from pathlib import Path

from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.engines import cuda, onnx
from batchscore.engines.base import Engine


def load(files: ModelFiles, threads: int) -> Engine:
    """Loads the graph on a GPU; see :func:`batchscore.engines.onnx.load`.

    Raises:
        ModelError: the graph does not fit what the model declares, or the folder holds no graph.
        SetupError: there is no GPU that ONNX Runtime can use.
    """
    return onnx.load_on(files, threads, cuda=True)


def needs_artifact(model: PinnedModel) -> bool:
    """As of engine ``onnx``."""
    return onnx.needs_artifact(model)


def supports(model: PinnedModel) -> str | None:
    """Why the model cannot be scored on a GPU here, or None."""
    return cuda.missing() or onnx.supports(model)


def convert(model: PinnedModel, folder: Path) -> None:
    """The same artifact as of engine ``onnx``; see :func:`batchscore.engines.onnx.convert`.

    Raises:
        ModelError, SetupError: as there.
    """
    onnx.convert(model, folder)


def versions() -> dict[str, str]:
    """Library → version of all that can change the graph or its scores."""
    return onnx.versions()
