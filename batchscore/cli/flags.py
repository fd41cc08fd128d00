"""The flags that ``run``, ``plan`` and ``check`` share, and how they become settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

from typer import Option

from batchscore.errors import SettingsError, nearest

if TYPE_CHECKING:
    from batchscore.config import JobConfig

F = TypeVar("F")

# Help panels are not used: plain help starts in half the time.
Json = Annotated[bool, Option("--json", help="Print one JSON document; logs go to stderr.")]
Verbose = Annotated[bool, Option("--verbose", help="Show logs, and the stack trace of an error.")]
Config = Annotated[Path | None, Option("--config", "-c", help="Settings file; otherwise conf/<model name>.yaml.")]
Model = Annotated[
    str | None,
    Option("--model", "-m", help="name/7, name/Production, name@champion, models:/..., runs:/..., or a model folder."),
]


@dataclass(frozen=True, slots=True)
class JobFlags:
    """What the command line says about a job; None and () leave the settings file's value."""

    model: Model = None
    config: Config = None
    input: Annotated[str | None, Option(help="Path, URI or catalog table to score.")] = None
    input_format: Annotated[str | None, Option(help="auto, parquet, delta or catalog.")] = None
    input_version: Annotated[str | None, Option(help="Delta version or timestamp to read.")] = None
    output: Annotated[str | None, Option(help="Path or URI of the prediction table.")] = None
    mode: Annotated[str | None, Option(help="partitions, replace or append.")] = None
    keys: Annotated[str | None, Option(help="Columns that identify a row: a,b.")] = None
    carry: Annotated[str | None, Option(help="Input columns to keep: a,b or *.")] = None
    partition: Annotated[list[str], Option(help="ds=2026-11-21; repeat for more.")] = field(default_factory=list)
    where: Annotated[str | None, Option(help="SQL condition on the input's columns.")] = None
    runner: Annotated[str | None, Option(help="spark, or local: processes without a JVM.")] = None
    engine: Annotated[str | None, Option(help="auto, pyfunc, native, onnx, compiled, onedal or sparkml.")] = None
    batch_rows: Annotated[str | None, Option(help="Rows for each call of the model, or auto.")] = None
    suite: Annotated[str | None, Option(help="Great Expectations suite (JSON).")] = None
    on_new_model: Annotated[str | None, Option(help="new_units or all.")] = None
    tracking_uri: Annotated[str | None, Option(help="MLflow tracking URI of the registry.")] = None
    allow_path: Annotated[list[str], Option(help="Folder whose models may run code; repeat for more.")] = field(
        default_factory=list
    )
    set_: Annotated[list[str], Option("--set", help="Any setting: a.b=c; repeat for more.")] = field(
        default_factory=list
    )
    json: Json = False
    verbose: Verbose = False


@dataclass(frozen=True, slots=True)
class RunFlags(JobFlags):
    """What ``run`` takes beside: what to do about a run that is at work on the same units."""

    wait: Annotated[bool, Option("--wait", help="Wait for a run at work on the same units, then plan again.")] = False
    wait_minutes: Annotated[float | None, Option(min=0.0, help="The same, but at most so long.")] = None
    take_over: Annotated[bool, Option("--take-over", help="Keep such a run from publishing, and go on.")] = False

    @property
    def patience_minutes(self) -> float:
        """How long to wait; 0 for not at all."""
        if self.wait_minutes is not None:
            return self.wait_minutes
        return inf if self.wait else 0.0


_KEYS = {
    "input": "input.path",
    "input_format": "input.format",
    "input_version": "input.version",
    "output": "output.path",
    "mode": "output.mode",
    "where": "input.where",
    "runner": "scoring.runner",
    "engine": "scoring.engine",
    "batch_rows": "scoring.batch_rows",
    "suite": "validation.suite",
    "on_new_model": "scoring.on_new_model",
    "tracking_uri": "registry.tracking_uri",
}


def takes(kind: type[F]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Makes a command whose first parameter is a dataclass of flags: typer then sees its fields."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        hints = get_type_hints(kind, include_extras=True)
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def call(**given: Any) -> int:  # noqa: ANN401  # typer passes each flag in its own type
            flags = kind(**{name: given.pop(name) for name in hints})
            return command(flags, **given)

        parameters = [
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=item.default_factory() if item.default_factory is not MISSING else item.default,
                annotation=hints[item.name],
            )
            for item in fields(kind)  # type: ignore[arg-type]  # a dataclass, which TypeVar cannot say
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        call.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined]  # read by inspect
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *parameters]}
        return call

    return decorate


def job_config(flags: JobFlags) -> JobConfig:
    """The settings of a job: its file, with the command line put over it.

    Raises:
        SettingsError: neither a model nor a file is named, there is no file, or a setting is wrong.
    """
    from batchscore.config import load, settings_file_of  # noqa: PLC0415  # pydantic is not loaded for --help

    if flags.model is None and flags.config is None:
        raise SettingsError(
            "neither a model nor a settings file is named", hint="--model fraud_detection/Production, or --config FILE"
        )
    overrides = _overrides(flags)
    path = flags.config
    if path is None and flags.model is not None:
        path = settings_file_of(flags.model)
        if path is None and not {"input.path", "output.path"} <= overrides.keys():
            raise _no_settings(flags.model)
    return load(path, overrides)


def _no_settings(model: str) -> SettingsError:
    from batchscore.config import split_model  # noqa: PLC0415  # pydantic is not loaded for --help

    name, _ = split_model(model)
    known = sorted(path.stem for path in Path("conf").glob("*.yaml"))
    return SettingsError(
        f"there are no settings for model {name}: no file conf/{Path(name).name}.yaml",
        near=nearest(name, known),
        hint="give --config FILE, or --input and --output",
    )


def _overrides(flags: JobFlags) -> dict[str, object]:
    from batchscore.config import parse_assignment, split_model  # noqa: PLC0415  # pydantic is not loaded for --help

    overrides: dict[str, object] = dict(parse_assignment(text) for text in flags.set_)
    if flags.model is not None:
        name, version = split_model(flags.model)
        overrides["model.name"] = name
        if version is not None or (name == flags.model and ("/" in name or ":" in name)):
            overrides["model.version"] = version
    for flag, key in _KEYS.items():
        value = getattr(flags, flag)
        if value is not None:
            overrides[key] = value
    return overrides | _lists(flags)


def _lists(flags: JobFlags) -> dict[str, object]:
    lists: dict[str, object] = {}
    if flags.keys is not None:
        lists["output.keys"] = _names(flags.keys)
    if flags.carry is not None:
        lists["output.carry"] = _names(flags.carry)
    if flags.allow_path:
        lists["registry.allowed_paths"] = flags.allow_path
    if flags.partition:
        lists["input.partitions"] = _partitions(flags.partition)
    return lists


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _partitions(texts: Sequence[str]) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not equals or not column:
            raise SettingsError(
                "--partition takes COLUMN=VALUE", found=text, hint="for example --partition ds=2026-11-21"
            )
        chosen.setdefault(column, []).append(value)
    return chosen
