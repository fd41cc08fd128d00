"""Statistics by which readers skip files: a wrong bound loses rows."""

from __future__ import annotations

import datetime as dt
import decimal

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchscore.score.stats import StatsBuilder


def stats_of(*arrays: pa.Array):
    builder = StatsBuilder(pa.schema([("x", arrays[0].type)]))
    for array in arrays:
        builder.add("x", array)
    return builder.finish()[0]


def test_a_nan_anywhere_leaves_no_bounds():
    stats = stats_of(pa.array([1.0, 2.0]), pa.array([float("nan")]), pa.array([3.0, None]))
    assert (stats.minimum, stats.maximum, stats.null_count) == (None, None, 1)


def test_bounds_span_batches():
    stats = stats_of(pa.array([5, None]), pa.array([-3, 4]), pa.array([None, None], pa.int64()))
    assert (stats.minimum, stats.maximum, stats.null_count) == (-3, 5, 3)


@given(st.lists(st.text(max_size=50), min_size=1))
def test_text_bounds_hold_for_every_value_in_utf8_order(values):
    stats = stats_of(pa.array(values, pa.string()))
    for value in values:
        assert stats.minimum.encode() <= value.encode()
        if stats.maximum is not None:
            assert value.encode() <= stats.maximum.encode()


def test_long_text_is_truncated_to_a_bound():
    stats = stats_of(pa.array(["a" * 40]))
    assert stats.minimum == "a" * 32
    assert stats.maximum == "a" * 32 + "\U0010ffff"


def test_times_are_in_microseconds_and_decimals_keep_every_digit():
    moment = dt.datetime(2026, 11, 21, 1, 2, 3, 456789, tzinfo=dt.UTC)
    assert stats_of(pa.array([moment], pa.timestamp("us", "UTC"))).maximum == "2026-11-21T01:02:03.456789Z"
    assert stats_of(pa.array([dt.date(2026, 11, 21)])).minimum == "2026-11-21"
    value = decimal.Decimal("12345678901234567890.12")
    assert stats_of(pa.array([value], pa.decimal128(38, 2))).minimum == "12345678901234567890.12"


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4), st.sampled_from([None, "UTC"]))
def test_times_beyond_the_years_that_people_count_have_no_bounds(values, zone):
    """PostgreSQL's infinity, or ns that were taken for µs."""
    kind = pa.timestamp("us", tz=zone)
    stats = stats_of(*(pa.array([value], pa.int64()).cast(kind) for value in values), pa.nulls(1, kind))
    assert stats.null_count == 1
    if stats.minimum is None:
        assert stats.maximum is None
        return
    bounds = [dt.datetime.fromisoformat(str(text)) for text in (stats.minimum, stats.maximum)]
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC if zone else None)
    assert [(bound - epoch) // dt.timedelta(microseconds=1) for bound in bounds] == [min(values), max(values)]


def test_a_date_beyond_them_has_no_bounds_either():
    dates = pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())
    assert (stats_of(dates, dates).minimum, stats_of(dates.slice(0, 1), dates.slice(1)).maximum) == (None, None)


def test_infinity_has_no_json_and_booleans_and_lists_have_no_order():
    assert stats_of(pa.array([1.0, float("inf")])).maximum is None
    assert stats_of(pa.array([True, None])).minimum is None
    assert stats_of(pa.array([[1.0], None])).null_count == 1
