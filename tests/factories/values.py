"""Contract values for tests of planning and scoring: real ones, small, with every field overridable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchscore.config import JobConfig
from batchscore.contracts import (
    Binding,
    Column,
    ModelFiles,
    ModelInput,
    ModelOutput,
    OutputColumn,
    PinnedModel,
    PinnedSource,
    Restriction,
    ScoringTask,
    SourceFile,
    TargetState,
)
from batchscore.plan import PlanInputs

RUN_ID = "20261121T031500-0a1b2c3d"
LINEAGE = tuple(
    OutputColumn(name, kind, "lineage", name)
    for name, kind in (
        ("_model", "string"),
        ("_model_version", "string"),
        ("_run_id", "string"),
        ("_scored_at", "timestamp"),
    )
)


def model(**changes: Any) -> PinnedModel:
    """A regression model of one double input and one unnamed double output."""
    base = PinnedModel(
        requested="fraud/7",
        name="fraud",
        version="7",
        uri="models:/fraud/7",
        digest="d" * 64,
        path="/models/fraud",
        size_bytes=1000,
        flavors=("python_function", "sklearn"),
        inputs=(ModelInput("amount", "double"),),
        outputs=(ModelOutput("", "double"),),
    )
    return replace(base, **changes)


def source(**changes: Any) -> PinnedSource:
    """A Hive-partitioned source with two days of one file each."""
    base = PinnedSource(
        kind="parquet",
        uri="/data/transactions",
        version=None,
        snapshot="s1",
        columns=(Column("id", "long"), Column("amount", "double"), Column("ds", "date")),
        partition_columns=("ds",),
        files=(
            SourceFile("/data/transactions/ds=2026-11-20/a.parquet", 10, "t1", 100, (100,), (("ds", "2026-11-20"),)),
            SourceFile("/data/transactions/ds=2026-11-21/a.parquet", 10, "t2", 200, (200,), (("ds", "2026-11-21"),)),
        ),
    )
    return replace(base, **changes)


def config(**sections: Any) -> JobConfig:
    """Settings for that model and source, sections merged over the defaults."""
    base: dict[str, Any] = {
        "model": {"name": "fraud", "version": "7"},
        "input": {"path": "/data/transactions"},
        "output": {"path": "/data/predictions", "keys": ["id"]},
    }
    for section, values in sections.items():
        base[section] = base.get(section, {}) | values
    return JobConfig.model_validate(base)


def plan_inputs(**changes: Any) -> PlanInputs:
    """All that planning needs, for the values above."""
    base = PlanInputs(
        config=config(),
        run_id=RUN_ID,
        created_at="2026-11-21T03:15:00.000Z",
        scored_at=1_795_230_900_000_000,
        model=model(),
        source=source(),
        restriction=Restriction(),
        target=TargetState("/data/predictions"),
        engine="pyfunc",
        cores=2,
    )
    return replace(base, **changes)


def task(staging_uri: str, **changes: Any) -> ScoringTask:
    """A task that scores ``amount`` and keeps ``id``, unpartitioned."""
    pinned = model()
    base = ScoringTask(
        run_id=RUN_ID,
        model=ModelFiles(
            pinned.path, pinned.digest, pinned.name, pinned.version, pinned.flavors, pinned.inputs, pinned.outputs, ()
        ),
        engine="pyfunc",
        batch_rows=1000,
        threads=1,
        source_uri="/data/transactions",
        source_columns=(Column("id", "long"), Column("amount", "double")),
        predicate=None,
        bindings=(Binding("amount", "amount", "double", "double", "same", null_rows_bad=False),),
        columns=(
            OutputColumn("id", "long", "source", "id"),
            OutputColumn("prediction", "double", "model", "prediction"),
            *LINEAGE,
        ),
        partition_by=(),
        keys=("id",),
        lineage=(("_model", "fraud"), ("_model_version", "7"), ("_run_id", RUN_ID), ("_scored_at", 1_000_000)),
        staging_uri=staging_uri,
        file_rows=4_000_000,
    )
    return replace(base, **changes)
