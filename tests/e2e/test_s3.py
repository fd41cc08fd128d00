"""The main job with input and output on S3, as its user runs it, against a real server that may fail."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

import batchscore
from batchscore.arrow.filesystem import open_filesystem
from tests.e2e.conftest import DAYS, LONG, ROWS, Job
from tests.object_store import Front

pytestmark = pytest.mark.e2e
CANARIES = {"AWS_SECRET_ACCESS_KEY": "secret-CANARY-4f1c9e", "AWS_SESSION_TOKEN": "token-CANARY-b81d22"}


def upload(folder: Path, uri: str) -> None:
    filesystem, root = open_filesystem(uri)
    pafs.copy_files(str(folder), root, destination_filesystem=filesystem)


def everything_below(uri: str) -> bytes:
    filesystem, root = open_filesystem(uri)
    parts = []
    for info in filesystem.get_file_info(pafs.FileSelector(root, recursive=True)):
        if info.is_file:
            with filesystem.open_input_file(info.path) as stream:
                parts.append(stream.read())
    return b"".join(parts)


@dataclass(frozen=True)
class Lake:
    """A job whose input and output are in a bucket."""

    job: Job
    bucket: str
    store: Front
    format: str

    @property
    def data(self) -> str:
        return f"s3://{self.bucket}/data/transactions"

    @property
    def table(self) -> str:
        return f"s3://{self.bucket}/predictions/{self.format}"

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--input", self.data, "--output", self.table, "--set", f"output.format={self.format}")

    def run(self, *arguments: object, **environment: str):
        return self.job.run(*self.flags, *arguments, **environment)

    def rows(self):
        return batchscore.read_predictions(self.table).sort_by("transaction_id")

    def tables_keys(self) -> set[str]:
        """Objects of the table itself, not of its ledger."""
        return {key for key in self.store.keys(self.bucket, "predictions/") if "__runs" not in key}


@pytest.fixture
def lake(unscored, bucket, store, request):
    made = Lake(unscored, bucket, store, getattr(request, "param", "delta"))
    upload(unscored.data, made.data)
    return made


both_formats = pytest.mark.parametrize("lake", ["delta", "parquet"], indirect=True)


@both_formats
def test_a_run_a_rerun_and_a_changed_day(lake):
    done = lake.run(**CANARIES)
    assert done.returncode == 0, done.stderr
    first = lake.rows()
    assert len(first) == ROWS
    assert pc.count_distinct(first["transaction_id"]).as_py() == ROWS
    keys = lake.tables_keys()
    assert not any(key.endswith("/") for key in keys)

    again = lake.run(**CANARIES)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert (document["state"], document["rows"], document["rows_read"]) == ("skipped", 0, 0)
    assert f"{DAYS} units are already published" in document["message"]
    assert lake.tables_keys() == keys

    filesystem, root = open_filesystem(lake.data)
    day = sorted(info.path for info in filesystem.get_file_info(pafs.FileSelector(root)))[4]
    (info,) = filesystem.get_file_info(pafs.FileSelector(day))
    table = pq.ParquetFile(filesystem.open_input_file(info.path)).read()
    doubled = table.set_column(table.schema.get_field_index("amount"), "amount", pc.multiply(table["amount"], 2.0))
    pq.write_table(doubled, info.path, filesystem=filesystem)
    done = lake.run(**CANARIES)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["units_published"], document["units_live"], document["rows"]) == (1, DAYS - 1, len(table))
    changed = lake.rows().filter(pc.not_equal(first["_run_id"], lake.rows()["_run_id"]))
    assert {f"ds={value}" for value in changed["ds"].to_pylist()} == {day.rpartition("/")[2]}

    history = lake.job.batchscore("history", "--table", lake.table, "--json", **CANARIES)
    runs = json.loads(history.stdout)["runs"]
    assert [run["state"] for run in runs] == ["published", "skipped", "published"]
    shown = lake.job.batchscore("show", runs[0]["run_id"], "--table", lake.table, "--json", **CANARIES)
    assert len(json.loads(shown.stdout)["manifest"]["units"]) == 1

    printed = "".join(step.stdout + step.stderr for step in (again, done, history, shown))
    assert "CANARY" not in printed
    assert b"CANARY" not in everything_below(f"s3://{lake.bucket}/predictions")


def test_a_delta_input_with_another_bucket_for_the_output(lake, store):
    from deltalake import write_deltalake

    from batchscore import s3

    table = pq.read_table(lake.job.data)
    place = table.schema.get_field_index("ds")
    table = table.set_column(place, "ds", table["ds"].cast("string"))  # deltalake partitions by no dictionary
    where = f"s3://{lake.bucket}/delta-input"
    write_deltalake(where, table, partition_by=["ds"], storage_options=s3.delta_options(where))
    store.make_bucket(f"{lake.bucket}-out")
    out = f"s3://{lake.bucket}-out/scores"
    flags = ("--input", where, "--output", out)
    done = lake.job.run(*flags)
    assert done.returncode == 0, done.stderr
    assert len(batchscore.read_predictions(out)) == ROWS
    assert json.loads(lake.job.run(*flags).stdout)["state"] == "skipped"


def test_local_input_to_a_bucket_and_the_other_way(lake, tmp_path):
    out = lake.job.run("--output", lake.table, "--partition", "ds=2026-11-01")
    assert out.returncode == 0, out.stderr
    rows = json.loads(out.stdout)["rows"]
    assert len(lake.rows()) == rows
    back = lake.job.run("--input", lake.data, "--output", tmp_path / "scores", "--partition", "ds=2026-11-01")
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["rows"] == rows


# --- what cannot be reached --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "flags", "code", "told"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, (), 7, "http://127.0.0.1:9 does not answer"),
        ({"AWS_ACCESS_KEY_ID": "AKIAWRONG", **CANARIES}, (), 5, "does not let this process in"),
        ({}, ("--input", "s3://nowhere/data"), 5, "there is no bucket nowhere"),
        ({}, ("--output", "s3://nowhere/scores"), 2, "there is no bucket nowhere"),
        ({}, ("--input", "s3://{bucket}/data/transaction"), 5, "data/transactions"),
        ({"AWS_ENDPOINT_URL": "", "AWS_REGION": ""}, (), 2, "AWS_REGION"),
    ],
)
def test_run_and_check_say_what_is_missing(lake, environment, flags, code, told):
    flags = tuple(flag.format(bucket=lake.bucket) for flag in flags)
    for done in (
        lake.run(*flags, **environment),
        lake.job.batchscore("check", "--model", "fraud_detection/1", *lake.flags, *flags, "--json", **environment),
    ):
        assert done.returncode == code, done.stdout + done.stderr
        assert told in done.stdout
        assert "CANARY" not in done.stdout + done.stderr


def test_doctor_looks_at_buckets(lake, tmp_path):
    settings = lake.job.settings.read_text()
    path = tmp_path / "job.yaml"
    path.write_text(settings.replace("data/transactions", lake.data).replace("predictions/fraud_detection", lake.table))
    started = time.monotonic()
    for environment, fine, told in (
        ({}, True, "answers"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, False, "does not answer"),
        ({"AWS_ACCESS_KEY_ID": "AKIAWRONG", **CANARIES}, False, "does not let this process in"),
    ):
        done = lake.job.batchscore("doctor", "--config", path, "--json", **environment)
        found = {item["name"]: item for item in json.loads(done.stdout)["findings"]}
        assert (found["input"]["fine"], found["output"]["fine"]) == (fine, fine)
        assert told in found["input"]["found"]
        assert "CANARY" not in done.stdout + done.stderr
    assert time.monotonic() - started < 120


# --- a store that fails in the middle ----------------------------------------------------------------------

STEPS = {
    "planning": r"GET \S+/data/transactions/ds(=|%3D)2026-11-04",
    "before scoring": r"PUT \S+/_batchscore/table",
    "staging": r"(PUT|POST) \S+/predictions/FORMAT/\S*part-",
    "manifest": r"PUT \S+/manifests/",
    "commit": r"PUT \S+/predictions/FORMAT/(_delta_log/\d+\.json|_batchscore/current\.json)",
}


def pattern_of(step: str, lake: Lake) -> str:
    return STEPS[step].replace("FORMAT", lake.format)


def steps_of_both() -> list[Any]:
    """Each step with one of the formats in turn; with the other by ``make torture``."""
    formats = ("delta", "parquet")
    usual = [pytest.param(formats[place % 2], step) for place, step in enumerate(STEPS)]
    long = [pytest.param(formats[1 - place % 2], step, marks=LONG) for place, step in enumerate(STEPS)]
    return usual + long


@pytest.mark.parametrize(("lake", "step"), steps_of_both(), indirect=["lake"])
def test_a_run_that_fails_at_a_step_changes_nothing_and_the_next_publishes(lake, step):
    first = lake.run("--partition", "ds=2026-11-01")
    assert first.returncode == 0, first.stderr
    before = lake.rows()
    started = time.monotonic()
    with lake.store.failing("slow_down" if step == "staging" else "error", pattern_of(step, lake)):
        failed = lake.run()
    assert failed.returncode == 7, failed.stdout + failed.stderr
    assert time.monotonic() - started < 150
    assert lake.rows().equals(before)
    done = lake.run()
    assert done.returncode == 0, done.stderr
    assert len(lake.rows()) == ROWS
    if step == "commit":  # may still land, for all that its run knows
        assert "is not known" in failed.stdout
        return
    # The failed run removed what it staged: only what some version names is there.
    data = [key for key in lake.tables_keys() if key.endswith(".parquet") and "_delta_log" not in key]
    runs = {before["_run_id"][0].as_py(), json.loads(done.stdout)["run_id"]}
    assert all(any(run in key for run in runs) for key in data)
    history = json.loads(lake.job.batchscore("history", "--table", lake.table, "--json").stdout)["runs"]
    failed_runs = [] if step == "planning" else [("failed", 7)]
    assert [(run["state"], run["exit_code"]) for run in history] == [("published", 0), *failed_runs, ("published", 0)]


@both_formats
def test_a_commit_that_landed_unheard_is_a_published_run(lake):
    with lake.store.failing("landed", pattern_of("commit", lake)):
        done = lake.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["state"] == "published"
    assert len(lake.rows()) == ROWS
    assert json.loads(lake.run().stdout)["state"] == "skipped"


@both_formats
def test_a_ledger_that_cannot_be_written_does_not_undo_the_run(lake):
    with lake.store.failing("error", r"PUT \S+__runs/"):
        done = lake.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the ledger could not be written" in done.stderr
    assert len(lake.rows()) == ROWS
    (run,) = json.loads(lake.job.batchscore("history", "--table", lake.table, "--json").stdout)["runs"]
    assert (run["state"], run["rows"]) == ("published", ROWS)


@both_formats
def test_a_store_that_fails_now_and_then_is_no_matter(lake):
    with lake.store.failing("slow_down", "", share=0.05), lake.store.failing("reset", "", share=0.03) as fault:
        done = lake.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert fault.hits
    assert len(lake.rows()) == ROWS


def test_an_input_that_is_replaced_while_it_is_read_is_an_error(lake):
    """Same rows, same size, same footer: the ETag alone tells."""
    from batchscore import read
    from batchscore.arrow.splits import read_split
    from batchscore.errors import InputError
    from batchscore.plan.splitting import make_tasks

    source = read.pin(lake.data)
    split = make_tasks(source.files, cores=1, rows_per_task=10**9)[0][0]
    columns = tuple(column for column in source.columns if column.name == "amount")
    assert sum(batch.num_rows for batch in read_split(split, source.uri, columns, None, 1000)) == split.rows
    filesystem, _ = open_filesystem(lake.data)
    with filesystem.open_input_file(split.path) as stream:
        data = bytearray(stream.read())
    data[40] ^= 1  # in a page of the first column
    with filesystem.open_output_stream(split.path) as stream:
        stream.write(bytes(data))
    with pytest.raises(InputError, match=r"changed after planning[\s\S]*another ETag"):
        list(read_split(split, source.uri, columns, None, 1000))
    assert read.pin(lake.data).snapshot != source.snapshot
