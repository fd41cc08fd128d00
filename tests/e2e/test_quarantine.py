"""Rows that cannot be scored: quarantined, counted, listed, replayed."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from tests.e2e.bad_models import bad_model
from tests.e2e.conftest import DAYS, ROWS

LOCAL = ("--set", "validation.suite=null")
POSITIVE = "quarantine.rules=[{column: amount, range: [0, 100000], name: sane_amount}]"


def spoil(job, amounts, day=3):
    """Gives the first rows of a day these amounts; returns the path and the rows' keys."""
    path = sorted(sorted(job.data.iterdir())[day].glob("*.parquet"))[0]
    rows = pq.read_table(path, partitioning=None)
    kept = rows.column("amount").to_pylist()
    mended = rows.set_column(rows.schema.names.index("amount"), "amount", pa.array([*amounts, *kept[len(amounts) :]]))
    pq.write_table(mended, path)
    return path, rows, rows.column("transaction_id").to_pylist()[: len(amounts)]


def published(job):
    return DeltaTable(job.table).to_pyarrow_table(columns=["transaction_id", "prediction", "_run_id"])


def test_bad_rows_are_quarantined_listed_and_replayed(job):
    path, good, keys = spoil(job, [-1.0, -2.0, 1e9])
    done = job.run(*LOCAL, "--set", POSITIVE)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["rows"], run["rows_quarantined"], run["rows_read"]) == (ROWS - 3, 3, ROWS)
    assert "3 in quarantine" in run["message"]
    assert not set(keys) & set(published(job).column("transaction_id").to_pylist())
    quarantine = DeltaTable(f"{job.table}__quarantine").to_pyarrow_table()
    assert sorted(quarantine.column("transaction_id").to_pylist()) == sorted(keys)
    assert set(quarantine.column("_reason").to_pylist()) == {"out_of_range"}
    assert {dict(row)["amount"] for row in quarantine.column("_values").to_pylist()} == {"-1", "-2", "1000000000"}

    again = job.run(*LOCAL, "--set", POSITIVE)
    assert json.loads(again.stdout)["state"] == "skipped"

    listed = job.batchscore("quarantine", "--model", "fraud_detection")
    assert listed.returncode == 0, listed.stderr
    assert "out_of_range" in listed.stdout
    assert "sane_amount" in listed.stdout
    assert str(keys[0]) in listed.stdout

    looser = job.folder / "looser.yaml"
    looser.write_text("- {column: amount, range: [-1.5, 100000], name: looser}\n")
    flags = ("--model", "fraud_detection/1", "--runner", "local", "--json", *LOCAL)
    planned = job.batchscore("replay", run["run_id"], *flags, "--rules", looser, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["units_to_score"] == 1
    replayed = job.batchscore("replay", run["run_id"], *flags, "--rules", looser)
    assert replayed.returncode == 0, replayed.stderr
    first = json.loads(replayed.stdout)
    assert (first["rows"], first["rows_quarantined"]) == (1, 2)
    rows = published(job)
    assert rows.num_rows == ROWS - 2
    assert rows.filter(pc.equal(rows["transaction_id"], keys[0])).column("_run_id").to_pylist() == [first["run_id"]]

    # Replayed once, not twice; and the units are still what the run made of this input.
    twice = job.batchscore("replay", run["run_id"], *flags)
    assert json.loads(twice.stdout)["state"] == "skipped"
    assert "replayed already" in json.loads(twice.stdout)["message"]
    assert json.loads(job.run(*LOCAL, "--set", POSITIVE).stdout)["state"] == "skipped"
    assert "replayed by" in job.batchscore("quarantine", "--model", "fraud_detection").stdout

    # The input is mended: the replay's own leftovers come from it as it is now.
    pq.write_table(good, path)
    mended = job.batchscore("replay", first["run_id"], *flags, "--set", POSITIVE)
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["rows"] == 2
    rows = published(job)
    assert sorted(rows.column("transaction_id").to_pylist()) == sorted(set(rows.column("transaction_id").to_pylist()))
    assert rows.num_rows == ROWS


def test_too_many_bad_rows_refuse_the_run_and_are_listed(job):
    _, _, keys = spoil(job, [-1.0] * 30)
    done = job.run(*LOCAL, "--set", POSITIVE)
    assert done.returncode == 4
    answer = json.loads(done.stdout)
    assert f"30 of {ROWS:,} rows cannot be scored" in answer["problem"]
    assert not DeltaTable.is_deltatable(str(job.table))
    listed = job.batchscore("quarantine", "--model", "fraud_detection", "--json")
    counted = json.loads(listed.stdout)
    assert [count["rows"] for count in counted["counts"]] == [30]
    assert set(counted["states"].values()) == {"refused"}
    run = counted["counts"][0]["run_id"]
    refused = job.batchscore("replay", run, "--model", "fraud_detection/1", "--runner", "local")
    assert refused.returncode == 2
    assert "published nothing" in refused.stderr
    allowed = job.run(*LOCAL, "--set", POSITIVE, "--set", "quarantine.max_fraction=0.02")
    assert allowed.returncode == 0, allowed.stderr
    assert json.loads(allowed.stdout)["rows_quarantined"] == 30
    assert len(keys) == 30
    few = job.run(
        *LOCAL, "--force", "--set", POSITIVE, "--set", "quarantine.max_fraction=0.02", "--set", "quarantine.max_rows=29"
    )
    assert few.returncode == 4
    assert published(job).num_rows == ROWS - 30


def test_a_day_that_lost_all_its_rows_is_not_published_empty(job):
    spoil(job, [-1.0] * (ROWS // DAYS))
    done = job.run(*LOCAL, "--set", POSITIVE, "--set", "quarantine.max_fraction=0.5")
    assert done.returncode == 4
    assert "no row is left of 1 of 14 units" in json.loads(done.stdout)["problem"]


def test_a_model_that_raises_on_some_rows(job):
    spoil(job, [-1.0, -2.0])
    model = bad_model(
        job,
        "import os\n"
        "        if (model_input['amount'] < 0).any(): raise ValueError('negative amount')\n"
        "        return model_input['amount'] * 2",
    )
    done = job.run(*LOCAL, *model, "--config", job.settings)
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["rows"], json.loads(done.stdout)["rows_quarantined"]) == (ROWS - 2, 2)
    rows = DeltaTable(f"{job.table}__quarantine").to_pyarrow_table().to_pylist()
    assert {row["_reason"] for row in rows} == {"model_raised"}
    assert all("negative amount" in row["_detail"] for row in rows)


def test_the_accounting_with_a_condition(job):
    spoil(job, [-1.0])
    done = job.run(*LOCAL, "--set", POSITIVE, "--where", "amount < 50")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["rows_quarantined"] == 1
    assert run["rows_filtered"] > 0
    assert run["rows"] + run["rows_quarantined"] + run["rows_filtered"] == run["rows_read"] == ROWS


def test_rules_that_cannot_be_meant_are_found_before_anything_is_scored(job):
    done = job.run("--set", "quarantine.rules=[{column: amuont, required: true}]")
    assert done.returncode == 2
    assert "amount" in json.loads(done.stdout)["near"]
    # A condition that needs Spark is refused without it.
    done = job.run("--set", "quarantine.rules=[{sql: 'round(amount) > 0'}]")
    assert done.returncode == 2
    assert "Spark" in json.loads(done.stdout)["problem"]
