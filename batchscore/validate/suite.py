"""A Great Expectations suite as JSON: read and checked without importing Great Expectations."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from batchscore.errors import SettingsError, bounded, nearest

Suite: TypeAlias = dict[str, Any]
Expectation: TypeAlias = Mapping[str, Any]

# Their verdict depends on the engine that evaluates them, or they read other tables.
REFUSED = {
    "expect_column_type_to_be": "an engine's own type names",
    "expect_column_values_to_be_of_type": "an engine's own type names",
    "expect_column_values_to_be_in_type_list": "an engine's own type names",
    "expect_query_results_to_match_comparison": "a second data source",
    "expect_table_row_count_to_equal_other_table": "a second table",
}
# pandas counts a pair of which one value is missing as unexpected, Spark does not count it at all.
MISSING_VALUES = {
    "expect_column_pair_values_a_to_be_greater_than_b": "either_value_is_missing",
    "expect_column_pair_values_to_be_equal": "either_value_is_missing",
    "expect_column_pair_values_to_be_in_set": "either_value_is_missing",
    "expect_multicolumn_sum_to_equal": "any_value_is_missing",
    "expect_multicolumn_values_to_be_equal": "any_value_is_missing",
    "expect_select_column_values_to_be_unique_within_record": "any_value_is_missing",
}
SPARK_ONLY = ("unexpected_rows_expectation",)
_HINT = "write a suite in Great Expectations' own JSON format, or leave validation.suite out"
_COLUMN_KEYS = ("column", "column_A", "column_B")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LEGACY_COLUMN = re.compile(r"""col\(\s*["']([^"']+)["']\s*\)""")


def load_suite(path: str) -> Suite:
    """The suite in a file, with its structure checked (fast: no Great Expectations).

    Raises:
        SettingsError: the file is missing, is not JSON, is empty of expectations, or holds one that depends
            on more than the staged rows.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the validation suite {path} cannot be read", found=error, hint=_HINT) from error
    try:
        suite = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"the validation suite {path} is not JSON", found=error, hint=_HINT) from error
    if not isinstance(suite, dict) or not isinstance(suite.get("expectations"), list):
        raise SettingsError(f"the validation suite {path} has no list 'expectations'", found=text, hint=_HINT)
    if not suite["expectations"]:
        raise SettingsError(f"the validation suite {path} is empty: it would pass whatever was scored", hint=_HINT)
    for number, expectation in enumerate(suite["expectations"], 1):
        _check_expectation(path, number, expectation)
    return suite


def _check_expectation(path: str, number: int, expectation: object) -> None:
    place = f"expectation {number} of {path}"
    if not isinstance(expectation, dict) or not isinstance(expectation_type(expectation), str):
        raise SettingsError(f"{place} has no 'type'", found=bounded(expectation), hint=_HINT)
    if not isinstance(expectation.get("kwargs", {}), dict):
        raise SettingsError(f"{place} has 'kwargs' that are no object", found=bounded(expectation), hint=_HINT)
    reason = REFUSED.get(expectation_type(expectation))
    if reason is not None:
        raise SettingsError(
            f"{place}, {expectation_type(expectation)}, depends on {reason} and cannot judge staged files",
            hint="leave it out: the plan fixes the columns' types before anything is scored",
        )
    ignored = MISSING_VALUES.get(expectation_type(expectation))
    said = expectation.get("kwargs", {}).get("ignore_row_if")
    if ignored is not None and said != ignored:
        raise SettingsError(
            f"{place}, {expectation_type(expectation)}, leaves open what a missing value means",
            found=f"ignore_row_if: {said}",
            allowed=(f'"ignore_row_if": "{ignored}"',),
            hint="where a missing value is wrong, say so with expect_column_values_to_not_be_null",
        )


def expectation_type(expectation: Expectation) -> str:
    """The type's name; older suites spell the key ``expectation_type``.

    >>> expectation_type({"expectation_type": "expect_column_to_exist"})
    'expect_column_to_exist'
    """
    name: str = expectation.get("type") or expectation.get("expectation_type")  # type: ignore[assignment]
    return name


def with_whole_days(suite: Suite, temporal: Collection[str]) -> Suite:
    """The suite with days that bound a date or time column spelled as their first moment.

    Great Expectations takes a bare day for a date, which pandas refuses to compare with a moment.

    >>> asked = {"expectations": [{"type": "t", "kwargs": {"column": "ds", "min_value": "2026-01-02"}}]}
    >>> with_whole_days(asked, ["ds"])["expectations"][0]["kwargs"]["min_value"]
    '2026-01-02 00:00:00'
    """
    whole = [
        {**each, "kwargs": {key: _moment(value) for key, value in each["kwargs"].items()}}
        if each.get("kwargs", {}).get("column") in temporal
        else each
        for each in suite["expectations"]
    ]
    return {**suite, "expectations": whole}


def _moment(value: object) -> object:
    if isinstance(value, list):
        return [_moment(item) for item in value]
    return f"{value} 00:00:00" if isinstance(value, str) and _DAY.fullmatch(value) else value


def needs_all_columns(suite: Suite) -> bool:
    """Whether an expectation looks at the table's columns as such, or at columns that SQL names."""
    kinds = [expectation_type(expectation) for expectation in suite["expectations"]]
    return any(kind.startswith("expect_table_column") or kind in SPARK_ONLY for kind in kinds)


def needs_spark(suite: Suite) -> bool:
    """Whether only Spark can evaluate the suite."""
    return any(expectation_type(expectation) in SPARK_ONLY for expectation in suite["expectations"])


def suite_columns(suite: Suite) -> tuple[str, ...]:
    """The columns that the suite names, in order of appearance.

    >>> suite_columns({"expectations": [{"type": "t", "kwargs": {"column_list": ["a", "b"]}}]})
    ('a', 'b')
    """
    named: dict[str, None] = {}
    for expectation in suite["expectations"]:
        if expectation_type(expectation) != "expect_column_to_exist":
            named.update(dict.fromkeys(_columns_of(expectation.get("kwargs", {}))))
    return tuple(named)


def _columns_of(kwargs: Mapping[str, Any]) -> Iterator[str]:
    yield from (kwargs[key] for key in _COLUMN_KEYS if isinstance(kwargs.get(key), str))
    if isinstance(kwargs.get("column_list"), list):
        yield from (name for name in kwargs["column_list"] if isinstance(name, str))
    yield from _columns_of_condition(kwargs.get("row_condition"))


def _columns_of_condition(condition: object) -> Iterator[str]:
    if isinstance(condition, str):
        yield from _LEGACY_COLUMN.findall(condition)
    elif isinstance(condition, dict):
        column = condition.get("column")
        if isinstance(column, dict) and isinstance(column.get("name"), str):
            yield column["name"]
        for part in condition.get("conditions", ()):
            yield from _columns_of_condition(part)


def check_columns(suite: Suite, columns: Sequence[str]) -> None:
    """Compares the columns that a suite names with the output's.

    Raises:
        SettingsError: the suite names a column that the output will not have.
    """
    for name in suite_columns(suite):
        if name not in columns:
            raise SettingsError(
                "the validation suite names a column that the output does not have",
                found=name,
                allowed=tuple(columns),
                near=nearest(name, columns),
            )
