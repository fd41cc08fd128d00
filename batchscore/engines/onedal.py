"""Ensembles of trees on oneDAL, of scikit-learn-intelex, without scikit-learn.

oneDAL keeps thresholds and leaves as float32 and sends a row left where ``x <= threshold``; it is given the largest
float32 that is not above a model's threshold, so that every float32 row takes the model's own way. (daal4py's own
converters hand over the float32 just below the nearest one, which is another row's way now and then.) A double that is
no float32 is rounded, which can matter only where a threshold is rounded to the same float32: those rows, and those
that float sums leave too near to another label, are walked exactly. Sums differ from the model's by float rounding.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.engines import compiled
from batchscore.engines.arrays import empty_batch
from batchscore.engines.installed import installed
from batchscore.engines.trees import artifact, cells, walk
from batchscore.engines.trees.forest import LEAF, Forest, at_most, prepared, refusal
from batchscore.engines.trees.read import Ensemble, read_ensemble
from batchscore.engines.trees.scores import scored
from batchscore.engines.unwrap import unwrap
from batchscore.errors import ModelError, ModelRaisedError, SetupError

PACKAGE = "daal4py"
EXTENSION = "_daal4py"
# Float sums of some hundred trees stay within this of the exact ones, relative to the larger of 1 and their size.
TOLERANCE = 1e-5
# Float sums of more trees than this lose digits that a score shows; double ones take a third longer.
FLOAT_TREES = 64
HINT = "install batchscore[onedal], or choose another engine"


class OnedalEngine:
    """oneDAL's models of an ensemble, one for each of its sums.

    Args:
        ensemble: the model.
        files: the artifact.
        threads: threads that oneDAL may use in this process.

    Raises:
        SetupError: oneDAL is not installed.
    """

    def __init__(self, ensemble: Ensemble, files: ModelFiles, threads: int) -> None:
        self._daal = _extension()
        self._daal.daalinit(threads)
        self._ensemble = ensemble
        self._files = files
        self._label = f"{files.name} {files.version}".strip()
        self._columns = _Columns(ensemble.forest)
        self._models = [
            _model(self._daal, ensemble.forest, self._columns, target) for target in range(len(ensemble.forest.base))
        ]
        many = len(ensemble.forest.roots) > FLOAT_TREES * len(ensemble.forest.base)
        self._precision = "double" if many else "float"
        self._cells = cells.Cells(ensemble.forest) if ensemble.features.dtype == "float64" else None

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch; see :class:`batchscore.engines.base.Engine`."""
        if inputs.num_rows == 0:
            return empty_batch(self._files.outputs)
        matrix = self._ensemble.features.matrix(inputs)
        reason = refusal(self._ensemble.forest, matrix)
        if reason is not None:
            raise ModelRaisedError(f"model {self._label} does not score these {inputs.num_rows} rows", found=reason)
        linked = self._ensemble.scores.linked(self._sums(matrix))
        return scored(self._ensemble.scores, linked, self._files.outputs, self._label)

    def _sums(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        narrow, exact = (matrix, None) if self._cells is None else self._cells.narrowed(matrix)
        shown = self._columns.of(narrow)
        if self._precision == "double":
            shown = shown.astype(np.float64)
        sums = np.empty((len(matrix), len(self._models)))
        for target, model in enumerate(self._models):
            # A new one for each call: it keeps the number of rows that it was first called with.
            algorithm = self._daal.gbt_regression_prediction(fptype=self._precision)
            sums[:, target] = algorithm.compute(shown, model).prediction.ravel()
        sums += self._ensemble.forest.base
        sums /= self._ensemble.forest.divisor
        close = self._ensemble.scores.close(sums, TOLERANCE)
        again = np.flatnonzero(close if exact is None else close | exact)
        if len(again):
            sums[again] = walk.sums_of(self._ensemble.forest, matrix[again])
        return sums


class _Columns:
    """The columns that oneDAL is shown: a feature for each way in which nodes prepare its values."""

    def __init__(self, forest: Forest) -> None:
        inner = forest.feature != LEAF
        keys = forest.feature.astype(np.int64) << 8 | forest.rule
        distinct = np.unique(keys[inner])
        plain = np.arange(forest.features, dtype=np.int64) << 8
        # Without rules the matrix is shown as it is.
        self._keys = plain if np.isin(distinct, plain).all() else distinct
        self._is_plain = self._keys is plain
        self.node = np.where(inner, np.searchsorted(self._keys, keys), 0)
        self.count = len(self._keys)

    def of(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._is_plain:
            return matrix
        parts = [prepared(matrix[:, key >> 8], key & 0xFF) for key in self._keys.tolist()]
        return np.ascontiguousarray(np.stack(parts, axis=1))


def load(files: ModelFiles, threads: int) -> OnedalEngine:
    """Loads an artifact with ``threads`` threads.

    Raises:
        ModelError: the artifact is damaged or of another version.
        SetupError: oneDAL is not installed here.
    """
    ensemble, _ = artifact.read(Path(files.path))
    return OnedalEngine(ensemble, files, threads)


def supports(model: PinnedModel) -> str | None:
    """Why no artifact can be made of the model here, or None as far as can be told without loading it."""
    reason = compiled.not_trees(model)
    if reason is None and _folder() is None:
        return f"scikit-learn-intelex is not installed: {HINT}"
    return reason


def convert(model: PinnedModel, folder: Path) -> None:
    """Writes the trees and their description into ``folder``.

    Raises:
        ModelError: the model is no ensemble of trees, or has categories, or several values in a leaf.
    """
    ensemble = read_ensemble(unwrap(model.path, model.inputs), model.inputs)
    if len(ensemble.forest.sets):
        raise ModelError("the model splits on categories, which oneDAL does not", hint="use engine compiled")
    if ensemble.forest.values.shape[1] > 1:
        raise ModelError("the leaves hold several values, which oneDAL's do not", hint="use engine compiled")
    compiled.rehearse(ensemble, model)
    artifact.write(ensemble, folder)


def versions() -> dict[str, str]:
    """What can change the artifact or its scores; see :class:`batchscore.engines.base.Converter`."""
    names = ("scikit-learn-intelex", "daal", "numpy", *compiled.READERS)
    return {"format": str(artifact.FORMAT), **installed(names)}


def _model(daal: ModuleType, forest: Forest, columns: _Columns, target: int) -> Any:  # noqa: ANN401  # daal's own
    """OneDAL's model of the trees that add to one sum."""
    chosen = np.flatnonzero(forest.target == target)
    builder = daal.gbt_reg_model_builder(n_features=columns.count, n_iterations=len(chosen))
    narrow = at_most(forest.threshold).astype(np.float64)
    ends = np.append(forest.roots[1:], len(forest.feature))
    for tree in chosen:
        _add_tree(builder, forest, columns, narrow, slice(int(forest.roots[tree]), int(ends[tree])))
    return builder.model(base_score=None)


def _add_tree(
    builder: Any,  # noqa: ANN401
    forest: Forest,
    columns: _Columns,
    narrow: npt.NDArray[np.float64],
    span: slice,
) -> None:
    tree = builder.create_tree(span.stop - span.start)
    waiting: list[tuple[int, int | None, int]] = [(span.start, None, 0)]
    for node, parent, position in waiting:  # grows while it is walked: breadth first
        place = {} if parent is None else {"parent_id": parent, "position": position}
        if forest.feature[node] == LEAF:
            response = float(forest.values[forest.slot[node], 0])
            builder.add_leaf(tree_id=tree, response=response, cover=1.0, **place)
            continue
        number = builder.add_split(
            tree_id=tree,
            feature_index=int(columns.node[node]),
            feature_value=float(narrow[node]),
            default_left=int(forest.default_left[node]),
            cover=1.0,
            **place,
        )
        waiting.append((int(forest.left[node]), number, 0))
        waiting.append((int(forest.right[node]), number, 1))


def _folder() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _extension() -> ModuleType:
    """daal4py's extension by itself: the package around it imports scikit-learn, which takes seconds.

    Raises:
        SetupError: it is not installed, or does not load.
    """
    if EXTENSION in sys.modules:
        return sys.modules[EXTENSION]
    whole = sys.modules.get(f"{PACKAGE}.{EXTENSION}")
    if whole is not None:
        return whole
    folder = _folder()
    spec = None if folder is None else importlib.machinery.PathFinder.find_spec(EXTENSION, [str(folder)])
    if spec is None or spec.loader is None:
        raise SetupError("engine onedal needs scikit-learn-intelex", found="not installed", hint=HINT)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise SetupError("oneDAL does not load on this machine", found=error, hint=HINT) from error
    sys.modules[EXTENSION] = module
    return module
