"""MLflow's own pyfunc: the scores that every other engine is measured by."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.engines import sparkml
from batchscore.engines.arrays import empty_batch
from batchscore.engines.failures import raised
from batchscore.errors import listed

FLAVOR = "python_function"
# Flavors whose native model can have categorical features.
TREE_FLAVORS = ("lightgbm", "xgboost", "sklearn")


class PyfuncEngine:
    """A loaded pyfunc model.

    Args:
        model: ``mlflow.pyfunc.PyFuncModel``.
        files: the model.
        threads: threads that numerical libraries may use while the model predicts.
    """

    def __init__(self, model: Any, files: ModelFiles, threads: int) -> None:  # noqa: ANN401  # mlflow publishes no types
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415  # after the model's libraries are loaded

        from batchscore.engines.categories import trained_categories  # noqa: PLC0415  # pandas, 0.5 s
        from batchscore.engines.missing import missing_text  # noqa: PLC0415  # numpy only, but used here alone

        raw = model.get_raw_model() if set(files.flavors) & set(TREE_FLAVORS) else None
        self._files = files
        self._label = f"{files.name} {files.version}".strip()
        self._schema = model.metadata.get_input_schema()
        self._params = {param.name: _thawed(param.value) for param in files.params} or None
        self._categories = trained_categories(raw, files.inputs)
        self._missing_text = missing_text(raw)
        self._predict = _predict_coded(model, raw) if self._categories else model.predict
        self._threads = threads
        self._pools = ThreadpoolController()
        _limit_xgboost(raw, threads)

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch; see :class:`batchscore.engines.base.Engine`."""
        from batchscore.engines.outputs import to_batch  # noqa: PLC0415  # pandas, 0.5 s, is there once a model is loaded

        if inputs.num_rows == 0:
            return empty_batch(self._files.outputs)
        data = self._data(inputs)
        try:
            with self._pools.limit(limits=self._threads):
                predicted = self._predict(data, params=self._params)
        except Exception as error:  # the model is the user's code: it may raise anything
            raise raised(self._label, inputs.num_rows, error, _reason(error)) from error
        return to_batch(predicted, self._files.outputs, inputs.num_rows, self._label)

    def _data(self, inputs: pa.RecordBatch) -> Any:  # noqa: ANN401  # a frame, an array, or arrays by name
        from batchscore.engines.frames import to_frame, to_tensor  # noqa: PLC0415  # pandas, 0.5 s

        items = self._files.inputs
        if all(item.shape is None for item in items):
            return to_frame(inputs, items, self._categories, self._missing_text)
        specs = self._schema.inputs if self._schema is not None else [None] * len(items)
        arrays = [
            to_tensor(array, item, None if spec is None else np.dtype(spec.type))
            for array, item, spec in zip(inputs.columns, items, specs, strict=True)
        ]
        named = self._schema.has_input_names() if self._schema is not None else len(items) > 1
        return {item.name: array for item, array in zip(items, arrays, strict=True)} if named else arrays[0]


def load(files: ModelFiles, threads: int) -> PyfuncEngine:
    """Loads the model with MLflow.

    Raises:
        ModelError: its file does not tell what its categorical inputs are.
    """
    import mlflow.pyfunc  # noqa: PLC0415  # 4 s to import

    config = json.loads(files.config) if files.config else None
    if sparkml.FLAVOR in files.flavors:
        sparkml.import_connect()  # MLflow's wrapper would, in the midst of a prediction
    with quiet():
        model = mlflow.pyfunc.load_model(files.path, suppress_warnings=True, model_config=config)
    return PyfuncEngine(model, files, threads)


def supports(model: PinnedModel) -> str | None:
    """Why pyfunc cannot serve the model, or None."""
    if FLAVOR not in model.flavors:
        return f"the model has no {FLAVOR} flavor, its flavors are {listed(model.flavors)}"
    if sparkml.supports(model) is None:
        return "MLflow would start a Spark of its own in each worker for a Spark ML pipeline; engine sparkml does not"
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps MLflow's hints on versions out of each executor's log; the caller loads one model at a time."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _predict_coded(model: Any, raw: Any) -> Callable[..., Any]:  # noqa: ANN401
    """``predict`` for frames with category columns, which MLflow's schema enforcement would turn into objects.

    The frame has the signature's types already, so that enforcement has nothing else to do. MLflow's wrapper of a
    plain XGBoost booster cannot take categories at all, so the booster is asked as the wrapper would do it.
    """
    from mlflow.models import ModelSignature  # noqa: PLC0415  # loaded with the model

    if type(raw).__module__.startswith("xgboost") and not hasattr(raw, "get_booster"):
        return _predict_booster(raw)
    params = model.metadata.get_params_schema()
    model.metadata.signature = None if params is None else ModelSignature(params=params)
    return model.predict  # type: ignore[no-any-return]  # mlflow publishes no types


def _predict_booster(booster: Any) -> Callable[..., Any]:  # noqa: ANN401
    import xgboost  # noqa: PLC0415  # loaded with the model

    known = set(inspect.signature(booster.predict).parameters)

    def predict(frame: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        chosen = {name: value for name, value in (params or {}).items() if name in known}
        return booster.predict(xgboost.DMatrix(frame, enable_categorical=True), validate_features=True, **chosen)

    return predict


def _limit_xgboost(raw: Any, threads: int) -> None:  # noqa: ANN401
    """XGBoost has a thread count of its own, which OpenMP's limit does not reach."""
    if raw is None or not type(raw).__module__.startswith("xgboost"):
        return
    booster = raw.get_booster() if hasattr(raw, "get_booster") else raw
    booster.set_param({"nthread": threads})
    if hasattr(raw, "get_booster"):
        raw.n_jobs = threads


def _thawed(value: object) -> object:
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value


def _reason(error: Exception) -> str:
    """The last part of MLflow's message: before it stands the whole batch as text."""
    return str(error).rsplit("Error: ", 1)[-1]
