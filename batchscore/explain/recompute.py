"""One row scored again with the recorded model, and what each feature adds to its score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from batchscore import engines
from batchscore.arrow.bits import largest_difference, same_bits
from batchscore.contracts import PREDICTION, Manifest, ModelFiles, OutputColumn, PinnedModel, Schema
from batchscore.engines import NATIVE, PROBABILITY, SPARKML, artifacts
from batchscore.engines.cache import loaded, verify
from batchscore.engines.contributions import Contributions, contributions
from batchscore.engines.estimators import read_estimator
from batchscore.engines.native import NativeEngine
from batchscore.errors import BatchscoreError
from batchscore.explain.values import Recomputed
from batchscore.lookup import Value, as_values
from batchscore.plan.binding import bind
from batchscore.plan.columns import prediction_columns
from batchscore.recorded import settings_list, settings_section
from batchscore.score.core import model_inputs

if TYPE_CHECKING:
    from batchscore.engines.base import Engine

THREADS = 1
NO_INPUTS = "the row's inputs are not at hand"


@dataclass(frozen=True, slots=True)
class Rescored:
    """The score computed again, the contributions, and the row as the model took it."""

    recomputed: Recomputed
    contributions: Contributions
    inputs: tuple[Value, ...] = ()


def rescore(
    model: PinnedModel, manifest: Manifest, source: pa.RecordBatch, columns: Schema, stored: pa.RecordBatch
) -> Rescored:
    """Scores a row of the input again and compares it with what the table holds.

    The model library itself is asked first, because it gives the contributions too; where its bits differ, the engine
    that the run used decides.

    Args:
        model: the recorded model, its digest verified.
        manifest: of the run.
        source: the row of the input.
        columns: its columns.
        stored: the row of the prediction table.
    """
    environment = str(settings_section(manifest, "model").get("environment") or "local")
    if environment != "local":
        reason = f"the model runs in an environment of its own ({environment}); `batchscore reproduce` scores there"
        return Rescored(Recomputed(problem=reason), Contributions("", reason=reason))
    try:
        bindings = bind(model, columns)
        inputs = model_inputs(source, columns, bindings, model.inputs)
        model, outputs = with_outputs(model, manifest)
    except BatchscoreError as error:
        return Rescored(Recomputed(problem=error.problem), Contributions("", reason=NO_INPUTS))
    used = {binding.source for binding in bindings}
    shown = tuple(column for column in columns if column.name in used)
    values = as_values(source.select([column.name for column in shown]), shown)
    native, given = _native(model, inputs)
    found = Recomputed(problem="no engine that gives this model's scores is at hand")
    for name, engine in _engines(model, manifest, native):
        again = engine if isinstance(engine, str) else _compared(name, engine, inputs, outputs, stored)
        if not isinstance(again, str):
            found = again
        elif not found.engine:
            found = Recomputed(problem=f"engine {name}: {again}")
        if found.equal:
            break
    return Rescored(found, given, values)


def with_outputs(model: PinnedModel, manifest: Manifest) -> tuple[PinnedModel, tuple[OutputColumn, ...]]:
    """The model with the outputs that the run wrote, and the table's columns of them.

    Raises:
        ModelError: it has no such output.
        InputError: the manifest does not say which.
    """
    wanted = settings_list(manifest, "scoring", "outputs") or (PREDICTION,)
    beside = tuple(name for name in wanted if name != PREDICTION)
    model = engines.with_probability(model) if PROBABILITY in beside else model
    return model, prediction_columns(model, beside)


def _native(model: PinnedModel, inputs: pa.RecordBatch) -> tuple[Engine | str, Contributions]:
    """The model library's own engine, or why there is none, and its contributions: one load for both."""
    reason = engines.supports(NATIVE, model)
    if reason is not None:
        return reason, Contributions("", reason=f"the model's library gives none: {reason}")
    files = ModelFiles.of(model)
    try:
        verify(files)
        found = read_estimator(model.path, model.inputs)
        return NativeEngine(found, files, THREADS), contributions(found, files, inputs)
    except BatchscoreError as error:
        return error.problem, Contributions("", reason=error.problem)
    except Exception as error:  # noqa: BLE001  # a model file is code: it may raise anything
        reason = f"{type(error).__name__}: {error}"
        return reason, Contributions("", reason=reason)


def _engines(model: PinnedModel, manifest: Manifest, native: Engine | str) -> Iterator[tuple[str, Engine | str]]:
    """The engines to ask, in order, each loaded when its turn comes; a text says why one cannot be asked."""
    if manifest.engine == SPARKML:
        yield SPARKML, "Spark itself scores this model; `batchscore reproduce --runner spark` does"
        return
    if not isinstance(native, str):
        yield NATIVE, native
    if manifest.engine != NATIVE:
        yield manifest.engine, _loaded(manifest.engine, model)
    elif isinstance(native, str):
        yield NATIVE, native


def _loaded(name: str, model: PinnedModel) -> Engine | str:
    """An engine whose artifact, where it needs one, lies in the cache: making one takes longer than an answer may."""
    files = ModelFiles.of(model)
    try:
        if artifacts.needs_artifact(name, model):
            artifact = artifacts.intact(artifacts.entry_folder(name, model), name, model)
            if artifact is None:
                return "what it made of the model is not in this machine's cache; `batchscore reproduce` makes it"
            files = replace(files, path=artifact.path, digest=artifact.digest)
        return loaded(name, files, THREADS)
    except BatchscoreError as error:
        return error.problem


def _compared(
    name: str, engine: Engine, inputs: pa.RecordBatch, outputs: tuple[OutputColumn, ...], stored: pa.RecordBatch
) -> Recomputed | str:
    try:
        scored = engine.score(inputs)
    except BatchscoreError as error:
        return error.problem
    gaps: list[float] = []
    equal, values = True, []
    for column in outputs:
        now, then = scored.column(column.ref), stored.column(column.name)
        values.append(Value(column.name, column.type, now[0].as_py()))
        if not same_bits(now, then).all():
            equal = False
            gap = largest_difference(now, then)
            gaps += [] if gap is None else [gap]
    return Recomputed(name, tuple(values), equal, max(gaps, default=None))
