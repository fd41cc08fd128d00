"""Casts from table columns to model inputs: every value survives or its row is named."""

from __future__ import annotations

import datetime as dt
import decimal
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.types import to_arrow
from batchscore.contracts import Binding, ModelInput
from batchscore.schema import cast_rule
from batchscore.score.casts import bind, normalized


def cast(values: pa.Array, source: str, model: str, *, required: bool = True):
    rule = cast_rule(source, model)
    assert rule is not None
    binding = Binding("x", "x", source, model, rule.cast, rule.null_rows_bad and required)
    return bind([normalized(values, source)], [binding], ModelInput("x", model, required))


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))))
def test_long_to_double_keeps_every_value_or_names_its_row(values):
    column = cast(pa.array(values, pa.int64()), "long", "double")
    bad = [False] * len(values) if column.bad is None else column.bad.to_pylist()
    for value, result, is_bad in zip(values, column.values.to_pylist(), bad, strict=True):
        if value is None:
            assert not is_bad
            assert result is None
        elif not is_bad:
            assert int(result) == value
        else:
            assert abs(value) > 2**53


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_long_to_integer_is_checked_value_by_value(values):
    column = cast(pa.array(values, pa.int64()), "long", "integer")
    bad = [False] * len(values) if column.bad is None else column.bad.to_pylist()
    assert bad == [not -(2**31) <= value < 2**31 for value in values]
    assert [r for r, b in zip(column.values.to_pylist(), bad, strict=True) if not b] == [
        v for v, b in zip(values, bad, strict=True) if not b
    ]


@given(st.lists(st.decimals(min_value=-(10**20), max_value=10**20, places=6, allow_nan=False), min_size=1))
def test_a_decimal_becomes_the_nearest_double(values):
    column = cast(pa.array(values, pa.decimal128(38, 6)), "decimal(38,6)", "double")
    assert column.values.to_pylist() == [float(value) for value in values]


@given(st.lists(st.decimals(min_value=-(10**8), max_value=10**8, places=6, allow_nan=False), min_size=1))
def test_a_short_decimal_becomes_the_nearest_double(values):
    column = cast(pa.array(values, pa.decimal128(15, 6)), "decimal(15,6)", "double")
    assert column.values.to_pylist() == [float(value) for value in values]


def test_a_sliced_decimal_with_nulls_keeps_its_rows():
    values = pa.array([decimal.Decimal("1.5"), None, decimal.Decimal("-2.25")], pa.decimal128(10, 2)).slice(1)
    assert cast(values, "decimal(10,2)", "double").values.to_pylist() == [None, -2.25]


def test_a_whole_decimal_beyond_long_makes_its_row_bad():
    values = [decimal.Decimal(2**63), decimal.Decimal(2**63 - 1), None]
    column = cast(pa.array(values, pa.decimal128(20, 0)), "decimal(20,0)", "long")
    assert column.bad.to_pylist() == [True, False, True]  # the model's long has no null
    assert column.values[1].as_py() == 2**63 - 1


def test_null_in_a_required_integer_is_bad_and_in_an_optional_one_stays_null():
    values = pa.array([1, None], pa.int64())
    assert cast(values, "long", "long").bad.to_pylist() == [False, True]
    optional = cast(values, "long", "long", required=False)
    assert optional.bad is None
    assert optional.values.null_count == 1


def test_an_instant_becomes_wall_clock_time_in_utc():
    values = pa.array([dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)]).cast(pa.timestamp("us", "Asia/Tokyo"))
    assert cast(values, "timestamp", "timestamp_ntz").values.to_pylist() == [dt.datetime(2026, 11, 21, 12)]  # noqa: DTZ001


def test_a_date_becomes_midnight():
    column = cast(pa.array([dt.date(2026, 11, 21)]), "date", "timestamp_ntz")
    assert column.values.to_pylist() == [dt.datetime(2026, 11, 21)]  # noqa: DTZ001


@pytest.mark.parametrize(
    ("arrow", "name"),
    [
        (pa.dictionary(pa.int32(), pa.large_string()), "string"),
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
    ],
)
def test_text_of_every_encoding_is_the_same_text(arrow, name):
    values = pa.array(["a", None, "b"], pa.string()).cast(arrow)
    assert normalized(values, name).equals(pa.array(["a", None, "b"], pa.string()))


def test_unsigned_and_half_floats_widen():
    assert normalized(pa.array([2**64 - 1], pa.uint64()), "decimal(20,0)")[0].as_py() == 2**64 - 1
    assert normalized(pa.array([1.5], pa.float16()), "float").type == pa.float32()


def test_nanoseconds_that_microseconds_lose_are_refused():
    with pytest.raises(pa.ArrowInvalid, match="lose data"):
        normalized(pa.array([1], pa.timestamp("ns")), "timestamp_ntz")


def test_scalar_columns_stack_into_one_tensor():
    tensor = ModelInput("", "double", True, (-1, 2), ("a", "b"))
    bindings = [Binding("", name, "double", "double", "same", False) for name in "ab"]
    column = bind([pa.array([1.0, None]), pa.array([3.0, 4.0])], bindings, tensor)
    assert column.values.type == pa.list_(pa.float64(), 2)
    flat = column.values.flatten().to_numpy()
    assert flat[[0, 1, 3]].tolist() == [1.0, 3.0, 4.0]
    assert math.isnan(flat[2])


def test_an_array_of_another_length_makes_its_row_bad():
    tensor = ModelInput("x", "double", True, (-1, 2))
    binding = Binding("x", "x", "array<double>", "array<double>", "same", True)
    values = pa.array([[1.0, 2.0], [1.0], None, [1.0, None]], pa.list_(pa.field("element", pa.float64())))
    assert bind([values], [binding], tensor).bad.to_pylist() == [False, True, True, True]
    good = bind([values.slice(0, 1)], [binding], tensor)
    assert good.bad is None
    assert good.values.type == pa.list_(pa.float64(), 2)


@pytest.mark.parametrize(
    ("source", "model"),
    [("double", "float"), ("string", "double"), ("double", "string"), ("boolean", "long"), ("decimal(10,2)", "long")],
)
def test_lossy_casts_are_refused_before_scoring(source, model):
    assert cast_rule(source, model) is None


@pytest.mark.parametrize("source", ["byte", "short", "integer", "long", "float", "decimal(12,3)"])
@pytest.mark.parametrize("model", ["short", "integer", "long", "float", "double"])
def test_every_allowed_cast_gives_the_models_type(source, model):
    if cast_rule(source, model) is None:
        return
    numbers = [decimal.Decimal(number) for number in (1, 2, 3)] if source.startswith("decimal") else [1, 2, 3]
    values = pa.array(numbers, to_arrow(source))
    assert cast(values, source, model).values.type == to_arrow(model)
