"""The main job with ``output.format: parquet``: the same promises as on Delta, on the local runner."""

from __future__ import annotations

import json

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import batchscore
from batchscore.tables import open_table
from tests.e2e.conftest import DAYS, ROWS

pytestmark = pytest.mark.e2e
PARQUET = ("--set", "output.format=parquet")


def predictions(job):
    return batchscore.read_predictions(str(job.table)).sort_by("transaction_id")


def version(job):
    return open_table(str(job.table)).version


@pytest.fixture
def scored(job):
    done = job.run(*PARQUET)
    assert done.returncode == 0, done.stderr
    return job


def change_a_day(job):
    folder = sorted(job.data.iterdir())[4]
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    doubled = pc.multiply(table["amount"], 2.0)
    pq.write_table(table.set_column(table.schema.get_field_index("amount"), "amount", doubled), path)
    return folder.name, len(table)


def test_run_rerun_and_a_changed_day(scored):
    first = predictions(scored)
    assert len(first) == pc.count_distinct(first["transaction_id"]).as_py() == ROWS
    assert len(first["_run_id"].unique()) == 1
    assert not (scored.table / "_delta_log").exists()
    files = {name for name in scored.files() if "__runs" not in name}

    again = scored.run(*PARQUET)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert (document["state"], document["rows"], document["rows_read"]) == ("skipped", 0, 0)
    assert f"{DAYS} units are already published" in document["message"]
    assert version(scored) == 0
    assert {name for name in scored.files() if "__runs" not in name} == files

    day, rows = change_a_day(scored)
    done = scored.run(*PARQUET)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["units_published"], document["units_live"], document["rows"]) == (1, DAYS - 1, rows)
    after = predictions(scored)
    changed = after.filter(pc.not_equal(first["_run_id"], after["_run_id"]))
    assert {f"ds={value}" for value in changed["ds"].to_pylist()} == {day}
    assert len(after) == ROWS
    assert batchscore.read_predictions(str(scored.table), version=0).sort_by("transaction_id").equals(first)

    history = scored.history()
    assert [run["state"] for run in history["runs"]] == ["published", "skipped", "published"]
    run = history["runs"][0]["run_id"]
    shown = json.loads(scored.batchscore("show", run, "--model", "fraud_detection/1", "--json").stdout)
    assert (shown["run"]["table_version"], len(shown["manifest"]["units"])) == (1, 1)


def test_scores_are_those_of_the_delta_table(scored):
    delta = scored.run("--output", "predictions/delta")
    assert delta.returncode == 0, delta.stderr
    names = ["transaction_id", "ds", "prediction", "_model", "_model_version"]
    other = batchscore.read_predictions(str(scored.folder / "predictions/delta"), columns=names)
    assert predictions(scored).select(names).equals(other.sort_by("transaction_id"))


def test_modes(scored):
    day = sorted(scored.data.iterdir())[0].name
    appended = scored.run(*PARQUET, "--mode", "append", "--partition", day, "--force")
    assert appended.returncode == 0, appended.stderr
    rows = json.loads(appended.stdout)["rows"]
    assert len(predictions(scored)) == ROWS + rows
    replaced = scored.run(*PARQUET, "--mode", "replace", "--partition", day)
    assert replaced.returncode == 0, replaced.stderr
    assert len(predictions(scored)) == rows
    assert {f"ds={value}" for value in predictions(scored)["ds"].to_pylist()} == {day}


def test_a_suite_that_fails_leaves_the_table_and_no_file(scored):
    suite = scored.folder / "strict.json"
    expectation = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "prediction", "min_value": 0.0, "max_value": 0.0001},
    }
    suite.write_text(json.dumps({"name": "strict", "expectations": [expectation]}))
    files = scored.files()
    done = scored.run(*PARQUET, "--force", "--suite", suite)
    assert done.returncode == 4, done.stdout
    assert version(scored) == 0
    assert {name for name in scored.files() - files if "__runs" not in name} == set()


def test_a_lost_ledger_is_rebuilt_from_the_table(scored):
    import shutil

    (run,) = scored.history()["runs"]
    shutil.rmtree(scored.table.with_name(scored.table.name + "__runs"))
    (found,) = scored.history()["runs"]
    assert (found["run_id"], found["table_version"], found["rows"]) == (run["run_id"], 0, ROWS)


def test_the_other_format_is_refused_and_so_is_a_damaged_pointer(scored):
    wrong = scored.run()
    assert wrong.returncode == 2
    assert "output.format to parquet" in wrong.stdout
    (scored.table / "_batchscore" / "current.json").write_text("{broken")
    damaged = scored.run(*PARQUET)
    assert damaged.returncode == 5
    assert "current.json is damaged" in damaged.stdout


def test_a_plan_names_the_format(scored):
    done = scored.batchscore("plan", "--model", "fraud_detection/1", "--runner", "local", *PARQUET)
    assert done.returncode == 0, done.stderr
    assert "version 0 of Parquet files" in done.stdout
