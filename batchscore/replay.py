"""Scores again what a run left out, and adds it to what the run published."""

from __future__ import annotations

from dataclasses import replace

from batchscore import pipeline, record
from batchscore.config import JobConfig
from batchscore.contracts import RunOptions, RunRecord, ScoringPlan
from batchscore.errors import SettingsError
from batchscore.prepare import OnEvent


def replay(config: JobConfig, run_id: str, options: RunOptions, on_event: OnEvent = lambda _: None) -> RunRecord:
    """Scores again what a run left out, from the input as it is now, and adds it to the units of that run.

    The model is the run's own; the rules are those of the settings.

    Returns:
        The ledger's row of the replay.

    Raises:
        SettingsError: no such run, it published nothing, or its rows cannot be told by keys.
        BatchscoreError: as of :func:`run`.
    """
    job, run_id = _job_of(config, run_id)
    return pipeline.run(job, replace(options, replay=run_id), on_event)


def plan_replay(config: JobConfig, run_id: str, options: RunOptions, on_event: OnEvent = lambda _: None) -> ScoringPlan:
    """What :func:`replay` would do; reads no data row and writes nothing."""
    job, run_id = _job_of(config, run_id)
    return pipeline.plan(job, replace(options, replay=run_id), on_event)


def _job_of(config: JobConfig, run_id: str) -> tuple[JobConfig, str]:
    """The settings with the run's own model, and the run's whole id."""
    found, manifest = record.show(config.output.path, run_id)
    if manifest is None or found.state != "published":
        raise SettingsError(
            f"run {found.run_id} published nothing that could be added to",
            found=found.state,
            hint="run again: batchscore run",
        )
    # The rows are told by their keys alone: what the settings say of rows and days would only hide some of them.
    rows: dict[str, object] = {"partitions": {}, "where": None}
    whole = {"name": manifest.model_uri, "version": None}
    job = config.model_copy(
        update={"model": config.model.model_copy(update=whole), "input": config.input.model_copy(update=rows)}
    )
    return job, found.run_id
