from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.layout import partition_value
from batchscore.arrow.splits import constant
from batchscore.arrow.types import to_arrow
from batchscore.contracts import Column, Restriction
from batchscore.errors import SettingsError
from batchscore.read import pin
from batchscore.read.partitions import canonical, hive_values, inferred_type, wanted_values
from tests.factories.sources import write


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "02", "-3"], "integer"),
        (["1", "3000000000"], "long"),
        (["1", "1.5"], "double"),
        (["99999999999999999999"], "decimal(20,0)"),
        (["2026-11-21", None], "date"),
        (["2026-11-21", "2026-11-31"], "string"),
        (["2026-11-21", "2026-11-21 06:00:00"], "timestamp"),
        (["2026-11-21", "1"], "string"),
        (["20261121"], "integer"),
        (["a", "1"], "string"),
        (["1d", "NaN"], "string"),
        ([None], "string"),
        ([], "string"),
    ],
)
def test_inferred_types(values, kind):
    assert inferred_type(values) == kind


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("007", "integer", "7"),
        (True, "boolean", "true"),
        ("TRUE", "boolean", "true"),
        (Decimal("1.5"), "decimal(5,2)", "1.50"),
        ("1.50", "decimal(5,1)", "1.5"),
        (dt.date(2026, 11, 21), "date", "2026-11-21"),
        (dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC), "timestamp", "2026-11-21T06:00:00.000000Z"),
        ("2026-11-21T07:00:00.500000+01:00", "timestamp", "2026-11-21T06:00:00.500000Z"),
        ("1e3", "double", "1000.0"),
        ("a/ b%", "string", "a/ b%"),
        (b"A", "binary", "A"),
    ],
)
def test_canonical_strings(value, kind, expected):
    assert canonical(value, kind) == expected
    assert canonical(expected, kind) == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "integer"),
        ("300", "byte"),
        ("1.55", "decimal(5,1)"),
        ("x", "decimal(5,1)"),
        ("10000", "decimal(5,1)"),
        ("Infinity", "decimal(5,1)"),
        ("NaN", "decimal(5,1)"),
        ("1e999999999", "decimal(38,0)"),
        ("yes", "boolean"),
        ("0001-01-01 00:00:00", "date"),
        ("9999-12-31T23:59:59-01:00", "timestamp"),
        ("0001-01-01 00:00:00+01:00", "timestamp_ntz"),
    ],
)
def test_values_that_are_none_of_the_type(value, kind):
    with pytest.raises(ValueError, match=re.escape(value)):
        canonical(value, kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, "integer"),
        ("a/ b%", "string"),
        (True, "boolean"),
        (Decimal("1.50"), "decimal(5,2)"),
        (dt.date(2026, 11, 21), "date"),
        (dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC), "timestamp"),
        (dt.datetime(2026, 11, 21, 6, 0, 0, 5), "timestamp_ntz"),  # noqa: DTZ001  # without a zone
    ],
)
def test_an_input_partition_is_spelled_as_the_output_will_spell_it(value, kind):
    assert canonical(value, kind) == partition_value(pa.scalar(value, to_arrow(kind)))


@given(st.one_of(st.integers(-(2**31), 2**31 - 1), st.dates(dt.date(1000, 1, 1)), st.floats(allow_nan=False)))
def test_a_canonical_string_reads_back_as_its_value(value):
    kind = {int: "integer", dt.date: "date", float: "double"}[type(value)]
    assert constant(canonical(value, kind), kind).as_py() == value


@st.composite
def decimals(draw) -> tuple[Decimal, str]:
    """A number of up to 38 digits, and a type that holds it."""
    precision = draw(st.integers(1, 38))
    scale = draw(st.integers(0, precision))
    whole = draw(st.integers(1 - 10**precision, 10**precision - 1))
    return Decimal((int(whole < 0), tuple(map(int, str(abs(whole)))), -scale)), f"decimal({precision},{scale})"


@given(decimals())
def test_a_decimal_of_any_precision_is_spelled_as_the_output_will_spell_it(given_decimal):
    value, kind = given_decimal
    text = canonical(value, kind)
    assert text == partition_value(pa.scalar(value, to_arrow(kind)))
    assert canonical(str(value), kind) == canonical(text, kind) == text
    assert constant(text, kind).as_py() == value


ZONES = tuple(dt.timezone(dt.timedelta(hours=hours)) for hours in (-14, 0, 14))
KINDS = ("byte", "long", "decimal(5,2)", "decimal(38,10)", "double", "boolean", "date", "timestamp", "timestamp_ntz")
TEXTS = st.one_of(
    st.text(max_size=40),
    st.decimals().map(str),
    st.integers().map(str),
    st.datetimes(timezones=st.sampled_from(ZONES)).map(str),
)


@given(TEXTS, st.sampled_from(KINDS))
def test_any_text_is_a_value_or_none_of_the_type(text, kind):
    try:
        found = canonical(text, kind)
    except ValueError:
        return
    assert canonical(found, kind) == found


def test_folders_of_many_digits_and_an_infinity(tmp_path):
    number = "12345678901234567890123456789012"
    write(pa.table({"id": [1]}), tmp_path / f"account={number}" / "a.parquet")
    source = pin(str(tmp_path), restriction=Restriction((("account", (number,)),)))
    assert source.files[0].partition == (("account", number),)
    with pytest.raises(SettingsError, match=r"no decimal\(32,0\)") as caught:
        pin(str(tmp_path), restriction=Restriction((("account", ("Infinity",)),)))
    assert caught.value.found == "Infinity"


def test_a_delta_table_partitioned_by_a_long_decimal(tmp_path):
    value = Decimal("123456789012345678901234567890123456.78")
    rows = pa.table({"id": [1], "amount": pa.array([value], pa.decimal128(38, 2))})
    write_deltalake(tmp_path / "t", rows, partition_by=["amount"])
    assert pin(str(tmp_path / "t")).files[0].partition == (("amount", str(value)),)


def test_hive_paths():
    assert hive_values("ds=2026-11-21/city=a%2Fb%20c/part-0.parquet") == (("ds", "2026-11-21"), ("city", "a/b c"))
    assert hive_values("city=__HIVE_DEFAULT_PARTITION__/x.parquet") == (("city", None),)
    assert hive_values("plain/x=1.parquet") == ()


def test_wanted_values_are_canonical_and_names_exact():
    columns = (Column("Hour", "integer"), Column("ds", "date"))
    wanted = wanted_values([("hour", ("07", "7", "8")), ("ds", ("__HIVE_DEFAULT_PARTITION__",))], columns)
    assert wanted == {"Hour": ("7", "8"), "ds": (None,)}
    with pytest.raises(SettingsError, match="does not have") as caught:
        wanted_values([("hours", ("7",))], columns)
    assert caught.value.near == ("Hour",)
    with pytest.raises(SettingsError, match="no date") as caught:
        wanted_values([("ds", ("21.11.2026",))], columns)
    assert caught.value.found == "21.11.2026"
