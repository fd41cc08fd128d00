"""The commands about rows that runs left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchscore.cli.app import app, table_of_flags
from batchscore.cli.flags import Config, JobFlags, Json, Model, Verbose, job_config, takes
from batchscore.errors import SettingsError, bounded

if TYPE_CHECKING:
    from batchscore.quarantine import QuarantineReport

EXAMPLES = 5


@app.command()
def quarantine(
    model: Model = None,
    config: Config = None,
    table: Annotated[str | None, typer.Option("--table", help="Prediction table; otherwise the settings' own.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Only this run: its id, or the id's beginning.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """List the rows that runs left out, by reason.

    The rows themselves are in the Delta table <table>__quarantine.

    Example: batchscore quarantine --model fraud_detection
    """
    from batchscore.cli import show  # noqa: PLC0415  # not for --help

    where = table_of_flags(table, model, config, verbose=verbose)
    from batchscore import quarantine as room  # noqa: PLC0415  # heavy

    report = room.report(where, run, EXAMPLES)
    show.emit(report_lines(report), report, as_json=json)
    return 0


@app.command()
@takes(JobFlags)
def replay(
    flags: JobFlags,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or its first characters.")],
    rules: Annotated[
        Path | None, typer.Option("--rules", help="YAML list of rules, instead of the settings' quarantine.rules.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be scored; write nothing.")] = False,
) -> int:
    """Score again what a run left out, and publish it.

    Rows are read from the input as it is now and scored by the run's own model version. Rows that are still wrong stay
    in the quarantine, under the replay's id.

    Example: batchscore replay 20261121T060000 --model fraud_detection --rules conf/looser.yaml
    """
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=flags.verbose, as_json=flags.json)
    if rules is not None:
        flags = replace(flags, set_=[*flags.set_, f"quarantine.rules={_rules_text(rules)}"])
    settings = job_config(flags)
    from batchscore import replay as room  # noqa: PLC0415  # heavy
    from batchscore import validate  # noqa: PLC0415  # heavy
    from batchscore.contracts import RunOptions  # noqa: PLC0415  # not for --help

    options = RunOptions(verbose=flags.verbose)
    with progress.reporting(as_json=flags.json) as on_event:
        if dry_run:
            planned = room.plan_replay(settings, run, options, on_event)
        else:
            validate.leave_out(spark=settings.scoring.runner != "spark")
            record = room.replay(settings, run, options, on_event)
    if dry_run:
        if flags.json:
            show.print_json(show.plan_json(planned, settings.scoring.runner))
        else:
            show.print_plan(planned, settings.scoring.runner)
        return 0
    show.emit(show.record_lines(record), record, as_json=flags.json)
    return record.exit_code


def _rules_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the rules {path} cannot be read", found=error, hint="name a YAML file") from error


def report_lines(report: QuarantineReport) -> list[str]:
    """Runs, reasons and counts, then a few rows."""
    from batchscore.cli.show import aligned  # noqa: PLC0415  # not for --help

    if not report.counts:
        return [f"no run of {report.table} left a row out"]
    head = ("run", "state", "reason", "column or rule", "rows", "what it means")
    rows = [
        (
            count.run_id,
            report.states.get(count.run_id, "unknown"),
            count.reason,
            bounded(count.column, 40),
            f"{count.rows:,}",
            report.meanings.get(count.reason, ""),
        )
        for count in report.counts
    ]
    lines = aligned([head, *rows], indent="")
    if report.examples:
        lines += ["", f"for example, of run {report.examples[0].run_id}:"]
        lines += [f"  {_told(row.row)}: {row.detail}{_at_fault(row.values)}" for row in report.examples]
    return [*lines, "", f"the rows: {report.uri}", *report.notes]


def _told(row: Mapping[str, str]) -> str:
    return bounded(", ".join(f"{name}={value}" for name, value in row.items()))


def _at_fault(values: Mapping[str, str]) -> str:
    named: Sequence[str] = [f"{name} = {bounded(value, 40)}" for name, value in values.items()]
    return f" ({bounded(', '.join(named))})" if named else ""
