"""A range of dates as its user scores it: planned, published date by date, killed, resumed, damaged, side by side."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from batchscore import record
from batchscore.cli.main import EXIT_INTERRUPTED
from batchscore.contracts import RunRecord
from tests.e2e.conftest import DAYS, ROWS, SECONDS, Job
from tests.factories.delta import active_adds, delete_rows, newest, set_properties

pytestmark = pytest.mark.e2e

FIRST, LAST = "2026-11-01", "2026-11-14"
DATES = [f"2026-11-{day:02d}" for day in range(1, DAYS + 1)]
PER_DAY = ROWS // DAYS


def arguments(*more: object, first: str = FIRST, last: str = LAST, model: str = "fraud_detection/1") -> list[str]:
    flags = ["backfill", "--model", model, "--runner", "local", "--from", first, "--to", last]
    return [*flags, *map(str, more)]


def backfill(job: Job, *more: object, code: int = 0, **named: str) -> dict:
    """Runs it and gives the JSON document; it must end with ``code``."""
    done = job.batchscore(*arguments("--json", *more, **named))
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def scores(job: Job):
    table = DeltaTable(job.table).to_pyarrow_table(columns=["transaction_id", "prediction", "ds", "_run_id"])
    return table.sort_by("transaction_id")


def ended(document: dict) -> dict[str, str]:
    """Each date's end."""
    return {date: outcome["state"] for outcome in document["outcomes"] for date in outcome["dates"]}


def assert_every_row_once(job: Job, published: Job, dates: list[str] = DATES) -> None:
    """The scores of one run over everything, each date by one run, no file that the log does not mention."""
    found, expected = scores(job), scores(published)
    wanted = pa.array([dt.date.fromisoformat(date) for date in dates])
    expected = expected.filter(pc.is_in(expected["ds"], value_set=wanted))
    assert found.select(["transaction_id", "prediction"]).equals(expected.select(["transaction_id", "prediction"]))
    pairs = set(zip(found["ds"].to_pylist(), found["_run_id"].to_pylist(), strict=True))
    assert len({ds for ds, _ in pairs}) == len(pairs) == len(dates)
    published_runs = [run for run in job.history()["runs"] if run["state"] == "published"]
    assert sum(run["rows"] for run in published_runs) == PER_DAY * len(dates), "a date was published twice"


def staged_files(job: Job) -> int:
    return len(list(job.table.rglob("part-*.parquet")))


def damage(job: Job, date: str) -> None:
    """Overwrites the first column's data; the footer stays, so planning does not notice."""
    (path,) = (job.data / f"ds={date}").glob("*.parquet")
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(bytes(data))


def truncate(job: Job, date: str) -> Path:
    (path,) = (job.data / f"ds={date}").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    return path


# --- plan, publish, again ----------------------------------------------------------------------------------


def test_a_dry_run_says_what_each_date_needs_and_writes_nothing(scored):
    shutil.rmtree(scored.data / "ds=2026-11-03")
    before = scored.files()
    document = backfill(scored, "--dry-run", "--force", first="2026-10-30")
    assert scored.files() == before
    assert (document["dates_score"], document["dates_missing"], document["dates_live"]) == (DAYS - 1, 3, 0)
    assert document["rows"] == ROWS - PER_DAY
    assert document["estimated_seconds"] > 0
    assert document["estimated_core_seconds"] >= document["estimated_seconds"]
    assert [date["state"] for date in document["dates"][:3]] == ["missing", "missing", "score"]
    assert len(document["chunks"]) == DAYS - 1
    text = scored.batchscore(*arguments("--dry-run", first="2026-10-30")).stdout
    assert "16 dates, 13 published, 3 missing input" in text
    assert "nothing to do" in text
    assert scored.files() == before


def test_every_date_is_published_by_a_commit_of_its_own_and_nothing_twice(job, published):
    document = backfill(job)
    assert document["dates_published"] == DAYS
    assert newest(job.table) == DAYS - 1
    assert_every_row_once(job, published)
    oldest_first = [entry["batchscore.run_id"] for entry in reversed(DeltaTable(job.table).history())]
    assert oldest_first == [outcome["run_id"] for outcome in document["outcomes"]]
    runs = job.history()["runs"]
    assert {run["backfill"] for run in runs} == {document["backfill_id"]}
    assert [run["run_id"] for run in reversed(runs)] == oldest_first
    shown = job.batchscore("show", runs[0]["run_id"], "--config", job.settings).stdout
    assert document["backfill_id"] in shown
    files = job.files()
    again = backfill(job)
    assert (again["dates_skipped"], again["dates_published"], again["rows"]) == (DAYS, 0, 0)
    assert job.files() == files, "a backfill that has nothing to do leaves no trace"


def test_several_dates_share_a_commit(job, published):
    document = backfill(job, "--chunk", 5)
    assert newest(job.table) == 2
    assert [len(outcome["dates"]) for outcome in document["outcomes"]] == [5, 5, 4]
    assert (
        scores(job)
        .select(["transaction_id", "prediction"])
        .equals(scores(published).select(["transaction_id", "prediction"]))
    )


def test_two_at_a_time_publish_the_same(job, published):
    document = backfill(job, "--parallel", 2)
    assert document["dates_published"] == DAYS
    assert newest(job.table) == DAYS - 1
    assert_every_row_once(job, published)
    assert staged_files(job) == len(active_adds(job.table))


def test_dates_named_by_a_backfill_are_scored_by_the_new_version(scored):
    register_second(scored)
    document = backfill(scored, model="fraud_detection/2", last="2026-11-02")
    assert document["dates_published"] == 2
    versions = DeltaTable(scored.table).to_pyarrow_table(columns=["_model_version"])["_model_version"].to_pylist()
    assert Counter(versions) == {"1": ROWS - 2 * PER_DAY, "2": 2 * PER_DAY}


# --- trouble -----------------------------------------------------------------------------------------------


def started(job: Job, *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "batchscore", *arguments("--json", *more)],
        cwd=job.folder, env=job.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_commits(job: Job, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + SECONDS
    while len(list((job.table / "_delta_log").glob("*.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_twice_it_goes_on_where_it_ended(job, published):
    for count in (3, 8):
        with started(job) as process:
            wait_for_commits(job, count, process)
            process.kill()
            process.communicate(timeout=30)
        found = scores(job)
        assert len(found) == PER_DAY * len(found["ds"].unique()), "readers see whole dates"
    document = backfill(job)
    assert document["dates_skipped"] >= 8
    assert document["dates_skipped"] + document["dates_published"] == DAYS
    assert_every_row_once(job, published)


@pytest.mark.parametrize("parallel", [1, 2])
def test_ctrl_c_discards_what_is_under_way_and_says_how_far_it_came(job, published, parallel):
    with started(job, "--parallel", parallel) as process:
        wait_for_commits(job, 3, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, err
    assert err.endswith("interrupted\n")
    document = json.loads(out)
    assert document["exit_code"] == EXIT_INTERRUPTED
    # One may have been interrupted between its commit and the ledger.
    assert 3 <= document["dates_published"] + document["dates_interrupted"] < DAYS
    assert document["dates_interrupted"] <= parallel
    assert document["dates_not_started"] > 0
    assert len(ended(document)) == DAYS
    assert staged_files(job) == len(active_adds(job.table)), "staged files were left behind"
    backfill(job)
    assert_every_row_once(job, published)


@pytest.mark.parametrize("more", [(), ("--parallel", 2), ("--chunk", 4)])
def test_a_damaged_date_fails_alone_and_is_named(job, published, more):
    damage(job, "2026-11-04")
    path = truncate(job, "2026-11-09")
    done = job.batchscore(*arguments(*more))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "12 published, 2 failed" in done.stdout
    failed = [line for line in done.stdout.splitlines() if "exit code 5" in line]
    assert ["2026-11-04" in failed[0], "2026-11-09" in failed[1], path.name in failed[1]] == [True] * 3
    assert "Traceback" not in done.stderr
    assert_every_row_once(job, published, [date for date in DATES if date not in ("2026-11-04", "2026-11-09")])
    assert staged_files(job) == len(active_adds(job.table))


def test_stop_on_failure_begins_no_further_date(job):
    damage(job, "2026-11-03")
    document = backfill(job, "--stop-on-failure", code=5)
    states = ended(document)
    assert [states[date] for date in DATES[:4]] == ["published", "published", "failed", "not_started"]
    assert document["dates_not_started"] == DAYS - 3
    assert newest(job.table) == 1


def test_a_date_before_the_others_that_cannot_be_read_stops_them_too(job):
    truncate(job, "2026-11-02")
    document = backfill(job, "--stop-on-failure", code=5)
    assert Counter(ended(document).values()) == {"published": 1, "failed": 1, "not_started": DAYS - 2}


def test_a_delta_input_of_which_other_dates_need_spark(job, published):
    table = pq.read_table(job.data)
    table = table.set_column(table.schema.get_field_index("ds"), "ds", table["ds"].cast(pa.date32()))
    folder = job.folder / "data" / "delta"
    write_deltalake(folder, table, partition_by=["ds"])
    set_properties(folder, ("deletionVectors",), delta__enableDeletionVectors="true")
    path = next(path for path in active_adds(folder) if path.startswith("ds=2026-11-10"))
    delete_rows(folder, path, [0])
    document = backfill(job, "--input", "data/delta", "--chunk", 9, last="2026-11-09")
    assert document["dates_published"] == 9
    assert newest(job.table) == 0
    wanted = pc.less(scores(published)["ds"], dt.date(2026, 11, 10))
    assert scores(job)["prediction"].equals(scores(published).filter(wanted)["prediction"])
    refused = backfill(job, "--input", "data/delta", code=2)
    assert "deletion vectors (1 of 14 files)" in refused["problem"]


@pytest.mark.parametrize(
    ("more", "named", "code", "word"),
    [
        (("--partition", "ds=2026-11-02"), {}, 2, "named twice"),
        (("--mode", "replace"), {}, 2, "replace the whole table"),
        (("--set", "output.partition_by=[]"), {}, 2, "not partitioned"),
        (("--date-column", "sd"), {}, 2, "ds"),
        (("--model-as-of",), {}, 2, "alias or a stage"),
        ((), {"first": "2026-11-15"}, 2, "--from lies after --to"),
        ((), {"first": "soon"}, 2, "YYYY-MM-DD"),
        ((), {"first": "2025-01-01", "last": "2025-02-01"}, 5, "from 2026-11-01 to 2026-11-14"),
        ((), {"model": "fraud_detection/99"}, 3, "99"),
    ],
)
def test_what_cannot_be_backfilled(unscored, more, named, code, word):
    before = unscored.files()
    done = unscored.batchscore(*arguments("--json", *more, **named))
    assert done.returncode == code, done.stdout + done.stderr
    assert word in json.dumps(json.loads(done.stdout), ensure_ascii=False)
    assert unscored.files() == before


# --- the version of the date -------------------------------------------------------------------------------


REGISTER = """
import sys, warnings
from mlflow import MlflowClient
warnings.simplefilter("ignore")
client = MlflowClient("sqlite:///mlruns.db", "sqlite:///mlruns.db")
version = client.create_model_version("fraud_detection", sys.argv[1], await_creation_for=0)
client.transition_model_version_stage("fraud_detection", version.version, "Production", archive_existing_versions=True)
client.set_registered_model_alias("fraud_detection", "champion", version.version)
"""


def register_second(job: Job) -> None:
    """Version 2: other files with the same scores, in stage and alias instead of version 1."""
    (folder,) = (path.parent for path in (job.folder / "models").rglob("MLmodel"))
    copy = job.folder / "models" / "second"
    shutil.copytree(folder, copy)
    (copy / "note.txt").write_text("trained again")
    subprocess.run(
        [sys.executable, "-c", REGISTER, copy.as_uri()],
        cwd=job.folder,
        env=job.environment,
        check=True,
        timeout=SECONDS,
    )


def date_versions(job: Job, **times: tuple[str, str]) -> None:
    """Sets when versions were made and last changed: ``v1=("2026-10-01", "2026-11-08")``, at noon."""
    with sqlite3.connect(job.folder / "mlruns.db") as database:
        for name, moments in times.items():
            noon = [int(dt.datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp() * 1000) for day in moments]
            database.execute(
                "UPDATE model_versions SET creation_time = ?, last_updated_time = ? WHERE version = ?",
                [*noon, int(name.removeprefix("v"))],
            )
    database.close()


def test_each_date_is_scored_by_the_version_that_was_in_the_stage(job):
    register_second(job)
    date_versions(job, v1=("2026-10-01", "2026-11-08"), v2=("2026-11-08", "2026-11-08"))
    stage = {"model": "fraud_detection/Production"}
    text = job.batchscore(*arguments("--model-as-of", "--dry-run", **stage)).stdout
    first = next(line for line in text.splitlines() if line.strip().startswith(FIRST))
    assert first.partition("registry: ")[0].split()[-1] == "1"
    assert "registry: the only version there was  " in first
    document = backfill(job, "--model-as-of", "--chunk", 14, **stage)
    assert [(len(outcome["dates"]), outcome["version"]) for outcome in document["outcomes"]] == [(7, "1"), (7, "2")]
    assert {run["backfill"] for run in job.history()["runs"]} == {document["backfill_id"]}
    table = DeltaTable(job.table).to_pyarrow_table(columns=["ds", "_model_version"])
    found = dict(zip(map(str, table["ds"].to_pylist()), table["_model_version"].to_pylist(), strict=True))
    assert found == {date: "1" if date < "2026-11-08" else "2" for date in DATES}
    again = backfill(job, "--model-as-of", **stage)
    assert again["dates_skipped"] == DAYS


def test_what_nothing_tells_is_an_error_that_names_the_dates(job):
    register_second(job)
    date_versions(job, v1=("2026-10-01", "2026-10-01"), v2=("2026-11-08", "2026-11-08"))
    document = backfill(job, "--model-as-of", code=2, model="fraud_detection@champion")
    assert "7 of 14 dates" in document["problem"]
    assert "2026-11-08, 2026-11-09" in document["found"]
    assert "--model name/7" in document["hint"]


def test_the_ledger_tells_what_the_registry_forgets(job):
    given = job.run("--model", "fraud_detection@champion", "--partition", f"ds={FIRST}")
    assert given.returncode == 0, given.stderr
    register_second(job)
    date_versions(job, v1=("2026-10-01", "2026-10-01"), v2=("2026-11-08", "2026-11-08"))
    row = RunRecord(**job.history()["runs"][0])
    assert (row.model_requested, row.model_version) == ("fraud_detection@champion", "1")
    for day, version in (("08", "1"), ("10", "1"), ("12", "2")):
        at = f"2026-11-{day}T01:00:00.000Z"
        run = replace(row, run_id=f"202611{day}T010000-00000000", started_at=at, ended_at=at, model_version=version)
        record.append(str(job.table), run)
    document = backfill(
        job, "--model-as-of", "--dry-run", model="fraud_detection@champion", first="2026-11-07", last="2026-11-10"
    )
    assert [date["version"] for date in document["dates"]] == ["1"] * 4
    reasons = [date["version_why"] for date in document["dates"]]
    assert reasons[0] == "registry: the only version there was"
    assert reasons[1] == "ledger: run 20261108T010000-00000000 was given it"
    assert reasons[2].endswith(", and ledger: run 20261110T010000-00000000 was given it")
    refused = backfill(job, "--model-as-of", "--dry-run", code=2, model="fraud_detection@champion", first="2026-11-10")
    assert "3 of 5 dates" in refused["problem"]
    assert "2026-11-11, 2026-11-13, 2026-11-14;" in refused["found"]


def move_to_today(job: Job) -> dt.date:
    """Gives the data the last fourteen days as dates."""
    today = dt.datetime.now(dt.UTC).date()
    old = job.data.rename(job.data.with_name("old"))
    job.data.mkdir()
    for place, date in enumerate(DATES):
        shutil.move(old / f"ds={date}", job.data / f"ds={today - dt.timedelta(days=DAYS - 1 - place)}")
    return today


# --- late data ---------------------------------------------------------------------------------------------


def test_changed_since_looks_at_the_last_days_alone(job):
    today = move_to_today(job)
    planned = job.batchscore("plan", "--model", "fraud_detection/1", "--json", "--changed-since", "3d")
    document = json.loads(planned.stdout)
    assert (len(document["units"]), document["units_outside"]) == (4, DAYS - 4), "UTC turned to a new day meanwhile?"
    assert any(f"{DAYS - 4} units of older dates" in notice for notice in document["notices"])
    first = json.loads(job.run("--changed-since", "3d").stdout)
    assert (first["state"], first["units_published"], first["rows"]) == ("published", 4, 4 * PER_DAY)
    late = next((job.data / f"ds={today - dt.timedelta(days=1)}").glob("*.parquet"))
    shutil.copyfile(late, late.with_name("part-late.parquet"))
    old = next((job.data / f"ds={today - dt.timedelta(days=10)}").glob("*.parquet"))
    shutil.copyfile(old, old.with_name("part-late.parquet"))
    again = json.loads(job.run("--changed-since", "3d").stdout)
    assert again["exit_code"] == 4, "the copied rows have the same keys, so the changed unit was looked at and refused"
    late.with_name("part-late.parquet").unlink()
    skipped = json.loads(job.run("--changed-since", "3d").stdout)
    assert (skipped["state"], skipped["units_live"]) == ("skipped", 4)
    nothing = json.loads(job.run("--changed-since", "1h", "--partition", f"ds={today - dt.timedelta(days=10)}").stdout)
    assert nothing["state"] == "skipped"
    assert "of older dates" in nothing["message"]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--changed-since", "7"), "12h"),
        (("--date-column", "ds"), "--changed-since"),
        (("--changed-since", "7d", "--mode", "replace"), "mode replace"),
        (("--changed-since", "7d", "--set", "output.partition_by=[]"), "not partitioned"),
    ],
)
def test_a_window_that_is_none(unscored, more, word):
    done = unscored.run(*more)
    assert done.returncode == 2, done.stdout
    assert word in done.stdout


# --- Spark -------------------------------------------------------------------------------------------------


@pytest.mark.spark
@pytest.mark.parametrize("parallel", [1, 2])
def test_one_spark_session_serves_every_chunk(job, published, parallel):
    events = job.folder / "events"
    events.mkdir()
    settings = {
        "spark.master": "local[2]",
        "spark.conf.spark.ui.enabled": "false",
        "spark.conf.spark.eventLog.enabled": "true",
        "spark.conf.spark.eventLog.dir": events.as_uri(),
        "spark.conf.spark.eventLog.rolling.enabled": "false",
        "spark.conf.spark.eventLog.compress": "false",
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    document = backfill(job, "--runner", "spark", "--parallel", parallel, *sets, last="2026-11-04")
    assert document["dates_published"] == 4
    (log,) = events.iterdir()
    started = [line for line in log.read_text().splitlines() if '"SparkListenerJobStart"' in line]
    runs = {outcome["run_id"] for outcome in document["outcomes"]}
    assert len(runs) == 4
    assert all(any(f"batchscore {run}" in line for line in started) for run in runs)
    assert_every_row_once(job, published, DATES[:4])
