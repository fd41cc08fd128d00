"""The plan of a run, from what was pinned."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from batchscore.config import JobConfig
from batchscore.contracts import (
    MAX_RUN_ID_CHARS,
    MODEL_COLUMN,
    PREDICTION,
    QUARANTINE_SUFFIX,
    RUN_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
    ManifestHead,
    ModelFiles,
    PinnedModel,
    PinnedSource,
    PlannedUnit,
    Replay,
    Restriction,
    Route,
    Rule,
    ScoringPlan,
    ScoringTask,
    SourceFile,
    TargetState,
    UnitState,
    UnitValues,
)
from batchscore.errors import SettingsError
from batchscore.plan.batching import batch_rows
from batchscore.plan.binding import bind
from batchscore.plan.columns import columns_to_read, output_columns
from batchscore.plan.replays import replay_units
from batchscore.plan.splitting import make_tasks
from batchscore.plan.units import below, is_live, refuse_parts, source_key, unit_key, unit_of
from batchscore.plan.withdrawals import withdrawal_notice, withdrawal_of, withdrawal_text

FILE_ROWS = 4_000_000
# Tasks of a few seconds: progress moves, and no core waits long for the last one.
TASK_ROWS = 500_000
# Part of every unit's key: raise it when the same settings begin to give other scores.
SCORING_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What was pinned, and the facts of the moment (clock, cores) that planning may not look up itself.

    ``scored_at`` is in µs since the epoch, UTC; ``engine`` the engine that ``auto`` resolved to; ``in_spark`` says that
    the model transforms DataFrames; ``rules`` are the settings' own, compiled; ``replay`` names the rows to take where
    the run replays another. ``units_outside`` are units of the input that are not among the source's files
    because their dates lie before those that the command looks at.
    """

    config: JobConfig
    run_id: str
    created_at: str
    scored_at: int
    model: PinnedModel
    source: PinnedSource
    restriction: Restriction
    target: TargetState
    engine: str
    cores: int
    force: bool = False
    evolve_schema: bool = False
    in_spark: bool = False
    rules: tuple[Rule, ...] = ()
    replay: Replay | None = None
    units_outside: int = 0


def make(inputs: PlanInputs) -> ScoringPlan:
    """Decides what a run does.

    Raises:
        SettingsError: the settings contradict each other, the input or the target.
        SchemaMismatchError: the model does not fit the table.
    """
    if len(inputs.run_id) > MAX_RUN_ID_CHARS:
        raise ValueError(f"run id longer than {MAX_RUN_ID_CHARS} characters: {inputs.run_id}")
    partition_by = _partition_by(inputs)
    task = _task(inputs, partition_by)
    digest = settings_digest(inputs, task)
    if not inputs.source.files:
        # A view has no version: nothing proves that its content is still the one that was published.
        digest = hashlib.sha256(f"{digest} {inputs.run_id}".encode()).hexdigest()
    key = source_key(inputs.model.digest, inputs.source.snapshot, digest)
    known = set(partition_by) <= set(inputs.source.partition_columns)
    if inputs.replay is not None:
        units = replay_units(inputs.replay, inputs.target, inputs.config.output.mode)
    else:
        units = _known_units(inputs, partition_by, digest) if known else _units_by_source(inputs, key)
        units = _whole_table_if_replacing(inputs, units)
    route, reason = _route(inputs)
    files = inputs.source.files if not known else _files_to_score(inputs.source.files, units, partition_by)
    if units and all(unit.action != "score" for unit in units):
        files = ()
    most_rows = _rows(files) if inputs.source.files else -1
    plan = ScoringPlan(
        run_id=inputs.run_id,
        created_at=inputs.created_at,
        model=inputs.model,
        source=inputs.source,
        restriction=inputs.restriction,
        target=inputs.target,
        mode=inputs.config.output.mode,
        route=route,
        route_reason=reason,
        units_known=known or inputs.replay is not None,
        units=units,
        tasks=make_tasks(files, cores=inputs.cores, rows_per_task=TASK_ROWS) if route == "splits" else (),
        task=replace(task, max_quarantined=_most_quarantined(inputs, most_rows)),
        settings_digest=digest,
        source_key=key,
        expected_rows=_rows(files) if _counts_are_exact(inputs) else -1,
        keys_unique=bool(task.keys),
        evolve_schema=inputs.evolve_schema,
        force=inputs.force,
        retention_days=inputs.config.output.retention_days,
        most_rows=most_rows,
        cores=inputs.cores,
        units_outside=inputs.units_outside,
    )
    _refuse_partial_overwrite(plan)
    return replace(plan, notices=_notices(inputs, plan))


def settings_digest(inputs: PlanInputs, task: ScoringTask) -> str:
    """SHA-256 of everything in the settings that can change a score or the table's content, hex."""
    facts: dict[str, object] = {
        "format": SCORING_FORMAT,
        "engine": inputs.config.scoring.engine,
        "bindings": [asdict(binding) for binding in task.bindings],
        "columns": [asdict(column) for column in task.columns],
        "outputs": [asdict(output) for output in task.model.outputs],
        "params": [asdict(param) for param in task.model.params],
        "partition_by": task.partition_by,
        "where": inputs.restriction.where,
        "predicate": repr(inputs.restriction.predicate),
    }
    if task.rules:
        facts["rules"] = [repr(rule) for rule in task.rules]
    if task.model.environment != "local":
        facts["environment"] = task.model.environment
    if inputs.config.scoring.device == "cuda":
        facts["device"] = "cuda"
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _partition_by(inputs: PlanInputs) -> tuple[str, ...]:
    asked = inputs.config.output.partition_by
    return inputs.source.partition_columns if asked is None else tuple(asked)


def _task(inputs: PlanInputs, partition_by: tuple[str, ...]) -> ScoringTask:
    config, model = inputs.config, inputs.model
    bindings = bind(model, inputs.source.columns)
    keys = tuple(config.output.keys)
    beside = tuple(name for name in config.scoring.outputs if name != PREDICTION)
    columns = output_columns(inputs.source.columns, model, keys, tuple(config.output.carry), partition_by, beside)
    predicate, rules = inputs.restriction.predicate, inputs.rules
    source_columns = columns_to_read(inputs.source.columns, bindings, columns, predicate, rules)
    asked_rows = config.scoring.batch_rows
    return ScoringTask(
        run_id=inputs.run_id,
        model=ModelFiles.of(model, config.model.environment),
        engine=inputs.engine,
        batch_rows=batch_rows(model.inputs, source_columns) if asked_rows == "auto" else int(asked_rows),
        threads=1,
        source_uri=inputs.source.uri,
        source_columns=source_columns,
        predicate=predicate,
        bindings=bindings,
        columns=columns,
        partition_by=partition_by,
        keys=keys,
        lineage=(
            (MODEL_COLUMN, model.name),
            (VERSION_COLUMN, model.version),
            (RUN_COLUMN, inputs.run_id),
            (TIME_COLUMN, inputs.scored_at),
        ),
        staging_uri=inputs.target.uri,
        file_rows=FILE_ROWS,
        rules=rules,
        classes=model.classes,
        quarantine_uri=inputs.target.uri.rstrip("/") + QUARANTINE_SUFFIX,
        replay=inputs.replay,
        output_format=config.output.format,
    )


def _most_quarantined(inputs: PlanInputs, rows: int) -> int:
    """Rows that the run may quarantine at most; -1 where that depends on rows that nobody has counted."""
    limits = inputs.config.quarantine
    if rows < 0:
        return -1
    by_fraction = int(limits.max_fraction * rows)
    return by_fraction if limits.max_rows is None else min(by_fraction, limits.max_rows)


# --- units -------------------------------------------------------------------------------------------------


def _known_units(inputs: PlanInputs, partition_by: tuple[str, ...], digest: str) -> tuple[PlannedUnit, ...]:
    grouped: dict[UnitValues, list[SourceFile]] = {}
    for file in inputs.source.files:
        grouped.setdefault(unit_of(file, partition_by), []).append(file)
    if not partition_by and not grouped:
        grouped[()] = []
    return tuple(
        _planned(inputs, values, files, digest)
        for values, files in sorted(grouped.items(), key=lambda item: [(v is not None, v or "") for _, v in item[0]])
    )


def _planned(inputs: PlanInputs, values: UnitValues, files: list[SourceFile], digest: str) -> PlannedUnit:
    files = below(inputs.source.root, files)
    key = unit_key(inputs.model.digest, files, digest, values)
    before = inputs.target.units.get(values, UnitState())
    published = inputs.target.as_published(values)
    rows = _rows(files)

    def planned(action: str, reason: str) -> PlannedUnit:
        return PlannedUnit(values, key, action, reason, rows, len(files), before)  # type: ignore[arg-type]

    if inputs.force:
        return planned("score", "forced")
    settled = _settled(inputs, values, key)
    if settled is not None:
        return planned(*settled)
    older = _older_model(inputs, values, files, digest, published)
    if older is not None and _leaves_older(inputs, values):
        return planned("older_model", f"published by version {older.model_version} (run {older.run_id})")
    if older is not None:
        return planned("score", f"the model changed: version {older.model_version} published it")
    if not before.runs and not before.foreign_files:
        return planned("score", "new")
    return planned("score", "changed since it was published")


def _settled(inputs: PlanInputs, values: UnitValues, key: str) -> tuple[str, str] | None:
    """Action and reason of a unit that is published under this key, or was until a rollback; else None."""
    target, published = inputs.target, inputs.target.as_published(values)
    if is_live(published, key, values, target.manifests, inputs.config.output.mode):
        return "live", f"already published by run {_run_of(published)}"
    if target.is_emptied(values, key):
        return "live", "already published: it has no row"
    withdrawal = withdrawal_of(target, values, key)
    return None if withdrawal is None else ("withdrawn", withdrawal_text(withdrawal))


def _older_model(
    inputs: PlanInputs, values: UnitValues, files: list[SourceFile], digest: str, before: UnitState
) -> ManifestHead | None:
    """The manifest that published this unit from the same input and settings by another model, if one did."""
    for run_id, _ in before.runs:
        head = inputs.target.manifests.get(run_id)
        if head is None or head.model_digest == inputs.model.digest:
            continue
        key = unit_key(head.model_digest, files, digest, values)
        if is_live(before, key, values, inputs.target.manifests, inputs.config.output.mode):
            return head
    return None


def _leaves_older(inputs: PlanInputs, values: UnitValues) -> bool:
    """Whether a unit that an older version published stays: not when it is the whole table, or named."""
    if inputs.config.scoring.on_new_model == "all" or not values:
        return False
    named = {column for column, _ in inputs.restriction.partitions}
    return not named


def _units_by_source(inputs: PlanInputs, key: str) -> tuple[PlannedUnit, ...]:
    """Units cannot be told from the input's layout: all live, if a run published this very input; else none."""
    if inputs.force:
        return ()
    target = inputs.target
    for head in target.manifests.values():
        if head.source_key != key or not head.units:
            continue
        settled = [(unit, _settled(inputs, unit.values, unit.key)) for unit in head.units]
        units = [
            PlannedUnit(unit.values, unit.key, *found, unit.rows, 0, target.units.get(unit.values, UnitState()))  # type: ignore[arg-type]
            for unit, found in settled
            if found is not None
        ]
        if len(units) == len(head.units):
            return tuple(units)
    return ()


def _whole_table_if_replacing(inputs: PlanInputs, units: tuple[PlannedUnit, ...]) -> tuple[PlannedUnit, ...]:
    """``mode: replace`` leaves exactly this input's units: all are scored unless all are there and no other."""
    if inputs.config.output.mode != "replace":
        return units
    actions = {unit.action for unit in units}
    if "withdrawn" in actions and "score" not in actions:  # the table is another input's: a rollback made it so
        return units
    only_ours = set(inputs.target.units) <= {unit.values for unit in units}
    if only_ours and all(unit.action == "live" for unit in units):
        return units
    return tuple(
        unit if unit.action == "score" else replace(unit, action="score", reason="the whole table is replaced")
        for unit in units
    )


def _files_to_score(
    files: tuple[SourceFile, ...], units: tuple[PlannedUnit, ...], partition_by: tuple[str, ...]
) -> tuple[SourceFile, ...]:
    wanted = {unit.values for unit in units if unit.action == "score"}
    return tuple(file for file in files if unit_of(file, partition_by) in wanted)


def _rows(files: list[SourceFile] | tuple[SourceFile, ...]) -> int:
    return -1 if any(file.rows < 0 for file in files) else sum(file.rows for file in files)


def _counts_are_exact(inputs: PlanInputs) -> bool:
    return (
        inputs.replay is None
        and bool(inputs.source.files)
        and inputs.restriction.where is None
        and inputs.restriction.predicate is None
    )


def _run_of(state: UnitState) -> str:
    return state.runs[0][0] if state.runs else "?"


# --- route, refusals, notices ------------------------------------------------------------------------------


def _route(inputs: PlanInputs) -> tuple[Route, str | None]:
    reason = inputs.source.dataframe_reason or inputs.restriction.where_reason
    if reason is None and inputs.in_spark:
        reason = "a Spark ML pipeline transforms a DataFrame"
    if reason is None:
        reason = next((f"rule {rule.name} needs Spark's SQL" for rule in inputs.rules if rule.sql), None)
    if reason is None:
        return "splits", None
    if inputs.config.scoring.runner != "spark":
        raise SettingsError(
            f"the {inputs.config.scoring.runner} runner cannot read this input: {reason}",
            hint="use --runner spark",
        )
    return "dataframe", reason


def _refuse_partial_overwrite(plan: ScoringPlan) -> None:
    """Refuses what would silently replace rows that the command does not mean."""
    if plan.mode != "partitions" or plan.task.replay is not None:
        return
    if plan.target.exists:
        refuse_parts(plan.restriction, plan.task.partition_by)
    whole = plan.target.units.get((), UnitState())
    if not plan.task.partition_by and whole.foreign_files and not plan.force:
        raise SettingsError(
            "the output table holds rows that batchscore did not write, and has no partitions to keep them apart",
            found=f"{whole.foreign_files} files",
            hint="--mode replace replaces the whole table, --mode append adds to it",
        )


def _notices(inputs: PlanInputs, plan: ScoringPlan) -> tuple[str, ...]:
    notices = [*inputs.model.notices, *inputs.source.notices]
    if not plan.task.keys:
        notices.append(
            "no output.keys: every input column is carried; with keys, duplicates are found and rows explained"
        )
    if plan.units_outside:
        notices.append(f"{plan.units_outside} units of older dates were not looked at (--changed-since)")
    older = [unit for unit in plan.units if unit.action == "older_model"]
    if older:
        notices.append(
            f"{len(older)} units stay published by an older model version; --on-new-model all scores them again"
        )
    rolled_back = withdrawal_notice(plan.units)
    if rolled_back:
        notices.append(rolled_back)
    if plan.route == "splits" and plan.to_score and len(plan.tasks) < inputs.cores:
        notices.append(f"{len(plan.tasks)} splits for {inputs.cores} cores: files with more row groups use all of them")
    return tuple(notices)
