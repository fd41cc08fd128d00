"""The LightGBM, XGBoost or scikit-learn estimator itself, without MLflow's and, where possible, pandas' layers.

It calls the method that MLflow's wrapper calls, on the same values, so that its scores are those of the pyfunc
engine. Boosters take a numpy matrix; what selects its columns by name takes the frame that MLflow would pass on.

Beside the prediction of a classifier it can give the probability, which MLflow's wrapper cannot: see
:func:`with_probability`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchscore.contracts import PREDICTION, ModelFiles, ModelOutput, PinnedModel
from batchscore.engines.arrays import batch_of, empty_batch
from batchscore.engines.direct import caller, pin_threads
from batchscore.engines.estimators import LOADERS, flavor_of, method_of, read_estimator
from batchscore.engines.failures import raised
from batchscore.engines.installed import installed
from batchscore.engines.probability import PROBABILITY, both, probability_type
from batchscore.engines.pyfunc import FLAVOR
from batchscore.engines.unwrap import Unwrapped
from batchscore.errors import BatchscoreError, ModelError, listed
from batchscore.models.mlmodel import read_mlmodel
from batchscore.schema import element_of

METHODS = ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba")
LIBRARIES = ("lightgbm", "numpy", "pandas", "scikit-learn", "xgboost", "xgboost-cpu")


class NativeEngine:
    """A loaded estimator.

    Args:
        found: the estimator.
        files: the model; its outputs may end with the one that :func:`with_probability` adds.
        threads: threads that the estimator may use.

    Raises:
        ModelError: a probability is asked of a model that has none.
    """

    def __init__(self, found: Unwrapped, files: ModelFiles, threads: int) -> None:
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415  # after the model's libraries are loaded

        pin_threads(found.estimator, threads)
        self._outputs = files.outputs
        self._declared = _declared(found, files)
        self._label = f"{files.name} {files.version}".strip()

        def call(method: str) -> Callable[[pa.RecordBatch], Any]:
            return caller(replace(found, method=method), files, threads)

        self._call = call(found.method) if self._declared == files.outputs else both(found, call)
        self._threads = threads
        self._pools = ThreadpoolController()

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch; see :class:`batchscore.engines.base.Engine`."""
        from batchscore.engines.outputs import to_batch  # noqa: PLC0415  # pandas, 0.5 s, which the estimator loads too

        rows = inputs.num_rows
        if rows == 0:
            return empty_batch(self._outputs)
        try:
            with self._pools.limit(limits=self._threads):
                predicted = self._call(inputs)
        except BatchscoreError:
            raise
        except Exception as error:  # an estimator may raise anything
            raise raised(self._label, rows, error) from error
        if self._declared == self._outputs:
            return to_batch(predicted, self._outputs, rows, self._label)
        prediction = to_batch(predicted[0], self._declared, rows, self._label)
        probability = batch_of([predicted[1]], self._outputs[-1:], rows, self._label)
        return pa.RecordBatch.from_arrays(
            [*prediction.columns, *probability.columns], names=[*prediction.schema.names, PROBABILITY]
        )


def load(files: ModelFiles, threads: int) -> NativeEngine:
    """Loads the estimator; without MLflow, unless the model's files are of a kind that only MLflow knows.

    Raises:
        ModelError: it cannot be loaded, or its file does not tell what its categorical inputs are.
    """
    return NativeEngine(read_estimator(files.path, files.inputs), files, threads)


def supports(model: PinnedModel) -> str | None:
    """Why the estimator cannot be called directly, or None where it can."""
    document = read_mlmodel(Path(model.path))
    flavor, method = flavor_of(document), method_of(document)
    if flavor is None or flavor not in document["flavors"]:
        loader = document["flavors"].get(FLAVOR, {}).get("loader_module")
        return f"the estimator is known for {listed(LOADERS.values())} only; the model is loaded by {loader}"
    if importlib.util.find_spec(flavor) is None:
        return f"{flavor} is not installed here"
    if method not in METHODS:
        return f"the model calls {method}"
    for item in model.inputs:
        if item.shape is not None and (item.name or len(model.inputs) > 1):
            return f"input {item.name or '(unnamed)'} is a named tensor, which MLflow passes on as a dictionary"
        if item.shape is None and element_of(item.type) is not None:
            return f"input {item.name} is {item.type}, which MLflow converts in ways of its own"
    return None


def versions() -> dict[str, str]:
    """Versions of the libraries that can change a score."""
    return installed(LIBRARIES)


def outputs(model: PinnedModel) -> tuple[str, ...]:
    """What the model can give: ``prediction``, and ``probability`` for a classifier. Loads the estimator.

    A booster of LightGBM or XGBoost with a binary objective predicts the probability itself and has no label, so
    for it this is ``prediction`` alone.

    Raises:
        ModelError: the estimator cannot be loaded.
    """
    kind = _probability(model)
    return (PREDICTION,) if kind is None else (PREDICTION, PROBABILITY)


def with_probability(model: PinnedModel) -> PinnedModel:
    """The model with one more output, which this engine alone can fill.

    ``probability`` is a double for a classifier of two classes: that of ``classes_[1]``, the positive one; with
    more classes it is array<double> in the order of ``classes_``.

    Raises:
        ModelError: the model has no probability, or an output of this name already.
    """
    kind = _probability(model)
    names = [output.name for output in model.outputs]
    if kind is None or PROBABILITY in names:
        raise ModelError(
            f"model {model.name} has no probability beside its prediction",
            found=f"outputs {listed(names)}" if PROBABILITY in names else "it is no classifier with predict_proba",
            hint="leave probability out of scoring.outputs",
        )
    return replace(model, outputs=(*model.outputs, ModelOutput(PROBABILITY, kind)))


def _probability(model: PinnedModel) -> str | None:
    reason = supports(model)
    if reason is not None:
        return None
    return probability_type(read_estimator(model.path, model.inputs))


def _declared(found: Unwrapped, files: ModelFiles) -> tuple[ModelOutput, ...]:
    """The outputs without the one that :func:`with_probability` adds.

    A model's own last output may have that name: then its outputs are as many as its method gives.
    """
    last = files.outputs[-1]
    kind = probability_type(found) if len(files.outputs) > 1 and last.name == PROBABILITY else None
    if kind is None or kind != last.type:
        return files.outputs
    if found.method == "predict" or element_of(files.outputs[0].type) is not None:
        return files.outputs[:-1]
    return files.outputs if len(files.outputs) == len(found.estimator.classes_) else files.outputs[:-1]
