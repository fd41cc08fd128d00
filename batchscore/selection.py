"""Which engine scores a run: of those that proved the registered model's scores, the one that ends first.

An engine is proved once for a model version, and measured once for a model version on a machine; both are kept in the
local cache, so that the next run decides in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from batchscore import engines
from batchscore.arrow.values import array_of
from batchscore.contracts import Candidate, Certificate, Measurement, ModelFiles, PinnedModel, ScoringPlan
from batchscore.engines import REFERENCE, artifacts, certificates, measure, parity, probes, sharing
from batchscore.engines.cache import loaded
from batchscore.engines.isolation import Isolating
from batchscore.errors import BatchscoreError, ModelError

if TYPE_CHECKING:
    import numpy as np

# Below so many rows auto does not start to prove engines: the registered model itself is done sooner.
ROWS_WORTH_A_PROOF = 300_000
THREADS = 1
# A call of a Spark ML pipeline is a job of Spark, which no size of batch changes; there is no other engine's code to
# be compared with, only other ways in.
JOBS = parity.Effort(halves=24, small_batches=())
JOB_ROWS = 2_000
# A model of this flavor is its own engine's: little is to be proved.
OWN_ENGINE = "onnx"
# Of more than a tenth of the sample nobody asks row by row on which the model raises: such a run is refused anyway.
MOST_RAISED = 10
OnEvent = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Allowed:
    """How far an engine may be from the reference: ``scoring.parity``."""

    max_abs_diff: float
    label_flips: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The engine of a run.

    Attributes:
        engine: its name.
        files: what workers load.
        batch_rows: rows a call at which it was fastest, or None where it was not measured.
        certificate: its proof; None for the reference itself.
        measurement: its speed, where it was measured.
        notice: what the user should know, or ''.
    """

    engine: str
    files: ModelFiles
    batch_rows: int | None = None
    certificate: Certificate | None = None
    measurement: Measurement | None = None
    notice: str = ""


@dataclass
class Prover:
    """Proves and measures engines for one model; what it needs is loaded once, and only when it is needed.

    Args:
        model: the model.
        allowed: how far an engine may be from it.
        sample: rows of the input as the model takes them, or None where there are none at hand.
        created_at: the time to write into certificates, ISO 8601.
        on_event: receives notices and stages.
        probe_rows: bound on the rows that an engine is compared on.
        measure_seconds: time for which an engine is measured.
        device: ``scoring.device``: where engines may run.
        tracking_uri: of the registry where converted models and certificates are kept beside the model's run, for
            other machines; '' keeps them on this one.
    """

    model: PinnedModel
    allowed: Allowed
    sample: Callable[[], pa.RecordBatch | None]
    created_at: str
    on_event: OnEvent = field(default=lambda _: None)
    probe_rows: int = probes.ROWS
    measure_seconds: float = measure.SECONDS
    device: str = "auto"
    tracking_uri: str = ""

    @property
    def names(self) -> list[str]:
        """The engines among which ``auto`` chooses."""
        if self.device == "cuda":
            return [engines.CUDA]
        return [name for name in engines.ENGINES if name != engines.CUDA or self.device == "auto"]

    def stored(self, engine: str) -> Candidate:
        """What the cache knows of an engine; loads nothing but the artifact's bytes, to compare their digest."""
        if engine == REFERENCE:
            reason = engines.supports(REFERENCE, self.model)
            if reason is not None:
                return Candidate(engine, "unavailable", reason)
            return Candidate(engine, "reference", measurement=artifacts.read_measurement(engine, self.model))
        certificate = artifacts.read_certificate(engine, self.model)
        if certificate is None:
            return Candidate(engine, "unproved")
        if not certificate.probes:  # it could not even be made: see _impossible
            known = self._outdated(certificate, "") is None
            return Candidate(engine, "unavailable" if known else "unproved", certificate.reason if known else "")
        digest = self._stored_digest(engine)
        if digest is None or self._outdated(certificate, digest) is not None:
            return Candidate(engine, "unproved")
        measurement = artifacts.read_measurement(engine, self.model)
        return Candidate(engine, certificate.verdict, certificate.reason, certificate, measurement)

    def proved(self, engine: str) -> Candidate:
        """An engine with its certificate, which is made where there is none that holds."""
        known = self.stored(engine)
        if known.state == "unproved" and self._shares(engine):
            sharing.fetch_artifact(engine, self.model, tracking_uri=self.tracking_uri)
            known = self.stored(engine)
        if known.state != "unproved":
            return known
        reason = engines.supports(engine, self.model)
        if reason is not None:
            return Candidate(engine, "unavailable", reason)
        try:
            certificate = self._certified(engine)
        except parity.IncomparableError as error:
            own = engine == OWN_ENGINE and not artifacts.needs_artifact(engine, self.model)
            # MLflow's wrapper cannot feed the graph at all: then the graph itself is what was registered.
            return Candidate(engine, "reference" if own else "unavailable", "" if own else error.text())
        except ModelError as error:
            artifacts.write_certificate(self._impossible(engine, error.text()), self.model)
            return Candidate(engine, "unavailable", error.text())
        except BatchscoreError as error:  # something is missing here, which may be mended
            return Candidate(engine, "unavailable", error.text())
        artifacts.write_certificate(certificate, self.model)
        if self._shares(engine):
            sharing.publish_artifact(engine, self.model, tracking_uri=self.tracking_uri)
        return Candidate(engine, certificate.verdict, certificate.reason, certificate)

    def measured(self, candidate: Candidate) -> Candidate:
        """A proved engine with its speed on this input, which is measured where it was not on this machine."""
        if candidate.measurement is not None or candidate.state not in ("equal", "reference"):
            return candidate
        if candidate.engine == engines.SPARKML:
            return candidate  # it scores in Spark's own tasks, and has no rival
        rows = self._sample
        if rows is None or not rows.num_rows:
            return candidate
        try:
            found = self._measurement(candidate.engine, rows)
        except BatchscoreError as error:
            if candidate.state == "reference":
                return candidate  # its scores are the right ones, however fast they come
            return replace(candidate, state="unavailable", reason=error.text())
        artifacts.write_measurement(found, self.model)
        return replace(candidate, measurement=found)

    def _measurement(self, engine: str, rows: pa.RecordBatch) -> Measurement:
        """The speed of an engine; once more without the rows that go to the quarantine, where it raises on some."""
        files = artifacts.files_for(engine, self.model)
        try:
            return measure.measure(engine, files, rows, seconds=self.measure_seconds)
        except ModelError:
            scored = self._scored_sample
            if scored is None or scored.num_rows in (0, rows.num_rows):
                raise
            return measure.measure(engine, files, scored, seconds=self.measure_seconds)

    def _shares(self, engine: str) -> bool:
        """Whether the registry may know the engine's artifact; it is not asked about one that cannot be made."""
        known = bool(self.tracking_uri and self.model.run_id) and artifacts.needs_artifact(engine, self.model)
        return known and engines.supports(engine, self.model) is None

    def _certified(self, engine: str) -> Certificate:
        self._say(f"engine {engine}: compared with the registered model")
        files = artifacts.files_for(engine, self.model)
        return parity.certify(
            self._reference,
            loaded(engine, files, THREADS),
            self._few_probes if engine == engines.SPARKML else self._probes,
            engine=engine,
            model_digest=self.model.digest,
            artifact_digest=files.digest if artifacts.needs_artifact(engine, self.model) else "",
            versions=artifacts.versions_of(engine),
            allowed_abs_diff=self.allowed.max_abs_diff,
            allowed_label_flips=self.allowed.label_flips,
            created_at=self.created_at,
            reference_name=REFERENCE,
            effort=JOBS if engine == engines.SPARKML else parity.FULL,
        )

    def _impossible(self, engine: str, reason: str) -> Certificate:
        """Remembers that an engine cannot be made of the model, so that the next run does not try again."""
        return Certificate(
            engine=engine,
            reference=REFERENCE,
            model_digest=self.model.digest,
            artifact_digest="",
            versions=tuple(sorted(artifacts.versions_of(engine).items())),
            probes=(),
            max_abs_diff=0.0,
            max_rel_diff=0.0,
            label_flips=0,
            nan_mismatches=0,
            verdict="refused",
            reason=reason,
            worst=(),
            allowed_abs_diff=self.allowed.max_abs_diff,
            allowed_label_flips=self.allowed.label_flips,
            created_at=self.created_at,
        )

    def _stored_digest(self, engine: str) -> str | None:
        """Digest of the artifact in the cache, '' for an engine that needs none, None where it is missing."""
        if not artifacts.needs_artifact(engine, self.model):
            return ""
        folder = artifacts.entry_folder(engine, self.model)
        found = artifacts.intact(folder, engine, self.model)
        return None if found is None else found.digest

    def _outdated(self, certificate: Certificate, artifact_digest: str) -> str | None:
        return certificates.valid(
            certificate,
            engine=certificate.engine,
            model_digest=self.model.digest,
            artifact_digest=artifact_digest,
            versions=artifacts.versions_of(certificate.engine),
            allowed_abs_diff=self.allowed.max_abs_diff,
            allowed_label_flips=self.allowed.label_flips,
        )

    @cached_property
    def _sample(self) -> pa.RecordBatch | None:
        return self.sample()

    @cached_property
    def _scored_sample(self) -> pa.RecordBatch | None:
        """The rows of the sample on which the registered model does not raise; None where it raises on whatever."""
        if self._sample is None:
            return None
        try:
            raised = Isolating(self._reference, self._sample.num_rows // MOST_RAISED).scores(self._sample).raised
        except BatchscoreError:
            return None
        kept = [True] * self._sample.num_rows
        for place, _ in raised:
            kept[place] = False
        return self._sample.filter(array_of(kept, pa.bool_()))

    @cached_property
    def _reference(self) -> engines.Engine:
        return loaded(REFERENCE, ModelFiles.of(self.model), THREADS)

    @cached_property
    def _probes(self) -> list[tuple[str, pa.RecordBatch]]:
        thresholds, categories = self._structure()
        return probes.build(self.model.inputs, self._sample, thresholds, categories, rows=self.probe_rows)

    @cached_property
    def _few_probes(self) -> list[tuple[str, pa.RecordBatch]]:
        return probes.build(self.model.inputs, self._sample, {}, {}, rows=min(self.probe_rows, JOB_ROWS))

    def _structure(self) -> tuple[Mapping[str, np.ndarray], Mapping[str, pa.Array]]:
        """Where the model splits its inputs, as far as its flavor tells."""
        from batchscore.engines.trees.thresholds import thresholds  # noqa: PLC0415  # loads the model's own library
        from batchscore.engines.unwrap import plain_flavor, unwrap  # noqa: PLC0415  # as above

        if plain_flavor(self.model.flavors) is None:
            return {}, {}
        try:
            found = unwrap(self.model.path, self.model.inputs)
        except BatchscoreError:
            return {}, {}
        return thresholds(found, self.model.inputs), found.categories

    def _say(self, text: str) -> None:
        self.on_event({"event": "stage", "stage": "prove", "text": text})


def select(asked: str, prover: Prover, *, environment: str, rows: int, cores: int, beside: bool = False) -> Selection:
    """The engine for a run.

    Args:
        asked: ``auto``, or an engine's name.
        prover: of the model.
        environment: ``model.environment``; in an environment of its own only the registered model itself runs.
        rows: rows to score, -1 where unknown.
        cores: cores that will score them.
        beside: whether the last output is one that only the native engine gives, beside the model's own.

    Raises:
        ModelError: the engine that was asked for cannot serve the model, or does not give its scores.
    """
    if beside:
        own = replace(prover, model=replace(prover.model, outputs=prover.model.outputs[:-1]))
        return replace(_named(own.proved(engines.NATIVE), own), files=ModelFiles.of(prover.model))
    asked = engines.on_device(asked, prover.device)
    reference = Selection(REFERENCE, ModelFiles.of(prover.model, environment))
    if asked == REFERENCE or environment != "local":
        return reference
    if engines.scores_in_spark(prover.model):
        asked = engines.SPARKML
    if asked != engines.AUTO:
        return _named(prover.proved(asked), prover)
    if 0 <= rows < ROWS_WORTH_A_PROOF and not any(_is_proved(prover.stored(name)) for name in prover.names):
        if OWN_ENGINE in prover.model.flavors:
            return _chosen(fastest([prover.proved(OWN_ENGINE), prover.stored(REFERENCE)], rows, cores), prover)
        notice = f"auto takes {REFERENCE} for so few rows; `batchscore engines` proves faster engines"
        return replace(reference, notice=notice)
    return _chosen(fastest(candidates(prover), rows, cores), prover)


def known(asked: str, prover: Prover, *, environment: str) -> Selection:
    """The engine for work whose rows are not at hand: for ``auto`` the fastest that an earlier run has proved.

    Raises:
        ModelError: as :func:`select`.
    """
    if asked != engines.AUTO or environment != "local" or prover.device == "cuda":
        return select(asked, prover, environment=environment, rows=-1, cores=1)
    stored = [candidate for name in prover.names if (candidate := prover.stored(name)).state == "equal"]
    if stored:
        return _chosen(fastest(stored, -1, 1), prover)
    return Selection(engines.choose(engines.AUTO, prover.model), ModelFiles.of(prover.model))


def foreseen(asked: str, prover: Prover, *, environment: str, rows: int, cores: int, beside: bool = False) -> str:
    """The engine that :func:`select` would name, as far as the cache tells; ``auto`` where it would have to measure."""
    if beside:
        return engines.NATIVE
    if environment != "local":
        return REFERENCE
    asked = engines.on_device(asked, prover.device)
    if asked != engines.AUTO:
        return asked
    if engines.scores_in_spark(prover.model):
        return engines.SPARKML
    known = [prover.stored(name) for name in prover.names]
    if any(_is_proved(candidate) and candidate.measurement is not None for candidate in known):
        return fastest(known, rows, cores).engine
    return engines.AUTO


def _is_proved(candidate: Candidate) -> bool:
    return candidate.certificate is not None


def with_engine(plan: ScoringPlan, chosen: Selection, asked_rows: int | str) -> ScoringPlan:
    """The plan with an engine; rows a batch are those at which it was fastest, but where the settings name them."""
    measured = chosen.batch_rows if asked_rows == "auto" else None
    # The planned number bounds a worker's memory, also for columns that only pass by.
    rows = min(measured or plan.task.batch_rows, plan.task.batch_rows)
    return replace(plan, task=replace(plan.task, engine=chosen.engine, model=chosen.files, batch_rows=rows))


def candidates(prover: Prover) -> list[Candidate]:
    """All engines, proved and measured."""
    return [prover.measured(prover.proved(name)) for name in prover.names]


def fastest(found: Sequence[Candidate], rows: int, cores: int) -> Candidate:
    """The engine that ends first: it loads once in each worker, and then shares the rows with the others.

    Raises:
        ModelError: no engine can serve the model.
    """
    usable = [candidate for candidate in found if candidate.state in ("equal", "reference")]
    timed = [(candidate, candidate.measurement) for candidate in usable if candidate.measurement is not None]
    if timed:
        return min(timed, key=lambda pair: seconds(pair[1], rows, cores))[0]
    for candidate in sorted(usable, key=lambda candidate: candidate.state == "reference"):
        return candidate
    raise ModelError(
        "no engine can serve the model",
        detail=[f"{candidate.engine}: {candidate.reason}" for candidate in found],
    )


def seconds(measurement: Measurement, rows: int, cores: int) -> float:
    """Seconds that an engine would take for ``rows`` rows on ``cores`` cores; for many where unknown."""
    many = rows if rows >= 0 else 100 * ROWS_WORTH_A_PROOF
    return measurement.load_seconds + many / (max(measurement.rows_per_second, 1.0) * max(cores, 1))


def _named(candidate: Candidate, prover: Prover) -> Selection:
    if candidate.state == "unavailable":
        raise ModelError(
            f"engine {candidate.engine} cannot serve model {prover.model.name}",
            found=candidate.reason,
            hint="set scoring.engine to auto; `batchscore engines` shows what each engine can do",
        )
    if candidate.state == "refused":
        certificate = candidate.certificate
        raise ModelError(
            f"engine {candidate.engine} does not give the scores of model {prover.model.name}",
            found=candidate.reason,
            detail=certificate.worst if certificate is not None else (),
            hint="set scoring.engine to auto, or allow more in scoring.parity",
        )
    return _chosen(candidate, prover)


def _chosen(candidate: Candidate, prover: Prover) -> Selection:
    return Selection(
        engine=candidate.engine,
        files=artifacts.files_for(candidate.engine, prover.model),
        batch_rows=candidate.measurement.batch_rows if candidate.measurement is not None else None,
        certificate=candidate.certificate,
        measurement=candidate.measurement,
    )
