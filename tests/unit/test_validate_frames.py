"""Staged columns as pandas gets them: the same values whoever reads them, in whatever order."""

from __future__ import annotations

import datetime as dt
import decimal

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.validate.frames import PandasColumns, pandas_frame
from batchscore.validate.staged import open_staged
from tests import staged

NAN = float("nan")
MOMENT = dt.datetime(2026, 11, 27, 10, 30, 0, 7, dt.UTC)
COLUMNS = {
    "double": ([1.5, NAN, -0.0, 2.5], pa.float64(), pd.Series([1.5, NAN, -0.0, 2.5])),
    "null double": ([1.5, None, 3.5, None], pa.float64(), pd.Series([1.5, NAN, 3.5, NAN])),
    "float": ([0.1, 0.2, 0.3, None], pa.float32(), pd.Series([0.1, 0.2, 0.3, NAN], dtype="float32").astype("float64")),
    "long": ([1, 2**62, -3, 4], pa.int64(), pd.Series([1, 2**62, -3, 4])),
    "null long": ([1, 2**62 + 1, None, 4], pa.int64(), pd.Series([1, 2**62 + 1, None, 4], dtype="Int64")),
    "null byte": ([None, 1, None, -4], pa.int8(), pd.Series([None, 1, None, -4], dtype="Int8")),
    "boolean": ([True, False, True, True], pa.bool_(), pd.Series([True, False, True, True])),
    "null boolean": ([None, False, True, None], pa.bool_(), pd.Series([None, False, True, None], dtype="boolean")),
    "date": (
        [dt.date(2026, 11, 27), None, dt.date(1969, 12, 31), dt.date(2026, 1, 1)],
        pa.date32(),
        pd.Series(["2026-11-27", None, "1969-12-31", "2026-01-01"]).astype("datetime64[us]"),
    ),
    "moment": (
        [MOMENT] * 3 + [None],
        pa.timestamp("us", tz="UTC"),
        pd.Series([MOMENT.replace(tzinfo=None)] * 3 + [None]).astype("datetime64[us]"),
    ),
    "text": (["a", None, "", "ä"], pa.string(), pd.Series(["a", None, "", "ä"], dtype=object)),
    "short decimal": (
        [decimal.Decimal("1.25"), None, decimal.Decimal("-3.50"), decimal.Decimal("0.00")],
        pa.decimal128(12, 2),
        pd.Series([1.25, NAN, -3.5, 0.0]),
    ),
}


def output_of(tmp_path, tables):
    files = [(f"{number}.parquet", (), table) for number, table in enumerate(tables)]
    return open_staged(staged.judged_plan(tmp_path, files), staged.stage(tmp_path, files))


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_over_two_files(tmp_path, name):
    values, kind, expected = COLUMNS[name]
    table = pa.table({"id": [1, 2, 3, 4], "x": pa.array(values, kind)})
    frame = pandas_frame(output_of(tmp_path, [table.slice(0, 1), table.slice(1)]), ["x"])
    pd.testing.assert_series_equal(frame["x"], expected, check_names=False)


def test_a_whole_number_beside_nulls_keeps_its_digits(tmp_path):
    full = pa.table({"id": [1, 2], "x": pa.array([2**53 + 1, 5], pa.int64())})
    nulls = pa.table({"id": [3, 4], "x": pa.array([None, 2**53 + 3], pa.int64())})
    frame = pandas_frame(output_of(tmp_path, [full, nulls]), ["x"])
    assert frame["x"].dtype == "Int64"
    assert frame["x"].tolist() == [2**53 + 1, 5, pd.NA, 2**53 + 3]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=30), st.randoms())
def test_batches_may_come_in_any_order(tmp_path_factory, values, random):
    table = pa.table({"id": range(len(values)), "x": pa.array(values, pa.int64())})
    output = output_of(tmp_path_factory.mktemp("any"), [table])
    columns = PandasColumns(output, ["x"])
    batches = [(start, batch) for start in range(0, len(values), 4) for batch in table.slice(start, 4).to_batches()]
    random.shuffle(batches)
    for start, batch in batches:
        columns.take(start, batch)
    assert [None if value is pd.NA else value for value in columns.frame()["x"].tolist()] == values


def test_no_rows(tmp_path):
    empty = pa.table({"id": pa.array([], pa.int64()), "x": pa.array([], pa.string()), "y": pa.array([], pa.float64())})
    frame = pandas_frame(output_of(tmp_path, [empty]), ["x", "y"])
    assert (len(frame), list(frame.columns)) == (0, ["x", "y"])
