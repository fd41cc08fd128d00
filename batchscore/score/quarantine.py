"""Rows that are left out of a batch: which, for what reason, and with which values at fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.checks import any_null, not_finite, unknown_class
from batchscore.arrow.predicate import mask
from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import array_of, scalar_of, shown
from batchscore.contracts import (
    COLUMN_COLUMN,
    DETAIL_COLUMN,
    MODEL_COLUMN,
    REASON_COLUMN,
    REASONS,
    RUN_COLUMN,
    TIME_COLUMN,
    VALUES_COLUMN,
    VERSION_COLUMN,
    BadRow,
    Column,
    Reason,
    ReasonCount,
    Schema,
    ScoringTask,
)
from batchscore.errors import MAX_VALUE_CHARS, bounded
from batchscore.schema import is_float, label_column

_TEXT = pa.string()
_VALUES = pa.map_(_TEXT, _TEXT)
LINEAGE = (
    (MODEL_COLUMN, _TEXT),
    (VERSION_COLUMN, _TEXT),
    (RUN_COLUMN, _TEXT),
    (TIME_COLUMN, pa.timestamp("us", tz="UTC")),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with rows of a batch.

    Attributes:
        reason: its code.
        column: the column or the rule that says so.
        marks: for each row of the batch whether it is at fault; null counts as no.
        columns: whose values are kept.
        detail: one text for all, or one for each row at fault, in their order.
    """

    reason: Reason
    column: str
    marks: pa.Array
    columns: tuple[str, ...]
    detail: str | pa.Array = ""


@dataclass(frozen=True, slots=True)
class Parted:
    """A batch without the rows at fault: for each row whether it stays (None: all do), and the others."""

    kept: pa.BooleanArray | None
    left_out: tuple[pa.RecordBatch, ...] = ()
    counts: tuple[ReasonCount, ...] = ()


def quarantine_schema(task: ScoringTask, *, with_lineage: bool = True) -> pa.Schema:
    """The columns of the quarantine table: what tells the row, why it is there, and what it was scored by."""
    told = [pa.field(column.name, to_arrow(column.type)) for column in task.quarantine_columns]
    why = [pa.field(name, _TEXT) for name in (REASON_COLUMN, COLUMN_COLUMN, DETAIL_COLUMN)]
    lineage = [pa.field(name, kind) for name, kind in LINEAGE] if with_lineage else []
    return pa.schema([*told, *why, pa.field(VALUES_COLUMN, _VALUES), *lineage])


def quarantine_lineage(task: ScoringTask) -> dict[str, pa.Scalar]:
    """The lineage columns of a quarantined row, each with its one value of this run."""
    values = dict(task.lineage)
    return {name: scalar_of(values[name], kind) for name, kind in LINEAGE}


def part(faults: Iterable[Fault], told: pa.RecordBatch, values: pa.RecordBatch, task: ScoringTask) -> Parted:
    """Leaves out the rows at fault; a row with several faults for the first of them.

    Args:
        faults: what is wrong, in the order in which it counts.
        told: the batch's rows with the columns that tell them.
        values: the same rows with the columns at fault.
        task: names those columns.
    """
    out: pa.Array | None = None
    parts: list[pa.RecordBatch] = []
    counts: list[ReasonCount] = []
    for fault in faults:
        marks = pc.fill_null(fault.marks, scalar_of(False, pa.bool_()))
        fresh = marks if out is None else pc.and_not(marks, out)
        places = pc.indices_nonzero(fresh)
        if not len(places):
            continue
        parts.append(_left_out(fault, marks, places, told, values, task))
        counts.append(ReasonCount(fault.reason, fault.column, len(places)))
        out = fresh if out is None else pc.or_(out, fresh)
    return Parted(None if out is None else pc.invert(out), tuple(parts), tuple(counts))


def _left_out(
    fault: Fault, marks: pa.Array, places: pa.Array, told: pa.RecordBatch, values: pa.RecordBatch, task: ScoringTask
) -> pa.RecordBatch:
    count = len(places)
    detail = fault.detail
    if isinstance(detail, pa.Array):  # of all rows at fault; some of them may be out already
        detail = detail.take(pc.index_in(places, value_set=pc.indices_nonzero(marks)))
    schema = quarantine_schema(task, with_lineage=False)
    arrays = [
        *(_plain(told.column(column.name), to_arrow(column.type)).take(places) for column in task.quarantine_columns),
        _repeated(fault.reason, count),
        _repeated(fault.column, count),
        _repeated(detail, count) if isinstance(detail, str) else detail,
        _as_map([(name, _texts(values.column(name).take(places))) for name in fault.columns], count),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _plain(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array if array.type == kind else array.cast(kind)


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(scalar_of(text, _TEXT), count)


def _texts(array: pa.Array) -> pa.Array:
    """Values as text of at most 200 characters."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type):
        texts = [bounded(value) for value in array.to_pylist()]
        return array_of(texts, _TEXT)
    return pc.utf8_slice_codeunits(array.cast(_TEXT), 0, MAX_VALUE_CHARS)


def _as_map(columns: Sequence[tuple[str, pa.Array]], count: int) -> pa.Array:
    """For each row the columns' names with the row's values."""
    width = len(columns)
    offsets = array_of(np.arange(count + 1, dtype=np.int32) * width, pa.int32())
    if not width:
        return pa.MapArray.from_arrays(offsets, pa.nulls(0, _TEXT), pa.nulls(0, _TEXT))
    if width == 1:
        (name, only), *_ = columns
        return pa.MapArray.from_arrays(offsets, _repeated(name, count), only)
    names = pa.concat_arrays([_repeated(name, count) for name, _ in columns])
    values = pa.concat_arrays([array for _, array in columns])
    # Column after column becomes row after row.
    order = array_of(np.arange(width * count, dtype=np.int64).reshape(width, count).T.reshape(-1), pa.int64())
    return pa.MapArray.from_arrays(offsets, names.take(order), values.take(order))


# --- what can be wrong ---------------------------------------------------------------------------------------


def key_faults(rows: pa.RecordBatch, keys: Sequence[str]) -> list[Fault]:
    """Rows without a key: nothing could name them."""
    return [
        Fault("null_key", key, rows.column(key).is_null(), (key,), REASONS["null_key"])
        for key in keys
        if rows.column(key).null_count
    ]


def rule_faults(batch: pa.RecordBatch, columns: Schema, task: ScoringTask, *, of_output: bool) -> list[Fault]:
    """Rows that break a rule: its condition is false, not merely unknown."""
    faults = []
    for rule in task.rules:
        if rule.of_output == of_output:
            holds = mask(rule.holds, batch, columns)
            if holds.null_count or holds.false_count:
                named = tuple(name for name in rule.named if name in batch.schema.names) if rule.sql else rule.columns
                faults.append(Fault(rule.reason, rule.name, pc.invert(holds), named, rule.name))
    return faults


def raised_fault(raised: Sequence[tuple[int, str]], rows: int, columns: Sequence[str]) -> list[Fault]:
    """Rows on which the model raised."""
    if not raised:
        return []
    marks = np.zeros(rows, dtype=np.bool_)
    marks[[place for place, _ in raised]] = True
    texts = array_of([text for _, text in sorted(raised)], _TEXT)
    return [Fault("model_raised", "", array_of(marks, pa.bool_()), tuple(columns), texts)]


def output_faults(outputs: pa.RecordBatch, task: ScoringTask) -> list[Fault]:
    """Predictions that nobody should read: not finite, null, or of no class that the model has."""
    faults = []
    columns = [column for column in task.columns if column.origin == "model"]
    for column in columns:
        values = outputs.column(column.name)
        reason: Reason = "not_finite" if is_float(column.type) else "null_prediction"
        marks = not_finite(values) if is_float(column.type) else any_null(values)
        faults.append(Fault(reason, column.name, marks, (column.name,), REASONS[reason]))
    label = label_column(columns)
    if task.classes and label is not None:
        marks = unknown_class(task.classes, label.type)(outputs.column(label.name))
        faults.append(Fault("unknown_class", label.name, marks, (label.name,), REASONS["unknown_class"]))
    return [fault for fault in faults if fault.marks.true_count]


def output_columns(task: ScoringTask) -> Schema:
    """The columns that the model fills."""
    return tuple(Column(column.name, column.type) for column in task.columns if column.origin == "model")


def samples(batches: Iterable[pa.RecordBatch], task: ScoringTask, count: int) -> list[BadRow]:
    """The first rows that were left out, as an error message names them."""
    found: list[BadRow] = []
    for batch in batches:
        for index in range(min(batch.num_rows, count - len(found))):
            keys = tuple((key, bounded(shown(batch.column(key)[index]))) for key in task.keys)
            values = dict(batch.column(VALUES_COLUMN)[index].as_py() or ())
            detail = batch.column(DETAIL_COLUMN)[index].as_py()
            found.append(BadRow(keys, ", ".join(values), ", ".join(str(value) for value in values.values()), detail))
    return found
