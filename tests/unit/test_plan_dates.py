"""Ranges, windows and the column that holds the dates; the clock is an argument."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.contracts import Column, SourceFile
from batchscore.errors import SettingsError
from batchscore.plan import dates, make
from tests.factories import values


def source(kind="date", column="ds", others=(), present=("2026-11-20", "2026-11-21")):
    """A source with a file for each value of ``column``, and further partition columns (name, type, value)."""
    files = tuple(
        SourceFile(
            f"/data/{column}={value}/a.parquet", 10, "t", 100, (100,),
            ((column, value), *((name, each) for name, _, each in others)),
        )
        for value in present
    )  # fmt: skip
    columns = (Column("id", "long"), Column("amount", "double"), Column(column, kind))
    return values.source(
        columns=(*columns, *(Column(name, other) for name, other, _ in others)),
        partition_columns=(column, *(name for name, _, _ in others)),
        files=files,
    )


# --- ranges ------------------------------------------------------------------------------------------------


def test_a_range_includes_both_ends_and_leap_days():
    assert dates.days("2026-12-31", "2027-01-01") == ("2026-12-31", "2027-01-01")
    assert dates.days("2026-11-21", "2026-11-21") == ("2026-11-21",)
    assert "2028-02-29" in dates.days("2028-02-01", "2028-03-01")
    assert len(dates.days("2027-02-01", "2027-02-28")) == 28


@given(st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)), st.integers(0, 800))
def test_a_range_has_every_date_once_in_order(first, more):
    last = min(dt.date.max.toordinal(), first.toordinal() + more)
    found = dates.days(first.isoformat(), dt.date.fromordinal(last).isoformat())
    assert list(found) == sorted(set(found))
    assert len(found) == last - first.toordinal() + 1


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        ("2026-11-22", "2026-11-21", "--from lies after --to"),
        ("yesterday", "2026-11-21", "--from takes a date"),
        ("2026-11-21", "2027-02-29", "--to takes a date"),
        ("20261121", "2026-11-21", "--from takes a date"),
        ("2026-11-21T00:00:00", "2026-11-22", "--from takes a date"),
        ("\uff12026-11-21", "2026-11-22", "--from takes a date"),
        ("0026-11-21", "2026-11-21", "dates apart"),
    ],
)
def test_a_range_that_is_none(first, last, says):
    with pytest.raises(SettingsError, match=says) as caught:
        dates.days(first, last)
    assert caught.value.found is not None


# --- windows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("7d", 168), (" 2 w ", 336), ("1h", 1)])
def test_an_age(text, hours):
    assert dates.hours(text) == hours


@pytest.mark.parametrize(
    "text", ["", "7", "d", "-7d", "0d", "7m", "7.5d", "seven days", "9999999999d", "999999w", "\u0667d"]
)
def test_an_age_that_is_none(text):
    with pytest.raises(SettingsError, match="--changed-since takes"):
        dates.hours(text)


@pytest.mark.parametrize(
    ("hours", "now", "first"),
    [
        (24, "2026-11-21T00:00:00+00:00", "2026-11-20"),
        (24, "2026-11-21T23:59:59+00:00", "2026-11-20"),
        (1, "2026-11-21T00:30:00+00:00", "2026-11-20"),
        (1, "2026-11-21T01:00:00+00:00", "2026-11-21"),
        (48, "2028-03-01T12:00:00+00:00", "2028-02-28"),
        # The night in which clocks are set forward, told in a zone that does: only UTC counts.
        (24, "2026-03-29T03:30:00+02:00", "2026-03-28"),
        (168, "2026-11-21T05:00:00+14:00", "2026-11-13"),
    ],
)
def test_the_first_date_of_a_window(hours, now, first):
    assert dates.first_recent(hours, dt.datetime.fromisoformat(now)) == first


# --- the column --------------------------------------------------------------------------------------------


def test_the_one_column_of_dates_is_found():
    assert dates.date_column(source(), ("ds",), None) == "ds"
    both = source(others=(("country", "string", "NO"), ("year", "integer", "2026")))
    assert dates.date_column(both, ("country", "ds", "year"), None) == "ds"
    text = source("string", present=("2026-11-20", None, "2026-11-21"))
    assert dates.date_column(text, ("ds",), None) == "ds"
    assert dates.dates_of(text, "ds") == ("2026-11-20", "2026-11-21")


@pytest.mark.parametrize(
    ("given", "partition_by", "named", "says"),
    [
        (source(), (), None, "not partitioned"),
        (source(), ("country",), None, "not laid out by"),
        (source("string", present=("2026-11-20", "latest")), ("ds",), None, r"no partition column.*\n.*ds=latest"),
        (source("string", present=("2026-11-20", "2026-02-30")), ("ds",), None, "ds=2026-02-30"),
        (source("string", present=(None,)), ("ds",), None, "no value but null"),
        (source("integer", present=("20261120",)), ("ds",), None, "type integer"),
        (source("timestamp", present=("2026-11-20T00:00:00Z",)), ("ds",), None, "type timestamp"),
        (source(others=(("loaded", "date", "2026-11-22"),)), ("ds", "loaded"), None, r"several(.|\n)*--date-column"),
        (source(), ("ds",), "dss", r"--date-column(.|\n)*did you mean: ds"),
        (source(others=(("country", "string", "NO"),)), ("ds", "country"), "country", "does not hold dates"),
        (values.source(files=()), ("ds",), None, "not laid out by"),
    ],
)
def test_a_column_that_is_none(given, partition_by, named, says):
    with pytest.raises(SettingsError, match=says):
        dates.date_column(given, partition_by, named)


def test_of_several_columns_one_is_named():
    two = source(others=(("loaded", "date", "2026-11-22"),))
    assert dates.date_column(two, ("ds", "loaded"), "loaded") == "loaded"


def test_units_outside_are_counted_by_unit_not_by_file():
    given = source(others=(("country", "string", "NO"),), present=("2026-11-19", "2026-11-20", "2026-11-20", None))
    assert dates.units_outside(given, ("ds", "country"), "ds", ["2026-11-19"]) == 2


# --- what a plan makes of it -------------------------------------------------------------------------------


def test_a_plan_says_how_many_units_were_not_looked_at():
    plan = make(values.plan_inputs(units_outside=3))
    assert plan.units_outside == 3
    assert any("3 units of older dates" in notice for notice in plan.notices)


def test_a_window_without_any_unit_leaves_nothing_to_do():
    plan = make(values.plan_inputs(source=values.source(files=()), units_outside=2))
    assert plan.nothing_to_do
    assert plan.tasks == ()


def test_the_whole_table_is_not_replaced_by_recent_units():
    dates.refuse_replace("partitions")
    with pytest.raises(SettingsError, match="mode replace"):
        dates.refuse_replace("replace")
