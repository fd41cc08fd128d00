"""The frozen values that pass between stages.

No third-party object is in here: paths are URI strings, types are the names of :mod:`batchscore.schema`,
predicates are trees of the classes below. Everything pickles and is comparable; what goes into a manifest
is turned into JSON by :mod:`batchscore.record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

VERSION = "0.1.0"  # of batchscore; the build reads it from here

# --- names that batchscore adds to a prediction table ------------------------------------------------------

MODEL_COLUMN = "_model"
VERSION_COLUMN = "_model_version"
RUN_COLUMN = "_run_id"
TIME_COLUMN = "_scored_at"
LINEAGE_COLUMNS = (MODEL_COLUMN, VERSION_COLUMN, RUN_COLUMN, TIME_COLUMN)
PREDICTION = "prediction"
METADATA_FOLDER = "_batchscore"
MAX_RUN_ID_CHARS = 32  # Delta truncates string statistics there; a whole run id proves min = max

# --- columns and predicates --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name and its type in the vocabulary of ``schema.py``."""

    name: str
    type: str
    nullable: bool = True


Schema: TypeAlias = tuple[Column, ...]

# The values of a unit's partition columns, in the order of the output's partition columns, as the canonical
# strings that Delta's log holds (None is null). () is the only unit of a table without partitions.
UnitValues: TypeAlias = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant in a predicate; ``type`` names its type in the vocabulary of ``schema.py``."""

    value: str | int | float | bool | None
    type: str


@dataclass(frozen=True, slots=True)
class Compare:
    """``column <op> constant``; ``<=>`` is Spark's null-safe equality."""

    column: str
    op: Literal["=", "!=", "<", "<=", ">", ">=", "<=>"]
    constant: Constant


@dataclass(frozen=True, slots=True)
class IsIn:
    """``column IN (constants)`` with SQL's three-valued logic."""

    column: str
    constants: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """``column IS NULL``."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """Negation; NOT unknown is unknown."""

    operand: Predicate


@dataclass(frozen=True, slots=True)
class And:
    """Conjunction with three-valued logic."""

    operands: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Disjunction with three-valued logic."""

    operands: tuple[Predicate, ...]


Predicate: TypeAlias = Compare | IsIn | IsNull | Not | And | Or


def predicate_columns(predicate: Predicate | None) -> tuple[str, ...]:
    """The columns that a predicate reads, sorted; a split's reader needs them among its columns.

    >>> predicate_columns(And((IsNull("b"), Not(IsNull("a")))))
    ('a', 'b')
    """
    match predicate:
        case None:
            return ()
        case Compare(column) | IsIn(column) | IsNull(column):
            return (column,)
        case Not(operand):
            return predicate_columns(operand)
        case And(operands) | Or(operands):
            return tuple(sorted({name for operand in operands for name in predicate_columns(operand)}))


# --- models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a model's signature.

    A tensor input has a ``shape`` (its first dimension, the rows, is -1) and the element type in ``type``;
    ``columns`` are the table columns that feed it, where that is not the one column of its own name.
    """

    name: str
    type: str
    required: bool = True
    shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """One output of a model's signature; ``name`` is '' for a model with a single unnamed output."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class ModelParam:
    """An inference parameter: its MLflow type name and the value to use."""

    name: str
    type: str
    value: object


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A model name resolved, once, to exact files.

    Attributes:
        requested: what the user wrote, for example ``fraud_detection/Production``.
        name: registered name, or the folder's name for a model without a registry entry.
        version: registry version, or '' where there is none.
        uri: ``models:/name/7``, ``runs:/…`` or a folder.
        digest: SHA-256 over the model folder's relative paths and contents, hex.
        path: local folder with the files, on the driver.
        size_bytes: sum of the files' sizes.
        flavors: flavor names in the MLmodel file, sorted.
        inputs: signature inputs in order; for a model without a signature those that the settings declare.
        outputs: signature outputs in order.
        params: inference parameters with the values to use.
        run_id: the MLflow run that logged the model, or ''.
        python_version: Python that logged the model, or ''.
        requirements: the model's own pip requirements, as recorded.
        classes: known class labels of a classifier as text, where the model states them.
        notices: warnings for the user, for example that stages are deprecated.
    """

    requested: str
    name: str
    version: str
    uri: str
    digest: str
    path: str
    size_bytes: int
    flavors: tuple[str, ...]
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    params: tuple[ModelParam, ...] = ()
    run_id: str = ""
    python_version: str = ""
    requirements: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


# --- sources -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One data file of a pinned source.

    Attributes:
        path: path as pyarrow's filesystem for the source's URI opens it.
        size: bytes.
        stamp: what tells a changed file: Delta: '' or the deletion vector's id; Parquet: ETag or
            modification time (ns), then a digest of the footer.
        rows: rows, less deleted ones; -1 where unknown without opening the file.
        row_groups: rows of each row group; () where the footer was not read.
        partition: partition values from the path or Delta's log.
    """

    path: str
    size: int
    stamp: str
    rows: int
    row_groups: tuple[int, ...] = ()
    partition: UnitValues = ()


@dataclass(frozen=True, slots=True)
class PinnedSource:
    """A source at one version.

    Attributes:
        kind: how it is read. ``catalog`` sources (tables and views of Spark's catalog) have no files.
        uri: path, URI or catalog name, without secrets.
        version: Delta version, or None.
        snapshot: digest that changes when the content may have changed, hex.
        columns: all columns, partition columns included, types widened over all files.
        partition_columns: columns that the layout is partitioned by, in order.
        files: the files that remain after pruning by partition values.
        root: the path that the files' paths begin with; keys of units leave it out.
        missing_ok: columns that some files lack (added later); read as null there.
        dataframe_reason: why workers cannot read splits of it themselves, or None where they can.
    """

    kind: Literal["parquet", "delta", "catalog"]
    uri: str
    version: int | None
    snapshot: str
    columns: Schema
    partition_columns: tuple[str, ...]
    files: tuple[SourceFile, ...]
    root: str = ""
    missing_ok: frozenset[str] = frozenset()
    dataframe_reason: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restriction:
    """Which rows a run takes.

    ``partitions`` are the ``--partition`` values by column (a row matches when, for each column, its value is
    among those named); ``predicate`` is ``where`` parsed, or None where the SQL must go through Spark.
    """

    partitions: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    where: str | None = None
    predicate: Predicate | None = None
    where_reason: str | None = None  # why `where` could not be parsed into `predicate`


@dataclass(frozen=True, slots=True)
class Split:
    """A piece of one file that one task reads: whole row groups.

    ``size`` is its share of the file's bytes. ``file_size`` and ``stamp`` are the file's own, by which a reader
    notices that it changed since it was pinned; -1 and '' check nothing.
    """

    path: str
    rows: int
    row_groups: tuple[int, ...] | None  # None: all of them
    partition: UnitValues
    size: int
    file_size: int = -1
    stamp: str = ""


# --- the target --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UnitState:
    """What a unit's active files in the target say about themselves.

    Attributes:
        runs: (run id, rows), summed over the unit's files and sorted by run id; a file whose statistics do not
            prove one run id has the column read.
        foreign_files: files that prove nothing: rows without a run id, a deletion vector.
        foreign_stamp: digest of their identities; changes when they change.
        vectors: files with a deletion vector.
    """

    runs: tuple[tuple[str, int], ...] = ()
    foreign_files: int = 0
    foreign_stamp: str = ""
    vectors: int = 0


@dataclass(frozen=True, slots=True)
class ManifestUnit:
    """A unit as a run's manifest records it."""

    values: UnitValues
    key: str
    rows: int


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What planning needs to know of an older run."""

    run_id: str
    model_name: str
    model_version: str
    model_digest: str
    source_key: str
    units: tuple[ManifestUnit, ...]


@dataclass(frozen=True, slots=True)
class TargetState:
    """The output table as planning found it.

    Attributes:
        uri: where the table is or will be.
        version: Delta version, -1 where there is no table yet.
        columns: its columns, () where there is no table yet.
        partition_by: its partition columns.
        units: state of each unit that has active files.
        manifests: heads of the manifests of all runs that ``units`` mention (missing ones are absent).
        refused: why batchscore will not write this table (feature or property and the statement that drops
            it), or None.
    """

    uri: str
    version: int = -1
    columns: Schema = ()
    partition_by: tuple[str, ...] = ()
    units: Mapping[UnitValues, UnitState] = field(default_factory=dict)
    manifests: Mapping[str, ManifestHead] = field(default_factory=dict)
    refused: str | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a table."""
        return self.version >= 0


# --- what a command asks for -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one command asks for beside the settings: nothing in here changes a score.

    Attributes:
        force: score again what is live.
        evolve_schema: let the prediction table gain columns.
        verbose: show what happens in detail.
    """

    force: bool = False
    evolve_schema: bool = False
    verbose: bool = False


# --- the plan ----------------------------------------------------------------------------------------------

Mode: TypeAlias = Literal["partitions", "replace", "append"]
Route: TypeAlias = Literal["splits", "dataframe"]


@dataclass(frozen=True, slots=True)
class Binding:
    """How one table column feeds one model input.

    ``source`` is the column's exact name in the table ('' for an optional input that the table lacks: nulls).
    """

    input: str
    source: str
    source_type: str
    model_type: str
    cast: Literal["same", "widen", "checked", "to_utc", "midnight", "absent"]
    null_rows_bad: bool


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One column of the prediction table and where its values come from.

    ``origin``: ``source`` (the table column ``ref``), ``model`` (the model output ``ref``), ``partition`` or
    ``lineage``.
    """

    name: str
    type: str
    origin: Literal["source", "model", "lineage"]
    ref: str
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a worker needs to load a model and to be sure that it is the right one."""

    path: str
    digest: str
    name: str
    version: str
    flavors: tuple[str, ...]
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    params: tuple[ModelParam, ...]


@dataclass(frozen=True, slots=True)
class ScoringTask:
    """Everything the worker function needs beside its batches; the same for all tasks of a run.

    Attributes:
        engine: name in :data:`batchscore.engines.ENGINES`.
        batch_rows: rows per call of the engine.
        threads: threads an engine may use.
        source_columns: columns to read, types as pinned.
        predicate: rows to keep, applied by the worker on the splits route, or None.
        bindings: model inputs, in signature order.
        columns: the output's columns, in table order.
        partition_by: the output's partition columns.
        keys: key columns, to name bad rows.
        lineage: values of the lineage columns; ``_scored_at`` in µs since the epoch, UTC.
        source_uri: root of the source: selects the filesystem.
        staging_uri: root of the output table.
        run_id: at most 32 characters.
        file_rows: rows after which a staged file is closed and the next begun.
    """

    run_id: str
    model: ModelFiles
    engine: str
    batch_rows: int
    threads: int
    source_uri: str
    source_columns: Schema
    predicate: Predicate | None
    bindings: tuple[Binding, ...]
    columns: tuple[OutputColumn, ...]
    partition_by: tuple[str, ...]
    keys: tuple[str, ...]
    lineage: tuple[tuple[str, str | int], ...]
    staging_uri: str
    file_rows: int


UnitAction: TypeAlias = Literal["score", "live", "older_model"]


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One unit of work and what the plan does with it.

    ``rows`` is -1 where unknown before reading. ``before`` is the unit's state in the target when planned: the
    commit compares it again.
    """

    values: UnitValues
    key: str
    action: UnitAction
    reason: str
    rows: int
    files: int
    before: UnitState


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """Everything decided before a row is read.

    Attributes:
        units_known: False where the output is partitioned by a column that the input's layout does not tell:
            units are then found while scoring, ``units`` is empty unless all of them are live, and keys come
            from ``source_key`` and the values.
        route: who reads; ``route_reason`` says why where it is ``dataframe``.
        tasks: splits of each task on the splits route.
        settings_digest: digest of the settings that can change a score.
        source_key: digest of model, whole input and settings: with a unit's values it makes a unit's key
            where ``units_known`` is False.
        expected_rows: rows to read where known from metadata, else -1.
        estimated_seconds: by the speed of the table's last run on the same runner; -1 where there is none.
        cores: tasks that run at a time, as far as the settings tell.
    """

    run_id: str
    created_at: str
    model: PinnedModel
    source: PinnedSource
    restriction: Restriction
    target: TargetState
    mode: Mode
    route: Route
    route_reason: str | None
    units_known: bool
    units: tuple[PlannedUnit, ...]
    tasks: tuple[tuple[Split, ...], ...]
    task: ScoringTask
    settings_digest: str
    source_key: str
    expected_rows: int
    keys_unique: bool
    evolve_schema: bool
    force: bool
    retention_days: int
    notices: tuple[str, ...] = ()
    estimated_seconds: float = -1.0
    cores: int = 1

    @property
    def to_score(self) -> tuple[PlannedUnit, ...]:
        """The units that this run scores."""
        return tuple(unit for unit in self.units if unit.action == "score")

    @property
    def nothing_to_do(self) -> bool:
        """Whether all is published already."""
        return not self.to_score and (self.units_known or bool(self.units))


# --- results of the stages ---------------------------------------------------------------------------------


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

    ``bad_rows`` holds at most ten samples of ``bad_count``. Times are seconds, ``peak_bytes`` is the worker
    process's peak resident memory.
    """

    files: tuple[StagedFile, ...]
    rows_read: int
    rows_staged: int
    bad_count: int
    bad_rows: tuple[BadRow, ...]
    read_seconds: float
    score_seconds: float
    write_seconds: float
    peak_bytes: int
    pid: int


@dataclass(frozen=True, slots=True)
class StagedOutput:
    """The results of all tasks of a run, each counted once."""

    files: tuple[StagedFile, ...]
    rows_read: int
    rows_staged: int
    bad_count: int
    bad_rows: tuple[BadRow, ...]
    seconds: float
    peak_worker_bytes: int


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
    in UTC. ``engine`` is the engine used, ``settings`` the settings with secrets removed.
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


RunState: TypeAlias = Literal["published", "refused", "failed", "fenced", "skipped", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of the ledger ``<table>__runs``. Times are ISO 8601 in UTC; ``rows`` are rows published."""

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
