"""rollback, retain and forget as a user runs them, on both formats, with the local runner."""

from __future__ import annotations

import json

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import batchscore
from batchscore.tables import open_table
from tests.e2e.conftest import DAYS, ROWS

pytestmark = pytest.mark.e2e


def predictions(job):
    return batchscore.read_predictions(str(job.table)).sort_by("transaction_id")


def change_a_day(job):
    folder = sorted(job.data.iterdir())[4]
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    doubled = pc.multiply(table["amount"], 2.0)
    pq.write_table(table.set_column(table.schema.get_field_index("amount"), "amount", doubled), path)
    return folder.name, len(table)


def answer(done, code=0):
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(params=["delta", "parquet"])
def twice(request, job):
    """A job whose second run published a changed day; and the flags of its format."""
    flags = ("--set", f"output.format={request.param}")
    answer(job.run(*flags))
    day, rows = change_a_day(job)
    assert answer(job.run(*flags))["units_published"] == 1
    job_runs = [run["run_id"] for run in job.history()["runs"]]
    return job, flags, job_runs, day, rows


def test_rollback_rerun_and_forward_again(twice):
    job, flags, (second, first), day, rows = twice
    newest = predictions(job)
    settings = ("--config", job.settings)

    dry = answer(job.batchscore("rollback", "--to", first, *settings, "--dry-run", "--json"))
    assert (dry["version"], dry["dry_run"], len(dry["units"])) == (-1, True, 1)
    assert dry["leaving"] == [{"run_id": second, "units": 1, "rows": rows}]
    assert dry["returning"] == [{"run_id": first, "units": 1, "rows": rows}]
    assert open_table(str(job.table)).version == 1

    done = job.batchscore("rollback", str(job.table), "--to", first[:20])
    assert done.returncode == 0, done.stderr
    assert f"right after run {first}" in done.stdout
    assert predictions(job).equals(batchscore.read_predictions(str(job.table), version=0).sort_by("transaction_id"))

    planned = job.batchscore("plan", "--model", "fraud_detection/1", "--runner", "local", *flags)
    assert "1 rolled back" in planned.stdout
    assert "1 units were rolled back" in planned.stdout
    again = answer(job.run(*flags))
    assert (again["state"], again["rows_read"], again["units_live"]) == ("skipped", 0, DAYS)
    assert "1 were rolled back (--force scores them again)" in again["message"]
    assert open_table(str(job.table)).version == 2
    assert job.history()["runs"][1]["state"] == "rolled_back"

    nothing = answer(job.batchscore("rollback", str(job.table), "--to", first, "--json"))
    assert (nothing["nothing_to_do"], nothing["version"]) == (True, -1)
    assert answer(job.batchscore("rollback", str(job.table), "--to", second, "--json"))["version"] == 3
    assert predictions(job).equals(newest)
    assert "already published" in answer(job.run(*flags))["message"]

    answer(job.batchscore("rollback", str(job.table), "--to", first, "--json"))
    forced = answer(job.run(*flags, "--partition", day, "--force"))
    assert (forced["state"], forced["units_published"]) == ("published", 1)


def test_retain_and_what_it_puts_out_of_reach(twice):
    job, flags, (_, first), _, _ = twice
    newest = predictions(job)
    refused = answer(job.batchscore("retain", str(job.table), "--days", 1, "--json"), 2)
    assert "promises to keep older versions for 30 days" in refused["problem"]
    shown = job.batchscore("retain", "--config", job.settings, "--days", 0, "--shorter", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "reach now  2 runs" in shown.stdout
    assert "afterwards 1 runs" in shown.stdout
    assert open_table(str(job.table)).version == 1
    done = answer(job.batchscore("retain", str(job.table), "--days", 0, "--shorter", "--json"))
    assert len(done["tables"][0]["files"]) == 1
    assert predictions(job).equals(newest)
    late = answer(job.batchscore("rollback", str(job.table), "--to", first, "--json"), 5)
    assert "gave version 0 up" in late["found"] or "no longer in the table's history" in late["found"]
    assert "already published" in answer(job.run(*flags))["message"]
    assert answer(job.batchscore("retain", str(job.table), "--days", 30, "--json"))["nothing_to_do"]


def test_forget_and_the_next_runs(twice):
    job, flags, (_, first), day, _ = twice
    rows = predictions(job)
    changed = rows.filter(pc.equal(rows["ds"].cast("string"), day.removeprefix("ds=")))
    key = changed["transaction_id"][0].as_py()
    unknown = answer(job.batchscore("forget", str(job.table), "--key", "transaction_id=-1", "--json"), 5)
    assert "no row of the table" in unknown["problem"]
    done = job.batchscore("forget", "--config", job.settings, "--key", f"transaction_id={key}")
    assert done.returncode == 0, done.stderr
    assert "1 rows in 1 units, version 2" in done.stdout
    assert "2 files of fraud_detection hold the rows in older versions (0, 1)" in done.stdout
    assert "the input was not looked into" in done.stdout
    left = predictions(job)
    assert left.equals(rows.filter(pc.not_equal(rows["transaction_id"], key)))
    again = answer(job.run(*flags))
    assert (again["state"], again["rows_read"]) == ("skipped", 0)
    assert len(predictions(job)) == ROWS - 1
    late = answer(job.batchscore("rollback", str(job.table), "--to", first, "--json"), 5)
    assert "has erased since" in late["found"]
    # The input still holds the row, and the answer said so.
    answer(job.run(*flags, "--partition", day, "--force"))
    assert len(predictions(job)) == ROWS
    keys = job.folder / "keys.csv"
    keys.write_text(f"transaction_id\n{key}\n{rows['transaction_id'][7].as_py()}\n")
    at_once = answer(job.batchscore("forget", str(job.table), "--keys-file", keys, "--now", "--json"))
    assert (at_once["keys_found"], at_once["tables"][0]["rows"]) == (2, 2)
    assert at_once["deleted_files"] >= 3
    assert len(predictions(job)) == ROWS - 2


def test_usage(job):
    assert "name the rows once" in answer(job.batchscore("forget", "x", "--json"), 2)["problem"]
    both = job.batchscore("retain", "x", "--config", job.settings, "--json")
    assert "a table and a job are named" in answer(both, 2)["problem"]
    assert "no prediction table" in answer(job.batchscore("rollback", "x", "--to", "r", "--json"), 5)["problem"]
