"""What a run offers to publish, written down: its manifest."""

from __future__ import annotations

from collections.abc import Sequence

from batchscore import selection
from batchscore.config import JobConfig, redacted
from batchscore.contracts import (
    VERSION,
    Manifest,
    ManifestUnit,
    ScoringPlan,
    SourceFile,
    StagedFile,
    StagedOutput,
    UnitValues,
    Verdict,
)
from batchscore.plan.units import below, derived_unit_key, unit_key, unit_of

MANIFEST_FORMAT = 1


def manifest_of(
    config: JobConfig,
    planned: ScoringPlan,
    staged: StagedOutput,
    verdict: Verdict,
    selected: selection.Selection | None,
) -> Manifest:
    """The run's manifest.

    Args:
        config: the settings; secrets are taken out of them.
        planned: with the engine that scored.
        staged: what is offered.
        verdict: how it was judged.
        selected: how the engine was chosen.
    """
    model = planned.model
    return Manifest(
        format_version=MANIFEST_FORMAT,
        run_id=planned.run_id,
        created_at=planned.created_at,
        batchscore_version=VERSION,
        model_name=model.name,
        model_version=model.version,
        model_uri=model.uri,
        model_digest=model.digest,
        source_uri=planned.source.uri,
        source_kind=planned.source.kind,
        source_version=planned.source.version,
        source_snapshot=planned.source.snapshot,
        source_key=planned.source_key,
        settings_digest=planned.settings_digest,
        settings=redacted(config),
        engine=planned.task.engine,
        runner=config.scoring.runner,
        mode=planned.mode,
        rows_read=staged.rows_read,
        rows_staged=staged.rows_staged,
        units=_units(planned, staged.files),
        checks=verdict.checks,
        certificate=selected.certificate if selected else None,
        measurement=selected.measurement if selected else None,
        rows_filtered=staged.rows_filtered,
        quarantined=staged.quarantined,
        replays=planned.task.replay.run_id if planned.task.replay else "",
    )


def _units(planned: ScoringPlan, files: Sequence[StagedFile]) -> tuple[ManifestUnit, ...]:
    """What the run offers: the planned units, or those found while scoring, with the rows that were staged."""
    rows: dict[UnitValues, int] = {}
    for file in files:
        rows[file.unit] = rows.get(file.unit, 0) + file.rows
    if planned.units_known:
        read = _read_keys(planned) if planned.task.replay is not None else {}
        return tuple(
            ManifestUnit(unit.values, unit.key, rows.get(unit.values, 0), unit.beside, read.get(unit.values, ""))
            for unit in planned.to_score
        )
    return tuple(
        ManifestUnit(values, derived_unit_key(planned.source_key, values), count)
        for values, count in sorted(rows.items(), key=str)
    )


def _read_keys(planned: ScoringPlan) -> dict[UnitValues, str]:
    """What a replay read of each unit, where the input's layout tells units: later the input is compared with that."""
    names, source = planned.task.partition_by, planned.source
    if not set(names) <= set(source.partition_columns):
        return {}
    grouped: dict[UnitValues, list[SourceFile]] = {}
    for file in below(source.root, source.files):
        grouped.setdefault(unit_of(file, names), []).append(file)
    return {
        values: unit_key(planned.model.digest, files, planned.settings_digest, values)
        for values, files in grouped.items()
    }
