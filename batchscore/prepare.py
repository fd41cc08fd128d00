"""What comes before any run: the model, the source and the target are pinned, and the plan is made of them."""

from __future__ import annotations

import datetime as dt
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore import engines, models, publish, read, record, runners, score, selection, session
from batchscore.config import JobConfig
from batchscore.config.settings import NULL_PARTITION
from batchscore.contracts import PinnedModel, PinnedSource, Restriction, RunOptions, ScoringPlan, ScoringTask
from batchscore.engines import cuda
from batchscore.errors import SettingsError
from batchscore.plan import PlanInputs, make

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
            self._session = session.start(
                self._config.spark.master,
                self._config.spark.conf,
                use=use,
                on_context=runners.warming(score.__name__, score.load_ahead, task),
                on_notice=lambda text: self._on_event({"event": "notice", "text": text}),
            )
        return self._session


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


def make_plan(config: JobConfig, options: RunOptions, spark: LazySpark) -> ScoringPlan:
    """Pins model, source and target and plans the run; reads no data row, writes nothing.

    Raises:
        BatchscoreError: the model, the input, the target or the settings do not allow a run.
    """
    moment = Moment.now()
    model = pin_model(config)
    _refuse_engine(config, model)
    source, restriction = pin_source(config, spark)
    refuse_output_inside_input(config.output.path, source)
    # Executors work in folders of their own: what they stage must not depend on the driver's.
    target = publish.inspect(absolute(config.output.path))
    local = config.scoring.runner == "local"
    cores = os.cpu_count() or 1 if local else session.cores(config.spark.master, config.spark.conf)
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
        )
    )
    publish.check_target(target, plan.task.columns, plan.task.partition_by, evolve_schema=options.evolve_schema)
    publish.check_removal(plan)
    engine = _foreseen(config, plan)
    device, reason = _device(config, engine)
    plan = replace(plan, task=replace(plan.task, engine=engine), device=device, device_reason=reason)
    return replace(plan, estimated_seconds=_estimated_seconds(plan, config.scoring.runner)) if target.exists else plan


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


def pin_model(config: JobConfig) -> PinnedModel:
    """The settings' model, resolved to exact files.

    Raises:
        ModelError: unknown or damaged.
        SettingsError: it lies in a folder that is not an allowed path, and holds code.
        UnavailableError: the registry cannot be reached.
    """
    signature = config.model.signature
    model = models.pin(
        config.model.requested,
        tracking_uri=config.registry.tracking_uri,
        signature=signature.model_dump(mode="json", exclude_unset=True) if signature is not None else None,
        params=config.model.params,
        trust=models.Trust(config.registry.allowed_paths, installs=config.model.environment != "local"),
    )
    return engines.with_probability(model) if PROBABILITY in config.scoring.outputs else model


def pin_source(config: JobConfig, spark: LazySpark) -> tuple[PinnedSource, Restriction]:
    """The settings' input at one version, restricted to the rows that the settings name.

    Raises:
        InputError: missing, empty or unreadable.
        SettingsError: a partition or predicate that does not fit the input.
    """
    partitions = {
        name: tuple(None if value == NULL_PARTITION else value for value in values)
        for name, values in config.input.partitions.items()
    }
    source = read.pin(
        config.input.path,
        format=config.input.format,
        version=str(config.input.version),
        restriction=Restriction(partitions=tuple(partitions.items())),
        spark=spark if config.scoring.runner == "spark" else None,
    )
    return source, read.restriction(partitions, config.input.where, source)


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
    return uri.rstrip("/") if "://" in uri else str(Path(absolute(uri)).resolve())
