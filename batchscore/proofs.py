"""Every engine for one model: proved against the registered model, and measured on an input."""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchscore import sampling, selection
from batchscore.config import JobConfig
from batchscore.contracts import Candidate, PinnedModel, RunOptions
from batchscore.engines import SPARKML
from batchscore.prepare import LazySpark, OnEvent, make_plan


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a model's engines.

    Attributes:
        model: the model.
        input: what they were measured on.
        rows: rows of it that a run would score, -1 where unknown.
        cores: cores that would score them.
        candidates: each engine, the fastest first.
    """

    model: PinnedModel
    input: str
    rows: int
    cores: int
    candidates: tuple[Candidate, ...]


def engines(config: JobConfig, on_event: OnEvent = lambda _: None) -> Report:
    """Proves and measures each engine for the settings' model on their input.

    What was proved and measured before is taken from the cache.

    Raises:
        BatchscoreError: the model or the input cannot be used at all.
    """
    spark = LazySpark(config, on_event)
    # Published or not: the whole input is what auto would be asked for.
    planned = make_plan(config, RunOptions(force=True), spark)
    if planned.task.engine == SPARKML:
        spark()  # the pipeline lives in the session
    parity = config.scoring.parity
    prover = selection.Prover(
        planned.model,
        selection.Allowed(parity.max_abs_diff, parity.label_flips),
        sample=lambda: sampling.sample(planned, spark),
        created_at=planned.created_at,
        on_event=on_event,
        device=config.scoring.device,
        tracking_uri=config.registry.tracking_uri,
    )
    found = selection.candidates(prover)
    best = selection.fastest(found, planned.most_rows, planned.cores)
    marked = [replace(candidate, chosen=candidate.engine == best.engine) for candidate in found]

    def order(candidate: Candidate) -> tuple[bool, float]:
        speed = candidate.measurement.rows_per_second if candidate.measurement is not None else 0.0
        return candidate.state not in ("equal", "reference"), -speed

    return Report(
        model=planned.model,
        input=planned.source.uri,
        rows=planned.expected_rows,
        cores=planned.cores,
        candidates=tuple(sorted(marked, key=order)),
    )
