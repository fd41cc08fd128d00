"""The commands that look back: one score explained, one run reproduced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchscore.cli.app import app
from batchscore.cli.flags import Config, JobFlags, Json, Model, Verbose, job_config
from batchscore.errors import SettingsError

if TYPE_CHECKING:
    from batchscore.config import JobConfig

Registry = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", help="MLflow tracking URI of your registry; what a table records of it vouches for no code."
    ),
]
Allowed = Annotated[
    list[str] | None,
    typer.Option("--allow-path", help="Folder whose models may run code; repeat for more."),
]


@app.command()
def explain(  # noqa: PLR0913, PLR0917  # each is a flag
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Prediction table; otherwise the settings' own.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="COLUMN=VALUE; repeat until one row is left.")] = None,
    at: Annotated[int | None, typer.Option("--at", min=0, help="Version of the table; the newest by default.")] = None,
    model: Model = None,
    config: Config = None,
    tracking_uri: Registry = None,
    allow_path: Allowed = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Explain one score: row, run, model, inputs.

    Reads the row, the manifest of its run, the recorded input and the registry; scores the row again, and shows what
    each feature adds where the model's library tells. Needs no Spark.

    Example: batchscore explain predictions/fraud_detection --key transaction_id=42
    """
    from batchscore.cli import explain_text, show  # noqa: PLC0415  # not for --help
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=verbose)
    where, settings = _where(table, model, config)
    from batchscore import explain as room  # noqa: PLC0415  # heavy

    registry = tracking_uri or (settings.registry.tracking_uri if settings is not None else None)
    paths = (*(allow_path or ()), *(settings.registry.allowed_paths if settings is not None else ()))
    found = room.explain(where, key or [], at=at, tracking_uri=registry, allowed_paths=paths)
    show.emit(explain_text.explanation_lines(found), explain_text.as_document(found), as_json=json)
    return 0


def _where(table: str | None, model: str | None, config: Path | None) -> tuple[str, JobConfig | None]:
    """The table that was named, or that of the settings, and the settings where they were named."""
    if table is None and model is None and config is None:
        raise SettingsError(
            "no table is named", hint="name its path, or the job: --model fraud_detection, or --config FILE"
        )
    settings = job_config(JobFlags(model=model, config=config)) if model is not None or config is not None else None
    if table is not None:
        return table, settings
    assert settings is not None  # noqa: S101  # one of the three is named
    return settings.output.path, settings


@app.command()
def reproduce(  # noqa: PLR0913, PLR0917  # each is a flag
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or its first characters.")],
    table: Annotated[str | None, typer.Option("--table", help="Prediction table; otherwise the settings' own.")] = None,
    model: Model = None,
    config: Config = None,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Rows to compare, spread over all files; 0: all.")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sample; made of the run's id by default.")] = None,
    runner: Annotated[str | None, typer.Option(help="local or spark; local where the model allows it.")] = None,
    tracking_uri: Registry = None,
    allow_path: Allowed = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int:
    """Score a run again and compare; publishes nothing.

    Takes the recorded input, model version and engine. Exit code 0: all rows are equal bit for bit; 4: scores differ;
    3: the model is gone or another one; 5: the input is gone or changed; 2: no such run.

    Example: batchscore reproduce 20261121t060000 --model fraud_detection --sample 1000
    """
    if runner not in (None, "local", "spark"):
        raise SettingsError("unknown runner", found=runner, allowed=("local", "spark"))
    from batchscore.cli import progress, reproduce_text, show  # noqa: PLC0415  # not for --help
    from batchscore.cli.logs import set_up_logs  # noqa: PLC0415  # not for --help

    set_up_logs(verbose=verbose, as_json=json)
    where, settings = _where(table, model, config)
    from batchscore import reproduce as room  # noqa: PLC0415  # heavy

    options = room.Options(sample, seed, runner, tracking_uri, settings, tuple(allow_path or ()))
    with progress.reporting(as_json=json) as on_event:
        found = room.reproduce(where, run, options, on_event)
    show.emit(reproduce_text.reproduction_lines(found), reproduce_text.as_document(found), as_json=json)
    return found.exit_code
