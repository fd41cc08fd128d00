"""The model's signature against the table's schema, before any executor starts."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from batchscore.arrow.reach import require_reachable
from batchscore.config import JobConfig
from batchscore.contracts import Binding, Check, PinnedModel, PinnedSource
from batchscore.errors import SchemaMismatchError
from batchscore.plan.binding import bind
from batchscore.prepare import LazySpark, OnEvent, pin_model, pin_source


def check(config: JobConfig, on_event: OnEvent = lambda _: None) -> list[Check]:
    """Compares what the model takes with what the table has; reads no row.

    Returns:
        One entry a question; those that would stop a run have ``passed=False``.

    Raises:
        BatchscoreError: the model or the input cannot be found at all, or the output's storage not be reached.
    """
    model = pin_model(config)
    source, _ = pin_source(config, LazySpark(config, on_event))
    require_reachable(config.output.path, "output")
    return [*_signature(model, source), *_nullable(model, source), *_order(model, source), *_versions(model)]


def _signature(model: PinnedModel, source: PinnedSource) -> Iterator[Check]:
    try:
        bindings = bind(model, source.columns)
    except SchemaMismatchError as error:
        for line in error.detail or (error.problem,):
            yield Check("signature", passed=False, observed=line)
        return
    yield Check("signature", passed=True, observed=f"{len(model.inputs)} inputs bound to columns by name")
    for binding in bindings:
        if binding.cast not in ("same", "absent"):
            yield Check(
                f"cast {binding.source}",
                passed=True,
                observed=f"{binding.source_type} to {binding.model_type}: {_explained(binding)}",
            )
        if binding.cast == "absent":
            yield Check(f"optional {binding.input}", passed=True, observed="not in the table: the model gets nulls")
    used = {binding.source for binding in bindings}
    extra = [column.name for column in source.columns if column.name not in used]
    if extra:
        yield Check("extra columns", passed=True, observed="the model does not take these", sample=tuple(extra[:10]))


def _explained(binding: Binding) -> str:
    return {
        "widen": "every value fits",
        "checked": "each value is checked, one that does not fit makes its row bad",
        "to_utc": "as wall-clock time in UTC",
        "midnight": "the day's first moment",
    }[binding.cast]


def _nullable(model: PinnedModel, source: PinnedSource) -> Iterator[Check]:
    nullable = {column.name for column in source.columns if column.nullable}
    try:
        bindings = bind(model, source.columns)
    except SchemaMismatchError:
        return
    for binding in bindings:
        if binding.null_rows_bad and binding.source in nullable:
            yield Check(
                f"nulls in {binding.source}",
                passed=True,
                observed=f"the column may hold nulls and the model's {binding.model_type} has none: "
                "a row with a null refuses the run",
            )


def _order(model: PinnedModel, source: PinnedSource) -> Iterator[Check]:
    names = [column.name for column in source.columns]
    taken = [names.index(item.name) for item in model.inputs if item.name in names]
    if taken != sorted(taken):
        yield Check("order", passed=True, observed="columns stand in another order; they are bound by name")


def _versions(model: PinnedModel) -> Iterator[Check]:
    """Differences between the versions that logged the model and those that run here."""
    if model.python_version and model.python_version.rsplit(".", 1)[0] != platform.python_version().rsplit(".", 1)[0]:
        yield Check(
            "python version",
            passed=True,
            observed=f"logged with {model.python_version}, running {platform.python_version()}",
        )
    for requirement in model.requirements:
        name, _, wanted = requirement.partition("==")
        if not wanted:
            continue
        name, wanted = name.split("[")[0].strip(), wanted.split(";")[0].strip()
        try:
            running = metadata.version(name)
        except metadata.PackageNotFoundError:
            running = "not installed"
        if running != wanted:
            yield Check(f"package {name}", passed=True, observed=f"logged with {wanted}, running {running}")
