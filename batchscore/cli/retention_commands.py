"""The commands ``rollback``, ``retain`` and ``forget``."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchscore.cli.app import app
from batchscore.cli.flags import Config, JobFlags, Json, Model, Verbose, job_config
from batchscore.errors import SettingsError

Table = Annotated[str | None, typer.Argument(metavar="[TABLE]", help="Prediction table; otherwise the settings' own.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]


def _place(table: str | None, model: str | None, config: Path | None, *, verbose: bool) -> tuple[str, int]:
    """The table, and the days for which the job's settings keep its versions; 0 where no job is named."""
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=verbose)
    if table is not None and (model is not None or config is not None):
        raise SettingsError("a table and a job are named", found=table, hint="name one of them")
    if table is not None:
        return table, 0
    output = job_config(JobFlags(model=model, config=config)).output
    return output.path, output.retention_days


@app.command()
def rollback(  # noqa: PLR0913, PLR0917  # each is a flag
    to: Annotated[str, typer.Option("--to", metavar="RUN", help="Run id, or its first characters.")],
    table: Table = None,
    model: Model = None,
    config: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Let readers see the table as it was right after a run.

    A new commit: nothing is destroyed, and `--to` a newer run goes forward again. What is rolled back is not scored
    again by the same job over the same input, unless forced.

    Example: batchscore rollback --to 20261121t060000 --model fraud_detection --dry-run
    """
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help

    where, _ = _place(table, model, config, verbose=verbose)
    from batchscore import rollback as room  # noqa: PLC0415  # heavy
    from batchscore.cli import retention_text  # noqa: PLC0415  # not for --help

    with progress.reporting(as_json=json) as on_event:
        outcome = room.rollback(where, to, dry_run=dry_run, on_event=on_event)
    show.emit(retention_text.rollback_lines(outcome), retention_text.rollback_document(outcome), as_json=json)
    return 0


@app.command()
def retain(  # noqa: PLR0913, PLR0917  # each is a flag
    table: Table = None,
    model: Model = None,
    config: Config = None,
    days: Annotated[
        int | None, typer.Option(min=0, help="Keep what was the table within so many days; as promised by default.")
    ] = None,
    shorter: Annotated[bool, typer.Option("--shorter", help="Allow fewer days than the table promises.")] = False,
    optimize: Annotated[bool, typer.Option("--optimize", help="Merge the small files of each unit, too.")] = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, on a terminal.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Remove what only older versions of a table need.

    Shows what goes, and how far back a rollback reaches before and after. No row of the newest version is touched,
    nothing of a run at work, and no manifest.

    Example: batchscore retain --model fraud_detection --days 30 --dry-run
    """
    from batchscore.cli import show  # noqa: PLC0415  # not for --help

    where, settings_days = _place(table, model, config, verbose=verbose)
    from batchscore import retain as room  # noqa: PLC0415  # heavy
    from batchscore.cli import retention_text  # noqa: PLC0415  # not for --help

    asked = functools.partial(room.retain, where, days, settings_days=settings_days, shorter=shorter, optimize=optimize)
    plan = asked()
    if not json:
        show.emit(retention_text.retention_lines(plan), None, as_json=False)
    if not (dry_run or plan.empty or _declined(asks=not (yes or json))):
        plan = asked(dry_run=False)
        if not json:
            show.emit(retention_text.removed_lines(plan), None, as_json=False)
    if json:
        show.print_json(retention_text.retention_document(plan))
    return 0


def _declined(*, asks: bool) -> bool:
    """Whether a person at a terminal says no."""
    return asks and sys.stdin.isatty() and not typer.confirm("remove these files?")


@app.command()
def forget(  # noqa: PLR0913, PLR0917  # each is a flag
    table: Table = None,
    model: Model = None,
    config: Config = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="COLUMN=VALUE; repeat for rows told by several columns.")
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys-file", help="CSV with the key columns in its first line.")
    ] = None,
    dry_run: DryRun = False,
    now: Annotated[
        bool, typer.Option("--now", help="Delete what older versions hold, too: they cannot be read any more.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Erase a person's rows from predictions, quarantine and records.

    Older versions hold the rows until `batchscore retain` removes them; the answer says when. The input is not
    touched: what it still holds is published again by the next run that scores it.

    Example: batchscore forget --key transaction_id=42 --model fraud_detection --dry-run
    """
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help

    if bool(key) == (keys_file is not None):
        raise SettingsError("name the rows once", hint="--key transaction_id=42, or --keys-file FILE")
    where, _ = _place(table, model, config, verbose=verbose)
    from batchscore import forget as room  # noqa: PLC0415  # heavy
    from batchscore.cli import retention_text  # noqa: PLC0415  # not for --help

    rows = room.from_file(keys_file) if keys_file is not None else [room.from_flags(key or ())]
    with progress.reporting(as_json=json) as on_event:
        outcome = room.forget(where, rows, dry_run=dry_run, now=now, on_event=on_event)
    show.emit(retention_text.forget_lines(outcome, now=now), retention_text.forget_document(outcome), as_json=json)
    return 0
