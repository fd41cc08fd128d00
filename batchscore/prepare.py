"""What comes before any run: the model, the source and the target are pinned, and the plan is made of them."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore import engines, faults, models, publish, read, record, runners, s3, score, selection, session
from batchscore.arrow.reach import require_reachable
from batchscore.config import JobConfig
from batchscore.config.settings import NULL_PARTITION
from batchscore.contracts import (
    PREDICTION,
    Column,
    PinnedModel,
    PinnedSource,
    Replay,
    Restriction,
    Rule,
    RunOptions,
    ScoringPlan,
    ScoringTask,
    TargetState,
)
from batchscore.engines import cuda
from batchscore.errors import SettingsError
from batchscore.plan import PlanInputs, dates, make
from batchscore.plan.columns import prediction_columns
from batchscore.plan.units import units_of
from batchscore.processors import usable_cores

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OnEvent = Callable[[Mapping[str, object]], None]
RUNS_TO_ESTIMATE_FROM = 20
PROBABILITY, NATIVE = engines.PROBABILITY, engines.NATIVE


class LazySpark:
    """Starts the session when it is first called for: what planning finds wrong starts no JVM.

    Args:
        config: names master and properties.
        on_event: is told when jars are being fetched.
    """

    def __init__(self, config: JobConfig, on_event: OnEvent) -> None:
        self._config = config
        self._on_event = on_event
        self._session: SparkSession | None = None

    def __call__(self, *, use: session.Use = "delta", task: ScoringTask | None = None) -> SparkSession:
        """The session.

        Args:
            use: where it is to be started, what Spark itself will do.
            task: what it will be started for, where that is known: its workers load the model meanwhile.
        """
        if self._session is None:
            self._on_event({"event": "stage", "stage": "session", "text": f"Spark on {self._config.spark.master}"})
            access = s3.shipped_environment(self._config.input.path, self._config.output.path)
            self._session = session.start(
                self._config.spark.master,
                self._conf(use),
                use=use,
                on_context=runners.warming(score.__name__, score.load_ahead, task, access),
                on_notice=self._notice,
            )
            runners.give_environment(self._session.sparkContext, access)  # a session that was there has not got it yet
        return self._session

    def _notice(self, text: str) -> None:
        self._on_event({"event": "notice", "text": text})

    def _conf(self, use: session.Use) -> Mapping[str, str]:
        """The settings' properties, with what Spark needs to read S3 itself where it is going to."""
        config = self._config
        judges = config.validation.suite is not None  # Spark may read what was staged for it
        read = [config.input.path, *([config.output.path] if judges else [])]
        if use == "tasks" or not any(s3.is_s3(path) for path in read):
            return config.spark.conf
        return session.with_s3(config.spark.conf, self._notice)


@dataclass(frozen=True, slots=True)
class Moment:
    """The time that a run begins; everything that a run dates comes from it."""

    at: dt.datetime

    @classmethod
    def now(cls) -> Moment:
        """This moment, in UTC."""
        return cls(dt.datetime.now(dt.UTC))

    def iso(self) -> str:
        """ISO 8601 in UTC, to the millisecond."""
        return self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def microseconds(self) -> int:
        """µs since the epoch."""
        return (self.at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)

    def run_id(self) -> str:
        """A name for a run that sorts by time: 24 characters, the last eight random."""
        return f"{self.at:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Ready:
    """What a command that makes many runs has at hand for each of them, so that none looks it up or starts it again.

    Attributes:
        spark: one session for all.
        model: pinned once.
        source: pinned once, with the files of all runs; each takes the partitions that its settings name.
        backfill: what the ledger's rows of these runs have in common.
        rows: rows of all runs together, -1 where unknown: by these ``auto`` chooses the engine.
        at_a_time: runs under way at once; they share this machine's cores.
        local: worker processes that outlive a run, where the local runner scores.
    """

    spark: LazySpark
    model: PinnedModel
    source: PinnedSource
    backfill: str = ""
    rows: int = -1
    at_a_time: int = 1
    local: runners.LocalRunner | None = None


def make_plan(config: JobConfig, options: RunOptions, spark: LazySpark, ready: Ready | None = None) -> ScoringPlan:
    """Pins model, source and target and plans the run; reads no data row, writes nothing.

    Args:
        config: the settings.
        options: what the command asks for beside them.
        spark: started where planning needs it.
        ready: what is pinned already.

    Raises:
        BatchscoreError: the model, the input, the target or the settings do not allow a run.
    """
    moment = Moment.now()
    model = pin_model(config) if ready is None else ready.model
    faults.reached("model.pinned")
    _refuse_engine(config, model)
    source, restriction = pin_source(config, spark) if ready is None else _part_of(ready.source, config)
    faults.reached("source.pinned")
    source, outside = _recent(source, config, options, moment)
    refuse_output_inside_input(config.output.path, source)
    # Executors work in folders of their own: what they stage must not depend on the driver's.
    require_reachable(config.output.path, "output")
    names = partition_by(config, source)
    wanted = units_of(source.files, names) if set(names) <= set(source.partition_columns) else ()
    target = publish.inspect(absolute(config.output.path), config.output.format, wanted)
    local = config.scoring.runner == "local"
    cores = usable_cores() if local else session.cores(config.spark.master, config.spark.conf)
    if local and ready is not None:
        cores = max(1, cores // ready.at_a_time)
    plan = make(
        PlanInputs(
            config=config,
            run_id=moment.run_id(),
            created_at=moment.iso(),
            scored_at=moment.microseconds(),
            model=model,
            source=source,
            restriction=restriction,
            target=target,
            engine=config.scoring.engine,
            cores=cores,
            force=options.force,
            evolve_schema=options.evolve_schema,
            in_spark=engines.scores_in_spark(model),
            rules=_rules(config, model, source),
            replay=_replay(config, options.replay, model, source, target),
            units_outside=outside,
        )
    )
    publish.check_target(target, plan.task.columns, plan.task.partition_by, evolve_schema=options.evolve_schema)
    publish.check_removal(plan)
    engine = _foreseen(config, plan)
    device, reason = _device(config, engine)
    plan = replace(plan, task=replace(plan.task, engine=engine), device=device, device_reason=reason)
    return replace(plan, estimated_seconds=_estimated_seconds(plan, config.scoring.runner)) if target.exists else plan


def _rules(config: JobConfig, model: PinnedModel, source: PinnedSource) -> tuple[Rule, ...]:
    if not config.quarantine.rules:
        return ()
    beside = tuple(name for name in config.scoring.outputs if name != PREDICTION)
    outputs = tuple(Column(column.name, column.type) for column in prediction_columns(model, beside))
    return read.compile_rules(config.quarantine.rules, source.columns, outputs)


def _replay(
    config: JobConfig, run_id: str, model: PinnedModel, source: PinnedSource, target: TargetState
) -> Replay | None:
    """The rows that a run left out, and by which columns they are found again."""
    if not run_id:
        return None
    if not config.output.keys:
        raise SettingsError(
            "a replay finds rows by their keys, and output.keys names none",
            hint="score the input again instead: batchscore run --force",
        )
    head = target.manifests.get(run_id)
    if head is not None and head.model_digest != model.digest:
        raise SettingsError(
            f"the model of run {run_id} is another one by now",
            found=f"digest {model.digest[:12]} instead of {head.model_digest[:12]}",
            hint="score its units again by the new one: batchscore run",
        )
    types = {column.name: column for column in source.columns}
    names = dict.fromkeys((*config.output.keys, *target.partition_by))
    return Replay(
        run_id=run_id,
        keys=tuple(types[name] for name in names if name in types),
        files=record.quarantine.files_of(target.uri, run_id),
        uri=record.quarantine.quarantine_uri(target.uri),
        units=record.quarantine.units_of(target.uri, run_id, target.partition_by),
    )


def _refuse_engine(config: JobConfig, model: PinnedModel) -> None:
    """Refuses an engine that can never serve the model; what only a proof tells comes later."""
    in_spark = engines.scores_in_spark(model)
    if in_spark and (config.scoring.runner != "spark" or config.model.environment != "local"):
        raise SettingsError(
            "a Spark ML pipeline is scored by Spark's own transform",
            found=f"scoring.runner {config.scoring.runner}, model.environment {config.model.environment}",
            allowed=("scoring.runner spark with model.environment local",),
        )
    if config.model.environment != "local":
        if config.scoring.engine not in (engines.AUTO, engines.REFERENCE):
            raise SettingsError(
                "in an environment of its own the registered model itself is the engine",
                found=f"model.environment {config.model.environment} with scoring.engine {config.scoring.engine}",
                allowed=(engines.AUTO, engines.REFERENCE),
            )
    elif PROBABILITY in config.scoring.outputs:
        if config.scoring.engine not in (engines.AUTO, NATIVE):
            raise SettingsError(
                "only one engine gives a label and its probability",
                found=f"scoring.outputs with {PROBABILITY} and scoring.engine {config.scoring.engine}",
                allowed=(engines.AUTO, NATIVE),
            )
    elif config.scoring.engine != engines.AUTO:
        engines.choose(config.scoring.engine, model)
    if config.scoring.device == "cuda":
        _refuse_gpu(config, model, in_spark=in_spark)


def _refuse_gpu(config: JobConfig, model: PinnedModel, *, in_spark: bool) -> None:
    """Refuses ``scoring.device: cuda`` where nothing of this run, or of this machine, could use a GPU."""
    asked = engines.on_device(config.scoring.engine, config.scoring.device)
    other = engines.SPARKML if in_spark else NATIVE if PROBABILITY in config.scoring.outputs else ""
    if other or config.model.environment != "local":
        raise SettingsError(
            "scoring.device cuda is for engine onnx, which this run cannot use",
            found=f"engine {other}" if other else f"model.environment {config.model.environment}",
            hint="leave scoring.device out",
        )
    cuda.require()
    engines.choose(asked, model)


def _foreseen(config: JobConfig, plan: ScoringPlan) -> str:
    parity = config.scoring.parity
    return selection.foreseen(
        config.scoring.engine,
        selection.Prover(
            plan.model,
            selection.Allowed(parity.max_abs_diff, parity.label_flips),
            sample=lambda: None,
            created_at=plan.created_at,
            device=config.scoring.device,
        ),
        environment=config.model.environment,
        rows=plan.most_rows,
        cores=plan.cores,
        beside=PROBABILITY in config.scoring.outputs,
    )


def _device(config: JobConfig, engine: str) -> tuple[str, str]:
    """Where the run computes, ``auto`` where that is not decided yet, and why not on a GPU where one was welcome."""
    if engine == engines.CUDA:
        return "cuda", ""
    if config.scoring.device == "cpu":
        return "cpu", ""
    reason = cuda.missing() or ""
    return ("cpu" if reason or engine != engines.AUTO else "auto"), reason


def _estimated_seconds(plan: ScoringPlan, runner: str) -> float:
    """Seconds for the rows to score, by the speed of the last published run on the same runner."""
    if plan.expected_rows < 0:
        return -1.0
    for run in record.history(plan.target.uri, RUNS_TO_ESTIMATE_FROM):
        if run.state == "published" and run.runner == runner and run.rows:
            return plan.expected_rows * run.seconds / run.rows
    return -1.0


def pin_model(config: JobConfig, *, digest: str = "", recorded: bool = False) -> PinnedModel:
    """The settings' model, resolved to exact files.

    Args:
        config: the settings.
        digest: of the files that scored a run, which others must not be taken for; '' where any will do.
        recorded: whether a record that somebody may have forged says where the registry is.

    Raises:
        ModelError: unknown or damaged, or of another digest.
        SettingsError: it holds code, and is neither of the operator's registry nor below an allowed path.
        UnavailableError: the registry cannot be reached.
    """
    signature = config.model.signature
    model = models.pin(
        config.model.requested,
        tracking_uri=config.registry.tracking_uri,
        signature=signature.model_dump(mode="json", exclude_unset=True) if signature is not None else None,
        params=config.model.params,
        trust=models.Trust(config.registry.allowed_paths, config.model.environment != "local", recorded),
        digest=digest,
    )
    return engines.with_probability(model) if PROBABILITY in config.scoring.outputs else model


def pin_source(
    config: JobConfig, spark: LazySpark, *, without_unreadable: bool = False
) -> tuple[PinnedSource, Restriction]:
    """The settings' input at one version, restricted to the rows that the settings name.

    Args:
        config: the settings.
        spark: gives a session where the input is a table of Spark's catalog.
        without_unreadable: leave damaged files out and name them in the source.

    Raises:
        InputError: missing, empty or unreadable.
        SettingsError: a partition or predicate that does not fit the input.
    """
    partitions = _partitions(config)
    source = read.pin(
        config.input.path,
        format=config.input.format,
        version=str(config.input.version),
        restriction=Restriction(partitions=tuple(partitions.items())),
        spark=spark if config.scoring.runner == "spark" else None,
        without_unreadable=without_unreadable,
    )
    restriction = read.restriction(partitions, config.input.where, source)
    return read.met(source, restriction), restriction


def _partitions(config: JobConfig) -> dict[str, tuple[str | None, ...]]:
    return {
        name: tuple(None if value == NULL_PARTITION else value for value in values)
        for name, values in config.input.partitions.items()
    }


def _part_of(source: PinnedSource, config: JobConfig) -> tuple[PinnedSource, Restriction]:
    """The part of a pinned input that the settings name."""
    partitions = _partitions(config)
    part = read.narrowed(source, partitions)
    restriction = read.restriction(partitions, config.input.where, part)
    return read.met(part, restriction), restriction


def partition_by(config: JobConfig, source: PinnedSource) -> tuple[str, ...]:
    """The output's partition columns: the settings', or those that the input is laid out by."""
    asked = config.output.partition_by
    return source.partition_columns if asked is None else tuple(asked)


def _recent(source: PinnedSource, config: JobConfig, options: RunOptions, moment: Moment) -> tuple[PinnedSource, int]:
    """The files of the dates that the command looks at, and how many units lie outside."""
    if options.changed_since_hours is None:
        return source, 0
    columns = partition_by(config, source)
    column = dates.date_column(source, columns, options.date_column)
    dates.refuse_replace(config.output.mode)
    oldest = dates.first_recent(options.changed_since_hours, moment.at)
    kept = [date for date in dates.dates_of(source, column) if date >= oldest]
    return read.only_dates(source, column, kept), dates.units_outside(source, columns, column, kept)


def refuse_output_inside_input(output: str, source: PinnedSource) -> None:
    """Refuses an output that the next run would read as its input, and an input inside the output.

    Raises:
        SettingsError: naming both.
    """
    if source.kind == "catalog":
        return
    inner, outer = _resolved(output), _resolved(source.uri)
    if inner == outer or inner.startswith(f"{outer}/") or outer.startswith(f"{inner}/"):
        raise SettingsError(
            "input and output lie inside each other",
            found=f"input {source.uri}, output {output}",
            hint="put the output beside the input, for example under predictions/",
        )


def absolute(uri: str) -> str:
    """A local path made absolute; another URI as it is.

    >>> absolute("s3://bucket/scores"), absolute("file:///data/scores")
    ('s3://bucket/scores', '/data/scores')
    """
    if uri.startswith("file:"):
        uri = uri.removeprefix("file://").removeprefix("file:")
    return uri if "://" in uri else str(Path(uri).absolute())


def _resolved(uri: str) -> str:
    if s3.is_s3(uri):
        return s3.path_of(uri)
    return uri.rstrip("/") if "://" in uri else str(Path(absolute(uri)).resolve())
