from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.layout import is_canonical, misspelled, partition_path, partition_value
from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import scalar_of
from batchscore.errors import InputError, SettingsError


@pytest.mark.parametrize(
    ("scalar", "text"),
    [
        (pa.scalar(7, pa.int8()), "7"),
        (pa.scalar(-(2**63)), "-9223372036854775808"),
        (pa.scalar("a b/c%"), "a b/c%"),
        (pa.scalar(""), None),
        (pa.scalar(None, pa.string()), None),
        (pa.scalar(False), "false"),
        (pa.scalar(date(2026, 1, 31)), "2026-01-31"),
        (pa.scalar(date(26, 1, 31)), "0026-01-31"),
        (pa.scalar(date(2026, 1, 31), pa.date64()), "2026-01-31"),
        (pa.scalar(Decimal("1.20"), pa.decimal128(10, 2)), "1.20"),
        (pa.scalar(Decimal(0), pa.decimal128(38, 10)), "0.0000000000"),
        (pa.scalar("2026-01-31 01:02:03.000004").cast(pa.timestamp("us")), "2026-01-31 01:02:03.000004"),
        (
            pa.scalar(
                datetime(2026, 1, 31, 1, tzinfo=timezone(timedelta(hours=2))), pa.timestamp("us", "Europe/Berlin")
            ),
            "2026-01-30T23:00:00.000000Z",
        ),
        (pa.array(["x"]).dictionary_encode()[0], "x"),
        (pa.scalar("x", pa.large_string()), "x"),
    ],
)
def test_spelling(scalar, text):
    assert partition_value(scalar) == text


@pytest.mark.parametrize("scalar", [pa.scalar(1.5), pa.scalar(b"x"), pa.scalar([1]), pa.scalar(None, pa.float32())])
def test_types_without_a_spelling_are_refused(scalar):
    with pytest.raises(SettingsError, match="cannot be partitioned"):
        partition_value(scalar)


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamp_ntz"])
def test_times_that_not_every_reader_has_are_refused(kind):
    scalar = scalar_of(2**31 - 1 if kind == "date" else 2**63 - 1, to_arrow(kind))
    with pytest.raises(InputError, match="outside of the years 1 to 9999") as caught:
        partition_value(scalar)
    assert "out of range" in str(caught.value.found)
    assert not is_canonical("0000-01-01", kind)
    assert not is_canonical("0000-01-01 00:00:00", kind)


typed = st.one_of(
    st.tuples(st.just("long"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("string"), st.text(min_size=1)),
    st.tuples(st.just("date"), st.dates()),
    st.tuples(st.just("boolean"), st.booleans()),
    st.tuples(st.just("decimal(12,3)"), st.decimals(-(10**8), 10**8, places=3)),
    st.tuples(st.just("timestamp_ntz"), st.datetimes()),
    st.tuples(st.just("timestamp"), st.datetimes(timezones=st.just(UTC))),
)


@given(typed)
def test_every_spelling_is_canonical(case):
    kind, value = case
    text = partition_value(pa.scalar(value, to_arrow(kind)))
    assert is_canonical(text, kind)
    assert pa.scalar(text).cast(to_arrow(kind)).as_py() == value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("07", "integer"),
        ("1.2", "decimal(10,2)"),
        ("TRUE", "boolean"),
        ("2026-1-1", "date"),
        ("", "string"),
        ("x", "long"),
        ("2026-01-31 01:02:03", "timestamp_ntz"),
        ("2026-01-31 01:02:03.000000", "timestamp"),
        ("300", "byte"),
    ],
)
def test_other_spellings_are_not(value, kind):
    assert not is_canonical(value, kind)
    assert misspelled([value], kind) == {value}


@given(st.sampled_from(["integer", "date", "boolean", "decimal(12,3)", "timestamp", "string"]), st.data())
def test_many_at_a_time_are_judged_as_one_by_one(kind, data):
    some = st.sampled_from(["07", "7", "", "2026-01-31", "2026-1-31", "true", "TRUE", "1.200", "1.2", "300"])
    values = data.draw(st.lists(some | st.text(max_size=5), unique=True, max_size=6))
    assert misspelled(values, kind) == {value for value in values if not is_canonical(value, kind)}


@given(st.lists(st.tuples(st.text(min_size=1), st.none() | st.text(min_size=1)), min_size=1, max_size=3))
def test_folders_are_safe_on_every_file_system(unit):
    path = partition_path(tuple(unit))
    folders = path.split("/")
    assert len(folders) == len(unit)
    for folder in folders:
        assert folder.isascii()
        assert len(folder) <= 200
        assert folder[0] not in "_."
        assert not set(folder) & set(" \"'\\:*?#<>|\n")


def test_long_values_stay_apart():
    first, second = partition_path((("p", "x" * 300),)), partition_path((("p", "x" * 299 + "y"),))
    assert first != second


def test_no_partitions():
    assert partition_path(()) == ""
