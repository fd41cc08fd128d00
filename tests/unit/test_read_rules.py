"""The settings' rules as conditions: which rows break them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from batchscore.arrow.predicate import mask
from batchscore.arrow.types import to_arrow
from batchscore.config.settings import RuleSettings
from batchscore.contracts import Column
from batchscore.errors import SettingsError
from batchscore.read import compile_rules, computed_columns

NAN, INF = float("nan"), float("inf")
SOURCE = (
    Column("amount", "double"),
    Column("small", "float"),
    Column("price", "decimal(8,2)"),
    Column("n", "long"),
    Column("country", "string"),
    Column("day", "date"),
    Column("at", "timestamp"),
    Column("wall", "timestamp_ntz"),
    Column("ok", "boolean"),
)
OUTPUTS = (Column("prediction", "double"),)
MAY_1 = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
WALL = MAY_1.replace(tzinfo=None)
JUST_BEFORE = WALL - dt.timedelta(microseconds=1)


def rule(**settings):
    return RuleSettings.model_validate(settings)


def compiled(**settings):
    return compile_rules([rule(**settings)], SOURCE, OUTPUTS)


def broken(values, **settings):
    """The places of the values that break the rule."""
    columns = {column.name: column.type for column in (*SOURCE, *OUTPUTS)}
    name = settings.pop("on", settings.get("column"))
    batch = pa.RecordBatch.from_arrays([pa.array(values, to_arrow(columns[name]))], names=[name])
    (found,) = compiled(**settings)
    holds = mask(found.holds, batch, (*SOURCE, *OUTPUTS)).to_pylist()
    return [place for place, held in enumerate(holds) if held is False]


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        ({"column": "amount", "required": True}, [1.0, None, NAN], [1]),
        (
            {"column": "amount", "range": [0, 10]},
            [-0.0, 0.0, 10.0, 10.000001, -1e-300, None, NAN, INF, -INF],
            [3, 4, 6, 7, 8],
        ),
        ({"column": "amount", "range": [0, None]}, [0.0, -1.0, None, NAN, INF], [1, 3]),
        ({"column": "amount", "range": [None, 0.1]}, [0.1, 0.10000000000000002, -INF, NAN], [1, 3]),
        ({"column": "small", "range": [0.1, None]}, [0.1, 0.09], [1]),
        ({"column": "price", "range": [0.01, 99.99]}, [Decimal("0.01"), Decimal("0.00"), Decimal("100.00")], [1, 2]),
        ({"column": "price", "range": [1e-05, None]}, [Decimal("0.01"), Decimal("0.00")], [1]),
        ({"column": "n", "range": [-5, 2**40]}, [-5, -6, 2**40, 2**40 + 1], [1, 3]),
        ({"column": "day", "range": ["2026-01-01", "2026-12-31"]}, [dt.date(2025, 12, 31), dt.date(2026, 1, 1)], [0]),
        (
            {"column": "at", "range": ["2026-05-01T02:00:00+02:00", None]},
            [MAY_1, MAY_1 - dt.timedelta(microseconds=1)],
            [1],
        ),
        # As YAML gives a time that is not quoted, as ISO 8601 spells it, and as SQL does.
        ({"column": "wall", "range": [WALL, None]}, [WALL, JUST_BEFORE, None], [1]),
        ({"column": "wall", "range": ["2026-05-01T00:00:00", None]}, [WALL, JUST_BEFORE], [1]),
        ({"column": "wall", "range": ["2026-05-01 00:00:00", None]}, [WALL, JUST_BEFORE], [1]),
        ({"column": "country", "allowed": ["DE", "it's", "a\\b"]}, ["DE", "it's", "a\\b", "de", "", None], [3, 4]),
        ({"column": "n", "allowed": [1, 2]}, [1, 3, None], [1]),
        ({"column": "amount", "allowed": [0, 0.5]}, [-0.0, 0.0, 0.5, 0.25, NAN], [3, 4]),
        ({"column": "ok", "allowed": [True]}, [True, False, None], [1]),
        ({"column": "country", "regex": "^[A-Z]{2}$"}, ["DE", "DEU", "xDE", None, ""], [1, 2, 4]),
        ({"column": "country", "regex": "E"}, ["DE", "de"], [1]),
        ({"on": "amount", "sql": "amount > 0 OR amount IS NULL"}, [1.0, 0.0, None], [1]),
        ({"on": "prediction", "sql": "prediction BETWEEN 0 AND 1"}, [0.0, 1.5, None], [1]),
        ({"column": "prediction", "range": [0, 1]}, [0.0, 1.0, 1.0000000000000002], [2]),
    ],
)
def test_which_values_break_a_rule(settings, values, expected):
    assert broken(values, **settings) == expected


def test_a_rule_of_several_conditions_is_several_rules():
    found = compiled(column="country", required=True, allowed=["DE"], regex="D", name="land")
    assert [(one.name, one.reason) for one in found] == [
        ("land", "required"),
        ("land", "not_allowed"),
        ("land", "no_match"),
    ]


def test_rules_name_themselves_and_say_when_they_are_looked_at():
    assert [one.name for one in compiled(column="amount", range=[0, None])] == ["amount in [0, ]"]
    assert [one.of_output for one in compiled(column="AMOUNT", required=True)] == [False]
    assert [one.of_output for one in compiled(column="prediction", range=[0, 1])] == [True]
    assert [one.of_output for one in compiled(sql="amount > 0 OR prediction < 0.5")] == [True]


def test_what_the_subset_does_not_hold_is_computed_by_spark():
    found = compiled(sql="upper(country) = 'DE' AND length(country) < 3")
    assert computed_columns(found) == (("__batchscore_rule_0", "upper(country) = 'DE' AND length(country) < 3"),)
    assert found[0].columns == ("__batchscore_rule_0",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"column": "amuont", "required": True}, ["amuont", "amount"]),
        ({"column": "day", "range": ["yesterday", None]}, ["day", "date"]),
        ({"column": "n", "range": [0.5, None]}, ["column n", "long"]),
        ({"column": "ok", "range": [0, 1]}, ["column ok"]),
        ({"column": "country", "range": [1, 2]}, ["column country", "string"]),
        ({"column": "at", "range": ["2026-05-01 00:00:00", None]}, ["column at", "time zone"]),
        ({"column": "wall", "range": [MAY_1, None]}, ["column wall", "time zone"]),
        ({"column": "amount", "regex": "x"}, ["column amount", "double"]),
        ({"column": "country", "regex": "(?=x)"}, ["country", "RE2"]),
        ({"column": "country", "regex": "("}, ["country"]),
        ({"sql": "amount > (SELECT max(x) FROM other)"}, ["subquery"]),
        ({"sql": "amuont > 0"}, ["amuont", "amount"]),
        ({"sql": "amount > 0; DROP TABLE t"}, ["rule"]),
        ({"sql": "upper(prediction) = 'X'"}, ["prediction", "Spark"]),
        ({"sql": "amount +"}, ["rule amount +"]),
    ],
)
def test_a_rule_that_cannot_be_meant(settings, words):
    with pytest.raises(SettingsError) as caught:
        compiled(**settings)
    for word in words:
        assert word in caught.value.text()
    assert "--where" not in caught.value.text()


def test_a_rule_for_spark_says_which_columns_it_reads():
    (found,) = compiled(sql="upper(COUNTRY) = 'NO' AND abs(n) > 1")
    assert found.named == ("n", "country")
    assert found.columns == computed_columns([found])[0][:1]
