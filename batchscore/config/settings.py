"""Every setting of a job, with its unit, its default and what it may be.

``conf/reference.yaml`` shows all of them; ``batchscore.config.loading`` reads the files.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # how Hive and Spark write a null partition value in a path
CRON_FIELDS = 5
SCHEDULE_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")


def not_built(*accepted: object) -> AfterValidator:
    """A validator that takes only ``accepted`` values: the setting is declared, the feature is to come."""

    def check(value: Any) -> Any:  # noqa: ANN401  # pydantic passes the field's own type through
        if value in accepted:
            return value
        raise PydanticCustomError(
            "not_built", "is not built yet", {"accepted": [item for item in accepted if item is not None]}
        )

    return AfterValidator(check)


def _as_sequence(value: object) -> object:
    return [value] if isinstance(value, str | int | float) and not isinstance(value, bool) else value


def _count_or_auto(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if value == "auto" or is_count:
        return value
    if isinstance(value, str) and value.isdecimal() and int(value) > 0:
        return int(value)
    raise PydanticCustomError("count_or_auto", "should be 'auto' or a whole number of rows above 0")


def _partition_text(value: object) -> object:
    """A partition value as its text; null gets the name that it has in a Hive layout."""
    if value is None:
        return NULL_PARTITION
    if isinstance(value, dt.date | int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _version_text(value: object) -> object:
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _input_version(value: object) -> object:
    """``latest``, a Delta version, or a timestamp in ISO 8601."""
    value = _version_text(value)
    if not isinstance(value, str) or value == "latest":
        return value
    if value.isdecimal():
        return int(value)
    try:
        dt.datetime.fromisoformat(value)
    except ValueError as error:
        raise PydanticCustomError(
            "input_version", "should be 'latest', a version number or a timestamp such as 2026-11-21T06:00:00Z"
        ) from error
    return value


def _bound(value: object) -> object:
    """A date in YAML as its text."""
    return value.isoformat() if isinstance(value, dt.date) else value


def _schedule(value: str | None) -> str | None:
    if value is None or value in SCHEDULE_PRESETS:
        return value
    if len(value.split()) == CRON_FIELDS and re.fullmatch(r"[\w\s*/,\-?#]+", value):
        return value
    raise PydanticCustomError(
        "schedule", "should be a cron expression of five fields or a preset", {"accepted": list(SCHEDULE_PRESETS)}
    )


Name: TypeAlias = Annotated[str, Field(min_length=1)]
Names: TypeAlias = Annotated[tuple[Name, ...], BeforeValidator(_as_sequence)]
PartitionValues: TypeAlias = Annotated[
    tuple[Annotated[str, BeforeValidator(_partition_text)], ...], BeforeValidator(_as_sequence)
]


class _Settings(BaseModel):
    """Settings are frozen, and a key that is not declared is an error.

    pydantic's own messages leave the values out: one may be a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class SignatureEntry(_Settings):
    """One input or output of a model."""

    name: str = Field(
        default="", description="Column that feeds the input, or name of the output; '' for the only one."
    )
    type: Name = Field(
        description="Type of a value: boolean, integer, long, float, double, string, binary, timestamp_ntz, "
        "or array<double> and the like."
    )
    required: bool = Field(default=True, description="Whether the table must have the column.")
    shape: tuple[int, ...] | None = Field(
        default=None, description="Shape of a tensor, -1 for its rows: [-1, 30]; null: a plain column."
    )


class SignatureSettings(_Settings):
    """What a model's own signature leaves open: all of it, the names of its inputs, or its outputs."""

    inputs: tuple[SignatureEntry, ...] = Field(
        default=(), description="Input columns in the model's order, for a model that does not name them."
    )
    outputs: tuple[SignatureEntry, ...] = Field(
        default=(), description="Outputs in the model's order, where it states none or others than it returns."
    )


class ModelSettings(_Settings):
    """Which model scores, and how it is called."""

    name: Name = Field(description="Registered name, or a models:/ or runs:/ URI, or the folder of an MLflow model.")
    version: Annotated[str | None, BeforeValidator(_version_text)] = Field(
        default=None,
        description="Version number, stage (Production) or alias (@champion) of a registered name; "
        "null where the name says it or is a URI or a folder.",
    )
    environment: Annotated[Literal["local", "uv", "virtualenv", "conda"], not_built("local", "uv")] = Field(
        default="local",
        description="Python environment the model runs in: local is the one that batchscore runs in, uv one with the "
        "model's own requirements, made once for each machine. virtualenv and conda are not built.",
    )
    signature: SignatureSettings | None = Field(
        default=None,
        description="What the model's own signature leaves open: {inputs: [{name: amount, type: double}, ...], "
        "outputs: [{type: double}]}; null: nothing.",
    )
    params: dict[str, JsonValue] = Field(
        default={}, description="Inference parameters that the model's signature declares, by name."
    )
    challengers: Annotated[Names, not_built(())] = Field(
        default=(), description="Further models to score beside this one. Not built yet."
    )

    @property
    def requested(self) -> str:
        """The model as ``--model`` would name it.

        >>> ModelSettings(name="fraud", version="7").requested, ModelSettings(name="fraud", version="@best").requested
        ('fraud/7', 'fraud@best')
        """
        if self.version is None:
            return self.name
        return f"{self.name}{self.version}" if self.version.startswith("@") else f"{self.name}/{self.version}"


class InputSettings(_Settings):
    """Which rows are scored."""

    path: Name = Field(description="Path, URI (file, s3, gs, abfss, hdfs) or catalog table name.")
    format: Literal["auto", "parquet", "delta", "catalog"] = Field(
        default="auto", description="How the input is stored; auto looks."
    )
    version: Annotated[int | str, BeforeValidator(_input_version)] = Field(
        default="latest", description="Delta version or timestamp (ISO 8601, UTC where it names no zone) to read."
    )
    partitions: dict[Name, PartitionValues] = Field(
        default={},
        description="Values to take, by partition column, as they stand in the path; "
        f"null or {NULL_PARTITION} is the null partition. Empty: all.",
    )
    where: str | None = Field(default=None, description="Spark SQL condition on the input's columns; null: all rows.")


class OutputSettings(_Settings):
    """Where predictions go."""

    path: Name = Field(description="Path or URI of the prediction table; it is made when it does not exist.")
    format: Literal["delta", "parquet"] = Field(
        default="delta",
        description="Format of the prediction table: Delta, or Parquet files with one pointer file that says which of "
        "them count.",
    )
    mode: Literal["partitions", "replace", "append"] = Field(
        default="partitions",
        description="What a run replaces: the partitions that it scored, the whole table, or nothing.",
    )
    keys: Names = Field(
        default=(),
        description="Columns that identify a row, checked to be unique and not null. "
        "Empty: every input column is carried.",
    )
    carry: Names = Field(
        default=(), description="Input columns to keep beside the keys and the prediction; ['*'] keeps all."
    )
    partition_by: Names | None = Field(
        default=None, description="Partition columns of the prediction table; null: as the input is laid out."
    )
    retention_days: int = Field(
        default=30, ge=1, description="Days for which older versions of the prediction table stay readable."
    )


class ParitySettings(_Settings):
    """How far a faster engine may be from the registered model before it is refused."""

    max_abs_diff: float = Field(
        default=1.0e-5, ge=0, allow_inf_nan=False, description="Largest absolute difference of a prediction."
    )
    label_flips: int = Field(default=0, ge=0, description="Probe rows whose label, or most probable class, may differ.")


Engine: TypeAlias = Literal["auto", "pyfunc", "native", "onnx", "compiled", "onedal", "sparkml"]


class ScoringSettings(_Settings):
    """How rows are scored."""

    runner: Literal["spark", "local"] = Field(
        default="spark", description="Who runs the tasks: Spark, or processes of this machine without a JVM."
    )
    engine: Engine = Field(
        default="auto",
        description="What computes predictions; auto takes the fastest engine that proved the registered model's "
        "scores, pyfunc where none did.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Processor that the engine uses: cuda is an NVIDIA GPU, for engine onnx; auto takes one where "
        "there is one and it is faster.",
    )
    batch_rows: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)] = Field(
        default="auto", description="Rows for each call of the model; bounds a worker's memory."
    )
    on_new_model: Literal["new_units", "all"] = Field(
        default="new_units",
        description="What a new model version scores of partitions that the command does not name: "
        "new and changed ones, or all.",
    )
    outputs: Annotated[Names, not_built(("prediction",), ("prediction", "probability"))] = Field(
        default=("prediction",),
        description="Which outputs to write: [prediction], or [prediction, probability] for a classifier whose own "
        "predict gives labels (engine native).",
    )
    parity: ParitySettings = Field(
        default=ParitySettings(), description="How far a faster engine may be from the registered model."
    )


RuleBound: TypeAlias = Annotated[int | float | str | None, BeforeValidator(_bound)]
RuleValue: TypeAlias = Annotated[bool | int | float | str, BeforeValidator(_bound)]


class RuleSettings(_Settings):
    """What each row must meet; one that does not is quarantined. Null meets every rule but ``required``."""

    name: Name | None = Field(default=None, description="What the quarantine calls the rule; null: made from the rule.")
    column: Name | None = Field(default=None, description="Column of the input, or a prediction, that the rule reads.")
    required: bool = Field(default=False, description="The column may not be null.")
    range: tuple[RuleBound, RuleBound] | None = Field(
        default=None, description="Smallest and largest value; null leaves an end open. NaN lies outside."
    )
    allowed: Annotated[tuple[RuleValue, ...], Field(min_length=1)] | None = Field(
        default=None, description="The values that the column may have."
    )
    regex: Name | None = Field(
        default=None, description="Regular expression (RE2) to be found in the text; ^ and $ anchor it."
    )
    sql: Name | None = Field(default=None, description="Spark SQL condition on the row, instead of a column.")

    @model_validator(mode="after")
    def _says_something(self) -> RuleSettings:
        of_column = self.required or any(value is not None for value in (self.range, self.allowed, self.regex))
        if (self.sql is None) == (self.column is None) or of_column != (self.column is not None):
            raise PydanticCustomError(
                "rule", "should hold a column with required, range, allowed or regex, or else a condition in sql"
            )
        if self.range == (None, None):
            raise PydanticCustomError("rule", "should have a range with one end at least")
        return self


class QuarantineSettings(_Settings):
    """What happens to rows that cannot be scored, break a rule, or get no sound prediction."""

    max_fraction: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Fraction of the rows that may be quarantined; above it nothing is published.",
    )
    max_rows: int | None = Field(
        default=None, ge=0, description="Rows that may be quarantined, whatever their fraction; null: no further limit."
    )
    rules: tuple[RuleSettings, ...] = Field(
        default=(),
        description="What each row must meet: {column: amount, range: [0, 10000]}, {column: id, required: true}, "
        "{column: country, allowed: [DE, FR]}, {column: iban, regex: '^[A-Z]{2}'}, {sql: 'amount > 0 OR refund'}.",
    )


class DriftSettings(_Settings):
    """How far the input may have moved. Other values are not built yet."""

    reference: Annotated[str, not_built("previous")] = Field(
        default="previous", description="Run to compare with. Not built yet."
    )
    psi_max: Annotated[float, not_built(0.2)] = Field(
        default=0.2, ge=0, description="Largest population stability index of a column. Not built yet."
    )


class ValidationSettings(_Settings):
    """What the staged output must satisfy before it is published."""

    suite: Name | None = Field(
        default=None, description="Path of a Great Expectations suite (JSON); null: the built-in checks alone."
    )
    drift: DriftSettings = Field(default=DriftSettings(), description="How far the input may have moved.")


class SparkSettings(_Settings):
    """The Spark session."""

    master: Name = Field(
        default="local[*]", description="Spark master; a session that exists, as under spark-submit, keeps its own."
    )
    conf: dict[Name, str] = Field(default={}, description="Spark properties, by their full names.")


class RegistrySettings(_Settings):
    """The MLflow registry."""

    tracking_uri: Name = Field(
        default="sqlite:///mlruns.db", description="MLflow tracking URI of the registry that knows the model."
    )
    allowed_paths: Names = Field(
        default=(),
        description="Folders whose models are loaded though they hold code (pickles); without one, a model folder "
        "beside the registry is loaded only where all of it is data: ONNX, LightGBM and XGBoost in their own formats.",
    )


class JobConfig(_Settings):
    """All settings of one job."""

    model: ModelSettings = Field(description="Which model scores, and how it is called.")
    input: InputSettings = Field(description="Which rows are scored.")
    output: OutputSettings = Field(description="Where predictions go.")
    scoring: ScoringSettings = Field(default=ScoringSettings(), description="How rows are scored.")
    quarantine: QuarantineSettings = Field(
        default=QuarantineSettings(), description="What happens to rows that cannot be scored."
    )
    validation: ValidationSettings = Field(
        default=ValidationSettings(), description="What the staged output must satisfy before it is published."
    )
    spark: SparkSettings = Field(default=SparkSettings(), description="The Spark session.")
    registry: RegistrySettings = Field(default=RegistrySettings(), description="The MLflow registry.")
    schedule: Annotated[str | None, AfterValidator(_schedule)] = Field(
        default=None,
        description="When Airflow runs the job: a cron expression in UTC or a preset such as @daily; null: never.",
    )
    start_date: dt.date | None = Field(
        default=None, description="First day that Airflow runs the job for, YYYY-MM-DD; null: from now on."
    )
    max_active_runs: int = Field(default=1, ge=1, description="Dates that Airflow scores at once.")
    retries: int = Field(default=3, ge=0, description="How often Airflow retries a run that ended with exit code 7.")
    retry_delay_minutes: float = Field(
        default=5.0, ge=0, description="Minutes before Airflow's first retry; each further one waits twice as long."
    )
