"""The row's inputs from the snapshot that the run recorded: the same files, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from batchscore import lookup, read
from batchscore.contracts import Manifest, PinnedSource, SourceFile, UnitValues
from batchscore.errors import BatchscoreError, InputError, SettingsError
from batchscore.explain.values import InputRow
from batchscore.lookup import DataFile, FileSet, FoundRow, Key
from batchscore.recorded import changed, recorded_files, recorded_restriction, settings_list
from batchscore.schema import FLOATS


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of the input: what is told of it, and itself with the input's columns; None where it cannot be read."""

    facts: InputRow
    batch: pa.RecordBatch | None = None
    files: FileSet | None = None


def source_row(manifest: Manifest, unit: UnitValues, keys: Sequence[str], row: FoundRow, table: FileSet) -> SourceRow:
    """The input row that a row of the prediction table was scored from.

    Args:
        manifest: of the run that wrote the row.
        unit: the row's unit.
        keys: columns by which the row is named, beside the output's own keys.
        row: the row of the prediction table.
        table: its table.
    """
    facts = InputRow(
        uri=manifest.source_uri,
        kind=manifest.source_kind,
        version=manifest.source_version,
        snapshot=manifest.source_snapshot,
    )
    try:
        return _found(facts, manifest, unit, list(_keys(manifest, keys, row, table)))
    except BatchscoreError as error:
        found = f": {error.found}" if error.found else ""
        return SourceRow(replace(facts, problem=f"{error.problem}{found}"))


def _found(facts: InputRow, manifest: Manifest, unit: UnitValues, keys: list[Key]) -> SourceRow:
    if manifest.source_kind == "catalog":
        raise InputError("a table or view of Spark's catalog cannot be read without Spark")
    source = _pinned(manifest)
    files = recorded_files(manifest, source, [unit])[unit]
    if files is None:
        return SourceRow(replace(facts, problem=changed(manifest, source, unit)))
    known = {column.name for column in source.columns}
    keys = [key for key in keys if key.name in known]
    if not keys:
        raise SettingsError("the row has no column that the input has, too", hint="name output.keys")
    searched = _file_set(source, files, [key.name for key in keys])
    if searched.obstacle:
        raise InputError(f"the input cannot be read without Spark: {searched.obstacle}")
    found = _told(searched, keys)
    facts = replace(facts, verified=True, file=found.place.file.path)
    return SourceRow(facts, found.batch, searched)


def _keys(manifest: Manifest, named: Sequence[str], row: FoundRow, table: FileSet) -> Iterator[Key]:
    """What names the row: the output's keys and partition columns, and what the user gave; all of it without keys."""
    asked = settings_list(manifest, "output", "keys")
    wanted = {*asked, *named, *table.partition_by} if asked else {column.name for column in table.readable}
    for index, column in enumerate(table.readable):
        if column.name in wanted:
            key = lookup.key_of(column, row.batch.column(index)[0])
            if key is not None:
                yield key


def _told(files: FileSet, keys: Sequence[Key]) -> FoundRow:
    """The row by its exact keys; floats, which may have been rounded on their way, only where those do not tell it."""
    exact = [key for key in keys if key.type not in FLOATS]
    if not exact or len(exact) == len(keys):
        return lookup.one_row(files, keys)
    try:
        return lookup.one_row(files, exact)
    except SettingsError as several:
        try:
            return lookup.one_row(files, keys)
        except SettingsError:
            raise several from None  # of a row that is not there the exact keys say more


def _pinned(manifest: Manifest) -> PinnedSource:
    version = "latest" if manifest.source_version is None else str(manifest.source_version)
    restriction = recorded_restriction(manifest)
    kind: Literal["delta", "parquet"] = "delta" if manifest.source_kind == "delta" else "parquet"
    return read.pin(manifest.source_uri, format=kind, version=version, restriction=restriction, present=False)


def _file_set(source: PinnedSource, files: Sequence[SourceFile], names: Sequence[str]) -> FileSet:
    """The files for a lookup: Delta's with statistics and deletion vectors, Parquet's by their stamps."""
    if source.kind == "delta":
        found = lookup.files_at(source.uri, source.version, bounds=names)
        sizes = {file.path: file.size for file in files}
        kept = tuple(replace(file, size=sizes[file.path]) for file in found.files if file.path in sizes)
        return replace(found, files=kept)
    return FileSet(
        what=source.uri,
        uri=source.uri,
        columns=source.columns,
        partition_by=source.partition_columns,
        files=tuple(DataFile(file.path, file.partition, file.rows, file.size, file.stamp) for file in files),
    )
