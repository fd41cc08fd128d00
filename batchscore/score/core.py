"""One batch of table rows becomes one batch of the prediction table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import scalar_of
from batchscore.contracts import BadRow, Binding, ModelInput, OutputColumn, Schema, ScoringTask
from batchscore.errors import MAX_ITEMS, BatchscoreError, InputError, ModelError, bounded
from batchscore.score.casts import CastColumn, bind, is_coded_text, normalized


class Scorer(Protocol):
    """What the core needs of an engine: see :class:`batchscore.engines.base.Engine`."""

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Model inputs in, model outputs out, row by row."""
        ...


def coded_columns(task: ScoringTask, engine: Scorer) -> frozenset[str]:
    """Columns of text that nothing but the engine reads, where it takes dictionaries: see :func:`takes_codes`."""
    if not takes_codes(engine):
        return frozenset()
    texts = {item.source for item in task.bindings if item.source_type == item.model_type == "string"}
    others = {column.ref for column in task.columns if column.origin == "source"} | {*task.keys, *task.partition_by}
    # A predicate compares text, and a column may feed another input as something else.
    others |= {item.source for item in task.bindings if item.model_type != "string"}
    return frozenset() if task.predicate is not None else frozenset(texts - others)


def takes_codes(engine: Scorer) -> bool:
    """Whether an engine takes text as dictionaries, too, and so looks at each different text once."""
    return bool(getattr(engine, "takes_codes", False))


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """``table`` has the output's columns, partition columns included; bad rows are not in it.

    ``bad_rows`` are at most ten samples of ``bad_count``.
    """

    table: pa.RecordBatch
    bad_count: int = 0
    bad_rows: tuple[BadRow, ...] = ()


def score_batch(batch: pa.RecordBatch, task: ScoringTask, engine: Scorer, *, with_lineage: bool = True) -> ScoredBatch:
    """Scores the rows of ``batch``, whose columns are ``task.source_columns``.

    Args:
        batch: rows of the table.
        task: what to make of them.
        engine: the loaded model.
        with_lineage: whether the lineage columns, constants of a run, are spelled out for each row.

    Returns:
        The rows of the prediction table, in the order of ``batch``, and the rows that could not be scored.

    Raises:
        ModelError: the model raised, or returned something else than its signature says.
        InputError: a column cannot be read as the type it was planned with.
    """
    rows = _normalized_batch(batch, task.source_columns, keep_codes=takes_codes(engine))
    inputs, bad = _model_inputs(rows, task.bindings, task.model.inputs)
    bad_count = 0
    samples: tuple[BadRow, ...] = ()
    if bad:
        mask = _any_bad(bad)
        bad_count = pc.sum(mask).as_py() or 0
    if bad_count:
        samples = _samples(rows, task, bad)
        keep = pc.invert(mask)
        rows, inputs = rows.filter(keep), inputs.filter(keep)
    outputs = _scored(inputs, engine)
    schema = output_schema(task, with_lineage=with_lineage)
    columns = [column for column in task.columns if with_lineage or column.origin != "lineage"]
    arrays = [_output_column(column, rows, outputs, task) for column in columns]
    return ScoredBatch(pa.RecordBatch.from_arrays(arrays, schema=schema), bad_count, samples)


def scorable_inputs(batch: pa.RecordBatch, task: ScoringTask) -> pa.RecordBatch:
    """The model's inputs of those rows of ``batch`` that can be scored, as an engine takes them."""
    inputs, bad = _model_inputs(_normalized_batch(batch, task.source_columns), task.bindings, task.model.inputs)
    return inputs.filter(pc.invert(_any_bad(bad))) if bad else inputs


def output_schema(task: ScoringTask, *, with_lineage: bool = True) -> pa.Schema:
    """The Arrow schema of the prediction table, partition columns included."""
    columns = [column for column in task.columns if with_lineage or column.origin != "lineage"]
    return pa.schema([pa.field(column.name, to_arrow(column.type), column.nullable) for column in columns])


def lineage_values(task: ScoringTask) -> dict[str, pa.Scalar]:
    """The lineage columns, each with its one value of this run."""
    values = dict(task.lineage)
    return {
        column.name: scalar_of(values[column.ref], to_arrow(column.type))
        for column in task.columns
        if column.origin == "lineage"
    }


def model_inputs(
    batch: pa.RecordBatch, columns: Schema, bindings: Sequence[Binding], inputs: Sequence[ModelInput]
) -> pa.RecordBatch:
    """What the model takes of a batch; a row that cannot be cast is an error.

    Args:
        batch: rows with at least ``columns``.
        columns: the batch's columns and their types.
        bindings: which column feeds which input.
        inputs: the model's inputs, in order.

    Raises:
        ModelError: naming the first column at fault.
    """
    rows, bad = _model_inputs(_normalized_batch(batch, columns), bindings, inputs)
    for binding, column in bad:
        if pc.any(column.bad).as_py():
            raise ModelError(f"column {binding.source or binding.input!r} holds a value that {column.reason}")
    return rows


def _normalized_batch(batch: pa.RecordBatch, columns: Schema, *, keep_codes: bool = False) -> pa.RecordBatch:
    arrays = []
    for column in columns:
        array = batch.column(column.name)
        if keep_codes and is_coded_text(array):
            arrays.append(array)
            continue
        try:
            arrays.append(normalized(array, column.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"column {column.name!r} holds values that {column.type} cannot hold",
                found=error,
                hint="cast the column in the table, or read it through a view that does",
            ) from error
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _model_inputs(
    rows: pa.RecordBatch, bindings: Sequence[Binding], inputs: Sequence[ModelInput]
) -> tuple[pa.RecordBatch, list[tuple[Binding, CastColumn]]]:
    by_input: dict[str, list[Binding]] = {}
    for binding in bindings:
        by_input.setdefault(binding.input, []).append(binding)
    arrays: list[pa.Array] = []
    bad: list[tuple[Binding, CastColumn]] = []
    for model_input in inputs:
        bound = by_input[model_input.name]
        column = bind([_source(rows, binding) for binding in bound], bound, model_input)
        arrays.append(column.values)
        if column.bad is not None:
            bad.append((bound[0], column))
    return pa.RecordBatch.from_arrays(arrays, names=[model_input.name for model_input in inputs]), bad


def _source(rows: pa.RecordBatch, binding: Binding) -> pa.Array:
    if binding.cast == "absent":
        return pa.nulls(rows.num_rows, to_arrow(binding.model_type))
    return rows.column(binding.source)


def _any_bad(bad: list[tuple[Binding, CastColumn]]) -> pa.Array:
    mask = bad[0][1].bad
    for _, column in bad[1:]:
        mask = pc.or_(mask, column.bad)
    return mask


def _samples(rows: pa.RecordBatch, task: ScoringTask, bad: list[tuple[Binding, CastColumn]]) -> tuple[BadRow, ...]:
    samples: list[BadRow] = []
    for binding, column in bad:
        for index in pc.indices_nonzero(column.bad).to_pylist()[: MAX_ITEMS - len(samples)]:
            keys = tuple((key, bounded(rows.column(key)[index].as_py())) for key in task.keys)
            value = rows.column(binding.source)[index].as_py() if binding.source else None
            samples.append(BadRow(keys, binding.source or binding.input, bounded(value), column.reason))
    return tuple(samples)


def _scored(inputs: pa.RecordBatch, engine: Scorer) -> pa.RecordBatch:
    try:
        return engine.score(inputs)
    except (BatchscoreError, MemoryError):
        raise
    except Exception as error:  # a model is somebody's code and raises whatever it likes
        raise ModelError(
            f"the model raised {type(error).__name__} on a batch of {inputs.num_rows} rows",
            found=error,
            hint="score the batch in a notebook with mlflow.pyfunc.load_model to see the whole trace",
        ) from error


def _output_column(column: OutputColumn, rows: pa.RecordBatch, outputs: pa.RecordBatch, task: ScoringTask) -> pa.Array:
    if column.origin == "source":
        return normalized(rows.column(column.ref), column.type)
    if column.origin == "model":
        return outputs.column(column.ref)
    return pa.repeat(lineage_values(task)[column.name], rows.num_rows)
