"""The commands. Each imports what it needs when it is called, so that ``--help`` is quick."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import batchscore
from batchscore.cli.flags import Config, JobFlags, Json, Model, RunFlags, Verbose, job_config, takes
from batchscore.errors import ModelError, SettingsError, SetupError

if TYPE_CHECKING:
    from batchscore.config import JobConfig
    from batchscore.contracts import RunOptions

DEMO_ROWS = 200_000
DEMO_FOLDER = Path("demo")

app = typer.Typer(
    name="batchscore",
    help="A registered MLflow model and a table go in; a validated, versioned prediction table comes out.\n\n"
    "Example: batchscore demo",
    rich_markup_mode=None,  # plain help: importing rich would double the time of --help
    no_args_is_help=True,
    add_completion=False,
)

Force = Annotated[
    bool, typer.Option("--force", help="Score again what is published already; publish as empty what has no row left.")
]
Evolve = Annotated[bool, typer.Option("--evolve-schema", help="Let the prediction table gain columns.")]
ChangedSince = Annotated[
    str | None, typer.Option("--changed-since", help="Look at the dates of the last hours, days or weeks: 12h, 7d, 4w.")
]
DateColumn = Annotated[str | None, typer.Option("--date-column", help="Partition column that holds the dates.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"batchscore {batchscore.__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A registered MLflow model and a table go in; a validated, versioned prediction table comes out.

    Example: batchscore demo
    """


@app.command()
@takes(RunFlags)
def run(
    flags: RunFlags,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as `batchscore plan`.")] = False,
    force: Force = False,
    evolve_schema: Evolve = False,
    changed_since: ChangedSince = None,
    date_column: DateColumn = None,
) -> int:
    """Score, validate and publish what is not published yet.

    Example: batchscore run --model fraud_detection/Production --partition ds=2026-11-21
    """
    if flags.runner == "local" and not dry_run:
        start_workers()
    config, options = prepare(flags, force=force, evolve_schema=evolve_schema)
    options = _recent(options, changed_since, date_column)
    options = replace(options, wait_minutes=flags.patience_minutes, take_over=flags.take_over)
    if dry_run:
        return _show_plan(flags, config, options)
    if config.scoring.runner == "local":
        start_workers()
    from batchscore import pipeline, validate  # noqa: PLC0415  # heavy
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help

    with progress.reporting(as_json=flags.json) as on_event:
        validate.leave_out(spark=config.scoring.runner != "spark")
        record = pipeline.run(config, options, on_event)
    show.emit(show.record_lines(record), record, as_json=flags.json)
    return record.exit_code


def start_workers() -> None:
    """Starts those of the local runner, once: they import what they need while this process does the same."""
    from batchscore import runners  # noqa: PLC0415  # not for --help

    runners.start_ahead("batchscore.score")


@app.command()
@takes(JobFlags)
def plan(
    flags: JobFlags,
    force: Force = False,
    evolve_schema: Evolve = False,
    changed_since: ChangedSince = None,
    date_column: DateColumn = None,
) -> int:
    """Say what `run` would do; writes nothing, reads no row.

    Example: batchscore plan --model fraud_detection/Production
    """
    config, options = prepare(flags, force=force, evolve_schema=evolve_schema)
    return _show_plan(flags, config, _recent(options, changed_since, date_column))


def _recent(options: RunOptions, changed_since: str | None, date_column: str | None) -> RunOptions:
    """The options with the window that they name."""
    if changed_since is None:
        if date_column is not None:
            raise SettingsError(
                "--date-column says which dates --changed-since means, and that is not given", found=date_column
            )
        return options
    from batchscore.plan.dates import hours  # noqa: PLC0415  # not for --help

    return replace(options, changed_since_hours=hours(changed_since), date_column=date_column)


def prepare(flags: JobFlags, *, force: bool, evolve_schema: bool) -> tuple[JobConfig, RunOptions]:
    """Settings and options of a job from its flags; logs go where the flags say."""
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help
    from batchscore.contracts import RunOptions  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=flags.verbose, as_json=flags.json)
    return job_config(flags), RunOptions(force=force, evolve_schema=evolve_schema, verbose=flags.verbose)


def _show_plan(flags: JobFlags, config: JobConfig, options: RunOptions) -> int:
    from batchscore import pipeline  # noqa: PLC0415  # heavy
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help

    with progress.reporting(as_json=flags.json) as on_event:
        planned = pipeline.plan(config, options, on_event)
    if flags.json:
        show.print_json(show.plan_json(planned, config.scoring.runner))
    else:
        show.print_plan(planned, config.scoring.runner)
    return 0


@app.command()
@takes(JobFlags)
def check(flags: JobFlags) -> int:
    """Compare the model's signature with the input's schema.

    Example: batchscore check --model fraud_detection/Production
    """
    config, _ = prepare(flags, force=False, evolve_schema=False)
    from batchscore.check import check as check_job  # noqa: PLC0415  # heavy
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help

    with progress.reporting(as_json=flags.json) as on_event:
        checks = check_job(config, on_event)
    passed = all(item.passed for item in checks)
    show.emit(show.check_lines(checks), {"passed": passed, "checks": checks}, as_json=flags.json)
    return 0 if passed else ModelError.exit_code


@app.command()
@takes(JobFlags)
def engines(
    flags: JobFlags,
    named: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The model, as for --model.")] = None,
) -> int:
    """Prove and measure the engines that could score a model.

    Shows what `auto` chooses for this input, and why. The first time takes a minute: engines are made, compared with
    the registered model and measured.

    Example: batchscore engines fraud_detection/Production
    """
    if named is not None and flags.model not in (None, named):
        raise SettingsError("two models are named", found=f"{named} and --model {flags.model}", hint="name one")
    config, _ = prepare(replace(flags, model=named or flags.model), force=False, evolve_schema=False)
    from batchscore import proofs  # noqa: PLC0415  # heavy
    from batchscore.cli import engine_table, progress, show  # noqa: PLC0415  # not for --help

    with progress.reporting(as_json=flags.json) as on_event:
        report = proofs.engines(config, on_event)
    show.emit(engine_table.table_lines(report), engine_table.as_document(report), as_json=flags.json)
    return 0


@app.command()
def benchmark(  # noqa: PLR0913, PLR0917  # each is a flag
    cases: Annotated[list[str] | None, typer.Argument(metavar="[CASE]...", help="What to score.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1_000, help="Rows of the made-up table, instead of the case's.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Alternating rounds, after one that is not counted.")] = 5,
    candidate: Annotated[list[str] | None, typer.Option(help="Who takes part; repeatable. All by default.")] = None,
    peers_python: Annotated[
        str | None, typer.Option(help="Interpreter that has Ray Data and Daft; this one by default.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keeps tables and models here, for the next time.")
    ] = None,
    suite: Annotated[bool, typer.Option(help="Run a Great Expectations suite, too.")] = True,
    output: Annotated[Path | None, typer.Option(help="Write the results here, as JSON.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw them here, as SVG.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Measure rows a second here, beside the peers'.

    Candidates alternate, each in processes of its own; scores are compared before a time counts.

    Example: batchscore benchmark lightgbm-50x31 --rows 1000000 --rounds 3
    """
    from batchscore import benchmark as room  # noqa: PLC0415  # not for --help
    from batchscore.benchmark import report  # noqa: PLC0415  # heavy
    from batchscore.cli import benchmark_table, progress, show  # noqa: PLC0415  # not for --help
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=verbose)
    rules = room.Rules(rounds, peers_python, suite)
    names = candidate or room.NAMES
    with progress.reporting(as_json=json) as on_event:
        document = room.benchmark(
            cases or ["lightgbm-50x31"], names, rules, rows=rows, folder=directory, on_event=on_event
        )
    if output is not None:
        report.write(document, output)
    if chart is not None:
        chart.write_text(report.chart(document["results"]), encoding="utf-8")
    show.emit(benchmark_table.table_lines(document), document, as_json=json)
    return 0


@app.command()
def demo(
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of made-up transactions.")] = DEMO_ROWS,
    directory: Annotated[Path, typer.Option("--dir", help="Folder for data, registry and results.")] = DEMO_FOLDER,
    runner: Annotated[str, typer.Option(help="spark, or local: processes without a JVM.")] = "spark",
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Make data, train and register a model, and run the job.

    Needs no server: registry and tables are files in the folder. A second run finds all published.

    Example: batchscore demo --rows 100000 --dir demo
    """
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help
    from batchscore.demo import run_demo  # noqa: PLC0415  # heavy

    set_up_logs(verbose=verbose)
    with progress.reporting(as_json=json) as on_event:
        outcome = run_demo(directory, rows, runner, on_event)
    lines = [*show.record_lines(outcome.record), "", *outcome.next_steps()]
    show.emit(lines, outcome, as_json=json)
    return outcome.record.exit_code


@app.command()
def history(
    model: Model = None,
    config: Config = None,
    table: Annotated[str | None, typer.Option("--table", help="Prediction table; otherwise the settings' own.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs to show, newest first.")] = 20,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """List the runs of a table, refused and failed ones too.

    Example: batchscore history --model fraud_detection
    """
    from batchscore.cli import show  # noqa: PLC0415  # not for --help

    where = table_of_flags(table, model, config, verbose=verbose)
    from batchscore import history as ledger  # noqa: PLC0415  # heavy

    records = ledger.history(where, limit)
    if json:
        show.print_json({"table": where, "runs": records})
    else:
        show.print_history(where, records)
    return 0


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or its first characters.")],
    model: Model = None,
    config: Config = None,
    table: Annotated[str | None, typer.Option("--table", help="Prediction table; otherwise the settings' own.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Show one run: model, input, settings, units and checks.

    Example: batchscore show 20261121t060000 --model fraud_detection
    """
    from batchscore.cli import show as view  # noqa: PLC0415  # not for --help

    where = table_of_flags(table, model, config, verbose=verbose)
    from batchscore import history as ledger  # noqa: PLC0415  # heavy

    record, manifest = ledger.show(where, run)
    view.emit(view.run_lines(record, manifest), {"run": record, "manifest": manifest}, as_json=json)
    return 0


def table_of_flags(table: str | None, model: str | None, config: Path | None, *, verbose: bool) -> str:
    """The prediction table that a command is about."""
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=verbose)
    return table if table is not None else job_config(JobFlags(model=model, config=config)).output.path


@app.command()
def doctor(
    model: Model = None,
    config: Config = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Say what this machine lacks for batchscore.

    Looks at Java, Spark, jars, registry, storage, Python and versions; says how to mend what is not fine.

    Example: batchscore doctor
    """
    from batchscore import doctor as room  # noqa: PLC0415  # not for --help
    from batchscore.cli import show  # noqa: PLC0415  # not for --help
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=verbose)
    job = job_config(JobFlags(model=model, config=config)) if model or config else None
    findings = room.examine(job)
    fine = all(finding.fine for finding in findings)
    show.emit(show.finding_lines(findings), {"fine": fine, "findings": findings}, as_json=json)
    return 0 if fine else SetupError.exit_code


# The commands of these register themselves; at the end, because they use what is above.
from batchscore.cli import (  # noqa: E402
    backfill_commands,  # noqa: F401
    clean_commands,  # noqa: F401
    explain_commands,  # noqa: F401
    quarantine_commands,  # noqa: F401
    retention_commands,  # noqa: F401
)
