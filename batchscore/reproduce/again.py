"""The plan by which a run is scored again: its units that are still there, its engine, its batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from batchscore import record
from batchscore.config import JobConfig
from batchscore.contracts import Certificate, Manifest, ManifestUnit, ModelFiles, Replay, ScoringPlan
from batchscore.engines import PROBABILITY, artifacts
from batchscore.errors import InputError, unit_text
from batchscore.lookup import is_comparable
from batchscore.plan.make import TASK_ROWS
from batchscore.plan.splitting import make_tasks
from batchscore.plan.units import unit_of
from batchscore.recorded import changed, recorded_files
from batchscore.reproduce.erased import Erasures
from batchscore.reproduce.published import Published


@dataclass(frozen=True, slots=True)
class Usable:
    """The units of a run that can be compared, and what is said of those that no longer can or never were published."""

    units: tuple[ManifestUnit, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the units, by the manifest."""
        return sum(unit.rows for unit in self.units)


def usable_units(manifest: Manifest, plan: ScoringPlan, published: Published, erasures: Erasures) -> Usable:
    """The run's units whose rows are in the table and whose input is as recorded.

    Raises:
        InputError: there is none.
    """
    usable: list[ManifestUnit] = []
    problems: list[str] = []
    notes: list[str] = []
    inputs = recorded_files(manifest, plan.source, [unit.values for unit in manifest.units])
    for unit in manifest.units:
        name = unit_text(unit.values)
        if not unit.rows and not unit.beside:
            notes.append(f"{name}: the run published no row of it")
        elif unit.values not in published.files and published.own:
            notes.append(f"{name}: another run had published the same, so this one did not")
        elif unit.values not in published.files and erasures.lost(unit.values, 0) == unit.rows:
            notes.append(f"{name}: all {unit.rows:,} rows were erased since")
        elif unit.values not in published.files:
            problems.append(f"{name}: version {published.version} of the table holds nothing of the run any more")
        elif inputs[unit.values] is None:
            problems.append(changed(manifest, plan.source, unit.values))
        else:
            usable.append(unit)
    if not usable:
        raise InputError(
            f"nothing of run {manifest.run_id} can be compared any more",
            detail=list(dict.fromkeys([*problems, *notes]))[:10],
            hint="an input that must be read again later needs versions: a Delta table, or folders that stay",
        )
    return Usable(tuple(usable), tuple(dict.fromkeys(problems)), tuple(notes))


def replaying(plan: ScoringPlan, manifest: Manifest, table: str) -> ScoringPlan:
    """The plan for those rows alone that the run took from the quarantine, where it replayed another run.

    Args:
        plan: of all rows of the run's units.
        manifest: of the run.
        table: root of the prediction table.

    Raises:
        InputError: the quarantine no longer holds them.
    """
    if not manifest.replays:
        return plan
    files = record.quarantine.files_of(table, manifest.replays)
    if not files:
        raise InputError(
            f"run {manifest.run_id} scored again what run {manifest.replays} left out, and that is no longer known",
            found=f"{record.quarantine.quarantine_uri(table)} holds no row of it",
        )
    types = {column.name: column for column in plan.source.columns}
    names = dict.fromkeys((*plan.task.keys, *plan.task.partition_by))
    replay = Replay(
        run_id=manifest.replays,
        keys=tuple(types[name] for name in names if name in types),
        files=files,
        uri=record.quarantine.quarantine_uri(table),
        units=tuple(unit.values for unit in manifest.units),
    )
    return replace(plan, task=replace(plan.task, replay=replay))


def restricted(plan: ScoringPlan, units: Iterable[ManifestUnit]) -> ScoringPlan:
    """The plan for these units alone, where the input's layout tells them."""
    if not plan.units_known:
        return plan
    wanted = {unit.values for unit in units}
    files = [file for file in plan.source.files if unit_of(file, plan.task.partition_by) in wanted]
    tasks = make_tasks(files, cores=plan.cores, rows_per_task=TASK_ROWS) if plan.route == "splits" else ()
    kept = tuple(unit for unit in plan.units if unit.values in wanted)
    rows = -1 if plan.expected_rows < 0 else sum(file.rows for file in files)
    return replace(plan, units=kept, tasks=tasks, expected_rows=rows)


def with_engine(plan: ScoringPlan, manifest: Manifest, config: JobConfig) -> tuple[ScoringPlan, bool | None]:
    """The plan with the run's engine and its rows a batch, and whether the engine's artifact is the recorded one.

    Nothing is proved again: the comparison proves more.

    Raises:
        ModelError: the engine cannot serve the model here.
        SetupError: something that it needs is missing.
    """
    name, environment = manifest.engine, config.model.environment
    own = environment != "local" or PROBABILITY in config.scoring.outputs
    files = ModelFiles.of(plan.model, environment) if own else artifacts.files_for(name, plan.model)
    rows = plan.task.batch_rows
    if config.scoring.batch_rows == "auto" and manifest.measurement is not None:
        rows = min(manifest.measurement.batch_rows, rows)
    same = None
    if not own and manifest.certificate is not None and manifest.certificate.artifact_digest:
        same = files.digest == manifest.certificate.artifact_digest
    return replace(plan, task=replace(plan.task, engine=name, model=files, batch_rows=rows)), same


def key_columns(plan: ScoringPlan) -> list[str]:
    """The columns that name a row: the output's keys, or without them every column that was carried."""
    if plan.task.keys:
        return list(plan.task.keys)
    return [column.name for column in plan.task.columns if column.origin == "source" and is_comparable(column.type)]


def versions(certificate: Certificate | None, engine: str) -> tuple[tuple[str, str, str], ...]:
    """(library, version then, version now) of what can change the engine's scores; '' where it is not installed."""
    if certificate is None:
        return ()
    now = artifacts.versions_of(engine)
    return tuple((name, then, now.get(name, "")) for name, then in certificate.versions)
