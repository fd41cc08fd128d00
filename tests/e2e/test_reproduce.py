"""`batchscore reproduce` as a user runs it: equal bit for bit, or what is not and what is gone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from tests.e2e.conftest import DAYS, LONG, ROWS, Job
from tests.factories.jobs import day_frame, end_started, make_job, text_of

pytestmark = pytest.mark.e2e

TABLE = "predictions/fraud_detection"
NO_SUITE = ("--set", "validation.suite=null")


def reproduced(job, *arguments, run=None, table=TABLE, code=0):
    run = run or history(job, table)[0]["run_id"]
    done = job.batchscore("reproduce", run, "--table", table, *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def history(job, table=TABLE):
    return json.loads(job.batchscore("history", "--table", table, "--json").stdout)["runs"]


def test_a_parquet_run_and_samples_of_it(published):
    before = published.files()
    found = reproduced(published)
    assert (found["equal"], found["exit_code"]) == (True, 0)
    assert found["comparison"]["equal"] == ROWS
    assert (found["units"], found["not_available"], found["version"]) == (DAYS, [], 0)
    sample = reproduced(published, "--sample", "100")
    assert sample["equal"] is True
    assert 0 < sample["comparison"]["equal"] <= 100
    again = reproduced(published, "--sample", "100", "--seed", str(sample["seed"]))
    assert again["comparison"] == sample["comparison"]
    assert published.files() == before
    text = published.batchscore("reproduce", found["run_id"][:18], "--model", "fraud_detection/1", "--sample", "50")
    assert text.returncode == 0, text.stderr
    assert "equal bit for bit" in text.stdout
    assert "drawn by seed" in text.stdout


def test_each_engine_gives_its_own_bits_again(scored):
    done = scored.batchscore("engines", "fraud_detection/1", "--runner", "local", "--json")
    assert done.returncode == 0, done.stderr
    usable = [item["engine"] for item in json.loads(done.stdout)["engines"] if item["state"] in ("equal", "reference")]
    assert {"native", "pyfunc"} <= set(usable)
    for engine in usable:
        run = scored.run("--engine", engine, "--force", *NO_SUITE)
        assert run.returncode == 0, run.stderr
        found = reproduced(scored)
        assert (found["engine"], found["equal"], found["comparison"]["equal"]) == (engine, True, ROWS)
        sample = reproduced(scored, "--sample", "30")
        assert sample["equal"] is True, (engine, sample)
        if engine in ("compiled", "onnx", "onedal"):
            assert found["same_artifact"] in (True, None)
            assert found["versions"]


@pytest.mark.parametrize("engine", ["native", "pyfunc"])
def test_a_linear_model_on_a_machine_of_more_cores(tmp_path, cores, engine):
    """Its last few rows of a batch are rounded otherwise, so that the run must have had the same batches."""
    job = linear_job(tmp_path)
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    run = job.batchscore("run", "--config", job.settings, "--engine", engine, "--json")
    os.sched_setaffinity(0, every)
    assert run.returncode == 0, run.stderr
    allowed = ("--allow-path", tmp_path / "model")
    whole = reproduced(job, *allowed, table="predictions")
    assert (whole["equal"], whole["comparison"]["equal"]) == (True, GROUPS * GROUP_ROWS), whole["comparison"]
    assert reproduced(job, *allowed, "--sample", 2_000, table="predictions")["equal"] is True


GROUPS, GROUP_ROWS = 10, 6_003  # no multiple of what a matrix product takes at a time


def linear_job(folder):
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    random = np.random.default_rng(3)
    frame = pd.DataFrame(random.standard_normal((GROUPS * GROUP_ROWS, 12)), columns=[f"f{n}" for n in range(12)])
    model = LinearRegression().fit(frame, random.standard_normal(len(frame)))
    signature = infer_signature(frame.head(), np.zeros(1))
    mlflow.sklearn.save_model(model, folder / "model", signature=signature, pip_requirements=[])
    (folder / "data").mkdir()
    rows = pa.Table.from_pandas(frame, preserve_index=False).append_column("id", pa.array(range(len(frame))))
    pq.write_table(rows, folder / "data" / "one.parquet", row_group_size=GROUP_ROWS)
    job = Job(folder)
    job.settings.parent.mkdir()
    settings = {
        "model": {"name": str(folder / "model")},
        "input": {"path": "data"},
        "output": {"path": "predictions", "keys": ["id"]},
        "scoring": {"runner": "local"},
        "registry": {"allowed_paths": [str(folder / "model")]},
    }
    job.settings.write_text(yaml.safe_dump(settings))
    return job


def test_the_runs_own_version_counts(scored):
    (first,) = history(scored)
    assert scored.run("--force", "--engine", "native", *NO_SUITE).returncode == 0
    found = reproduced(scored, run=first["run_id"])
    assert (found["version"], found["equal"], found["engine"]) == (0, True, first["engine"])
    assert found["comparison"]["equal"] == ROWS


def test_a_version_that_is_gone(scored):
    """Then the newest one is looked at: what it still holds of the run."""
    (first,) = history(scored)
    day = sorted(scored.data.iterdir())[0].name
    assert scored.run("--force", "--partition", day, *NO_SUITE).returncode == 0
    DeltaTable(scored.table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    found = reproduced(scored, run=first["run_id"], code=5)
    newest = DeltaTable(scored.table).version()
    assert (found["version"], found["own_version"], found["units"]) == (newest, False, DAYS - 1)
    assert found["not_available"] == [f"{day}: version {newest} of the table holds nothing of the run any more"]
    assert found["comparison"]["different"] == 0


def test_part_of_the_input_by_partition_and_condition(job):
    day = sorted(job.data.iterdir())[3].name[3:]
    done = job.run("--partition", f"ds={day}", "--where", "amount > 20", "--carry", "amount", *NO_SUITE)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    found = reproduced(job)
    assert (found["equal"], found["comparison"]["equal"], found["units"]) == (True, rows, 1)
    sample = reproduced(job, "--sample", "40")
    assert sample["equal"] is True
    assert 0 < sample["comparison"]["equal"] <= 40


def test_without_keys_carried_columns_tell_rows_apart(job):
    done = job.run("--set", "output.keys=[]", "--output", "predictions/nokeys", *NO_SUITE)
    assert done.returncode == 0, done.stderr
    found = reproduced(job, table="predictions/nokeys")
    assert (found["equal"], found["comparison"]["equal"]) == (True, ROWS)


def test_a_delta_input(job):
    rows = pads.dataset(job.data, partitioning="hive").to_table()
    source = job.folder / "data" / "delta"
    write_deltalake(source, rows, partition_by=["ds"])
    table = "predictions/delta"
    done = job.run("--input", "data/delta", "--output", table, *NO_SUITE)
    assert done.returncode == 0, done.stderr
    write_deltalake(source, rows.slice(0, 10), partition_by=["ds"], mode="overwrite")
    found = reproduced(job, table=table)
    assert (found["equal"], found["comparison"]["equal"]) == (True, ROWS)
    assert reproduced(job, "--sample", "100", table=table)["equal"] is True
    DeltaTable(source).vacuum(0, dry_run=False, enforce_retention_duration=False)
    vacuumed = reproduced(job, table=table, code=5)
    assert "VACUUM" in vacuumed["problem"]


@pytest.mark.parametrize("sample", [(), ("--sample", "2000")])
def test_a_tampered_prediction(scored, sample):
    path = next(Path(scored.table).rglob("part-*.parquet"))
    table = pq.ParquetFile(path).read()
    index = table.schema.get_field_index("prediction")
    changed = [value + 2.0**-30 for value in table["prediction"].to_pylist()]
    pq.write_table(table.set_column(index, table.schema.field(index), [changed]), path)
    found = reproduced(scored, *sample, code=4)
    assert found["equal"] is False
    counts = found["comparison"]
    assert 0 < counts["different"] <= len(table)
    if not sample:
        assert (counts["different"], counts["equal"]) == (len(table), ROWS - len(table))
    assert float(counts["largest"]["prediction"]) == pytest.approx(2.0**-30)
    assert len(counts["samples"]) == 10
    one = counts["samples"][0]
    assert float(one["published"]) - float(one["again"]) == pytest.approx(2.0**-30, rel=1e-3)
    assert int(one["keys"]["transaction_id"]) in table["transaction_id"].to_pylist()


def test_a_row_taken_away_and_one_made_up(scored):
    path = next(Path(scored.table).rglob("part-*.parquet"))
    table = pq.ParquetFile(path).read()
    index = table.schema.get_field_index("transaction_id")
    ids = [1, *table["transaction_id"].to_pylist()[1:]]
    pq.write_table(table.set_column(index, table.schema.field(index), [ids]), path)
    counts = reproduced(scored, code=4)["comparison"]
    assert (counts["missing"], counts["surplus"], counts["equal"]) == (1, 1, ROWS - 1)


def test_a_changed_model(own):
    (file,) = (own.folder / "models").rglob("MLmodel")
    file.write_text(file.read_text() + "\n")
    found = reproduced(own, code=3)
    assert "are not those that scored the run" in found["problem"]
    assert found["found"].startswith("digest ")


def test_a_model_that_is_gone(own):
    for file in (own.folder / "models").rglob("MLmodel"):
        file.unlink()
    assert reproduced(own, code=3)["error"] == "ModelError"


def test_a_day_of_the_input_that_changed(own):
    folder = sorted(own.data.iterdir())[4]
    (path,) = folder.glob("*.parquet")
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.slice(1), path)
    found = reproduced(own, code=5)
    assert found["not_available"] == [
        f"the files of {folder.name} changed since the run (1 now): other sizes, times or footers"
    ]
    assert found["comparison"]["equal"] == ROWS - len(rows)
    assert found["units"] == DAYS - 1
    for day in own.data.iterdir():
        for file in day.glob("*.parquet"):
            pq.write_table(pq.read_table(file, partitioning=None).slice(1), file)
    nothing = reproduced(own, code=5)
    assert "nothing of run" in nothing["problem"]


def test_runs_that_cannot_be_reproduced(scored):
    assert reproduced(scored, run="20200101T000000-ffffffff", code=2)["error"] == "SettingsError"
    assert scored.run().returncode == 0
    skipped = history(scored)[0]
    assert skipped["state"] == "skipped"
    assert reproduced(scored, run=skipped["run_id"], code=2)["found"] == "state skipped"
    assert reproduced(scored, "--runner", "dask", code=2)["problem"] == "unknown runner"
    published = history(scored)[1]["run_id"]
    (scored.table / "_batchscore/manifests" / f"{published}.json").unlink()
    assert "manifest" in reproduced(scored, run=published, code=2)["found"]


def test_the_registry_elsewhere(scored):
    (scored.folder / "mlruns.db").rename(scored.folder / "moved.db")
    assert reproduced(scored, code=7)["error"] == "UnavailableError"
    assert reproduced(scored, "--tracking-uri", "sqlite:///moved.db")["equal"] is True


# --- replays and erasures -----------------------------------------------------------------------------------

RULES = {"rules": [{"column": "f0", "range": [-1e6, 1e6], "name": "sane"}], "max_fraction": 0.5}
LEFT_OUT = (2_000, 2_007)


@pytest.fixture(params=["delta", pytest.param("parquet", marks=LONG)])
def small(request, tmp_path):
    """A small job whose second day has two rows that a rule leaves out."""
    job, _ = make_job(tmp_path / "job")
    settings = yaml.safe_load(job.settings.read_text())
    settings["output"] |= {"format": request.param}
    settings["quarantine"] = RULES
    job.settings.write_text(yaml.safe_dump(settings))
    frame = day_frame(2, 0)
    places = [key - 2_000 for key in LEFT_OUT]
    values = [1e9 if place in places else value for place, value in enumerate(frame["f0"].to_pylist())]
    spoiled = frame.set_column(frame.schema.names.index("f0"), "f0", pa.array(values, pa.float32()))
    pq.write_table(spoiled, job.data / f"ds={text_of(2)}" / "part.parquet")
    yield job
    end_started()


def done(job, command, *arguments, code=0):
    ended = job.run(*arguments, command=command)
    assert ended.code == code, ended.out + ended.err
    return ended.answer


def test_a_replay_is_compared_by_its_own_rows(small):
    first = done(small, "run")
    assert (first["rows"], first["rows_quarantined"]) == (118, 2)
    small.change(2, 0)
    replayed = done(small, "replay", first["run_id"])
    assert replayed["rows"] == 2
    found = done(small, "reproduce", replayed["run_id"])
    assert (found["equal"], found["comparison"]["equal"], found["units"]) == (True, 2, 1)
    sample = done(small, "reproduce", replayed["run_id"], "--sample", "1")
    assert (sample["equal"], sample["comparison"]["equal"], sample["sample"]) == (True, 2, 0)
    assert "compared in whole" in sample["notes"][0]
    small.change(4, 0)  # the next day of the input comes
    later = done(small, "explain", "--key", f"id={LEFT_OUT[1]}")
    assert (later["run"]["run_id"], later["input"]["verified"]) == (replayed["run_id"], True), later["input"]
    assert later["recomputed"]["equal"] is True
    assert done(small, "reproduce", replayed["run_id"])["comparison"]["equal"] == 2
    # Of the replayed run itself the day's files are no longer those that it read.
    assert done(small, "reproduce", first["run_id"], code=5)["comparison"]["equal"] == 80


@pytest.mark.parametrize("now", [(), ("--now",)])
def test_an_erased_row_is_not_missed(small, now):
    small.change(2, 0)
    first = done(small, "run")
    assert done(small, "forget", "--key", "id=2003", *now)["keys_found"] == 1
    found = done(small, "reproduce", first["run_id"])
    assert found["equal"] is True
    assert found["comparison"]["equal"] == (119 if now else 120)
    assert found["notes"] == (["ds=2026-01-02: 1 row was erased since, and not compared"] if now else [])
    assert done(small, "reproduce", first["run_id"], "--sample", "119")["equal"] is True


@pytest.mark.parametrize("now", [(), ("--now",)])
def test_an_erased_row_of_a_replay_is_not_missed(small, now):
    first = done(small, "run")
    small.change(2, 0)
    replayed = done(small, "replay", first["run_id"])
    assert done(small, "forget", "--key", f"id={LEFT_OUT[0]}", *now)["keys_found"] == 1
    found = done(small, "reproduce", replayed["run_id"])
    assert (found["equal"], found["comparison"]["equal"]) == (True, 1)


@pytest.mark.spark
def test_on_spark(published):
    before = published.files()
    found = reproduced(published, "--runner", "spark")
    assert (found["equal"], found["runner"], found["comparison"]["equal"]) == (True, "spark", ROWS)
    assert published.files() == before


@pytest.mark.spark
def test_a_replay_on_spark(small):
    first = done(small, "run")
    small.change(2, 0)
    replayed = done(small, "replay", first["run_id"])
    found = done(small, "reproduce", replayed["run_id"], "--runner", "spark")
    assert (found["equal"], found["comparison"]["equal"], found["runner"]) == (True, 2, "spark")
    assert not list(small.table.parent.glob("*__reproduce-*"))
