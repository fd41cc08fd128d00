"""The engines by name, and which of them serves a model. One file an engine; see :mod:`batchscore.engines.base`."""

from __future__ import annotations

import importlib
from typing import cast

from batchscore.contracts import PinnedModel
from batchscore.engines.base import Engine, EngineModule
from batchscore.errors import ModelError, SettingsError, nearest

__all__ = [
    "AUTO",
    "CUDA",
    "ENGINES",
    "NATIVE",
    "PROBABILITY",
    "REFERENCE",
    "SPARKML",
    "Engine",
    "choose",
    "engine_module",
    "on_device",
    "scores_in_spark",
    "supports",
    "with_probability",
]

AUTO = "auto"
NATIVE = "native"
SPARKML = "sparkml"
CUDA = "onnx-cuda"  # engine onnx on an NVIDIA GPU: with scores, a speed and a proof of its own
REFERENCE = "pyfunc"
# Those that serve models of their flavor without a conversion; the registered model's own way last.
OWN_ENGINES = ("onnx", SPARKML, REFERENCE)
PROBABILITY = "probability"  # an output that the registered model itself does not give beside its labels

# Name -> module; of equally fast ones `auto` takes the first, the registered model's own way last.
ENGINES: dict[str, str] = {
    "compiled": "batchscore.engines.compiled",
    "onedal": "batchscore.engines.onedal",
    "onnx": "batchscore.engines.onnx",
    CUDA: "batchscore.engines.onnx_cuda",
    "native": "batchscore.engines.native",
    "sparkml": "batchscore.engines.sparkml",
    "pyfunc": "batchscore.engines.pyfunc",
}


def _converts(name: str, model: PinnedModel) -> bool:
    says = getattr(engine_module(name), "needs_artifact", None)
    return says is not None and bool(says(model))


def engine_module(name: str) -> EngineModule:
    """The module of an engine.

    Raises:
        SettingsError: there is no engine of this name.
    """
    if name not in ENGINES:
        allowed = (AUTO, *ENGINES)
        raise SettingsError(f"unknown engine {name}", near=nearest(name, allowed), allowed=allowed)
    return cast(EngineModule, importlib.import_module(ENGINES[name]))


def with_probability(model: PinnedModel) -> PinnedModel:
    """The model with the output ``probability`` beside its own, which engine ``native`` gives.

    Raises:
        ModelError: the model is no classifier that has one.
    """
    from batchscore.engines import native  # noqa: PLC0415  # numpy and the model's library

    return native.with_probability(model)


def supports(engine: str, model: PinnedModel) -> str | None:
    """Why ``engine`` cannot serve ``model``, or None where it can.

    Raises:
        SettingsError: there is no engine of this name.
    """
    columns = [(item.name, item.type) for item in model.inputs] + [(item.name, item.type) for item in model.outputs]
    for name, kind in columns:
        if kind.startswith("unsupported"):
            return f"{name or 'an unnamed column'} of the signature has a type that no engine takes: {kind}"
    return engine_module(engine).supports(model)


def scores_in_spark(model: PinnedModel) -> bool:
    """Whether the model transforms DataFrames: engine ``sparkml`` is then the only one that serves it."""
    from batchscore.engines import sparkml  # noqa: PLC0415  # it imports this module

    return sparkml.supports(model) is None


def on_device(asked: str, device: str) -> str:
    """The engine that was asked for, on the device that was asked for.

    Args:
        asked: ``auto``, or an engine's name.
        device: ``scoring.device``: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        SettingsError: the engine does not run on a GPU.

    >>> on_device("auto", "auto"), on_device("onnx", "cuda"), on_device("compiled", "cpu")
    ('auto', 'onnx-cuda', 'compiled')
    """
    if device != "cuda":
        return asked
    if asked not in (AUTO, "onnx", CUDA):
        raise SettingsError(
            f"engine {asked} does not run on a GPU",
            found=f"scoring.device {device} with scoring.engine {asked}",
            allowed=(AUTO, "onnx"),
        )
    return CUDA


def choose(asked: str, model: PinnedModel) -> str:
    """The engine to use: the one asked for, or for ``auto`` the one that loads the model's own files as they are.

    Faster engines want a proof first: see :mod:`batchscore.selection`.

    Raises:
        SettingsError: there is no engine of this name.
        ModelError: the engine cannot serve the model.
    """
    candidates = tuple(name for name in OWN_ENGINES if not _converts(name, model)) if asked == AUTO else (asked,)
    reasons = {}
    for name in candidates:
        reason = supports(name, model)
        if reason is None:
            return name
        reasons[name] = reason
    raise ModelError(
        f"no engine can serve model {model.name}"
        if asked == AUTO
        else f"engine {asked} cannot serve model {model.name}",
        detail=[f"{name}: {reason}" for name, reason in reasons.items()],
        hint=None if asked == AUTO else "set scoring.engine to auto",
    )
