"""What the stages return, and what is kept of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from batchscore.contracts.columns import UnitValues
from batchscore.contracts.plans import Mode
from batchscore.contracts.proof import Certificate, Measurement
from batchscore.contracts.quarantine import ReasonCount
from batchscore.contracts.targets import ManifestUnit


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """Delta statistics of one column in one file; ``minimum`` and ``maximum`` are JSON values or None."""

    name: str
    null_count: int
    minimum: str | int | float | bool | None = None
    maximum: str | int | float | bool | None = None


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A data file under the table, not yet in its log.

    ``path`` is relative to the table's root, percent-encoded nowhere: as the filesystem knows it.
    """

    path: str
    size: int
    rows: int
    unit: UnitValues
    stats: tuple[ColumnStats, ...]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be scored: its keys as text, the column and value at fault, and the reason."""

    keys: tuple[tuple[str, str], ...]
    column: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one task did.

    ``rows_read`` are all rows of its input: those of ``rows_filtered`` did not meet the run's condition, those of
    ``quarantined`` are in the files ``quarantine``, the others are staged. ``bad_rows`` holds at most ten of the
    quarantined. Times are seconds, ``peak_bytes`` is the worker process's peak resident memory.
    """

    files: tuple[StagedFile, ...]
    rows_read: int
    rows_staged: int
    bad_rows: tuple[BadRow, ...]
    read_seconds: float
    score_seconds: float
    write_seconds: float
    peak_bytes: int
    pid: int
    rows_filtered: int = 0
    quarantined: tuple[ReasonCount, ...] = ()
    quarantine: tuple[StagedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class StagedOutput:
    """The results of all tasks of a run, each counted once; see :class:`TaskResult`."""

    files: tuple[StagedFile, ...]
    rows_read: int
    rows_staged: int
    bad_rows: tuple[BadRow, ...]
    seconds: float
    peak_worker_bytes: int
    rows_filtered: int = 0
    quarantined: tuple[ReasonCount, ...] = ()
    quarantine: tuple[StagedFile, ...] = ()

    @property
    def rows_quarantined(self) -> int:
        """Rows that were left out, each for one reason."""
        return sum(count.rows for count in self.quarantined)

    @property
    def rows_missing(self) -> int:
        """Rows read that are neither staged nor quarantined nor filtered; a run is published only where it is 0."""
        return self.rows_read - self.rows_staged - self.rows_quarantined - self.rows_filtered


@dataclass(frozen=True, slots=True)
class Check:
    """One judgement over the staged output; ``sample`` holds at most ten values, each bounded."""

    name: str
    passed: bool
    observed: str
    unexpected: int = 0
    sample: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """All judgements; the run is published only when each passed."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the output may be published."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The durable record of what a run publishes; written before the commit, named by it.

    ``units`` are those that the run offers; ``rows`` in each is what its staged files hold. Times are ISO 8601
    in UTC. ``engine`` is the engine used, ``settings`` the settings with secrets removed, ``certificate`` the proof
    that the engine gives the registered model's scores (None for that model itself), ``measurement`` its speed where
    it was chosen by it.
    """

    format_version: int
    run_id: str
    created_at: str
    batchscore_version: str
    model_name: str
    model_version: str
    model_uri: str
    model_digest: str
    source_uri: str
    source_kind: str
    source_version: int | None
    source_snapshot: str
    source_key: str
    settings_digest: str
    settings: Mapping[str, object]
    engine: str
    runner: str
    mode: Mode
    rows_read: int
    rows_staged: int
    units: tuple[ManifestUnit, ...]
    checks: tuple[Check, ...] = ()
    certificate: Certificate | None = None
    measurement: Measurement | None = None
    rows_filtered: int = 0
    quarantined: tuple[ReasonCount, ...] = ()
    replays: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the commit did.

    ``version`` is the table version that made the run visible, -1 where nothing had to be published.
    ``dropped`` are units that another run had published with the same key meanwhile.
    """

    version: int
    published: tuple[ManifestUnit, ...]
    dropped: tuple[ManifestUnit, ...] = ()
    attempts: int = 1


RunState: TypeAlias = Literal[
    "published", "refused", "failed", "fenced", "skipped", "interrupted", "rolled_back", "forgotten"
]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of the ledger ``<table>__runs``. Times are ISO 8601 in UTC; ``rows`` are rows published.

    ``model_requested`` is the model as it was asked for, ``backfill`` what the runs of one backfill have in common;
    both are '' in rows from before there were such.
    A rollback and an erasure have rows of their own, with an id like a run's: they publish no score.
    """

    run_id: str
    state: RunState
    started_at: str
    ended_at: str
    model_name: str
    model_version: str
    model_digest: str
    source_uri: str
    source_version: int | None
    source_snapshot: str
    table: str
    table_version: int
    mode: str
    units_published: int
    units_live: int
    rows_read: int
    rows: int
    engine: str
    runner: str
    seconds: float
    exit_code: int
    message: str
    detail: str = ""
    peak_worker_bytes: int = 0
    rows_quarantined: int = 0
    rows_filtered: int = 0
    model_requested: str = ""
    backfill: str = ""
