"""Ensembles of trees scored by a small C program, with the model's own library's decisions and sums.

The driver reads the trees out of the model and compiles the kernels (seconds, whatever the model's size); workers load
both with numpy and ctypes and call one once a batch, on the batch's own columns. float64 rows meet the model's own
double thresholds, float32 rows thresholds that part them alike, and leaves are added in the library's order and type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.engines.arrays import empty_batch
from batchscore.engines.features import unfit
from batchscore.engines.installed import installed
from batchscore.engines.trees import artifact, kernels, library
from batchscore.engines.trees.forest import refusal
from batchscore.engines.trees.read import Ensemble, read_ensemble
from batchscore.engines.trees.scores import scored
from batchscore.engines.unwrap import PLAIN_FLAVORS, plain_flavor, unwrap
from batchscore.errors import ModelRaisedError, listed

LIBRARY = "trees.so"
# What reads a model's trees; XGBoost is sold under two names.
READERS = ("lightgbm", "scikit-learn", "xgboost", "xgboost-cpu", "mlflow")


class CompiledEngine:
    """A kernel, and how batches reach it.

    Args:
        ensemble: the model.
        path: the library.
        files: the artifact.
        threads: threads that a call may use.

    Raises:
        SetupError: the library does not load on this machine.
    """

    takes_codes = True
    takes_any_row = True

    def __init__(self, ensemble: Ensemble, path: Path, files: ModelFiles, threads: int) -> None:
        self._ensemble = ensemble
        self._library = path
        self._kernel = kernels.fastest(path, ensemble.forest, ensemble.features.dtype, threads)
        self._files = files
        self._label = f"{files.name} {files.version}".strip()

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch; see :class:`batchscore.engines.base.Engine`."""
        if inputs.num_rows == 0:
            return empty_batch(self._files.outputs)
        columns = self._ensemble.features.separate(inputs)
        reason = refusal(self._ensemble.forest, columns)
        if reason is not None:
            raise ModelRaisedError(f"model {self._label} does not score these {inputs.num_rows} rows", found=reason)
        linked = kernels.linked(self._library, self._ensemble.scores, self._kernel.sums(columns))
        return scored(self._ensemble.scores, linked, self._files.outputs, self._label)


def load(files: ModelFiles, threads: int) -> CompiledEngine:
    """Loads an artifact with ``threads`` threads.

    Raises:
        ModelError: the artifact is damaged or of another version.
        SetupError: it was built for another platform.
    """
    folder = Path(files.path)
    ensemble, facts = artifact.read(folder)
    library.check_platform(facts.get("platform", {}))
    return CompiledEngine(ensemble, folder / LIBRARY, files, threads)


def supports(model: PinnedModel) -> str | None:
    """Why no artifact can be made of the model here, or None as far as can be told without loading it."""
    reason = not_trees(model)
    if reason is None and library.compiler() is None:
        return f"there is no C compiler here: {library.HINT}"
    return reason


def not_trees(model: PinnedModel) -> str | None:
    """Why the model cannot be a plain ensemble of trees, or None as far as can be told without loading it."""
    if plain_flavor(model.flavors) is None:
        return f"its flavors are {listed(model.flavors)}; an ensemble of trees has one of {listed(PLAIN_FLAVORS)}"
    if model.params:
        return f"it takes parameters ({listed([param.name for param in model.params])}), which only pyfunc passes on"
    return unfit(model.inputs, None)


def convert(model: PinnedModel, folder: Path) -> None:
    """Writes the trees, their description and the compiled kernels into ``folder``.

    Raises:
        ModelError: the model is no ensemble of trees, or of a kind that is not known; the error says which.
        SetupError: there is no C compiler, or it fails.
    """
    ensemble = read_ensemble(unwrap(model.path, model.inputs), model.inputs)
    rehearse(ensemble, model)
    library.build(folder / LIBRARY)
    artifact.write(ensemble, folder, platform=library.this_platform(), compiler=library.compiler_version())


def rehearse(ensemble: Ensemble, model: PinnedModel) -> None:
    """Puts two made-up values through the outputs, so that outputs that do not fit are found before a run.

    Raises:
        ModelError: the model's method returns something else than it declares.
    """
    values: Any = np.full((2, len(ensemble.forest.base)), 0.25, ensemble.scores.dtype)
    scored(ensemble.scores, values, model.outputs, f"{model.name} {model.version}".strip())


def versions() -> dict[str, str]:
    """What can change the artifact or its scores; see :class:`batchscore.engines.base.Converter`."""
    found = installed(READERS)
    here = library.this_platform()
    return {
        "format": str(artifact.FORMAT),
        "compiler": library.compiler_version(),
        "flags": " ".join(library.FLAGS),
        "platform": " ".join(here.values()),
        **found,
    }
