"""Delta tables: a look at one version, and one change as delta-rs' actions."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self
from urllib.parse import unquote

import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from batchscore import faults, s3
from batchscore.arrow.commits import LoggedCommit, logged_commits
from batchscore.arrow.damage import damage_of
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.snapshot import (
    LOG_FOLDER,
    ActiveFile,
    Snapshot,
    active_files,
    kept_rows,
    location,
    open_table,
    snapshot_of,
)
from batchscore.arrow.values import table_of
from batchscore.contracts import FENCED_BY_KEY, FENCED_KEY, Column, OutputFormat, Schema, StagedFile, UnitValues
from batchscore.errors import InputError, SettingsError, listed
from batchscore.schema import element_of
from batchscore.tables.base import Change, Conflict, PastVersion, Table, TableVersion, file_statistics, new_columns

DEFAULT_CHECKPOINT_INTERVAL = 10  # versions; Delta's own default
DEFAULT_INDEXED_COLUMNS = 32  # Delta's own default of delta.dataSkippingNumIndexedCols
# Partition types whose values delta-rs compares in a filter exactly as the log spells them.
FILTERED_TYPES = ("string", "byte", "short", "integer", "long", "date")
# Ids of transactions that fence a run. delta-rs keeps them through RESTORE and DELETE.
FENCE_PREFIX = "batchscore.fence/"
# Clocks of the machine that wrote a file and of the one that wrote a commit may differ by as much.
CLOCK_SKEW = timedelta(hours=1)
# Checkpoints are a step of their own: a hook that fails raises after the version has landed.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

_MEND = "restore the files of its _delta_log folder"

Filter = list[tuple[str, str, str | list[str]]]


class DeltaOutput(Table):
    """One version of a Delta table.

    Args:
        uri: root of the table.
        table: delta-rs' own handle, which this class alone uses.
    """

    format: OutputFormat = "delta"

    def __init__(self, uri: str, table: DeltaTable) -> None:
        self.uri = uri
        self._table = table

    @classmethod
    def open(cls, uri: str, version: int | None = None) -> Self | None:
        """The newest version or ``version``; None where no Delta table lies."""
        table = open_table(uri)
        if table is not None and version is not None and version != table.version():
            table = _at(uri, table, version)
        return None if table is None else cls(uri, table)

    @classmethod
    def check_place(cls, uri: str) -> None:
        """Whatever delta-rs can name will do."""
        location(uri)

    @classmethod
    def create(cls, uri: str, change: Change) -> None:
        """Makes the table with its first files."""
        days = f"interval {change.retention_days} days"
        configuration: dict[str, str | None] = {
            "delta.logRetentionDuration": days,
            "delta.deletedFileRetentionDuration": days,
        }
        if len(change.columns) > DEFAULT_INDEXED_COLUMNS:
            # The lineage columns come last; without statistics of _run_id an OPTIMIZE would hide who wrote a unit.
            configuration["delta.dataSkippingNumIndexedCols"] = str(len(change.columns))
        create_table_with_add_actions(
            location(uri),
            DeltaSchema([_field(column) for column in change.columns]),
            _adds(change.files),
            mode="error",
            partition_by=list(change.partition_by),
            configuration=configuration,
            storage_options=s3.delta_options(uri),
            commit_properties=_properties(change.metadata),
            post_commithook_properties=NO_HOOKS,
        )

    @cached_property
    def snapshot(self) -> Snapshot:
        """The columns and the protocol."""
        with damage_of(self.uri, _MEND):
            return snapshot_of(self._table)

    @cached_property
    def files(self) -> tuple[ActiveFile, ...]:
        """The active files, with what their statistics prove about runs."""
        with damage_of(self.uri, _MEND):
            return active_files(self._table, self.uri, self.snapshot)

    def kept_rows(self) -> Mapping[str, bytes]:
        """What deletion vectors leave of files."""
        return kept_rows(self._table) if "deletionVectors" in self.snapshot.features else {}

    def write(self, change: Change) -> bool:
        """Commits the change on this version; False where only the schema was evolved."""
        new = [_field(column) for column in new_columns(change, self.snapshot.columns)]
        schema = DeltaSchema([*self._table.schema().fields, *new])
        mode, filters, removes = _removal(change, self._table, self.snapshot, self.uri)
        if new and mode == "append":  # an append drops a new column silently
            self._table.alter.add_columns(new, commit_properties=_properties({}), post_commithook_properties=NO_HOOKS)
            return False
        self._table.create_write_transaction(
            [*_adds(change.files, data_change=not change.moves_data), *removes],
            mode,
            schema,
            list(self.snapshot.partition_by),
            filters,
            commit_properties=_properties(change.metadata),
            post_commithook_properties=NO_HOOKS,
        )
        return True

    def restore(self, version: int, metadata: Mapping[str, str]) -> None:
        """Delta's own RESTORE, as a commit on this version."""
        self._table.restore(version, commit_properties=_properties(metadata), post_commithook_properties=NO_HOOKS)

    def fence(self, run_id: str, by: str = "") -> None:
        """A transaction action that names the run, and no data."""
        # Without `last_updated` a retention for transactions would drop the fence.
        action = Transaction(FENCE_PREFIX + run_id, 1, int(time.time() * 1000))
        try:
            self._table.create_write_transaction(
                [],
                "append",
                DeltaSchema.from_json(self._table.schema().to_json()),
                commit_properties=CommitProperties(
                    max_commit_retries=0,
                    app_transactions=[action],
                    custom_metadata={FENCED_KEY: run_id, FENCED_BY_KEY: by},
                ),
                post_commithook_properties=NO_HOOKS,
            )
        except (DeltaError, OSError) as error:
            raise Conflict(str(error)) from error

    def is_fenced(self, run_id: str) -> bool:
        """Whether the log holds the run's fence."""
        return self._table.transaction_version(FENCE_PREFIX + run_id) is not None

    def versions(self, limit: int | None = None) -> tuple[TableVersion, ...]:
        """The commits that the log still lists."""
        with damage_of(self.uri, _MEND):
            return tuple(_version(commit) for commit in logged_commits(self.uri, self.version, limit))

    def past(self) -> Iterator[PastVersion]:
        """The versions that the log can still put together."""
        # A newest version of which a checkpoint alone is left is in no history.
        commits = {commit.version: commit for commit in self.versions()}
        own = commits.get(self.version, TableVersion(self.version, "", "", {}))
        yield PastVersion(own, _sizes(self.uri, self._table))
        for commit in commits.values():
            if commit.version >= self.version:
                continue
            try:
                table = _at(self.uri, self._table, commit.version)
            except InputError:  # no checkpoint lies before it any more, nor before older ones
                return
            yield PastVersion(commit, _sizes(self.uri, table))

    def mentioned(self, paths: Collection[str]) -> set[str]:
        """Those that are active, or were added or removed by a commit not older than they are."""
        wanted = set(paths)
        active = {unquote(path) for path in table_of(self._table.get_add_actions()).column("path").to_pylist()}
        filesystem, root = open_filesystem(self.uri)
        infos = filesystem.get_file_info([f"{root}/{path}" for path in sorted(wanted)])
        written = [info.mtime for info in infos if info.mtime is not None]
        found = wanted & active
        if not written:
            return found
        since = min(written).astimezone(UTC) - CLOCK_SKEW
        names = {path.rsplit("/", 1)[-1]: path for path in wanted}
        for info in filesystem.get_file_info(pafs.FileSelector(f"{root}/{LOG_FOLDER}")):
            if info.base_name.endswith(".json") and _since(info.mtime, since):
                with filesystem.open_input_stream(info.path) as stream:
                    text = stream.read().decode(errors="replace")
                found |= {path for name, path in names.items() if name in text}
        return found

    @classmethod
    def checkpoint(cls, uri: str, version: int) -> None:
        """Writes a checkpoint when the table's interval asks for one."""
        table = open_table(uri)
        if table is None:
            return
        settings = table.metadata().configuration
        interval = int(settings.get("delta.checkpointInterval", DEFAULT_CHECKPOINT_INTERVAL))
        if version % interval or not version:
            return
        faults.reached("checkpoint.begin")
        table.create_checkpoint()
        faults.reached("checkpoint.end")
        if settings.get("delta.enableExpiredLogCleanup", "true").lower() == "true":
            table.cleanup_metadata()

    def undo(self, version: int) -> str:
        """Spark's statement."""
        return f"RESTORE TABLE delta.`{self.uri}` TO VERSION AS OF {version}"


def _sizes(uri: str, table: DeltaTable) -> dict[str, int]:
    """Bytes of the active files by path."""
    with damage_of(uri, _MEND):
        actions = table_of(table.get_add_actions())
        paths = (unquote(path) for path in actions.column("path").to_pylist())
        return dict(zip(paths, actions.column("size_bytes").to_pylist(), strict=True))


def _at(uri: str, newest: DeltaTable, version: int) -> DeltaTable:
    problem = f"the table at {uri} has no version {version}"
    if not 0 <= version <= newest.version():
        raise InputError(problem, allowed=(f"0 to {newest.version()}",))
    try:
        table = open_table(uri, version)
    except InputError as error:
        raise InputError(
            f"{problem} any more", found=error.found, hint="the log is cleaned after the table's retention"
        ) from error
    if table is None:
        raise InputError(f"{problem} any more")
    return table


def _version(commit: LoggedCommit) -> TableVersion:
    info, moment = commit.info, commit.committed_at
    return TableVersion(
        version=commit.version,
        committed_at="" if moment is None else moment.isoformat(timespec="milliseconds"),
        operation=str(info.get("operation") or ""),
        metadata={name: value for name, value in info.items() if isinstance(value, str) and name != "operation"},
    )


def _properties(metadata: Mapping[str, str]) -> CommitProperties:
    return CommitProperties(max_commit_retries=0, custom_metadata=dict(metadata))


def _field(column: Column) -> Field:
    element = element_of(column.type)
    kind: object = column.type if element is None else {"type": "array", "elementType": element, "containsNull": True}
    facts = {"name": column.name, "type": kind, "nullable": column.nullable, "metadata": {}}
    return Field.from_json(json.dumps(facts))


def _adds(files: Sequence[StagedFile], *, data_change: bool = True) -> list[AddAction]:
    now = int(time.time() * 1000)
    return [
        AddAction(
            path=file.path,  # delta-rs percent-encodes it for the log
            size=file.size,
            partition_values=dict(file.unit),
            modification_time=now,
            data_change=data_change,
            stats=delta_stats(file),
        )
        for file in files
    ]


def delta_stats(file: StagedFile) -> str:
    """Delta's statistics of a file as JSON.

    >>> from batchscore.contracts import ColumnStats
    >>> delta_stats(StagedFile("a", 1, 2, (), (ColumnStats("x", 0, 1, 5),)))
    '{"numRecords":2,"minValues":{"x":1},"maxValues":{"x":5},"nullCount":{"x":0},"tightBounds":true}'
    """
    return json.dumps(file_statistics(file), separators=(",", ":"), allow_nan=False)


def _removal(
    change: Change, table: DeltaTable, snapshot: Snapshot, uri: str
) -> tuple[str, Filter | None, list[RemoveAction]]:
    """How to remove exactly ``change.removed``: mode, filter and explicit remove actions.

    delta-rs' overwrite removes what its filter matches: everything without a filter, a cross product with two
    lists. So a filter is used only where it names the units exactly; else each file is removed by name, which
    a file with a deletion vector does not allow.
    """
    if not change.removed:
        return "append", None, []
    filters = exact_filter(change.units, snapshot.columns, snapshot.partition_by)
    if filters is not None:
        return "overwrite", filters, []
    vectors = [file.path for file in change.removed if file.deleted]
    if not vectors:
        return "append", None, [_remove(file, data_change=not change.moves_data) for file in change.removed]
    if len(change.removed) == table_of(table.get_add_actions()).num_rows:
        return "overwrite", None, []  # all that is active goes
    raise inexpressible(uri, listed(vectors, 3))


def inexpressible(uri: str, found: str) -> SettingsError:
    """Units that one commit cannot replace together."""
    return SettingsError(
        "these units cannot be replaced in one commit: some of their files have deletion vectors",
        found=found,
        hint=f"REORG TABLE delta.`{uri}` APPLY (PURGE), or score one unit at a time",
    )


def _remove(file: ActiveFile, *, data_change: bool) -> RemoveAction:
    return RemoveAction(file.path, data_change, int(time.time() * 1000), file.size, dict(file.unit))


def exact_filter(units: Collection[UnitValues] | None, columns: Schema, partition_by: Sequence[str]) -> Filter | None:
    """A filter that matches these units and no other, where delta-rs can express one."""
    types = {column.name: column.type for column in columns}
    if not units or not partition_by or any(types[name] not in FILTERED_TYPES for name in partition_by):
        return None
    if len(units) == 1:
        (values,) = units
        return [(name, "=", value or "") for name, value in values]  # '' is null to delta-rs
    values_of = [value for unit in units for _, value in unit]
    if len(partition_by) > 1 or any(value is None for value in values_of):
        return None
    return [(partition_by[0], "in", [value for value in values_of if value is not None])]


def _since(moment: datetime | None, since: datetime) -> bool:
    return moment is None or moment.astimezone(UTC) >= since
