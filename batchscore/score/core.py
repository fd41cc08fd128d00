"""One batch of table rows becomes one batch of the prediction table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import scalar_of
from batchscore.contracts import Binding, ModelInput, OutputColumn, ReasonCount, Schema, ScoringTask
from batchscore.engines.isolation import Isolating, Scorer
from batchscore.errors import InputError, ModelError
from batchscore.score.casts import CastColumn, bind, is_coded_text, normalized
from batchscore.score.quarantine import (
    Fault,
    key_faults,
    output_columns,
    output_faults,
    part,
    raised_fault,
    rule_faults,
)


def coded_columns(task: ScoringTask, engine: Scorer) -> frozenset[str]:
    """Columns of text that nothing but the engine reads, where it takes dictionaries: see :func:`takes_codes`."""
    if not takes_codes(engine):
        return frozenset()
    texts = {item.source for item in task.bindings if item.source_type == item.model_type == "string"}
    others = {column.ref for column in task.columns if column.origin == "source"} | {*task.keys, *task.partition_by}
    # A predicate compares text, and a column may feed another input as something else.
    others |= {item.source for item in task.bindings if item.model_type != "string"}
    others |= {name for rule in task.rules for name in rule.columns}
    return frozenset() if task.predicate is not None else frozenset(texts - others)


def takes_codes(engine: Scorer) -> bool:
    """Whether an engine takes text as dictionaries, too, and so looks at each different text once."""
    return bool(getattr(engine, "takes_codes", False))


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """``table`` has the output's columns, partition columns included, of the rows that were scored.

    ``left_out`` are the others, as the quarantine keeps them, and ``counts`` says how many for which reason.
    """

    table: pa.RecordBatch
    left_out: tuple[pa.RecordBatch, ...] = ()
    counts: tuple[ReasonCount, ...] = ()


def score_batch(
    batch: pa.RecordBatch, task: ScoringTask, engine: Scorer | Isolating, *, with_lineage: bool = True
) -> ScoredBatch:
    """Scores the rows of ``batch``, whose columns are ``task.source_columns``.

    Args:
        batch: rows of the table.
        task: what to make of them.
        engine: the loaded model.
        with_lineage: whether the lineage columns, constants of a run, are spelled out for each row.

    Returns:
        The rows of the prediction table, in the order of ``batch``, and the rows that are left out: those that
        cannot be cast, break a rule, make the model raise, or get a prediction that is none.

    Raises:
        ModelError: the model raised on all that it was given, or returned something else than its signature says.
        InputError: a column cannot be read as the type it was planned with.
    """
    isolating = engine if isinstance(engine, Isolating) else Isolating(engine, task.max_quarantined)
    rows = _normalized_batch(batch, task.source_columns, keep_codes=isolating.takes_codes)
    inputs, bad = _model_inputs(rows, task.bindings, task.model.inputs)
    before = part(_input_faults(rows, task, bad), rows, rows, task)
    scores = isolating.scores(inputs, before.kept)
    if before.kept is not None:
        # The many columns that only the model reads are not copied for a few rows less.
        names = rows.schema.names if scores.raised else _read_later(task)
        rows = rows.select(names).filter(before.kept)
    raised = part(raised_fault(scores.raised, rows.num_rows, _named_inputs(task)), rows, rows, task)
    if raised.kept is not None:
        rows = rows.filter(raised.kept)
    outputs = _outputs(scores.outputs, task)
    after = part(_output_faults(rows, outputs, task), rows, _beside(rows, outputs), task)
    if after.kept is not None:
        rows, outputs = rows.filter(after.kept), outputs.filter(after.kept)
    columns = [column for column in task.columns if with_lineage or column.origin != "lineage"]
    arrays = [_output_column(column, rows, outputs, task) for column in columns]
    table = pa.RecordBatch.from_arrays(arrays, schema=output_schema(task, with_lineage=with_lineage))
    stages = (before, raised, after)
    return ScoredBatch(
        table,
        tuple(rows for stage in stages for rows in stage.left_out),
        tuple(count for stage in stages for count in stage.counts),
    )


def _input_faults(rows: pa.RecordBatch, task: ScoringTask, bad: list[tuple[Binding, CastColumn]]) -> list[Fault]:
    """What is wrong before anything is scored; the rules come last, because they are about values that there are."""
    casts = []
    for binding, column in bad:
        name = binding.source or binding.input
        casts.append(Fault(column.code, name, column.bad, (binding.source,) if binding.source else (), column.reason))
    keys = key_faults(rows, task.keys)
    rules = rule_faults(rows, task.source_columns, task, of_output=False) if task.rules else []
    return [*keys, *casts, *rules]


def _output_faults(rows: pa.RecordBatch, outputs: pa.RecordBatch, task: ScoringTask) -> list[Fault]:
    faults = output_faults(outputs, task)
    if not any(rule.of_output for rule in task.rules):
        return faults
    types = (*task.source_columns, *output_columns(task))
    return [*faults, *rule_faults(_beside(rows, outputs), types, task, of_output=True)]


def _read_later(task: ScoringTask) -> list[str]:
    """The table's columns that are read of a row that was scored."""
    read = {column.ref for column in task.columns if column.origin == "source"}
    read |= {*task.keys, *(column.name for column in task.quarantine_columns)}
    read |= {name for rule in task.rules if rule.of_output for name in (*rule.columns, *rule.named)}
    return [column.name for column in task.source_columns if column.name in read]


def _named_inputs(task: ScoringTask) -> list[str]:
    """The table's columns that feed the model: what is kept of a row that it raises on."""
    names = {column.name for column in task.source_columns}
    return list(dict.fromkeys(binding.source for binding in task.bindings if binding.source in names))


def _outputs(scores: pa.RecordBatch | None, task: ScoringTask) -> pa.RecordBatch:
    """The model's outputs under the names of the table's columns; no row where nothing was scored."""
    columns = [column for column in task.columns if column.origin == "model"]
    arrays = [pa.nulls(0, to_arrow(column.type)) if scores is None else scores.column(column.ref) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _beside(rows: pa.RecordBatch, outputs: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [*rows.columns, *outputs.columns], names=[*rows.schema.names, *outputs.schema.names]
    )


def scorable_inputs(batch: pa.RecordBatch, task: ScoringTask) -> pa.RecordBatch:
    """The model's inputs of those rows of ``batch`` that a run would give to an engine, as the engine takes them."""
    rows = _normalized_batch(batch, task.source_columns)
    inputs, bad = _model_inputs(rows, task.bindings, task.model.inputs)
    kept = part(_input_faults(rows, task, bad), rows, rows, task).kept
    return inputs if kept is None else inputs.filter(kept)


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
        found = zip(bound, column.parts, strict=True) if column.parts else ((bound[0], column),)
        bad.extend((binding, part) for binding, part in found if part.bad is not None)
    return pa.RecordBatch.from_arrays(arrays, names=[model_input.name for model_input in inputs]), bad


def _source(rows: pa.RecordBatch, binding: Binding) -> pa.Array:
    if binding.cast == "absent":
        return pa.nulls(rows.num_rows, to_arrow(binding.model_type))
    return rows.column(binding.source)


def _output_column(column: OutputColumn, rows: pa.RecordBatch, outputs: pa.RecordBatch, task: ScoringTask) -> pa.Array:
    if column.origin == "source":
        return normalized(rows.column(column.ref), column.type)
    if column.origin == "model":
        return outputs.column(column.name)
    return pa.repeat(lineage_values(task)[column.name], rows.num_rows)
