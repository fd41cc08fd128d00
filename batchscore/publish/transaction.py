"""One change of the table as delta-rs' actions."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from deltalake import CommitProperties, DeltaTable, Field, Schema
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from batchscore import faults
from batchscore.arrow.snapshot import ActiveFile, Snapshot, location, open_table
from batchscore.arrow.values import table_of
from batchscore.contracts import Column, ManifestUnit, Mode, OutputColumn, ScoringPlan, StagedFile, UnitValues
from batchscore.errors import SettingsError, listed, unit_text
from batchscore.publish.cleanup import NO_HOOKS
from batchscore.publish.staged import delta_stats
from batchscore.schema import element_of

DEFAULT_CHECKPOINT_INTERVAL = 10  # versions; Delta's own default
DEFAULT_INDEXED_COLUMNS = 32  # Delta's own default of delta.dataSkippingNumIndexedCols
# Partition types whose values delta-rs compares in a filter exactly as the log spells them.
FILTERED_TYPES = ("string", "byte", "short", "integer", "long", "date")

_LOG = logging.getLogger(__name__)
Filter = list[tuple[str, str, str | list[str]]]


@dataclass(frozen=True, slots=True)
class Change:
    """Files to add, files to remove, and the units that are thereby published."""

    plan: ScoringPlan
    units: Mapping[UnitValues, ManifestUnit]
    files: tuple[StagedFile, ...]
    removed: tuple[ActiveFile, ...]
    metadata: Mapping[str, str]


def write(change: Change, table: DeltaTable | None, snapshot: Snapshot | None) -> bool:
    """Commits the change on exactly the version of ``table``, creating the table where there is none.

    Returns:
        False where only the schema was evolved: look again, then write.

    Raises:
        SettingsError: the table's deletion vectors stand in the way.
        Exception: whatever delta-rs raises, before or after the version landed.
    """
    if table is None or snapshot is None:
        _create(change)
        return True
    schema, evolved = _evolved(change, table, snapshot)
    mode, filters, removes = _plan_removal(change, table, snapshot)
    if evolved and mode == "append":  # an append drops a new column silently
        known = {column.name for column in snapshot.columns}
        new = [field for field in schema.fields if field.name not in known]
        table.alter.add_columns(new, commit_properties=_properties({}), post_commithook_properties=NO_HOOKS)
        return False
    table.create_write_transaction(
        [*_adds(change), *removes],
        mode,
        schema,
        list(snapshot.partition_by),
        filters,
        commit_properties=_properties(change.metadata),
        post_commithook_properties=NO_HOOKS,
    )
    return True


def _properties(metadata: Mapping[str, str]) -> CommitProperties:
    return CommitProperties(max_commit_retries=0, custom_metadata=dict(metadata))


def _create(change: Change) -> None:
    plan = change.plan
    days = f"interval {plan.retention_days} days"
    configuration: dict[str, str | None] = {
        "delta.logRetentionDuration": days,
        "delta.deletedFileRetentionDuration": days,
    }
    if len(plan.task.columns) > DEFAULT_INDEXED_COLUMNS:
        # The lineage columns come last; without statistics of _run_id an OPTIMIZE would hide who wrote a unit.
        configuration["delta.dataSkippingNumIndexedCols"] = str(len(plan.task.columns))
    create_table_with_add_actions(
        location(plan.target.uri),
        Schema([_field(column) for column in plan.task.columns]),
        _adds(change),
        mode="error",
        partition_by=list(plan.task.partition_by),
        configuration=configuration,
        commit_properties=_properties(change.metadata),
        post_commithook_properties=NO_HOOKS,
    )


def _field(column: OutputColumn, *, nullable: bool | None = None) -> Field:
    element = element_of(column.type)
    kind: object = column.type if element is None else {"type": "array", "elementType": element, "containsNull": True}
    facts = {
        "name": column.name,
        "type": kind,
        "nullable": column.nullable if nullable is None else nullable,
        "metadata": {},
    }
    return Field.from_json(json.dumps(facts))


def _adds(change: Change) -> list[AddAction]:
    now = int(time.time() * 1000)
    return [
        AddAction(
            path=file.path,  # delta-rs percent-encodes it for the log
            size=file.size,
            partition_values=dict(file.unit),
            modification_time=now,
            data_change=True,
            stats=delta_stats(file),
        )
        for file in change.files
    ]


def _evolved(change: Change, table: DeltaTable, snapshot: Snapshot) -> tuple[Schema, bool]:
    """The table's schema with the run's new columns behind, and whether there are any."""
    known = {column.name for column in snapshot.columns}
    new = [_field(column, nullable=True) for column in change.plan.task.columns if column.name not in known]
    schema = table.schema()
    return (Schema([*schema.fields, *new]), True) if new else (schema, False)


def _plan_removal(
    change: Change, table: DeltaTable, snapshot: Snapshot
) -> tuple[str, Filter | None, list[RemoveAction]]:
    """How to remove exactly ``change.removed``: mode, filter and explicit remove actions.

    delta-rs' overwrite removes what its filter matches: everything without a filter, a cross product with two
    lists. So a filter is used only where it names the units exactly; else each file is removed by name, which
    a file with a deletion vector does not allow.
    """
    if not change.removed:
        return "append", None, []
    filters = _exact_filter(change.plan.mode, change.units, snapshot.columns, snapshot.partition_by)
    if filters is not None:
        return "overwrite", filters, []
    vectors = [file.path for file in change.removed if file.deleted]
    if not vectors:
        return "append", None, [_remove(file) for file in change.removed]
    if len(change.removed) == table_of(table.get_add_actions()).num_rows:
        return "overwrite", None, []  # all that is active goes
    raise _inexpressible(change.plan.target.uri, listed(vectors, 3))


def check_removal(plan: ScoringPlan) -> None:
    """Refuses, before anything is scored, units that one commit could not replace together.

    Raises:
        SettingsError: some of the files to be replaced have deletion vectors, and no filter names their units.
    """
    target, to_score = plan.target, {unit.values for unit in plan.to_score}
    if plan.mode == "append" or not to_score:
        return
    removed = to_score & set(target.units)
    if plan.mode == "replace":
        removed = set(target.units) - {unit.values for unit in plan.units if unit.action != "score"}
    vectors = {values for values in removed if target.units[values].vectors}
    if not vectors or removed == set(target.units):
        return
    if _exact_filter(plan.mode, to_score, target.columns, target.partition_by) is None:
        raise _inexpressible(target.uri, listed((unit_text(values) for values in sorted(vectors, key=str)), 3))


def _inexpressible(uri: str, found: str) -> SettingsError:
    return SettingsError(
        "these units cannot be replaced in one commit: some of their files have deletion vectors",
        found=found,
        hint=f"REORG TABLE delta.`{uri}` APPLY (PURGE), or score one unit at a time",
    )


def _remove(file: ActiveFile) -> RemoveAction:
    return RemoveAction(file.path, True, int(time.time() * 1000), file.size, dict(file.unit))


def _exact_filter(
    mode: Mode, units: Collection[UnitValues], columns: Sequence[Column], partition_by: Sequence[str]
) -> Filter | None:
    """A filter that matches these units and no other, where delta-rs can express one."""
    types = {column.name: column.type for column in columns}
    if not partition_by or mode != "partitions" or any(types[name] not in FILTERED_TYPES for name in partition_by):
        return None
    if len(units) == 1:
        (values,) = units
        return [(name, "=", value or "") for name, value in values]  # '' is null to delta-rs
    values_of = [value for unit in units for _, value in unit]
    if len(partition_by) > 1 or any(value is None for value in values_of):
        return None
    return [(partition_by[0], "in", [value for value in values_of if value is not None])]


def checkpoint(uri: str, version: int) -> None:
    """Writes a checkpoint when the table's interval asks for one; a failure is a warning.

    It is no part of the commit: a commit whose checkpoint hook fails raises although it has landed.
    """
    try:
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
    except Exception as error:  # noqa: BLE001  # the run is published: nothing here may fail it
        _LOG.warning("the checkpoint of version %d failed; the run is published: %s", version, error)
