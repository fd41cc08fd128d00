"""Models of other flavors as an ONNX graph. Runs on the driver: workers load what it writes, with onnxruntime alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from batchscore.contracts import PinnedModel
from batchscore.engines.installed import installed
from batchscore.engines.unwrap import PLAIN_FLAVORS, plain_flavor
from batchscore.errors import ModelError, SetupError, listed
from batchscore.schema import FLOATS, INTEGERS

__all__ = ["LIBRARIES", "TYPES", "convert", "refusal", "versions"]

# Import name of what converts, installed with batchscore[engines].
LIBRARIES = ("onnx", "skl2onnx")

INSTALL = "pip install batchscore[engines]"

# Distributions whose version can change the graph or its scores; of the training libraries, those that are installed.
COUNTED = (
    *("onnx", "skl2onnx", "onnxruntime", "onnxruntime-gpu"),
    *("numpy", "scikit-learn", "lightgbm", "xgboost", "xgboost-cpu"),
)

TYPES = (*FLOATS, *INTEGERS, "boolean", "string")


def refusal(model: PinnedModel) -> str | None:
    """Why the model cannot be converted, or None as far as its description tells."""
    if plain_flavor(model.flavors) is None:
        found, known = listed(model.flavors), listed(PLAIN_FLAVORS)
        return f"the model has no ONNX graph; converted are flavors {known}, it has {found}"
    if model.params:
        return "the model takes inference parameters, which a graph has not"
    for item in model.inputs:
        if item.type not in TYPES:
            return f"input {item.name or '(unnamed)'} is of type {item.type}, converted are {listed(TYPES)}"
        if item.shape is not None and (len(model.inputs) > 1 or len(item.shape) != 2 or item.shape[1] < 1):  # noqa: PLR2004
            return f"input {item.name or '(unnamed)'} has shape {list(item.shape)}, converted is one of shape [-1, k]"
    missing = _missing()
    return f"{listed(missing)} not installed here: {INSTALL}" if missing else None


def convert(model: PinnedModel, folder: Path) -> None:
    """Writes the graph and its description; see :func:`batchscore.engines.onnx.convert`.

    Raises:
        ModelError: a step of the model, a type or a flavor is in the way.
        SetupError: a library that converts is missing.
    """
    missing = _missing()
    if missing:
        raise SetupError(f"{listed(missing)} not installed", hint=INSTALL)
    reason = refusal(model)
    if reason is not None:
        raise ModelError(
            f"model {model.name} cannot be converted to ONNX", found=reason, hint="engine pyfunc serves it"
        )
    from batchscore.engines.onnx_convert.whole import convert_model  # noqa: PLC0415  # pandas, 0.5 s

    convert_model(model, folder)


def _missing() -> list[str]:
    return [name for name in LIBRARIES if importlib.util.find_spec(name) is None]


def versions() -> dict[str, str]:
    """Library → version of what is installed of :data:`COUNTED`."""
    return installed(COUNTED)
