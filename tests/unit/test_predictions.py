"""``batchscore.read_predictions``: the rows of one version, of either format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import batchscore
from batchscore.contracts import OutputColumn
from batchscore.errors import InputError, SettingsError
from batchscore.predictions import read_predictions
from tests.factories.delta import active_adds, delete_rows, set_properties
from tests.factories.staging import COLUMNS, day, publish_run

D1, D2, D3 = day("2026-01-01"), day("2026-01-02"), day(None)
KEYS = {D1: "k1", D2: "k2", D3: "k3"}


@pytest.fixture(params=["delta", "parquet"])
def table(request, tmp_path):
    path = str(tmp_path / request.param)
    publish_run(path, "r1", KEYS, rows=3)
    return path


def rows(found):
    return sorted((str(row["ds"]), row["id"], row["_run_id"]) for row in found.to_pylist())


def test_all_rows_with_the_tables_types(table):
    found = read_predictions(table)
    assert found.column_names == ["id", "ds", "prediction", "_run_id"]
    assert [str(kind) for kind in found.schema.types] == ["int64", "date32[day]", "double", "string"]
    assert rows(found) == sorted(
        (value, number, "r1") for value in ("2026-01-01", "2026-01-02", "None") for number in range(3)
    )


def test_the_newest_version_holds_each_unit_once(table):
    publish_run(table, "r2", {D1: "n"}, rows=2)
    found = read_predictions(table)
    assert len(found) == 8
    assert rows(read_predictions(table, partitions={"ds": "2026-01-01"})) == [
        ("2026-01-01", 0, "r2"),
        ("2026-01-01", 1, "r2"),
    ]
    assert set(read_predictions(table, version=0)["_run_id"].to_pylist()) == {"r1"}


def test_columns_in_the_order_asked_for(table):
    found = read_predictions(table, columns=["prediction", "id"], where="id > 0 AND ds = '2026-01-01'")
    assert found.column_names == ["prediction", "id"]
    assert sorted(found["id"].to_pylist()) == [1, 2]
    with pytest.raises(SettingsError, match="did you mean: prediction"):
        read_predictions(table, columns=["predicton"])


@pytest.mark.parametrize(
    ("partitions", "count"),
    [
        ({"ds": ["2026-01-01", "2026-01-02"]}, 6),
        ({"ds": None}, 3),
        ({"ds": [None, "2026-01-02"]}, 6),
        ({"id": "1"}, 3),
        ({}, 9),
    ],
)
def test_partitions(table, partitions, count):
    assert len(read_predictions(table, partitions=partitions)) == count


def test_other_units_are_not_opened(table):
    for path in Path(table).rglob("*2026-01-02/*.parquet"):
        path.write_bytes(b"damaged")
    assert len(read_predictions(table, partitions={"ds": "2026-01-01"})) == 3
    with pytest.raises(InputError):
        read_predictions(table)


def test_what_is_not_there(table, tmp_path):
    with pytest.raises(InputError, match="no prediction table is at"):
        read_predictions(str(tmp_path / "none"))
    with pytest.raises(InputError, match="does not exist"):
        read_predictions(table, partitions={"ds": "2020-01-01"})
    with pytest.raises(InputError, match="no version 7"):
        read_predictions(table, version=7)
    with pytest.raises(SettingsError, match="needs Spark"):
        read_predictions(table, where="upper(_run_id) = 'R1'")


def test_columns_that_older_runs_lack_are_null(table):
    more = (*COLUMNS, OutputColumn("extra", "string", "source", "extra"))
    publish_run(table, "r2", {D1: "n"}, rows=1, columns=more, evolve_schema=True)
    found = read_predictions(table)
    assert found.column_names[-1] == "extra"
    assert found["extra"].null_count == len(found)


def test_a_file_that_is_gone_is_named(table):
    gone = next(Path(table).rglob("*2026-01-01/*.parquet"))
    gone.unlink()
    with pytest.raises(InputError, match=gone.name):
        read_predictions(table)


def test_deleted_rows_of_a_delta_table_are_left_out(tmp_path):
    table = str(tmp_path / "delta")
    publish_run(table, "r1", KEYS, rows=3)
    set_properties(table, ("deletionVectors",), delta__enableDeletionVectors="true")
    path = next(path for path in active_adds(table) if "2026-01-01" in path)
    delete_rows(table, path, [1])
    assert rows(read_predictions(table, partitions={"ds": "2026-01-01"})) == [
        ("2026-01-01", 0, "r1"),
        ("2026-01-01", 2, "r1"),
    ]
    assert len(read_predictions(table)) == 8 == pa.table(DeltaTable(table).scan().read_all()).num_rows


def test_a_table_with_other_names_in_its_files_is_refused(tmp_path):
    table = str(tmp_path / "delta")
    publish_run(table, "r1", KEYS)
    set_properties(table, delta__columnMapping__mode="name")
    with pytest.raises(InputError, match="column mapping"):
        read_predictions(table)


def test_it_is_exported_and_costs_nothing_until_it_is_used():
    assert batchscore.read_predictions is read_predictions
    script = (
        "import sys, batchscore; print([name for name in ('pyarrow', 'deltalake', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
