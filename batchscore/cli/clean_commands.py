"""The command ``clean``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batchscore.cli.app import app
from batchscore.cli.flags import Config, JobFlags, Json, Model, Verbose, job_config
from batchscore.errors import SettingsError

if TYPE_CHECKING:
    from batchscore.clean import Cleaning
    from batchscore.publish import Leftover


@app.command()
def clean(  # noqa: PLR0913, PLR0917  # each is a flag
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Prediction table; otherwise the settings' own.")
    ] = None,
    model: Model = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    take_over: Annotated[
        list[str] | None,
        typer.Option("--take-over", metavar="RUN", help="Give this run's work up, too, though it may be alive."),
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Remove what runs left that were killed.

    Each is fenced first, so that it cannot publish any more. Nothing is removed that a version of the table
    mentions, and nothing of a run that is at work.

    Example: batchscore clean --model fraud_detection --dry-run
    """
    from batchscore.cli import progress, show  # noqa: PLC0415  # not for --help
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=verbose, as_json=json)
    if table is None:
        where = job_config(JobFlags(model=model, config=config)).output.path
    elif model is not None or config is not None:
        raise SettingsError("a table and a job are named", found=table, hint="name one of them")
    else:
        where = table
    from batchscore import clean as room  # noqa: PLC0415  # heavy

    with progress.reporting(as_json=json) as on_event:
        cleaning = room.clean(where, dry_run=dry_run, take_over=take_over or (), on_event=on_event)
    show.emit(lines(cleaning), document(cleaning), as_json=json)
    return 0


def lines(cleaning: Cleaning) -> list[str]:
    """What was found, a line a run."""
    from batchscore.cli.show import aligned  # noqa: PLC0415  # not for --help
    from batchscore.config import redact  # noqa: PLC0415  # not for --help

    found = (*cleaning.removed, *cleaning.kept)
    if not found:
        return [f"nothing to remove: no run left anything under {redact(cleaning.table)}"]
    rows: list[tuple[str, ...]] = [("run", "state", "files", "bytes", "what becomes of it")]
    rows.extend(_row(left, dry_run=cleaning.dry_run) for left in found)
    size = sum(left.size for left in cleaning.removed)
    count = sum(len(left.files) for left in cleaning.removed)
    verb = "would be removed" if cleaning.dry_run else "removed"
    return [*aligned(rows, indent=""), f"{count:,} files of {len(cleaning.removed):,} runs {verb}, {size:,} bytes"]


def _row(left: Leftover, *, dry_run: bool) -> tuple[str, ...]:
    done = "would be removed" if dry_run else "removed"
    ours = f"{done}; what it published stays" if left.published else done
    return (
        left.run_id,
        left.state,
        f"{len(left.files):,}",
        f"{left.size:,}",
        f"kept: {left.kept}" if left.kept else ours,
    )


def document(cleaning: Cleaning) -> dict[str, object]:
    """The same for ``--json``."""
    from batchscore.config import redact  # noqa: PLC0415  # not for --help

    return {
        "table": redact(cleaning.table),
        "dry_run": cleaning.dry_run,
        "files": sum(len(left.files) for left in cleaning.removed),
        "bytes": sum(left.size for left in cleaning.removed),
        "removed": [_as_dict(left) for left in cleaning.removed],
        "kept": [{**_as_dict(left), "reason": left.kept} for left in cleaning.kept],
    }


def _as_dict(left: Leftover) -> dict[str, object]:
    files = [{"kind": file.kind, "path": file.path, "bytes": file.size} for file in left.files]
    return {
        "run_id": left.run_id,
        "state": left.state,
        "published": left.published,
        "bytes": left.size,
        "files": files,
    }
