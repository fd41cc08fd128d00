"""The input row of a prediction: found by what tells it, in the files that the run read."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore import read
from batchscore.contracts import Column, Restriction, TargetState
from batchscore.explain.snapshot import source_row
from batchscore.lookup import DataFile, FileSet, FoundRow, Place
from tests.factories.staging import make_manifest, make_plan

DAY = dt.date(2026, 11, 21)
COLUMNS = (Column("ds", "date"), Column("x", "double"), Column("y", "float"), Column("prediction", "double"))


@pytest.fixture
def found(tmp_path):
    """``found(input's x, row's x)``: the input row of a row of a table without keys, of a day and floats."""

    def look(values, x):
        rows = {"ds": [DAY] * len(values), "x": values, "y": pa.array([0.1] * len(values), pa.float32())}
        folder = tmp_path / "in"
        folder.mkdir()
        pq.write_table(pa.table(rows), folder / "a.parquet")
        pinned = read.pin(str(folder), format="parquet", version="latest", restriction=Restriction())
        manifest = dataclasses.replace(
            make_manifest(make_plan(TargetState("/out"), "r1", {}), ()),
            source_uri=str(folder),
            source_snapshot=pinned.snapshot,
            settings={"output": {"keys": []}},
        )
        batch = pa.record_batch({"ds": [DAY], "x": [x], "y": pa.array([0.1], pa.float32()), "prediction": [9.0]})
        row = FoundRow(Place(DataFile("/out/a", ()), 0, 0, 0), batch, 1)
        return source_row(manifest, (), [], row, FileSet("the table", "/out", COLUMNS, (), ()))

    return look


def test_floats_tell_a_row_where_nothing_else_does(found):
    source = found([1.5, 2.5, 3.5], 2.5)
    assert source.facts.problem == ""
    assert source.batch.column("x").to_pylist() == [2.5]


def test_a_float_that_was_rounded_on_its_way_does_not_hide_a_row(found):
    source = found([2.5], 2.5000001)
    assert source.facts.problem == ""
    assert source.batch.column("x").to_pylist() == [2.5]


@pytest.mark.parametrize("values", [[2.5, 2.5], [1.5, 3.5]])
def test_rows_that_nothing_tells(found, values):
    source = found(values, 2.5)
    assert "2 rows of" in source.facts.problem
    assert source.facts.problem.endswith("ds=2026-11-21")
