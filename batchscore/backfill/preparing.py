"""Pins what a backfill needs, once, and plans all its dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from batchscore import models, pipeline, record, runners
from batchscore.config import JobConfig
from batchscore.contracts import (
    BackfillPlan,
    BackfillRequest,
    DateVersion,
    PinnedSource,
    Restriction,
    RunOptions,
    ScoringPlan,
)
from batchscore.errors import InputError, SettingsError
from batchscore.plan import backfill as planning
from batchscore.plan.dates import date_column, dates_of
from batchscore.plan.units import refuse_parts
from batchscore.plan.versions import versions_as_of
from batchscore.prepare import LazySpark, Moment, OnEvent, Ready, absolute, partition_by, pin_model, pin_source
from batchscore.processors import usable_cores


@dataclass(frozen=True)
class Group:
    """The dates of a backfill that one model version scores: settings, what is pinned, and the plan of all of them."""

    config: JobConfig
    ready: Ready
    planned: ScoringPlan


@dataclass(frozen=True)
class Prepared:
    """A planned backfill, with what its runs need by model version."""

    plan: BackfillPlan
    options: RunOptions
    groups: Mapping[str, Group]


@dataclass(frozen=True)
class _Input:
    """The pinned input and which of the wanted dates it has; ``unreadable`` says why a date cannot be read."""

    source: PinnedSource
    column: str
    wanted: tuple[str, ...]
    present: tuple[str, ...]
    unreadable: Mapping[str, str]


def prepare(
    config: JobConfig, request: BackfillRequest, options: RunOptions, on_event: OnEvent = lambda _: None
) -> Prepared:
    """Plans a backfill; reads no data row and writes nothing.

    Args:
        config: the job's settings.
        request: the range, and how to go through it.
        options: what the command asks for beside the settings.
        on_event: receives notices.

    Raises:
        SettingsError: the range is none, or the output is not partitioned by a date.
        InputError: no date of the range has input that can be read.
        BatchscoreError: as of :func:`batchscore.pipeline.plan`.
    """
    moment = Moment.now()
    backfill_id = f"backfill-{moment.run_id()}"
    spark = LazySpark(config, on_event)
    found = _input(config, request, spark)
    versions = _versions(config, request, found, moment)
    groups: dict[str, Group] = {}
    for model_config, dates in _by_version(config, found, versions):
        ready = Ready(
            spark=spark,
            model=pin_model(model_config),
            source=found.source,
            backfill=backfill_id,
            at_a_time=request.at_a_time,
            local=_local_runner(config, request),
        )
        planned = pipeline.plan(only(model_config, found.column, dates), options, on_event, ready)
        groups[planned.model.version] = Group(model_config, replace(ready, rows=planned.most_rows), planned)
    return Prepared(_plan(config, request, found, groups, versions), options, groups)


def _input(config: JobConfig, request: BackfillRequest, spark: LazySpark) -> _Input:
    wanted = planning.range_of(request)
    source, restriction = pin_source(config, spark, without_unreadable=True)
    columns = partition_by(config, source)
    column = date_column(source, columns, request.date_column)
    planning.refuse_mode(config.output.mode, config.input.partitions, column)
    if config.output.mode == "partitions":
        refuse_parts(restriction, columns)  # a table that the first date makes has it refused from the second on
    unreadable = _unreadable(source, restriction, column, wanted)
    known = dates_of(source, column)
    in_range = set(wanted)
    present = tuple(date for date in known if date in in_range and date not in unreadable)
    if not present:
        raise InputError(
            f"no date from {wanted[0]} to {wanted[-1]} has input that can be read",
            found=f"{len(known)} dates from {known[0]} to {known[-1]}" if known else f"no date in column {column}",
            detail=[f"{date}: {reason}" for date, reason in list(unreadable.items())[:3]],
            hint=f"look at --from and --to, and at the input {source.uri}",
        )
    if source.dataframe_reason is not None and source.version is not None:
        # Files of other dates may be all that keeps workers from reading it themselves.
        at_version = config.input.model_copy(update={"version": source.version})
        source, _ = pin_source(only(config.model_copy(update={"input": at_version}), column, present), spark)
    return _Input(source, column, wanted, present, unreadable)


def _unreadable(source: PinnedSource, restriction: Restriction, column: str, wanted: Sequence[str]) -> dict[str, str]:
    """The wanted dates of which a file is damaged, and how; files of partitions that are not asked for do not count.

    A condition on a column that is none of the folders' tells nothing of a file that cannot be read.
    """
    named = {name: values for name, values in restriction.partitions if name in source.partition_columns}
    reasons: dict[str, str] = {}
    for file in source.unreadable:
        values = dict(file.partition)
        date = values.get(column)
        asked = all(name not in values or values[name] in among for name, among in named.items())
        if asked and date is not None and date in wanted:
            reasons.setdefault(date, file.reason)
    return dict(sorted(reasons.items()))


def _versions(
    config: JobConfig, request: BackfillRequest, found: _Input, moment: Moment
) -> dict[str, DateVersion] | None:
    """The version of each date where ``--model-as-of`` asks for it."""
    if not request.model_as_of:
        return None
    reference = models.parse_reference(config.model.requested)
    history = models.version_history(reference, tracking_uri=config.registry.tracking_uri)

    def is_same(text: str) -> bool:
        try:
            other = models.parse_reference(text)
        except SettingsError:
            return False
        return (other.kind, other.name, other.value) == (reference.kind, reference.name, reference.value)

    runs = record.versions_given(absolute(config.output.path), reference.name, is_same)
    return versions_as_of(found.present, history, runs, moment.at)


def _by_version(
    config: JobConfig, found: _Input, versions: Mapping[str, DateVersion] | None
) -> Iterator[tuple[JobConfig, tuple[str, ...]]]:
    """The settings for each model version, and the dates that it scores."""
    if versions is None:
        yield config, found.present
        return
    name = models.parse_reference(config.model.requested).name
    for version in dict.fromkeys(versions[date].version for date in found.present):
        exact = config.model.model_copy(update={"name": name, "version": version})
        dates = tuple(date for date in found.present if versions[date].version == version)
        yield config.model_copy(update={"model": exact}), dates


def only(config: JobConfig, column: str, dates: Sequence[str]) -> JobConfig:
    """The settings with these dates named, as ``--partition`` would: named units are scored by a new version, too."""
    partitions = {**config.input.partitions, column: tuple(dates)}
    return config.model_copy(update={"input": config.input.model_copy(update={"partitions": partitions})})


def _local_runner(config: JobConfig, request: BackfillRequest) -> runners.LocalRunner | None:
    """Its processes serve all runs; runs side by side have their share of the cores each."""
    if config.scoring.runner != "local":
        return None
    return runners.LocalRunner(max(1, usable_cores() // request.at_a_time), keep=True)


def _plan(
    config: JobConfig,
    request: BackfillRequest,
    found: _Input,
    groups: Mapping[str, Group],
    versions: Mapping[str, DateVersion] | None,
) -> BackfillPlan:
    dates = [
        *planning.missing_dates(found.wanted, [*found.present, *found.unreadable]),
        *planning.unreadable_dates(found.unreadable),
    ]
    for group in groups.values():
        dates.extend(planning.planned_dates(group.planned, found.column, versions))
    ordered = tuple(sorted(dates, key=lambda date: date.date))
    first = next(iter(groups.values()))
    return BackfillPlan(
        backfill_id=first.ready.backfill,
        request=request,
        date_column=found.column,
        model=config.model.requested,
        models=tuple((group.planned.model.version, group.planned.model.digest) for group in groups.values()),
        input=found.source.uri,
        table=first.planned.target.uri,
        table_version=first.planned.target.version,
        engine=first.planned.task.engine,
        runner=config.scoring.runner,
        cores=first.planned.cores,
        dates=ordered,
        chunks=planning.chunked(ordered, request.chunk_dates),
        notices=tuple(dict.fromkeys(text for group in groups.values() for text in group.planned.notices)),
    )
