"""Evaluates a suite with Great Expectations, behind the one seam where it is imported (3-8 s)."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.contracts import Check, Column, OutputColumn, Schema
from batchscore.engines.embedded import main_with_a_file
from batchscore.errors import MAX_ITEMS, SettingsError, bounded, nearest
from batchscore.validate import frames, lean
from batchscore.validate.shortcuts import shorten
from batchscore.validate.staged import StagedTable
from batchscore.validate.suite import (
    Suite,
    check_columns,
    expectation_type,
    load_suite,
    needs_all_columns,
    needs_spark,
    suite_columns,
    with_whole_days,
)

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

_TEMPORAL = ("date", "timestamp", "timestamp_ntz")
_NOT_EQUAL = ("!=", "NOT_IN")


# Runs side by side import it once; what is changed for the import is the process's own.
_ONE_IMPORTS = threading.Lock()
# What the package shall not find in this process; see :func:`leave_out`.
_hidden: set[str] = set()


def leave_out(*, spark: bool) -> None:
    """Says that this process is a command's own, where nobody uses the package beside the run.

    Args:
        spark: whether its engine for Spark is left out, too: the run has no Spark that could judge.
    """
    _hidden.update((lean.SQL, lean.SPARK) if spark else (lean.SQL,))


def _import() -> Any:  # noqa: ANN401  # the package publishes no types
    # Read when the package is imported: it would send what it evaluates.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _ONE_IMPORTS, main_with_a_file(), lean.imports(_hidden):
        package = importlib.import_module("great_expectations")
    shorten()
    return package


def warm() -> threading.Thread:
    """Imports Great Expectations beside other work; a failure shows where the import is needed."""

    def load() -> None:
        with contextlib.suppress(ImportError):
            _import()

    thread = threading.Thread(target=load, name="import-great-expectations", daemon=True)
    thread.start()
    return thread


def prepare(path: str) -> Suite:
    """:func:`load_suite`, and every expectation built: what Great Expectations would drop is an error here.

    Raises:
        SettingsError: an expectation is unknown to it, or its arguments do not fit.
    """
    suite = load_suite(path)
    _build(suite)
    return suite


def judge_suite(
    suite: Suite, output: StagedTable, spark: Callable[[], SparkSession] | None, memory_budget_bytes: int
) -> tuple[Check, ...]:
    """One check for each expectation, over every staged row.

    pandas evaluates the named columns where they fit in the budget, Spark otherwise; both see the same values.
    """
    check_columns(suite, [column.name for column in output.columns])
    names = suite_names(suite, output.columns)
    needed = suite_bytes(suite, output.columns, sum(output.rows))
    if fits_pandas(suite, needed, memory_budget_bytes):
        return evaluate_pandas(suite, output.columns, frames.pandas_frame(output, names))
    if spark is None:
        raise SettingsError(
            "the validation suite needs Spark, which this run does not use",
            found=f"{needed >> 20} MiB of columns" if not needs_spark(suite) else "an expectation in SQL",
            allowed=(f"up to {memory_budget_bytes >> 20} MiB without Spark",),
            hint="use --runner spark, or name fewer columns in the suite",
        )
    return evaluate_spark(suite, output.columns, frames.spark_frame(output, names, spark()))


def fits_pandas(suite: Suite, needed_bytes: int, memory_budget_bytes: int) -> bool:
    """Whether pandas evaluates the suite, whose columns take so much memory."""
    return needed_bytes <= memory_budget_bytes and not needs_spark(suite)


def suite_bytes(suite: Suite, columns: Sequence[Column | OutputColumn], rows: int) -> int:
    """Memory that the suite's columns take with pandas, roughly."""
    return frames.pandas_bytes(columns, rows, suite_names(suite, columns))


def suite_names(suite: Suite, columns: Sequence[Column | OutputColumn]) -> tuple[str, ...]:
    """The columns that evaluating the suite takes."""
    names = tuple(column.name for column in columns)
    return names if needs_all_columns(suite) else suite_columns(suite) or names[:1]


def evaluate_pandas(suite: Suite, columns: Schema, frame: pd.DataFrame) -> tuple[Check, ...]:
    """The suite's verdict on a pandas frame."""
    gx = _import()
    import pandas as pd  # noqa: PLC0415  # loaded with the package

    context = _context(gx)
    # The package filters the frame for each expectation; where no row falls out, pandas copies it all the same, unless
    # it copies on write: 0.3 s of 0.5 over 8 million rows.
    with pd.option_context("mode.copy_on_write", True):  # as pandas takes it
        return _evaluate(gx, _dated(suite, columns), context.data_sources.add_pandas("staged"), frame)


def evaluate_spark(suite: Suite, columns: Schema, frame: DataFrame) -> tuple[Check, ...]:
    """The suite's verdict on a Spark frame."""
    gx = _import()
    context = _context(gx)
    cached = frame.persist()
    try:
        # Cached here and released below: left to the package, it would stay.
        return _evaluate(gx, _dated(suite, columns), context.data_sources.add_spark("staged", persist=False), cached)
    finally:
        cached.unpersist()


def _dated(suite: Suite, columns: Schema) -> Suite:
    return with_whole_days(suite, [column.name for column in columns if column.type in _TEMPORAL])


def _context(gx: Any) -> Any:  # noqa: ANN401  # the package publishes no types
    context = gx.get_context(mode="ephemeral")
    base = importlib.import_module("great_expectations.data_context.types.base")
    context.variables.progress_bars = base.ProgressBarsConfig(globally=False)
    return context


def _evaluate(gx: Any, suite: Suite, source: Any, frame: object) -> tuple[Check, ...]:  # noqa: ANN401  # untyped
    expectations = _build(suite)
    loaded = gx.ExpectationSuite(name=str(suite.get("name") or "suite"))
    with _deprecations_ignored():
        for expectation in expectations:
            loaded.add_expectation(expectation)
        batch = source.add_dataframe_asset("staged").add_batch_definition_whole_dataframe("all")
        result = batch.get_batch({"dataframe": frame}).validate(
            loaded, result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_ITEMS}
        )
    counts = {"asked": len(suite["expectations"]), "loaded": len(loaded.expectations), "judged": len(result.results)}
    checks = tuple(_check(each) for each in result.results)
    if len(set(counts.values())) > 1:
        observed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        checks += (Check("every_expectation_judged", passed=False, observed=observed),)
    return checks


def _build(suite: Suite) -> list[Any]:
    _import()
    registry = importlib.import_module("great_expectations.expectations.registry")
    known = registry.list_registered_expectation_implementations()
    built = []
    for expectation in suite["expectations"]:
        kind = expectation_type(expectation)
        if kind not in known:
            raise SettingsError(
                "the validation suite holds an expectation that Great Expectations does not know",
                found=kind,
                near=nearest(kind, known),
                hint="only the expectations of its core are supported, not custom ones",
            )
        built.append(_expectation(registry.get_expectation_impl(kind), kind, expectation.get("kwargs", {})))
    return built


def _expectation(implementation: Any, kind: str, kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401  # untyped
    arguments = {key: value for key, value in kwargs.items() if key != "batch_id"}
    with _deprecations_ignored():
        try:
            built = implementation(**arguments)
            condition = getattr(built, "row_condition", None)
            if condition is None:
                return built
            if "pass_through" in str(condition.dict()):
                raise SettingsError(
                    f"the row_condition of {kind} is written for one engine",
                    found=kwargs.get("row_condition"),
                    hint="write it as Great Expectations' condition object: the engine depends on the table's size",
                )
            arguments.pop("condition_parser", None)
            return implementation(**arguments | {"row_condition": null_rejecting(condition.dict())})
        except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
            problem = f"the arguments of {kind} do not fit"
            raise SettingsError(problem, found=" ".join(str(error).split())) from error


def null_rejecting(condition: Mapping[str, Any]) -> dict[str, Any]:
    """A row condition under which a null compares unequal to nothing, as in SQL; pandas says the opposite.

    >>> null_rejecting({"type": "comparison", "column": {"name": "a"}, "operator": "==", "parameter": 1})["type"]
    'comparison'
    >>> null_rejecting({"type": "comparison", "column": {"name": "a"}, "operator": "!=", "parameter": 1})["type"]
    'and'
    """
    whole = dict(condition)
    if whole.get("type") == "comparison" and str(whole["operator"]) in _NOT_EQUAL:
        there = {"type": "nullity", "column": whole["column"], "is_null": False}
        return {"type": "and", "conditions": [whole, there]}
    if "conditions" in whole:
        whole["conditions"] = [null_rejecting(part) for part in whole["conditions"]]
    return whole


@contextlib.contextmanager
def _deprecations_ignored() -> Iterator[None]:
    """The suite's author cannot act on what the package's versions deprecate while a run is judged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _check(result: Any) -> Check:  # noqa: ANN401  # the package publishes no types
    config = result.expectation_config
    named = suite_columns({"expectations": [{"type": config.type, "kwargs": dict(config.kwargs)}]})
    subject = ", ".join(named) or config.kwargs.get("column", "")
    facts = result.result or {}
    raised = _raised(result.exception_info)
    sample = tuple(bounded(_plain(value)) for value in facts.get("partial_unexpected_list", ())[:MAX_ITEMS])
    return Check(
        name=f"{config.type}({subject})",
        passed=bool(result.success) and raised is None,
        observed=bounded(raised or _observed(facts)),
        unexpected=int(facts.get("unexpected_count") or 0),
        sample=() if result.success else sample,
    )


def _plain(value: object) -> object:
    """A NumPy scalar as Python's own, whose text names no type; also within a tuple or a mapping."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _observed(facts: Mapping[str, Any]) -> str:
    if "observed_value" in facts:
        return f"observed {_plain(facts['observed_value'])}"
    if "unexpected_count" in facts:
        return f"{facts['unexpected_count']} of {facts.get('element_count', '?')} rows unexpected"
    return "judged"


def _raised(info: object) -> str | None:
    """What an expectation raised: one entry, or one for each metric."""
    if not isinstance(info, Mapping):
        return None
    if info.get("raised_exception"):
        return f"could not be evaluated: {info.get('exception_message')}"
    texts = (_raised(entry) for entry in info.values() if isinstance(entry, Mapping))
    return next((text for text in texts if text is not None), None)
