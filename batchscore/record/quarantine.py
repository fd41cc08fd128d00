"""The quarantine ``<table>__quarantine``: a Delta table of the rows that runs left out, with the reason of each.

A row counts only where its run was published: refused and failed runs leave theirs for people to look at.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from batchscore import s3
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.layout import partition_value
from batchscore.arrow.snapshot import active_files, location, open_table, snapshot_of
from batchscore.arrow.values import shown_rows
from batchscore.contracts import (
    COLUMN_COLUMN,
    DETAIL_COLUMN,
    QUARANTINE_SUFFIX,
    REASON_COLUMN,
    RUN_COLUMN,
    VALUES_COLUMN,
    StagedFile,
    UnitValues,
)
from batchscore.errors import FencedOutError, SettingsError, UnavailableError
from batchscore.tables.delta import DeltaOutput

COMMIT_ATTEMPTS = 25  # as many as for a prediction table
_NO_CHECKPOINT = PostCommitHookProperties(create_checkpoint=False)


@dataclass(frozen=True, slots=True)
class QuarantineCount:
    """Rows that one run left out for one reason."""

    run_id: str
    reason: str
    column: str
    rows: int


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One row that was left out: what tells it, why, and the values at fault, as text."""

    run_id: str
    row: dict[str, str]
    reason: str
    column: str
    detail: str
    values: dict[str, str]


def quarantine_uri(table_uri: str) -> str:
    """Where the quarantine of a table is.

    >>> quarantine_uri("/data/scores/")
    '/data/scores__quarantine'
    """
    return table_uri.rstrip("/") + QUARANTINE_SUFFIX


def append(table_uri: str, run_id: str, files: Sequence[StagedFile]) -> None:
    """Adds what a run left out; the rows are in files under the quarantine's root already.

    Each attempt is a compare-and-swap: who fences the run and then deletes its files must not find them committed
    afterwards, which would make the table unreadable.

    Raises:
        SettingsError: the quarantine holds another type for one of the columns.
        FencedOutError: the run was fenced in the quarantine.
        UnavailableError: storage refused.
    """
    if not files:
        return
    uri = quarantine_uri(table_uri)
    schema = _schema_of(uri, files[0])
    failure: Exception | None = None
    for attempt in range(COMMIT_ATTEMPTS):
        try:
            table = open_table(uri)
            if table is None:
                _create(uri, schema, run_id, files)
                return
            _refuse_fenced(table, uri, run_id)
            if _add_columns(table, uri, schema):
                continue
            _extend(table, run_id, files)
        except (DeltaError, OSError) as error:  # another commit came first, or storage refused
            if _holds(uri, files):
                return
            failure = error
            time.sleep(min(0.05 * 2**attempt, 1.0) * (0.5 + random.random() / 2))  # noqa: S311  # jitter, no secret
        else:
            return
    raise UnavailableError(
        f"the quarantine {uri} could not be written; nothing was published",
        found=None if failure is None else s3.said(failure),
        hint="check space and write permission, then run again",
    ) from failure


def _refuse_fenced(table: DeltaTable, uri: str, run_id: str) -> None:
    if DeltaOutput(uri, table).is_fenced(run_id):
        raise FencedOutError(
            f"run {run_id} was taken over and may no longer publish",
            found="what it left out was removed",
            hint="look at `batchscore history`; run again if the units are not there",
        )


def _holds(uri: str, files: Sequence[StagedFile]) -> bool:
    """Whether the commit landed although it raised."""
    table = open_table(uri)
    return table is not None and files[0].path in {path.rsplit("/", 1)[-1] for path in table.file_uris()}


def _schema_of(uri: str, file: StagedFile) -> Schema:
    filesystem, root = open_filesystem(uri)
    try:
        stored = pq.read_schema(f"{root}/{file.path}", filesystem=filesystem)
    except (OSError, pa.ArrowInvalid) as error:
        raise UnavailableError("a file of the quarantine cannot be read back", found=error, hint="run again") from error
    plain = [field.with_type(_plain(field.type)).with_nullable(True) for field in stored]
    return Schema.from_arrow(pa.schema(plain))


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _create(uri: str, schema: Schema, run_id: str, files: Sequence[StagedFile]) -> None:
    create_table_with_add_actions(
        location(uri),
        schema,
        _adds(files, run_id),
        mode="error",
        partition_by=[],
        storage_options=s3.delta_options(uri),
        commit_properties=_properties(run_id),
        post_commithook_properties=_NO_CHECKPOINT,
    )


def _add_columns(table: DeltaTable, uri: str, schema: Schema) -> bool:
    """Whether columns had to be added: the table is to be looked at again then."""
    known = {field.name: field for field in table.schema().fields}
    new: list[Field] = []
    for field in schema.fields:
        if field.name not in known:
            new.append(field)
        elif str(known[field.name].type) != str(field.type):
            raise SettingsError(
                f"column {field.name} of the quarantine {uri} has another type",
                found=f"{known[field.name].type} in the quarantine, {field.type} from this run",
                hint="move the quarantine away: what it holds of earlier runs stays there",
            )
    if new:
        table.alter.add_columns(new, post_commithook_properties=_NO_CHECKPOINT)
    return bool(new)


def _extend(table: DeltaTable, run_id: str, files: Sequence[StagedFile]) -> None:
    table.create_write_transaction(
        [*_adds(files, run_id)],
        "append",
        table.schema(),
        commit_properties=_properties(run_id),
        post_commithook_properties=_NO_CHECKPOINT,
    )


def _properties(run_id: str) -> CommitProperties:
    return CommitProperties(max_commit_retries=0, custom_metadata={"batchscore.quarantine_of": run_id})


def _adds(files: Sequence[StagedFile], run_id: str) -> list[AddAction]:
    now = int(time.time() * 1000)
    return [AddAction(file.path, file.size, {}, now, data_change=True, stats=_stats(file, run_id)) for file in files]


def _stats(file: StagedFile, run_id: str) -> str:
    bound = {RUN_COLUMN: run_id}
    return json.dumps(
        {"numRecords": file.rows, "minValues": bound, "maxValues": bound, "nullCount": {RUN_COLUMN: 0}},
        separators=(",", ":"),
    )


# --- reading -------------------------------------------------------------------------------------------------


def files_of(table_uri: str, run_id: str | None = None) -> tuple[str, ...]:
    """The quarantine's data files, relative to its root; with a run those that hold rows of it.

    Raises:
        UnavailableError: storage could not be reached.
    """
    uri = quarantine_uri(table_uri)
    table = open_table(uri)
    if table is None:
        return ()
    files = active_files(table, uri, snapshot_of(table))
    return tuple(
        file.path for file in files if run_id is None or not file.runs or run_id in {run for run, _ in file.runs}
    )


def units_of(table_uri: str, run_id: str, partition_by: Sequence[str]) -> tuple[UnitValues, ...]:
    """The units of the prediction table that rows of the run belong to, sorted."""
    found: set[UnitValues] = set()
    for batch in _batches(table_uri, run_id, [RUN_COLUMN, *partition_by]):
        rows = pa.Table.from_batches([batch]).group_by([RUN_COLUMN, *partition_by]).aggregate([])
        for index in range(rows.num_rows):
            if rows.column(RUN_COLUMN)[index].as_py() == run_id:
                found.add(tuple((name, partition_value(rows.column(name)[index])) for name in partition_by))
    return tuple(sorted(found, key=str))


def counts(table_uri: str, run_id: str | None = None) -> list[QuarantineCount]:
    """How many rows each run, or one, left out for which reason; the newest run first."""
    found: Counter[tuple[str, str, str]] = Counter()
    for batch in _batches(table_uri, run_id, [RUN_COLUMN, REASON_COLUMN, COLUMN_COLUMN]):
        columns = (batch.column(name).to_pylist() for name in (RUN_COLUMN, REASON_COLUMN, COLUMN_COLUMN))
        found.update(row for row in zip(*columns, strict=True) if run_id in {None, row[0]})
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    listed = [QuarantineCount(*key, rows) for key, rows in ordered]
    return sorted(listed, key=lambda count: count.run_id, reverse=True)


def examples(table_uri: str, run_id: str, limit: int) -> list[QuarantinedRow]:
    """The first rows that a run left out."""
    found: list[QuarantinedRow] = []
    for batch in _batches(table_uri, run_id, None):
        for row in shown_rows(batch.slice(0, 10 * limit)):
            if row[RUN_COLUMN] == run_id and len(found) < limit:
                found.append(_quarantined(row))
        if len(found) == limit:
            break
    return found


def _quarantined(row: dict[str, object]) -> QuarantinedRow:
    told = {name: str(value) for name, value in row.items() if not name.startswith("_") and value is not None}
    values: dict[str, str] = {name: str(value) for name, value in row[VALUES_COLUMN] or ()}  # type: ignore[attr-defined]
    return QuarantinedRow(
        run_id=str(row[RUN_COLUMN]),
        row=told,
        reason=str(row[REASON_COLUMN]),
        column=str(row[COLUMN_COLUMN]),
        detail=str(row[DETAIL_COLUMN]),
        values=values,
    )


def _batches(table_uri: str, run_id: str | None, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    filesystem, root = open_filesystem(quarantine_uri(table_uri))
    for path in files_of(table_uri, run_id):
        try:
            with filesystem.open_input_file(f"{root}/{path}") as file:
                yield from pq.ParquetFile(file).iter_batches(columns=columns, use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise UnavailableError(f"file {path} of the quarantine cannot be read", found=error) from error
