"""What a command asks for, and everything decided before a row is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from batchscore.contracts.columns import Predicate, Schema, UnitValues
from batchscore.contracts.models import ModelInput, ModelOutput, ModelParam, PinnedModel
from batchscore.contracts.quarantine import Replay, Rule
from batchscore.contracts.sources import PinnedSource, Restriction, Split
from batchscore.contracts.targets import TargetState, UnitState


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one command asks for beside the settings: nothing in here changes a score.

    Attributes:
        force: score again what is live.
        evolve_schema: let the prediction table gain columns.
        verbose: show what happens in detail.
        replay: the run whose quarantined rows are to be scored again, or ''.
        changed_since_hours: look at units of dates from so many hours ago on alone; None: at all.
        date_column: the partition column that holds the dates; None: the only one that does.
        wait_minutes: how long to wait for a run that is at work on the same units.
        take_over: keep such a run from publishing, and go on.
    """

    force: bool = False
    evolve_schema: bool = False
    verbose: bool = False
    replay: str = ""
    changed_since_hours: int | None = None
    date_column: str | None = None
    wait_minutes: float = 0.0
    take_over: bool = False


Mode: TypeAlias = Literal["partitions", "replace", "append"]
OutputFormat: TypeAlias = Literal["delta", "parquet"]
Route: TypeAlias = Literal["splits", "dataframe"]


@dataclass(frozen=True, slots=True)
class Binding:
    """How one table column feeds one model input.

    ``source`` is the column's exact name in the table ('' for an optional input that the table lacks: nulls).
    """

    input: str
    source: str
    source_type: str
    model_type: str
    cast: Literal["same", "widen", "checked", "to_utc", "midnight", "absent"]
    null_rows_bad: bool


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One column of the prediction table and where its values come from.

    ``origin``: ``source`` (the table column ``ref``), ``model`` (the model output ``ref``), ``partition`` or
    ``lineage``.
    """

    name: str
    type: str
    origin: Literal["source", "model", "lineage"]
    ref: str
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a worker needs to load a model and to be sure that it is the right one.

    ``environment`` is ``local``, or ``uv``: the model runs in a process with its own requirements. ``config`` is JSON
    that overrides the configuration which the model was logged with, or ''. ``variables`` are environment variables
    that the caller sets while the model is loaded and scores.
    """

    path: str
    digest: str
    name: str
    version: str
    flavors: tuple[str, ...]
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    params: tuple[ModelParam, ...]
    environment: str = "local"
    config: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, model: PinnedModel, environment: str = "local") -> ModelFiles:
        """The files of a pinned model."""
        return cls(
            path=model.path,
            digest=model.digest,
            name=model.name,
            version=model.version,
            flavors=model.flavors,
            inputs=model.inputs,
            outputs=model.outputs,
            params=model.params,
            environment=environment,
        )


@dataclass(frozen=True, slots=True)
class ScoringTask:
    """Everything the worker function needs beside its batches; the same for all tasks of a run.

    Attributes:
        engine: name in :data:`batchscore.engines.ENGINES`.
        batch_rows: rows per call of the engine.
        threads: threads an engine may use.
        source_columns: columns to read, types as pinned.
        predicate: rows to keep, applied by the worker on the splits route, or None.
        bindings: model inputs, in signature order.
        columns: the output's columns, in table order.
        partition_by: the output's partition columns.
        keys: key columns, to name bad rows.
        lineage: values of the lineage columns; ``_scored_at`` in µs since the epoch, UTC.
        source_uri: root of the source: selects the filesystem.
        staging_uri: root of the output table.
        run_id: at most 32 characters.
        file_rows: rows after which a staged file is closed and the next begun.
        loads_model: whether workers score; else the scores are the last source columns, and the last inputs.
        rules: what each row must meet.
        classes: the labels that the model may give, or () where it does not say.
        quarantine_uri: root of the table of rows that are left out.
        max_quarantined: rows that may be left out, as far as the plan can tell; -1 where it cannot.
        replay: the rows to take, where not all of them.
        output_format: of the output table; says where its data files lie and what is in them.
    """

    run_id: str
    model: ModelFiles
    engine: str
    batch_rows: int
    threads: int
    source_uri: str
    source_columns: Schema
    predicate: Predicate | None
    bindings: tuple[Binding, ...]
    columns: tuple[OutputColumn, ...]
    partition_by: tuple[str, ...]
    keys: tuple[str, ...]
    lineage: tuple[tuple[str, str | int], ...]
    staging_uri: str
    file_rows: int
    loads_model: bool = True
    output_format: OutputFormat = "delta"
    rules: tuple[Rule, ...] = ()
    classes: tuple[str, ...] = ()
    quarantine_uri: str = ""
    max_quarantined: int = -1
    replay: Replay | None = None

    @property
    def quarantine_columns(self) -> tuple[OutputColumn, ...]:
        """What tells a quarantined row: its keys and partition columns; without keys all that the output carries."""
        carried = [column for column in self.columns if column.origin == "source"]
        named = {*self.keys, *self.partition_by}
        return tuple(column for column in carried if not self.keys or column.name in named)


UnitAction: TypeAlias = Literal["score", "live", "older_model", "withdrawn"]


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One unit of work and what the plan does with it.

    ``rows`` is -1 where unknown before reading. ``before`` is the unit's state in the target when planned: the
    commit compares it again. ``beside`` are (run id, rows) that stay in the unit beside what is published.
    """

    values: UnitValues
    key: str
    action: UnitAction
    reason: str
    rows: int
    files: int
    before: UnitState
    beside: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """Everything decided before a row is read.

    Attributes:
        units_known: False where the output is partitioned by a column that the input's layout does not tell:
            units are then found while scoring, ``units`` is empty unless all of them are live, and keys come
            from ``source_key`` and the values.
        route: who reads; ``route_reason`` says why where it is ``dataframe``.
        tasks: splits of each task on the splits route.
        settings_digest: digest of the settings that can change a score.
        source_key: digest of model, whole input and settings: with a unit's values it makes a unit's key
            where ``units_known`` is False.
        expected_rows: rows to read where known from metadata, else -1.
        most_rows: rows of the files to read, before any condition; -1 where unknown.
        estimated_seconds: by the speed of the table's last run on the same runner; -1 where there is none.
        cores: tasks that run at a time, as far as the settings tell.
        device: ``cpu`` or ``cuda``; ``auto`` where the engines are still to be measured.
        device_reason: why it is no GPU where the settings would take one, or ''.
        units_outside: units of the input that were not looked at, because their dates lie before a window.
    """

    run_id: str
    created_at: str
    model: PinnedModel
    source: PinnedSource
    restriction: Restriction
    target: TargetState
    mode: Mode
    route: Route
    route_reason: str | None
    units_known: bool
    units: tuple[PlannedUnit, ...]
    tasks: tuple[tuple[Split, ...], ...]
    task: ScoringTask
    settings_digest: str
    source_key: str
    expected_rows: int
    keys_unique: bool
    evolve_schema: bool
    force: bool
    retention_days: int
    notices: tuple[str, ...] = ()
    most_rows: int = -1
    estimated_seconds: float = -1.0
    cores: int = 1
    device: str = "cpu"
    device_reason: str = ""
    units_outside: int = 0

    @property
    def to_score(self) -> tuple[PlannedUnit, ...]:
        """The units that this run scores."""
        return tuple(unit for unit in self.units if unit.action == "score")

    @property
    def nothing_to_do(self) -> bool:
        """Whether all is published already."""
        return not self.to_score and (self.units_known or bool(self.units))
