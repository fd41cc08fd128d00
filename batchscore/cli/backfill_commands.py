"""`batchscore backfill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batchscore.cli.app import DateColumn, Evolve, Force, app, prepare, start_workers
from batchscore.cli.flags import JobFlags, takes
from batchscore.cli.interrupts import AnsweredError

if TYPE_CHECKING:
    from batchscore.backfill import Prepared


@app.command()
@takes(JobFlags)
def backfill(  # noqa: PLR0913, PLR0917  # each is a flag
    flags: JobFlags,
    first: Annotated[str, typer.Option("--from", help="First date, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", help="Last date, included.")],
    date_column: DateColumn = None,
    parallel: Annotated[int, typer.Option(min=1, help="Commits that are prepared at a time.")] = 1,
    chunk: Annotated[int, typer.Option(min=1, help="Dates that one commit publishes.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be scored; write nothing.")] = False,
    stop_on_failure: Annotated[
        bool, typer.Option("--stop-on-failure", help="Begin no further date once one has failed.")
    ] = False,
    model_as_of: Annotated[
        bool, typer.Option("--model-as-of", help="Score each date by the version that was the alias or stage then.")
    ] = False,
    force: Force = False,
    evolve_schema: Evolve = False,
) -> int:
    """Score a range of dates, oldest first; resumable.

    Shows what is to be scored, published already and missing, then publishes date by date. A date that fails does not
    stop the others. The same command again goes on where it ended, whatever ended it.

    Example: batchscore backfill --model fraud_detection/Production --from 2026-01-01 --to 2026-06-30 --dry-run
    """
    if flags.runner == "local" and not dry_run:
        start_workers()
    config, options = prepare(flags, force=force, evolve_schema=evolve_schema)
    from batchscore import backfill as room  # noqa: PLC0415  # heavy
    from batchscore import validate  # noqa: PLC0415  # heavy
    from batchscore.cli import backfill_table, progress, show  # noqa: PLC0415  # not for --help
    from batchscore.contracts import BackfillRequest  # noqa: PLC0415  # not for --help

    request = BackfillRequest(first, last, date_column, parallel, chunk, model_as_of, stop_on_failure)
    with progress.reporting(as_json=flags.json) as on_event:
        prepared = room.prepare(config, request, options, on_event)
    lines = backfill_table.plan_lines(prepared.plan)
    if dry_run:
        show.emit(lines, backfill_table.plan_document(prepared.plan), as_json=flags.json)
        return 0
    if not flags.json:
        show.emit([*lines, ""], None, as_json=False)
    validate.leave_out(spark=config.scoring.runner != "spark")
    return _carried_out(flags, prepared)


def _carried_out(flags: JobFlags, prepared: Prepared) -> int:
    from batchscore.backfill import BackfillInterrupted, carry_out  # noqa: PLC0415  # heavy
    from batchscore.cli import backfill_table, progress, show  # noqa: PLC0415  # not for --help

    try:
        with progress.reporting(as_json=flags.json) as on_event:
            report = carry_out(prepared, on_event)
    except BackfillInterrupted as interruption:
        report = interruption.report
        show.emit(backfill_table.report_lines(report), backfill_table.report_document(report), as_json=flags.json)
        raise AnsweredError from interruption
    show.emit(backfill_table.report_lines(report), backfill_table.report_document(report), as_json=flags.json)
    return report.exit_code
