"""The columns of the prediction table, and those that must be read for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from batchscore.contracts import (
    COLUMN_COLUMN,
    DETAIL_COLUMN,
    LINEAGE_COLUMNS,
    MODEL_COLUMN,
    PREDICTION,
    REASON_COLUMN,
    RUN_COLUMN,
    TIME_COLUMN,
    VALUES_COLUMN,
    VERSION_COLUMN,
    Binding,
    Column,
    ModelOutput,
    OutputColumn,
    PinnedModel,
    Predicate,
    Rule,
    Schema,
    predicate_columns,
)
from batchscore.errors import SchemaMismatchError, SettingsError
from batchscore.plan.binding import resolve
from batchscore.schema import is_supported

QUARANTINE_COLUMNS = frozenset({REASON_COLUMN, COLUMN_COLUMN, DETAIL_COLUMN, VALUES_COLUMN})
# Delta keeps partition values as text; these types have no canonical text.
NOT_PARTITIONABLE = ("float", "double", "binary")


def prediction_columns(model: PinnedModel, beside: tuple[str, ...] = ()) -> tuple[OutputColumn, ...]:
    """One column for each model output: ``prediction``, or ``prediction_<output>`` where there are several.

    The last outputs may be ``beside`` what the model itself returns, such as ``probability``: they keep their names.
    """
    outputs = model.outputs or (ModelOutput("", "double"),)
    own = len(outputs) - len(beside)
    added = tuple(OutputColumn(output.name, output.type, "model", output.name) for output in outputs[own:])
    if own == 1:
        return (OutputColumn(PREDICTION, outputs[0].type, "model", outputs[0].name or PREDICTION), *added)
    named = (OutputColumn(f"{PREDICTION}_{output.name}", output.type, "model", output.name) for output in outputs[:own])
    return (*named, *added)


def output_columns(  # what a table's columns come from
    source: Schema,
    model: PinnedModel,
    keys: tuple[str, ...],
    carry: tuple[str, ...],
    partition_by: tuple[str, ...],
    beside: tuple[str, ...] = (),
) -> tuple[OutputColumn, ...]:
    """Keys, partition columns, carried columns, predictions, lineage: in this order.

    Without keys every column of the input is carried.

    Raises:
        SettingsError: an unknown column, or one that batchscore's own columns would collide with.
    """
    predictions = prediction_columns(model, beside)
    refuse_reserved(source, predictions)
    carry_all = not keys or "*" in carry
    carried = tuple(column.name for column in source) if carry_all else carry
    resolve(keys, source, "output.keys")
    resolve(tuple(name for name in carry if name != "*"), source, "output.carry")
    for column in resolve(partition_by, source, "output.partition_by"):
        if column.type in NOT_PARTITIONABLE or column.type.startswith("array<"):
            raise SettingsError(
                f"output.partition_by names {column.name!r}, whose type has no canonical text",
                found=column.type,
                hint="partition by a date, text, integer, boolean or decimal column",
            )
    _refuse_quarantine_columns((*keys, *partition_by) if keys else carried, keyed=bool(keys))
    names = dict.fromkeys((*keys, *partition_by, *carried))
    return (
        *(_carried(column) for column in resolve(tuple(names), source, "output")),
        *predictions,
        OutputColumn(MODEL_COLUMN, "string", "lineage", MODEL_COLUMN),
        OutputColumn(VERSION_COLUMN, "string", "lineage", VERSION_COLUMN),
        OutputColumn(RUN_COLUMN, "string", "lineage", RUN_COLUMN),
        OutputColumn(TIME_COLUMN, "timestamp", "lineage", TIME_COLUMN),
    )


def refuse_reserved(source: Schema, predictions: tuple[OutputColumn, ...]) -> None:
    """Refuses input columns named like batchscore's own, also by case only.

    Raises:
        SettingsError: naming the columns and how to rename them.
    """
    ours = {name.casefold() for name in (PREDICTION, *LINEAGE_COLUMNS, *(column.name for column in predictions))}
    clashing = [column.name for column in source if column.name.casefold() in ours]
    if clashing:
        renamed = ", ".join(f"{name} AS input_{name.lstrip('_')}" for name in clashing[:3])
        raise SettingsError(
            "the input has columns named like those that batchscore adds",
            found=", ".join(clashing),
            hint=f"rename them in a view: SELECT {renamed}, …",  # a hint, never executed
        )


def _refuse_quarantine_columns(told: Sequence[str], *, keyed: bool) -> None:
    """Refuses columns that tell a quarantined row and are named like those that say why it is there.

    Raises:
        SettingsError: naming them.
    """
    clashing = [name for name in dict.fromkeys(told) if name.casefold() in QUARANTINE_COLUMNS]
    if clashing:
        beside = "" if keyed else ", or name output.keys: of the input the quarantine then holds these alone"
        raise SettingsError(
            "the input has columns named like those of the quarantine, which would hold both",
            found=", ".join(clashing),
            hint=f"rename them in a view{beside}",
        )


def columns_to_read(
    source: Schema,
    bindings: Iterable[Binding],
    columns: Iterable[OutputColumn],
    predicate: Predicate | None,
    rules: Sequence[Rule] = (),
) -> Schema:
    """The table columns that a task needs, in table order: the model's, the output's, the predicate's and the rules'.

    Behind them the columns that Spark computes for rules.
    """
    needed = {binding.source for binding in bindings} | {column.ref for column in columns if column.origin == "source"}
    needed.update(predicate_columns(predicate))
    needed.update(name for rule in rules for name in rule.columns)
    # Of a row that breaks such a rule these values are kept, as far as a worker can read them.
    types = {column.name: column.type for column in source}
    needed.update(name for rule in rules for name in rule.named if is_supported(types[name]))
    computed = tuple(Column(rule.columns[0], "boolean") for rule in rules if rule.sql)
    return (*(column for column in source if column.name in needed), *computed)


def _carried(column: Column) -> OutputColumn:
    if not is_supported(column.type):
        raise SchemaMismatchError(
            f"column {column.name!r} has a type that the prediction table cannot hold",
            found=column.type,
            hint="name output.keys and the columns to carry without it, or convert it in a view",
        )
    return OutputColumn(column.name, column.type, "source", column.name, column.nullable)
