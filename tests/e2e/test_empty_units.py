"""Days of which no row is left: not lost, not scored again and again, and never removed unasked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchscore import read_predictions
from batchscore.tables import versions
from tests.e2e.conftest import LONG
from tests.factories.jobs import ROWS, SmallJob, day_frame, end_started, make_job, text_of

LOW = "f0 > -100"  # met by every row but those that `lower` changes
DAYS = (1, 2, 3)


@pytest.fixture(params=["delta", pytest.param("parquet", marks=LONG)])
def job(request, tmp_path):
    made, _ = make_job(tmp_path, days=3)
    settings = made.settings.read_text().replace("output:", f"output:\n  format: {request.param}", 1)
    made.settings.write_text(settings + "quarantine: {max_fraction: 0.5}\n")
    yield made
    end_started()


def part(job: SmallJob, day: int) -> Path:
    return job.data / f"ds={text_of(day)}" / "part.parquet"


def lower(job: SmallJob, day: int) -> None:
    """Leaves a day no row that meets the condition."""
    rows = day_frame(day, 0)
    low = pa.array([-1000.0] * ROWS, pa.float32())
    pq.write_table(rows.set_column(rows.schema.names.index("f0"), "f0", low), part(job, day))


def days(job: SmallJob) -> dict[str, int]:
    counts = pc.value_counts(read_predictions(str(job.table))["ds"].cast(pa.string()))
    return {entry["values"]: entry["counts"] for entry in counts.to_pylist()}


def full(*some: int) -> dict[str, int]:
    return {text_of(day): ROWS for day in some}


def ran(job: SmallJob, *arguments: object, code: int = 0) -> dict:
    ended = job.run(*arguments)
    assert ended.code == code, ended.err
    return ended.answer


@pytest.mark.parametrize("how", ["condition", "no row in its file"])
def test_a_day_without_a_row_is_published_once_beside_others(job, how):
    if how == "condition":
        lower(job, 2)
    else:
        pq.write_table(day_frame(2, 0).slice(0, 0), part(job, 2))
    first = ran(job, "--where", LOW)
    assert (first["state"], first["rows"], first["units_published"]) == ("published", 2 * ROWS, 3)
    assert days(job) == full(1, 3)
    again = ran(job, "--where", LOW)
    assert (again["state"], again["rows_read"]) == ("skipped", 0)
    assert "1 of them without a row" in again["message"]
    assert len(versions(str(job.table))) == 1


def test_a_run_of_which_every_day_is_empty_says_so_and_is_not_run_again(job):
    for day in (2, 3):
        part(job, day).unlink()
    assert ran(job, "--where", LOW)["rows"] == ROWS
    lower(job, 2)
    empty = ran(job, "--where", LOW)
    assert (empty["state"], empty["rows"], empty["rows_read"], empty["rows_filtered"]) == ("published", 0, ROWS, ROWS)
    assert empty["message"] == "no row of 1 units as version 1"
    again = ran(job, "--where", LOW)
    assert (again["state"], again["rows_read"]) == ("skipped", 0)
    job.change(3, 0)
    assert ran(job, "--where", LOW)["rows"] == ROWS
    assert ran(job, "--where", LOW)["state"] == "skipped"
    assert ran(job)["rows"] == 3 * ROWS, "under another condition they are other content"


def test_a_backfill_over_days_without_a_row_fails_none(job):
    for day in (1, 2):
        lower(job, day)
    for state in ("published", "skipped"):
        ended = job.run("--from", text_of(1), "--to", text_of(3), "--where", LOW, command="backfill")
        assert ended.code == 0, ended.err
        assert {outcome["state"] for outcome in ended.answer["outcomes"]} == {state}
        assert days(job) == full(3)


def test_a_condition_on_the_days_chooses_them_and_leaves_the_others(job):
    assert ran(job)["rows"] == 3 * ROWS
    where = ("--where", f"ds = '{text_of(2)}'")
    one = ran(job, *where)
    assert (one["rows_read"], one["units_published"]) == (ROWS, 1)
    assert days(job) == full(*DAYS)
    assert ran(job, *where)["state"] == "skipped"
    assert ran(job, *where, "--mode", "replace")["state"] == "published"
    assert days(job) == full(2)
    assert ran(job, *where, "--mode", "replace")["state"] == "skipped"


def test_a_condition_that_empties_a_published_day_ends_before_the_commit(job):
    assert ran(job)["rows"] == 3 * ROWS
    lower(job, 2)
    refused = ran(job, "--where", LOW, code=4)
    assert "no row is left of 1 of 3 units that are published" in refused["problem"]
    assert days(job) == full(*DAYS)
    assert len(versions(str(job.table))) == 1
    chosen = ran(job, "--where", LOW, "--partition", f"ds={text_of(1)}", "--partition", f"ds={text_of(3)}")
    assert chosen["rows"] == 2 * ROWS
    assert "1 of 1 units" in ran(job, "--where", LOW, code=4)["problem"], "alone it is refused, too"
    assert ran(job, "--where", LOW, "--force")["rows"] == 2 * ROWS
    assert days(job) == full(1, 3)
    assert ran(job, "--where", LOW)["state"] == "skipped"


def test_rows_of_a_day_without_a_published_one_are_replayed(job):
    lower(job, 2)
    rows = pq.read_table(part(job, 2), partitioning=None)
    names = rows.schema.names
    rows = rows.set_column(names.index("f0"), "f0", pa.array([0.0, *[-1000.0] * (ROWS - 1)], pa.float32()))
    rows = rows.set_column(names.index("f1"), "f1", pa.array([5000.0, *[0.0] * (ROWS - 1)], pa.float32()))
    pq.write_table(rows, part(job, 2))
    rule = ("--set", "quarantine.rules=[{column: f1, range: [-100, 100]}]")
    first = ran(job, "--where", LOW, *rule)
    assert (first["rows"], first["rows_quarantined"]) == (2 * ROWS, 1)
    replayed = job.run(first["run_id"], command="replay")
    assert replayed.code == 0, replayed.err
    assert (replayed.answer["state"], replayed.answer["rows"]) == ("published", 1)
    assert days(job) == {**full(1, 3), text_of(2): 1}
    assert "replayed already" in job.run(first["run_id"], command="replay").answer["message"]
    assert ran(job, "--where", LOW, *rule)["state"] == "skipped"
