from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.contracts import ColumnStats
from batchscore.errors import BatchscoreError, UnavailableError
from batchscore.plan.units import is_live
from batchscore.publish import commit
from batchscore.tables import open_table
from batchscore.tables.delta import delta_stats
from tests.factories.staging import COLUMNS, day, look, make_plan, offer, publish_run, stage, stage_table, staged_output

D1, D2 = day("2026-01-01"), day("2026-01-02")


@pytest.fixture(params=["delta", "parquet"])
def plan(request, tmp_path):
    return make_plan(look(tmp_path / request.param), "r1", {D1: "k"})


def refused(plan, file, error=BatchscoreError):
    """Offers one file and returns why it was refused; nothing may be in the log then."""
    staged, manifest = offer(plan, [replace(file, unit=D1)], {D1: "k"})
    staged = replace(staged, files=(file,))
    with pytest.raises(error) as caught:
        commit(plan, staged, manifest, is_live=is_live)
    assert open_table(plan.target.uri) is None
    return str(caught.value)


def test_a_sound_file_passes(plan):
    staged, manifest = offer(plan, [stage(plan, D1, [1, 2])], {D1: "k"})
    assert commit(plan, staged, manifest, is_live=is_live).version == 0


@pytest.mark.parametrize(
    "path",
    [
        "/etc/x.parquet",
        "../x.parquet",
        "a/../../x.parquet",
        "a//b.parquet",
        "./b.parquet",
        "s3://b/x.parquet",
        "",
        "_tmp/x.parquet",
        ".x.parquet",
        "ds=1/_x.parquet",
        "a\\b.parquet",
    ],
)
def test_paths_outside_the_table_or_hidden(plan, path):
    assert "path" in refused(plan, replace(stage(plan, D1, [1]), path=path))


def test_a_file_that_is_not_there(plan):
    file = stage(plan, D1, [1])
    (Path(plan.target.uri) / file.path).unlink()
    assert "all machines share" in refused(plan, file, UnavailableError)


def test_a_file_of_another_size(plan):
    file = stage(plan, D1, [1])
    assert "another size" in refused(plan, replace(file, size=file.size + 1), UnavailableError)


def test_a_folder_in_its_place(plan):
    file = stage(plan, D1, [1])
    path = Path(plan.target.uri) / file.path
    path.unlink()
    path.mkdir()
    assert "driver looks" in refused(plan, file, UnavailableError)


def test_a_truncated_file(plan):
    file = stage(plan, D1, [1])
    path = Path(plan.target.uri) / file.path
    path.write_bytes(path.read_bytes()[:-10])
    assert "not readable as Parquet" in refused(plan, replace(file, size=path.stat().st_size))


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ((), "partition columns"),
        ((("day", "2026-01-01"),), "partition columns"),
        ((("ds", "2026-1-1"),), "spelled"),
        ((("ds", ""),), "spelled"),
        (D2, "none of the run's"),
        ((("ds", None),), "none of the run's"),
    ],
)
def test_partition_values(plan, unit, words):
    assert words in refused(plan, replace(stage(plan, D1, [1]), unit=unit))


def _table(run="r1", **arrays):
    columns = {"id": pa.array([1]), "prediction": pa.array([0.5]), "_run_id": pa.array([run])} | arrays
    return pa.table({name: array for name, array in columns.items() if array is not None})


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"id": None}, "id is missing"),
        ({"id": pa.array([1], pa.int32())}, "id is integer, not long"),
        ({"id": pa.array([1], pa.uint64())}, "id is unsupported"),
        ({"prediction": pa.array([0.5], pa.float32())}, "prediction is float"),
        ({"prediction": pa.array([1], pa.timestamp("ns"))}, "prediction is unsupported"),
        ({"more": pa.array([1])}, "more"),
        ({"ds": pa.array(["2026-01-01"])}, "ds"),
    ],
)
def test_the_footer_must_be_the_tables_schema(plan, arrays, words):
    file = stage_table(plan, D1, _table(**arrays))
    kept = tuple(stats for stats in file.stats if stats.name in ("_run_id",))
    assert words in refused(plan, replace(file, stats=kept))


def test_the_footer_must_have_the_stated_rows(plan):
    file = stage(plan, D1, [1, 2])
    assert "2 rows in the file, 3 stated" in refused(plan, replace(file, rows=3))


def test_other_spellings_of_a_type_are_the_same_file(plan):
    table = _table(_run_id=pa.array(["r1"], pa.large_string()))
    file = stage_table(plan, D1, table)
    stats = (*file.stats[:2], ColumnStats("_run_id", 0, "r1", "r1"))
    staged, manifest = offer(plan, [replace(file, stats=stats)], {D1: "k"})
    assert commit(plan, staged, manifest, is_live=is_live).version == 0


RUN = ColumnStats("_run_id", 0, "r1", "r1")


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ((), "do not prove"),
        ((ColumnStats("_run_id", 0, "r1", "r2"),), "do not prove"),
        ((ColumnStats("_run_id", 1, "r1", "r1"),), "do not prove"),
        ((RUN, ColumnStats("prediction", 0, 0.1, math.nan)), "bounds"),
        ((RUN, ColumnStats("prediction", 0, -math.inf, 1.0)), "bounds"),
        ((RUN, ColumnStats("prediction", 0, 0.1, None)), "bounds"),
        ((RUN, ColumnStats("prediction", 0, 2.0, 1.0)), "bounds"),
        ((RUN, ColumnStats("prediction", 0, "a", 1.0)), "bounds"),
        ((RUN, ColumnStats("id", 3)), "3 nulls"),
        ((RUN, ColumnStats("id", -1)), "nulls"),
        ((RUN, ColumnStats("ds", 0)), "no column of the file"),
    ],
)
def test_statistics(plan, stats, words):
    assert words in refused(plan, replace(stage(plan, D1, [1, 2]), stats=stats))


def test_rows_must_add_up_to_the_manifest(plan):
    file = stage(plan, D1, [1, 2])
    staged, manifest = offer(plan, [file], {D1: "k"})
    short = replace(manifest, units=(replace(manifest.units[0], rows=5),))
    with pytest.raises(BatchscoreError, match="manifest states 5 rows"):
        commit(plan, staged, short, is_live=is_live)
    with pytest.raises(BatchscoreError, match="listed twice"):
        commit(
            plan,
            staged_output([file, file]),
            replace(manifest, units=(replace(manifest.units[0], rows=4),)),
            is_live=is_live,
        )


@pytest.mark.parametrize("folder", ["delta", "parquet"])
def test_nulls_in_a_not_null_column(tmp_path, folder):
    strict = (replace(COLUMNS[0], nullable=False), *COLUMNS[1:])
    table = str(tmp_path / folder)
    publish_run(table, "r0", {D1: "k"}, columns=strict)
    plan = make_plan(look(table), "r1", {D1: "n"}, columns=strict)
    file = stage_table(plan, D1, _table(id=pa.array([None], pa.int64())))
    staged, manifest = offer(plan, [file], {D1: "n"})
    with pytest.raises(BatchscoreError, match="NOT NULL"):
        commit(plan, staged, manifest, is_live=is_live)


def test_all_faults_are_told_together(plan):
    file = stage(plan, D1, [1])
    text = refused(plan, replace(file, path="../x", unit=(("ds", "x"),)))
    assert "leaves the table" in text
    assert "spelled" in text


def test_delta_statistics_leave_out_what_is_unknown(plan):
    table = _table(prediction=pa.array([math.nan]))
    file = stage_table(plan, D1, table)
    stats = json.loads(delta_stats(file))
    assert stats["minValues"] == {"id": 1, "_run_id": "r1"}
    assert stats["nullCount"] == {"id": 0, "prediction": 0, "_run_id": 0}
    assert (stats["numRecords"], stats["tightBounds"]) == (1, True)
    footer = pq.read_metadata(Path(plan.target.uri) / file.path)
    assert footer.row_group(0).column(1).statistics is None
