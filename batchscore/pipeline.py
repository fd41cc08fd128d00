"""The run, in order: plan, score, validate, publish, record.

This is the one place where the order of steps stands; each step is a room of its own.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from batchscore import (
    engines,
    faults,
    leases,
    manifests,
    offer,
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
from batchscore.config import JobConfig
from batchscore.contracts import (
    Manifest,
    QuarantineLimits,
    Receipt,
    RunOptions,
    RunRecord,
    RunState,
    ScoringPlan,
    StagedOutput,
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
from batchscore.plan.units import is_live
from batchscore.prepare import LazySpark, Moment, OnEvent, Ready, make_plan

INTERRUPTED_EXIT_CODE = 130
# Runs of one process may be under way side by side. An engine is proved once for all of them, and Great Expectations
# has one context, and pandas one set of options, for the whole process.
_ONE_PROVES, _ONE_JUDGES = threading.Lock(), threading.Lock()


def plan(
    config: JobConfig, options: RunOptions, on_event: OnEvent = lambda _: None, ready: Ready | None = None
) -> ScoringPlan:
    """What :func:`run` would do; reads no data row and writes nothing.

    Args:
        config: the settings.
        options: what the command asks for beside them.
        on_event: receives notices.
        ready: what is pinned and started already.

    Raises:
        BatchscoreError: of the kind that says why a run is not possible.
    """
    _check_suite_file(config)
    planned = make_plan(config, options, ready.spark if ready else LazySpark(config, on_event), ready)
    _check_suite_columns(config, planned)
    return planned


def run(
    config: JobConfig, options: RunOptions, on_event: OnEvent = lambda _: None, ready: Ready | None = None
) -> RunRecord:
    """Scores what the settings name and publishes it, or refuses to.

    Args:
        config: the settings.
        options: what the command asks for beside them.
        on_event: receives stages, notices and progress.
        ready: what is pinned and started already, and outlives the run.

    Returns:
        The ledger's row of the run; its state is ``published`` or ``skipped``.

    Raises:
        BatchscoreError: of the kind that says why nothing was published.
    """
    if ready is not None:
        return _run(config, options, on_event, ready)
    try:
        if config.scoring.runner == "local":
            runners.start_ahead(score.__name__)
        return _run(config, options, on_event)
    finally:
        runners.end_spares()


def _run(config: JobConfig, options: RunOptions, on_event: OnEvent, ready: Ready | None = None) -> RunRecord:
    started = time.perf_counter()
    _check_suite_file(config)
    spark = ready.spark if ready else LazySpark(config, on_event)
    on_event({"event": "stage", "stage": "plan", "text": f"{config.model.requested} on {config.input.path}"})
    attempt = _Attempt(config, _planned(config, options, spark, on_event, ready), spark, on_event, started, ready)
    on_event({"event": "run", "run_id": attempt.plan.run_id})
    lease = leases.Lease(options, on_event, backfill=ready.backfill if ready else "")
    try:
        while not attempt.plan.nothing_to_do and not lease.take(attempt.plan):
            attempt.plan = _planned(config, options, spark, on_event, ready)  # another run was at work meanwhile
            on_event({"event": "run", "run_id": attempt.plan.run_id})
        if attempt.plan.nothing_to_do:
            return attempt.end("skipped", message=_why_nothing(attempt.plan))
        lease.clear(attempt.plan)
        with _ONE_PROVES:
            attempt.choose_engine()
        return _carry_out(attempt)
    except BatchscoreError as error:
        attempt.end(_state_of(error), exit_code=error.exit_code, message=error.problem, detail=error.text())
        raise
    except KeyboardInterrupt:
        attempt.end_interrupted()
        raise
    except Exception as error:
        failure = storage_failure(error)
        if failure is not None:
            attempt.end("failed", exit_code=failure.exit_code, message=failure.problem, detail=failure.text())
            raise failure from error
        attempt.end("failed", exit_code=BatchscoreError.exit_code, message=bounded(f"{type(error).__name__}: {error}"))
        raise
    finally:
        lease.end()


def _planned(
    config: JobConfig, options: RunOptions, spark: LazySpark, on_event: OnEvent, ready: Ready | None
) -> ScoringPlan:
    planned = make_plan(config, options, spark, ready)
    _check_suite_columns(config, planned)
    for notice in planned.notices:
        on_event({"event": "notice", "text": notice})
    faults.reached("plan.made")
    return planned


@dataclass
class _Attempt:
    """One run under way: what it knows so far, for the ledger."""

    config: JobConfig
    plan: ScoringPlan
    spark: LazySpark
    on_event: OnEvent
    started: float
    ready: Ready | None = None
    staged: StagedOutput | None = None
    selected: selection.Selection | None = None
    offered: Manifest | None = None

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
            rows=planned.most_rows if self.ready is None else self.ready.rows,
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
        planned, published, staged = self.plan, receipt.published if receipt else (), self.staged
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
            rows_read=staged.rows_read if staged else 0,
            rows=sum(unit.rows for unit in published),
            engine=planned.task.engine,
            runner=self.config.scoring.runner,
            seconds=round(time.perf_counter() - self.started, 3),
            exit_code=exit_code,
            message=message,
            detail=detail,
            peak_worker_bytes=staged.peak_worker_bytes if staged else 0,
            rows_quarantined=staged.rows_quarantined if staged else 0,
            rows_filtered=staged.rows_filtered if staged else 0,
            model_requested=planned.model.requested,
            backfill=self.ready.backfill if self.ready else "",
        )
        faults.reached("ledger.begin")
        try:
            record.append(planned.target.uri, row)
        except (BatchscoreError, OSError) as error:
            self.on_event({"event": "notice", "text": f"the ledger could not be written: {error}"})
        faults.reached("ledger.end")
        return row

    def end_interrupted(self) -> None:
        """What the ledger is told at Ctrl-C: the commit may have landed a moment before."""
        receipt = self._landed()
        if receipt is not None:
            self.end("published", receipt=receipt, message=f"as version {receipt.version}, and then interrupted")
        else:
            self.end("interrupted", exit_code=INTERRUPTED_EXIT_CODE, message="interrupted")

    def _landed(self) -> Receipt | None:
        if self.offered is None:
            return None
        try:
            found = record.published_records(self.plan.target.uri, {self.plan.run_id})
        except (BatchscoreError, OSError):  # an interruption must not become another error
            return None
        return Receipt(found[0].table_version, self.offered.units) if found else None


def _carry_out(attempt: _Attempt) -> RunRecord:
    planned = attempt.plan
    publish.prepare(planned.target.uri)
    faults.reached("output.prepared")
    suite = attempt.config.validation.suite
    if suite is not None:
        validate.warm()  # its import takes seconds: beside scoring it costs none
    try:
        staged = _staged(attempt)
        verdict = _judged(attempt, staged)
        attempt.stage("publish", planned.target.uri)
        receipt = _published(attempt, staged, verdict)
    except UnsureError:
        raise  # its commit may still land: only who fences the run first may delete what it staged
    except BaseException as error:
        publish.discard_run(planned.target.uri, planned.run_id)
        publish.discard_run(planned.task.quarantine_uri, planned.run_id)  # what no commit of it mentions
        if isinstance(error, Exception):
            publish.explain_failure(planned.target.uri, planned.run_id)
        raise
    attempt.stage("record", f"{planned.target.uri}__runs")
    if receipt.version < 0:
        message = "another run published the same content meanwhile"
        if planned.task.replay is not None:
            message = f"none of {staged.rows_quarantined:,} rows can be scored yet"
        return attempt.end("skipped", receipt=receipt, message=message)
    left_out = f", {staged.rows_quarantined:,} in quarantine" if staged.rows_quarantined else ""
    amount = f"{staged.rows_staged:,} rows" if staged.rows_staged else f"no row of {len(receipt.published):,} units"
    message = f"{amount} as version {receipt.version}{left_out}"
    return attempt.end("published", receipt=receipt, message=message)


def _published(attempt: _Attempt, staged: StagedOutput, verdict: Verdict) -> Receipt:
    planned, receipt = attempt.plan, None
    faults.reached("manifest.begin")
    manifest = offer.manifest_of(attempt.config, planned, staged, verdict, attempt.selected)
    manifests.write(planned.target.uri, manifest)
    attempt.offered = manifest
    faults.reached("manifest.end")
    sure = True
    try:
        receipt = publish.commit(planned, staged, manifest, is_live=is_live)
        faults.reached("commit.end")
    except UnsureError:
        sure = False  # what may still land must find its manifest
        raise
    finally:
        if sure and (receipt is None or receipt.version < 0):
            publish.withdraw(planned.target.uri, planned.run_id, planned.target.version)
    return receipt


def _staged(attempt: _Attempt) -> StagedOutput:
    if attempt.config.scoring.runner == "spark":
        start_session(attempt.config, attempt.plan, attempt.spark)
    attempt.stage("score", f"run {attempt.plan.run_id}: {_amount(attempt.plan)}")
    faults.reached("score.begin")
    local = attempt.ready.local if attempt.ready else None
    staged = staging.Staging(attempt.config.scoring.runner, attempt.spark, attempt.on_event, local).fill(attempt.plan)
    faults.reached("score.end")
    attempt.staged = staged
    record.quarantine.append(attempt.plan.target.uri, attempt.plan.run_id, staged.quarantine)
    if attempt.plan.task.replay is None:  # what a replay leaves out was left out before
        limits = attempt.config.quarantine
        staging.refuse_excess(attempt.plan, staged, QuarantineLimits(limits.max_fraction, limits.max_rows))
        staging.refuse_vanishing(attempt.plan, staged)
    return staged


def start_session(config: JobConfig, planned: ScoringPlan, spark: LazySpark) -> None:
    """Starts Spark for what a plan will need of it; a session that is there already stays as it is."""
    # Workers read and write splits themselves: Spark needs no Delta for that, and computes nothing.
    judges = validate.may_need_spark(planned, config.validation.suite)
    use: session.Use = "delta" if planned.route != "splits" else "sql" if judges else "tasks"
    spark(use=use, task=planned.task)


def _judged(attempt: _Attempt, staged: StagedOutput) -> Verdict:
    attempt.stage("validate", f"{staged.rows_staged:,} rows in {len(staged.files)} files")
    faults.reached("validate.begin")
    spark = attempt.spark if attempt.config.scoring.runner == "spark" else None
    with _ONE_JUDGES:
        verdict = validate.judge(attempt.plan, staged, suite=attempt.config.validation.suite, spark=spark)
    if attempt.plan.task.replay is not None:
        units = {unit.values for unit in attempt.plan.to_score}
        published = publish.published_files(attempt.plan.target.uri, units)
        verdict = Verdict((*verdict.checks, validate.check_replayed(attempt.plan, staged, published)))
    _refuse_failed(verdict)
    faults.reached("validate.end")
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


def _amount(planned: ScoringPlan) -> str:
    rows = f"{planned.expected_rows:,} rows" if planned.expected_rows >= 0 else "rows"
    units = f" in {len(planned.to_score)} units" if planned.units_known else ""
    return f"{rows}{units}, {planned.task.engine} engine, {planned.route} route"


def _why_nothing(planned: ScoringPlan) -> str:
    if planned.task.replay is not None:
        reasons = sorted({unit.reason for unit in planned.units}) or ["it left no row out"]
        return f"nothing to replay of run {planned.task.replay.run_id}: {listed(reasons, 3)}"
    if not planned.units:
        return f"nothing to do: all {planned.units_outside} units of the input are of older dates"
    live = [unit for unit in planned.units if unit.action == "live"]
    withdrawn = sum(unit.action == "withdrawn" for unit in planned.units)
    older = len(planned.units) - len(live) - withdrawn
    text = f"nothing to do: {len(live)} units are already published"
    runs = sorted({run for unit in live for run, _ in unit.before.runs})
    if runs:
        text += f" by run {listed(runs, 3)}"
    empty = sum(not unit.before.runs for unit in live)
    text += f", {empty} of them without a row" if empty else ""
    text += f", {older} stay published by an older model version" if older else ""
    return text + (f", {withdrawn} were rolled back (--force scores them again)" if withdrawn else "")


def _state_of(error: BatchscoreError) -> RunState:
    if isinstance(error, ValidationRefused):
        return "refused"
    return "fenced" if isinstance(error, FencedOutError) else "failed"
