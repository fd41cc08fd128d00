"""What a backfill is asked for, what it plans for each date, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

DateState: TypeAlias = Literal["score", "live", "missing", "unreadable"]
ChunkState: TypeAlias = Literal["published", "skipped", "failed", "interrupted", "not_started"]


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """A range of dates and how to go through it.

    Attributes:
        first: the first date, ``YYYY-MM-DD``.
        last: the last date, inclusive.
        date_column: the partition column that holds the dates; None: the only one that does.
        at_a_time: chunks under way at once.
        chunk_dates: dates that are published by one commit.
        model_as_of: whether each date is scored by the version that carried the alias or stage on it.
        stop_on_failure: whether the first failure keeps further chunks from starting.
    """

    first: str
    last: str
    date_column: str | None = None
    at_a_time: int = 1
    chunk_dates: int = 1
    model_as_of: bool = False
    stop_on_failure: bool = False


@dataclass(frozen=True, slots=True)
class DateVersion:
    """The model version that scores a date, and what says so."""

    version: str
    why: str


@dataclass(frozen=True, slots=True)
class PlannedDate:
    """One date of a backfill.

    ``rows`` is what its input holds, -1 where unknown. ``seconds`` and ``core_seconds`` are estimates, 0 for a date
    that is not scored and -1 where no earlier run tells the speed. ``version`` is the model version that scores the
    date and ``version_why`` what says so, both '' where there is nothing to score. ``reason`` explains the state.
    """

    date: str
    state: DateState
    reason: str
    units: int = 0
    rows: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    version: str = ""
    version_why: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Dates that one run scores by one model version and publishes by one commit; ``rows`` -1 where unknown."""

    dates: tuple[str, ...]
    version: str
    rows: int


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """Everything that a backfill has decided before its first run.

    Attributes:
        backfill_id: what the ledger's rows of its runs have in common.
        date_column: the partition column that holds the dates.
        model: the model as asked for.
        models: each version that scores, with the digest of its files.
        input: path or name of the input.
        table: root of the output.
        table_version: its version when the plan was made, -1 where there is none.
        engine: what would score the first chunk, as far as is known.
        cores: tasks that run at a time.
        dates: all dates of the range, oldest first.
        chunks: what will be scored, oldest first.
        notices: what the user should know.
    """

    backfill_id: str
    request: BackfillRequest
    date_column: str
    model: str
    models: tuple[tuple[str, str], ...]
    input: str
    table: str
    table_version: int
    engine: str
    runner: str
    cores: int
    dates: tuple[PlannedDate, ...]
    chunks: tuple[Chunk, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """How a chunk ended.

    ``run_id`` is '' where no run of it came as far as the ledger; ``exit_code`` is what ``batchscore run`` would have
    ended with; ``rows`` are rows published.
    """

    dates: tuple[str, ...]
    state: ChunkState
    reason: str
    exit_code: int = 0
    run_id: str = ""
    rows: int = 0
    seconds: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """How a backfill ended; ``outcomes`` are in the order of their dates, dates without input are not among them."""

    plan: BackfillPlan
    outcomes: tuple[ChunkOutcome, ...]
    seconds: float
    exit_code: int


@dataclass(frozen=True, slots=True)
class Observation:
    """That a reference to a model meant this version at this instant (ISO 8601, UTC), and who says so."""

    at: str
    version: str
    said_by: str


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A model version in the registry; times are ISO 8601 in UTC."""

    version: str
    created_at: str
    updated_at: str
    stage: str = ""


@dataclass(frozen=True, slots=True)
class VersionHistory:
    """What a registry can tell of a reference: it keeps today's alias or stage, and times of versions.

    Attributes:
        kind: what the reference names.
        value: the alias or stage.
        current: the version that carries it now, or ''.
        versions: all versions that the registry holds, oldest first.
    """

    kind: Literal["alias", "stage", "latest"]
    value: str
    current: str
    versions: tuple[KnownVersion, ...]
