"""What an engine other than the registered model's own must show before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ParityVerdict: TypeAlias = Literal["equal", "refused"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder that an engine made of a model, to be loaded by workers.

    Attributes:
        engine: name of the engine that made it and loads it.
        path: local folder.
        digest: SHA-256 over its relative paths and contents, hex, as for a model's folder.
        size_bytes: sum of its files' sizes.
    """

    engine: str
    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """The comparison of one engine with the reference, for one model version.

    Attributes:
        engine: what was compared.
        reference: what it was compared with: the registered model as MLflow loads it.
        model_digest: of the model's folder.
        artifact_digest: of the artifact that was used, '' where the engine works from the model's own files.
        versions: (library, version) of everything that can change a score, sorted.
        probes: (kind of probe, rows), for example ("threshold", 10_864).
        max_abs_diff: largest absolute difference of a numeric output; inf where one is finite and the other is not.
        max_rel_diff: largest difference relative to the reference's value.
        label_flips: rows whose label, or whose most probable class, differs.
        nan_mismatches: rows where one is NaN and the other is not, or one is null and the other is not.
        verdict: ``equal`` within what the settings allow, or ``refused``.
        reason: why it was refused, or ''.
        worst: the rows with the largest differences, as text, bounded.
        allowed_abs_diff: what the settings allowed; 0 asks for the same bits, any other value lets rounding of large
            numbers pass, too.
        allowed_label_flips: what the settings allowed.
        created_at: ISO 8601, UTC.
        skipped: probes on which the reference itself raised, so that there is nothing to compare with.
    """

    engine: str
    reference: str
    model_digest: str
    artifact_digest: str
    versions: tuple[tuple[str, str], ...]
    probes: tuple[tuple[str, int], ...]
    max_abs_diff: float
    max_rel_diff: float
    label_flips: int
    nan_mismatches: int
    verdict: ParityVerdict
    reason: str
    worst: tuple[str, ...]
    allowed_abs_diff: float
    allowed_label_flips: int
    created_at: str
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """An engine's speed on real rows of one input, on one core.

    Attributes:
        engine: what was measured.
        batch_rows: rows a call, the fastest of the sizes tried.
        rows_per_second: median over the calls that fitted into the time.
        load_seconds: from nothing imported to the first score.
        peak_bytes: resident memory of the process that measured.
        size_bytes: of the files that a worker loads.
    """

    engine: str
    batch_rows: int
    rows_per_second: float
    load_seconds: float
    peak_bytes: int
    size_bytes: int


CandidateState: TypeAlias = Literal["reference", "equal", "refused", "unavailable", "unproved"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of one engine for one model on one machine.

    Attributes:
        engine: its name.
        state: ``reference`` for the registered model's own way, ``equal`` or ``refused`` by its certificate,
            ``unavailable`` where it cannot serve the model here, ``unproved`` where nobody has asked yet.
        reason: why it is refused or unavailable, or ''.
        certificate: the comparison, where one was made.
        measurement: its speed on this input, where it was measured.
        chosen: whether a run with ``auto`` would use it.
    """

    engine: str
    state: CandidateState
    reason: str = ""
    certificate: Certificate | None = None
    measurement: Measurement | None = None
    chosen: bool = False
