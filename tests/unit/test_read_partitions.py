from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.layout import partition_value
from batchscore.arrow.splits import constant
from batchscore.arrow.types import to_arrow
from batchscore.contracts import Column
from batchscore.errors import SettingsError
from batchscore.read.partitions import canonical, hive_values, inferred_type, wanted_values


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
    [("x", "integer"), ("300", "byte"), ("1.55", "decimal(5,1)"), ("x", "decimal(5,1)"), ("yes", "boolean")],
)
def test_values_that_are_none_of_the_type(value, kind):
    with pytest.raises(ValueError, match=value):
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
