"""The run, in order: plan, score, validate, publish, record.

This is the one place where the order of steps stands; each step is a room of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchscore import (
    engines,
    manifests,
    publish,
    record,
    runners,
    sampling,
    score,
    selection,
    session,
    staging,
    validate,
)
from batchscore.arrow.reach import storage_failure
from batchscore.config import JobConfig, redacted
from batchscore.contracts import (
    VERSION,
    Manifest,
    ManifestUnit,
    Receipt,
    RunOptions,
    RunRecord,
    RunState,
    ScoringPlan,
    StagedFile,
    StagedOutput,
    UnitValues,
    Verdict,
)
from batchscore.errors import (
    MAX_ITEMS,
    BatchscoreError,
    FencedOutError,
    UnsureError,
    ValidationRefused,
    bounded,
    listed,
)
from batchscore.plan.splitting import joined
from batchscore.plan.units import derived_unit_key, is_live
from batchscore.prepare import LazySpark, Moment, OnEvent, make_plan

MANIFEST_FORMAT = 1
INTERRUPTED_EXIT_CODE = 130


def plan(config: JobConfig, options: RunOptions, on_event: OnEvent = lambda _: None) -> ScoringPlan:
    """What :func:`run` would do; reads no data row and writes nothing.

    Raises:
        BatchscoreError: of the kind that says why a run is not possible.
    """
    _check_suite_file(config)
    planned = make_plan(config, options, LazySpark(config, on_event))
    _check_suite_columns(config, planned)
    return planned


def run(config: JobConfig, options: RunOptions, on_event: OnEvent = lambda _: None) -> RunRecord:
    """Scores what the settings name and publishes it, or refuses to.

    Returns:
        The ledger's row of the run; its state is ``published`` or ``skipped``.

    Raises:
        BatchscoreError: of the kind that says why nothing was published.
    """
    started = time.perf_counter()
    try:
        return _run(config, options, on_event, started)
    finally:
        runners.end_spares()


def _run(config: JobConfig, options: RunOptions, on_event: OnEvent, started: float) -> RunRecord:
    _check_suite_file(config)
    if config.scoring.runner == "local":
        runners.start_ahead(score.__name__)
    spark = LazySpark(config, on_event)
    on_event({"event": "stage", "stage": "plan", "text": f"{config.model.requested} on {config.input.path}"})
    planned = make_plan(config, options, spark)
    _check_suite_columns(config, planned)
    for notice in planned.notices:
        on_event({"event": "notice", "text": notice})
    attempt = _Attempt(config, planned, spark, on_event, started)
    if planned.nothing_to_do:
        return attempt.end("skipped", message=_why_nothing(planned))
    try:
        attempt.choose_engine()
        return _carry_out(attempt)
    except BatchscoreError as error:
        attempt.end(_state_of(error), exit_code=error.exit_code, message=error.problem, detail=error.text())
        raise
    except KeyboardInterrupt:
        attempt.end("interrupted", exit_code=INTERRUPTED_EXIT_CODE, message="interrupted")
        raise
    except Exception as error:
        failure = storage_failure(error)
        if failure is not None:
            attempt.end("failed", exit_code=failure.exit_code, message=failure.problem, detail=failure.text())
            raise failure from error
        attempt.end("failed", exit_code=BatchscoreError.exit_code, message=bounded(f"{type(error).__name__}: {error}"))
        raise


@dataclass
class _Attempt:
    """One run under way: what it knows so far, for the ledger."""

    config: JobConfig
    plan: ScoringPlan
    spark: LazySpark
    on_event: OnEvent
    started: float
    rows_read: int = 0
    peak_worker_bytes: int = 0
    selected: selection.Selection | None = None

    def choose_engine(self) -> None:
        """Puts the engine that will score into the plan; proves and measures engines where nobody has yet."""
        planned, scoring = self.plan, self.config.scoring
        if planned.task.engine == engines.SPARKML:
            self.spark()  # the pipeline lives in the session
        prover = selection.Prover(
            planned.model,
            selection.Allowed(scoring.parity.max_abs_diff, scoring.parity.label_flips),
            sample=lambda: sampling.sample(planned, self.spark),
            created_at=planned.created_at,
            on_event=self.on_event,
            device=scoring.device,
            tracking_uri=self.config.registry.tracking_uri,
        )
        chosen = selection.select(
            scoring.engine,
            prover,
            environment=self.config.model.environment,
            rows=planned.most_rows,
            cores=planned.cores,
            beside=engines.PROBABILITY in scoring.outputs,
        )
        if chosen.notice:
            self.on_event({"event": "notice", "text": chosen.notice})
        planned = selection.with_engine(planned, chosen, scoring.batch_rows)
        if chosen.measurement is not None:
            tasks = joined(planned.tasks, cores=planned.cores, rows_per_second=chosen.measurement.rows_per_second)
            planned = replace(planned, tasks=tasks)
        self.selected, self.plan = chosen, planned

    def stage(self, name: str, text: str) -> None:
        self.on_event({"event": "stage", "stage": name, "text": text})

    def end(
        self, state: RunState, *, receipt: Receipt | None = None, exit_code: int = 0, message: str, detail: str = ""
    ) -> RunRecord:
        """Writes the run's row into the ledger; a ledger that cannot be written does not undo the run."""
        planned, published = self.plan, receipt.published if receipt else ()
        row = RunRecord(
            run_id=planned.run_id,
            state=state,
            started_at=planned.created_at,
            ended_at=Moment.now().iso(),
            model_name=planned.model.name,
            model_version=planned.model.version,
            model_digest=planned.model.digest,
            source_uri=planned.source.uri,
            source_version=planned.source.version,
            source_snapshot=planned.source.snapshot,
            table=planned.target.uri,
            table_version=receipt.version if receipt else -1,
            mode=planned.mode,
            units_published=len(published),
            units_live=sum(unit.action != "score" for unit in planned.units) + len(receipt.dropped if receipt else ()),
            rows_read=self.rows_read,
            rows=sum(unit.rows for unit in published),
            engine=planned.task.engine,
            runner=self.config.scoring.runner,
            seconds=round(time.perf_counter() - self.started, 3),
            exit_code=exit_code,
            message=message,
            detail=detail,
            peak_worker_bytes=self.peak_worker_bytes,
        )
        try:
            record.append(planned.target.uri, row)
        except (BatchscoreError, OSError) as error:
            self.on_event({"event": "notice", "text": f"the ledger could not be written: {error}"})
        return row


def _carry_out(attempt: _Attempt) -> RunRecord:
    planned = attempt.plan
    publish.prepare(planned.target.uri)
    suite = attempt.config.validation.suite
    if suite is not None:
        validate.warm()  # its import takes seconds: beside scoring it costs none
    try:
        staged = _staged(attempt)
        verdict = _judged(attempt, staged)
        attempt.stage("publish", planned.target.uri)
        manifest = _manifest(attempt, staged, verdict)
        manifests.write(planned.target.uri, manifest)
        receipt = publish.commit(planned, staged, manifest, is_live=is_live)
    except UnsureError:
        raise  # its commit may still land: only who fences the run first may delete what it staged
    except BaseException:
        publish.discard_run(planned.target.uri, planned.run_id)
        raise
    attempt.stage("record", f"{planned.target.uri}__runs")
    if receipt.version < 0:
        return attempt.end("skipped", receipt=receipt, message="another run published the same content meanwhile")
    return attempt.end(
        "published", receipt=receipt, message=f"{staged.rows_staged:,} rows as version {receipt.version}"
    )


def _staged(attempt: _Attempt) -> StagedOutput:
    if attempt.config.scoring.runner == "spark":
        # Workers read and write splits themselves: Spark needs no Delta for that, and computes nothing.
        judges = validate.may_need_spark(attempt.plan, attempt.config.validation.suite)
        use: session.Use = "delta" if attempt.plan.route != "splits" else "sql" if judges else "tasks"
        attempt.spark(use=use, task=attempt.plan.task)
    attempt.stage("score", f"run {attempt.plan.run_id}: {_amount(attempt.plan)}")
    staged = staging.Staging(attempt.config.scoring.runner, attempt.spark, attempt.on_event).fill(attempt.plan)
    attempt.rows_read, attempt.peak_worker_bytes = staged.rows_read, staged.peak_worker_bytes
    staging.refuse_bad_rows(staged)
    return staged


def _judged(attempt: _Attempt, staged: StagedOutput) -> Verdict:
    attempt.stage("validate", f"{staged.rows_staged:,} rows in {len(staged.files)} files")
    spark = attempt.spark if attempt.config.scoring.runner == "spark" else None
    verdict = validate.judge(attempt.plan, staged, suite=attempt.config.validation.suite, spark=spark)
    _refuse_failed(verdict)
    return verdict


def _check_suite_file(config: JobConfig) -> None:
    if config.validation.suite is not None:
        validate.load_suite(config.validation.suite)


def _check_suite_columns(config: JobConfig, planned: ScoringPlan) -> None:
    if config.validation.suite is not None:
        names = [column.name for column in planned.task.columns]
        validate.check_columns(validate.load_suite(config.validation.suite), names)


def _refuse_failed(verdict: Verdict) -> None:
    if verdict.passed:
        return
    detail = []
    for check in verdict.failed[:MAX_ITEMS]:
        sample = f"; for example {listed(check.sample)}" if check.sample else ""
        detail.append(f"{check.name}: {check.observed} ({check.unexpected:,} unexpected){sample}")
    raise ValidationRefused(
        f"{len(verdict.failed)} of {len(verdict.checks)} checks failed; nothing was published",
        detail=detail,
        hint="mend the input or the model, or change the suite if what it expects is no longer true",
    )


def _manifest(attempt: _Attempt, staged: StagedOutput, verdict: Verdict) -> Manifest:
    planned, model = attempt.plan, attempt.plan.model
    return Manifest(
        format_version=MANIFEST_FORMAT,
        run_id=planned.run_id,
        created_at=planned.created_at,
        batchscore_version=VERSION,
        model_name=model.name,
        model_version=model.version,
        model_uri=model.uri,
        model_digest=model.digest,
        source_uri=planned.source.uri,
        source_kind=planned.source.kind,
        source_version=planned.source.version,
        source_snapshot=planned.source.snapshot,
        source_key=planned.source_key,
        settings_digest=planned.settings_digest,
        settings=redacted(attempt.config),
        engine=planned.task.engine,
        runner=attempt.config.scoring.runner,
        mode=planned.mode,
        rows_read=staged.rows_read,
        rows_staged=staged.rows_staged,
        units=_units(planned, staged.files),
        checks=verdict.checks,
        certificate=attempt.selected.certificate if attempt.selected else None,
        measurement=attempt.selected.measurement if attempt.selected else None,
    )


def _units(planned: ScoringPlan, files: Sequence[StagedFile]) -> tuple[ManifestUnit, ...]:
    """What the run offers: the planned units, or those found while scoring, with the rows that were staged."""
    rows: dict[UnitValues, int] = {}
    for file in files:
        rows[file.unit] = rows.get(file.unit, 0) + file.rows
    if planned.units_known:
        return tuple(ManifestUnit(unit.values, unit.key, rows.get(unit.values, 0)) for unit in planned.to_score)
    return tuple(
        ManifestUnit(values, derived_unit_key(planned.source_key, values), count)
        for values, count in sorted(rows.items(), key=str)
    )


def _amount(planned: ScoringPlan) -> str:
    rows = f"{planned.expected_rows:,} rows" if planned.expected_rows >= 0 else "rows"
    units = f" in {len(planned.to_score)} units" if planned.units_known else ""
    return f"{rows}{units}, {planned.task.engine} engine, {planned.route} route"


def _why_nothing(planned: ScoringPlan) -> str:
    live = [unit for unit in planned.units if unit.action == "live"]
    older = len(planned.units) - len(live)
    text = f"nothing to do: {len(live)} units are already published"
    runs = sorted({run for unit in live for run, _ in unit.before.runs})
    if runs:
        text += f" by run {listed(runs, 3)}"
    return text + (f", {older} stay published by an older model version" if older else "")


def _state_of(error: BatchscoreError) -> RunState:
    if isinstance(error, ValidationRefused):
        return "refused"
    return "fenced" if isinstance(error, FencedOutError) else "failed"
