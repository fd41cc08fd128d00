"""A part of a source that is pinned already, as if it had been pinned alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from batchscore.arrow.predicate import mask
from batchscore.arrow.splits import constant
from batchscore.contracts import And, Or, PinnedSource, Predicate, UnitValues, predicate_columns
from batchscore.errors import InputError
from batchscore.read.conditions import conjunction
from batchscore.read.partitions import pruned, wanted_values
from batchscore.read.storage import files_digest


def narrowed(source: PinnedSource, partitions: Mapping[str, Sequence[str | None]]) -> PinnedSource:
    """The files whose partition values are among those named, of the same version; nothing is looked up again.

    Args:
        source: pinned, with files.
        partitions: values by partition column; a column that is none does not narrow.

    Raises:
        SettingsError: a column that the source lacks, or a value that is none of its type.
        InputError: no file has the values.
    """
    wanted = wanted_values([(name, tuple(values)) for name, values in partitions.items()], source.columns)
    files = pruned(source.files, source.partition_columns, wanted)
    return replace(source, files=files, snapshot=files_digest(source.kind, source.root, files), unreadable=())


def only_dates(source: PinnedSource, column: str, dates: Sequence[str]) -> PinnedSource:
    """The files whose value of a partition column is among ``dates``; there may be none."""
    wanted = set(dates)
    files = tuple(file for file in source.files if dict(file.partition)[column] in wanted)
    return replace(source, files=files, snapshot=files_digest(source.kind, source.root, files))


def meeting(source: PinnedSource, predicate: Predicate | None) -> PinnedSource:
    """Without the files of which no row can meet a condition, by their partition values alone.

    The snapshot stays that of the whole: the condition is recorded apart from it.

    Raises:
        InputError: no file is left.
    """
    possible = _of_columns(predicate, set(source.partition_columns))
    if possible is None or not source.files:
        return source
    partitions = [*(file.partition for file in source.files), *(file.partition for file in source.unreadable)]
    known = list(dict.fromkeys(partitions))
    met = _met(source, possible, known)
    files = tuple(file for file in source.files if file.partition in met)
    if not files:
        raise InputError(
            "no row is left to score: --where leaves no partition",
            found=f"{len(known):,} partitions by {', '.join(source.partition_columns)}",
            hint="look at what --where (input.where) says of these columns",
        )
    unreadable = tuple(file for file in source.unreadable if file.partition in met)
    return replace(source, files=files, unreadable=unreadable)


def _of_columns(predicate: Predicate | None, columns: Collection[str]) -> Predicate | None:
    """A condition on these columns alone that holds wherever the whole one holds; None where they say nothing."""
    match predicate:
        case None:
            return None
        case And(operands):
            return conjunction([part for part in (_of_columns(part, columns) for part in operands) if part is not None])
        case Or(operands):
            parts = [part for part in (_of_columns(part, columns) for part in operands) if part is not None]
            return Or(tuple(parts)) if len(parts) == len(operands) else None
        case _:  # what NOT holds of is not weakened: the negation of less is more
            return predicate if set(predicate_columns(predicate)) <= set(columns) else None


def _met(source: PinnedSource, predicate: Predicate, known: Sequence[UnitValues]) -> set[UnitValues]:
    """Those of the partitions for which the condition is true; not where it is false or unknown."""
    columns = tuple(column for column in source.columns if column.name in source.partition_columns)
    values = [dict(partition) for partition in known]
    arrays = [
        pa.concat_arrays([pa.repeat(constant(value[column.name], column.type), 1) for value in values])
        for column in columns
    ]
    batch = pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
    marks = mask(predicate, batch, columns).to_pylist()
    return {partition for partition, holds in zip(known, marks, strict=True) if holds}
