"""Plans, staged files and manifests small enough to make by hand."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore import manifests
from batchscore.arrow.filesystem import make_folder, open_filesystem
from batchscore.arrow.layout import data_folder
from batchscore.arrow.splits import constant
from batchscore.arrow.types import to_arrow
from batchscore.contracts import (
    ColumnStats,
    Manifest,
    ManifestUnit,
    Mode,
    ModelFiles,
    OutputColumn,
    OutputFormat,
    PinnedModel,
    PinnedSource,
    PlannedUnit,
    Replay,
    Restriction,
    ScoringPlan,
    ScoringTask,
    StagedFile,
    StagedOutput,
    TargetState,
    UnitState,
    UnitValues,
)
from batchscore.plan.replays import replay_units
from batchscore.plan.units import is_live
from batchscore.publish import commit, inspect

BY_DAY = ("ds",)
COLUMNS = (
    OutputColumn("id", "long", "source", "id"),
    OutputColumn("ds", "date", "source", "ds"),
    OutputColumn("prediction", "double", "model", ""),
    OutputColumn("_run_id", "string", "lineage", "_run_id"),
)


def day(value: str | None) -> UnitValues:
    return (("ds", value),)


def format_of(uri: str | Path) -> OutputFormat:
    """A table's folder says by its name which format a test wants there: ``parquet…``, or anything else."""
    return "parquet" if str(uri).rsplit("/", 1)[-1].startswith("parquet") else "delta"


def look(uri: str | Path) -> TargetState:
    """The table as planning finds it."""
    return inspect(str(uri), format_of(uri))


def make_plan(
    target: TargetState,
    run_id: str,
    units: Mapping[UnitValues, str] | None = None,
    *,
    columns: tuple[OutputColumn, ...] = COLUMNS,
    partition_by: tuple[str, ...] = BY_DAY,
    **overrides: object,
) -> ScoringPlan:
    """A plan that scores ``units`` (values to key; None: found while scoring); ``overrides`` are its fields."""
    model = PinnedModel("m/1", "m", "1", "models:/m/1", "d" * 64, "/m", 1, ("sklearn",), (), ())
    files = ModelFiles("/m", "d" * 64, "m", "1", ("sklearn",), (), (), ())
    task = ScoringTask(
        run_id=run_id,
        model=files,
        engine="pyfunc",
        batch_rows=10,
        threads=1,
        source_uri="/in",
        source_columns=(),
        predicate=None,
        bindings=(),
        columns=columns,
        partition_by=partition_by,
        keys=("id",),
        lineage=(),
        staging_uri=target.uri,
        file_rows=10,
        output_format=format_of(target.uri),
    )
    planned = tuple(
        PlannedUnit(values, key, "score", "new", -1, 1, target.units.get(values, UnitState()))
        for values, key in (units or {}).items()
    )
    plan = ScoringPlan(
        run_id=run_id,
        created_at="2026-01-01T00:00:00Z",
        model=model,
        source=PinnedSource("parquet", "/in", None, "s", (), (), ()),
        restriction=Restriction(),
        target=target,
        mode="partitions",
        route="splits",
        route_reason=None,
        units_known=units is not None,
        units=planned,
        tasks=(),
        task=task,
        settings_digest="x",
        source_key="k",
        expected_rows=-1,
        keys_unique=True,
        evolve_schema=False,
        force=False,
        retention_days=30,
    )
    return replace(plan, **overrides)  # type: ignore[arg-type]  # fields by name


def make_manifest(plan: ScoringPlan, units: Iterable[ManifestUnit]) -> Manifest:
    found = tuple(units)
    rows = sum(unit.rows for unit in found)
    return Manifest(
        format_version=1,
        run_id=plan.run_id,
        created_at="2026-01-01T00:00:00Z",
        batchscore_version="0",
        model_name="m",
        model_version="1",
        model_uri="models:/m/1",
        model_digest="d" * 64,
        source_uri="/in",
        source_kind="parquet",
        source_version=None,
        source_snapshot="s",
        source_key="k",
        settings_digest="x",
        settings={"mode": plan.mode},
        engine="pyfunc",
        runner="local",
        mode=plan.mode,
        rows_read=rows,
        rows_staged=rows,
        units=found,
    )


def stats_of(table: pa.Table) -> tuple[ColumnStats, ...]:
    return tuple(_stats(name, table.column(name)) for name in table.column_names)


def _stats(name: str, column: pa.ChunkedArray) -> ColumnStats:
    kind = column.type
    if column.null_count == len(column) or not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or has_bounds(column)
    ):
        return ColumnStats(name, column.null_count)
    bounds = pc.min_max(column).as_py()
    return ColumnStats(name, column.null_count, bounds["min"], bounds["max"])


def has_bounds(column: pa.ChunkedArray) -> bool:
    """NaN and infinities have no place in bounds."""
    return pa.types.is_floating(column.type) and all(
        value is None or math.isfinite(value) for value in column.to_pylist()
    )


def stage(
    plan: ScoringPlan, unit: UnitValues, ids: Iterable[int], prediction: float = 0.5, **extra: object
) -> StagedFile:
    """Writes one data file of a unit and describes it; ``extra`` overrides a column with one value."""
    ids = list(ids)
    arrays: dict[str, pa.Array] = {}
    for column in plan.task.columns:
        if column.name in plan.task.partition_by:
            continue
        values: list[object] = {
            "id": ids,
            "prediction": [prediction] * len(ids),
            "_run_id": [plan.run_id] * len(ids),
        }.get(column.name, [extra.get(column.name)] * len(ids))
        arrays[column.name] = pa.array(values, to_arrow(column.type))
    return stage_table(plan, unit, pa.table(arrays))


def stage_table(plan: ScoringPlan, unit: UnitValues, table: pa.Table) -> StagedFile:
    folder = data_folder(plan.task.output_format, plan.run_id, unit)
    if plan.task.output_format == "parquet":
        table = with_partitions(plan, unit, table)
    name = f"part-00000-{plan.run_id}-{uuid.uuid4().hex[:12]}.zstd.parquet"
    relative = f"{folder}/{name}" if folder else name
    filesystem, root = open_filesystem(plan.target.uri)
    make_folder(filesystem, f"{root}/{folder}")
    bounded = [
        column
        for column in table.column_names
        if not pa.types.is_floating(table[column].type) or has_bounds(table[column])
    ]
    pq.write_table(table, f"{root}/{relative}", filesystem=filesystem, write_statistics=bounded)
    size = filesystem.get_file_info(f"{root}/{relative}").size
    stats = stats_of(table.drop_columns(plan.task.partition_by) if plan.task.output_format == "parquet" else table)
    return StagedFile(relative, size, table.num_rows, unit, stats)


def with_partitions(plan: ScoringPlan, unit: UnitValues, table: pa.Table) -> pa.Table:
    """The table with its unit's values as columns: where the columns are in the files, too."""
    types = {column.name: column.type for column in plan.task.columns}
    for name, value in unit:
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(constant(value, types[name]), table.num_rows))
    return table


def staged_output(files: Iterable[StagedFile]) -> StagedOutput:
    found = tuple(files)
    rows = sum(file.rows for file in found)
    return StagedOutput(found, rows, rows, (), 0.0, 0)


def offer(
    plan: ScoringPlan, files: Iterable[StagedFile], keys: Mapping[UnitValues, str]
) -> tuple[StagedOutput, Manifest]:
    """The staged output and the written manifest of a run over these files."""
    found = tuple(files)
    rows = {values: sum(file.rows for file in found if file.unit == values) for values in keys}
    manifest = make_manifest(plan, [ManifestUnit(values, key, rows[values]) for values, key in keys.items()])
    manifests.write(plan.target.uri, manifest)
    return staged_output(found), manifest


def publish_run(uri: str | Path, run_id: str, keys: Mapping[UnitValues, str], *, rows: int = 2, **plan_options: object):
    """Plans, stages and publishes ``rows`` rows for each unit; returns the receipt."""
    plan = make_plan(look(uri), run_id, keys, **plan_options)  # type: ignore[arg-type]
    files = [stage(plan, values, range(rows)) for values in keys]
    staged, manifest = offer(plan, files, keys)
    return commit(plan, staged, manifest, is_live=is_live)


def live_units(uri: str | Path, keys: Mapping[UnitValues, str], mode: Mode = "partitions") -> dict[UnitValues, bool]:
    """Whether each unit is live under its key, as planning would find it."""
    state = look(uri)
    return {
        values: is_live(state.units.get(values, UnitState()), key, values, state.manifests, mode)
        for values, key in keys.items()
    }


def with_path(file: StagedFile, path: str) -> StagedFile:
    return replace(file, path=path)


def replay_run(uri: str | Path, run_id: str, of: str, unit: UnitValues, ids: Iterable[int]):
    """Adds rows to a unit of a run as a replay does, planned by the table as it is; returns the receipt."""
    order = Replay(of, (), ("f",), "/q", (unit,))
    target = look(uri)
    (planned,) = replay_units(order, target, "partitions")
    plan = make_plan(target, run_id, {})
    plan = replace(plan, units=(planned,), task=replace(plan.task, replay=order))
    staged = staged_output([stage(plan, unit, ids)])
    added = ManifestUnit(unit, planned.key, staged.rows_staged, planned.beside)
    manifest = replace(make_manifest(plan, [added]), replays=of)
    manifests.write(plan.target.uri, manifest)
    return commit(plan, staged, manifest, is_live=is_live)
