"""Values into Arrow arrays and out of them, as pyarrow itself does it, but without pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.values import array_of, numbers_of, places_in, python_of, scalar_of, shown, shown_rows

TEXTS = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "", "ä"])), max_size=12)


@pytest.mark.parametrize(
    ("values", "arrow"),
    [
        (["", "ä", "abc"], pa.string()),
        ([True, False, True] * 5, pa.bool_()),
        ([1, 2**62], pa.int64()),
        ([1.5, np.nan], pa.float64()),
        ([1, 2], pa.int32()),
        ([], pa.string()),
        ([0, -1, 20_000], pa.date32()),
        ([0, 1_700_000_000_000_000], pa.timestamp("us", tz="UTC")),
    ],
)
def test_arrays(values, arrow):
    found = array_of(values, arrow)
    found.validate(full=True)
    expected = pa.array(values, arrow)
    assert found.type == arrow
    assert str(found.to_pylist()) == str(expected.to_pylist())


@pytest.mark.parametrize(
    "array",
    [
        pa.array([3, 1, 2], pa.int16()).slice(1),
        pa.array([1.5, None], pa.float64()),
        pa.array([True, False, True]).slice(1),
        pa.array([], pa.float32()),
        pa.array([0, 20_000], pa.date32()),
    ],
)
def test_numbers(array):
    expected = (array.cast(pa.int32()) if pa.types.is_date(array.type) else array).to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(numbers_of(array), expected)
    assert numbers_of(array).dtype == expected.dtype


def test_scalars():
    assert scalar_of("ä", pa.string()) == pa.scalar("ä")
    assert scalar_of(None, pa.int64()) == pa.scalar(None, pa.int64())
    assert scalar_of(7, pa.timestamp("us", tz="UTC")) == pa.scalar(7, pa.timestamp("us", tz="UTC"))


ZONED = pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    ("value", "arrow", "text"),
    [
        (2**31 - 1, pa.date32(), "<value out of range: 2147483647>"),
        (2_932_897, pa.date32(), "10000-01-01"),
        (-719_163, pa.date32(), "0000-12-31"),
        (2**63 - 1, ZONED, "<value out of range: 9223372036854775807>"),
        (-(2**63), pa.timestamp("us"), "<value out of range: -9223372036854775808>"),
        (253_402_300_800_000_000, ZONED, "10000-01-01 00:00:00.000000Z"),
        (253_402_300_800_000_000, pa.timestamp("us"), "10000-01-01 00:00:00.000000"),
    ],
)
def test_times_that_python_has_not_are_shown_as_text(value, arrow, text):
    scalar = scalar_of(value, arrow)
    with pytest.raises(OverflowError):
        python_of(scalar)
    assert shown(scalar) == text
    whole = pa.array([[value]], pa.list_(pa.int32() if arrow == pa.date32() else pa.int64())).cast(pa.list_(arrow))
    batch = pa.RecordBatch.from_arrays([whole, pa.array(["x"])], names=["times", "name"])
    assert shown_rows(batch) == [{"times": [text], "name": "x"}]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([pa.timestamp("us"), ZONED]))
def test_every_time_is_shown(value, arrow):
    scalar = scalar_of(value, arrow)
    try:
        assert shown(scalar) == python_of(scalar)
    except OverflowError:
        assert isinstance(shown(scalar), str)


@given(TEXTS, TEXTS, st.booleans())
def test_places_of_a_dictionary_are_those_of_its_text(values, known, skip_nulls):
    array, known = pa.array(values, pa.string()), pa.array(known, pa.string()).unique()
    expected = places_in(array, known, skip_nulls=skip_nulls)
    assert places_in(array.dictionary_encode(), known, skip_nulls=skip_nulls).equals(expected)
    assert places_in(array.dictionary_encode("encode"), known, skip_nulls=skip_nulls).equals(expected)


def test_no_pandas():
    code = """
import sys
import pyarrow as pa
from batchscore.arrow.values import array_of, numbers_of, scalar_of
for kind in (pa.string(), pa.bool_(), pa.float64(), pa.timestamp("us", tz="UTC")):
    scalar_of(1, kind), scalar_of(None, kind)
    array_of([1, 0], kind)
numbers_of(array_of([1, 0], pa.bool_()))
raise SystemExit("pandas" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
