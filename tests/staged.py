"""A plan and staged files for the judge: what scoring would have left behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.arrow.types import from_arrow
from batchscore.contracts import (
    OutputColumn,
    PinnedModel,
    PinnedSource,
    Restriction,
    ScoringPlan,
    StagedFile,
    StagedOutput,
    TargetState,
    UnitValues,
)
from tests import samples

# Each entry: the file's path below the table, its unit, its rows.
Files = list[tuple[str, UnitValues, pa.Table]]


def judged_plan(
    root: Path | str,
    files: Files,
    *,
    keys: tuple[str, ...] = ("id",),
    predictions: tuple[str, ...] = ("prediction",),
    classes: tuple[str, ...] = (),
    partitions: tuple[tuple[str, str], ...] = (),
) -> ScoringPlan:
    """A plan whose output columns are those of the first file, then the partition columns."""
    columns = [
        OutputColumn(field.name, from_arrow(field.type), "model" if field.name in predictions else "source", field.name)
        for field in files[0][2].schema
    ]
    columns += [OutputColumn(name, kind, "source", name) for name, kind in partitions]
    by = tuple(name for name, _ in partitions)
    task = dataclasses.replace(
        samples.scoring_task(staging=str(root)), columns=tuple(columns), partition_by=by, keys=keys
    )
    model = PinnedModel("m/1", "m", "1", "models:/m/1", "d" * 64, "/nowhere", 1, (), (), (), classes=classes)
    source = PinnedSource("parquet", "/nowhere", None, "s", (), (), ())
    return ScoringPlan(
        run_id="run-1",
        created_at="2026-11-21T00:00:00Z",
        model=model,
        source=source,
        restriction=Restriction(),
        target=TargetState(str(root), partition_by=by),
        mode="partitions",
        route="splits",
        route_reason=None,
        units_known=True,
        units=(),
        tasks=(),
        task=task,
        settings_digest="",
        source_key="",
        expected_rows=-1,
        keys_unique=True,
        evolve_schema=False,
        force=False,
        retention_days=30,
    )


def stage(root: Path, files: Files) -> StagedOutput:
    """Writes the files below ``root`` and tells of them as tasks do."""
    staged = []
    for path, unit, table in files:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
        staged.append(StagedFile(path, target.stat().st_size, table.num_rows, unit, ()))
    rows = sum(file.rows for file in staged)
    return StagedOutput(tuple(staged), rows, rows, (), 1.0, 0)
