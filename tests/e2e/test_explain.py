"""`batchscore explain` as a user runs it: without Spark, without MLflow, under three seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.conftest import ROOT
from tests.e2e.conftest import SECONDS

pytestmark = pytest.mark.e2e

TABLE = "predictions/fraud_detection"
INPUTS = ["amount", "merchant_category", "hour", "country", "account_age_days", "distance_km", "device"]
NEW_VERSION = """
import mlflow.sklearn
from mlflow import MlflowClient
from pathlib import Path
from batchscore.demo.training import MODEL_NAME, signature, train

model, _ = train(5_000)
folder = Path("models/second").resolve()
mlflow.sklearn.save_model(
    model, folder, signature=signature(), pip_requirements=[], serialization_format="cloudpickle"
)
client = MlflowClient(tracking_uri="sqlite:///mlruns.db", registry_uri="sqlite:///mlruns.db")
client.create_model_version(MODEL_NAME, folder.as_uri(), description="fewer rows", await_creation_for=0)
client.set_registered_model_alias(MODEL_NAME, "challenger", "2")
"""


def in_job(job, script):
    subprocess.run([sys.executable, "-c", script], cwd=job.folder, env=job.environment, check=True, timeout=SECONDS)


def explained(job, key, *arguments, table=TABLE, code=0, **environment):
    done = job.batchscore("explain", table, "--key", f"transaction_id={key}", *arguments, "--json", **environment)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def published_row(job, index=1234, table=TABLE):
    rows = DeltaTable(job.folder / table).to_pyarrow_table().sort_by("transaction_id")
    return rows.slice(index, 1).to_pylist()[0]


def values(part):
    return {value["name"]: value["value"] for value in part["values"]}


def test_a_score_and_everything_that_made_it(published, tmp_path):
    expected = published_row(published)
    key = expected["transaction_id"]
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("mlflow", "pyspark", "great_expectations"):
        (blocked / f"{name}.py").write_text(f"raise ImportError('{name} is blocked')\n")
    path = os.pathsep.join((str(blocked), str(ROOT)))
    before = published.files()
    found = explained(published, key, PYTHONPATH=path, JAVA_HOME="/nowhere")

    row = values(found["row"])
    assert row["prediction"] == expected["prediction"]
    assert row["_run_id"] == expected["_run_id"]
    assert found["row"]["scores"] == ["prediction"]
    assert (found["row"]["version"], found["row"]["newest"]) == (0, True)
    assert found["row"]["commit"]["run_id"] == expected["_run_id"]
    assert found["run"]["record"]["state"] == "published"
    assert found["run"]["problem"] == ""

    source = pads.dataset(published.data, partitioning="hive").to_table(filter=pads.field("transaction_id") == key)
    assert values(found["input"]) == {name: source[name][0].as_py() for name in INPUTS}
    assert (found["input"]["verified"], found["input"]["problem"]) == (True, "")

    assert (found["model"]["registry"]["state"], found["model"]["registry"]["aliases"]) == ("registered", ["champion"])
    assert found["model"]["digest"] == found["run"]["manifest"]["model_digest"]
    assert found["recomputed"]["equal"] is True, found["recomputed"]
    (output,) = found["contributions"]["outputs"]
    assert output["adds_up"] is True
    assert {item["feature"]: item["value"] for item in output["items"]} == values(found["input"])
    assert published.files() == before


def test_the_text_is_readable(published):
    key = published_row(published)["transaction_id"]
    done = published.batchscore("explain", "--model", "fraud_detection/1", "--key", f"transaction_id={key}")
    assert done.returncode == 0, done.stderr
    labels = [line.split("  ")[0].split(" ")[0] for line in done.stdout.splitlines()]
    for label in (
        "prediction",
        "row",
        "table",
        "run",
        "engine",
        "model",
        "registered",
        "input",
        "inputs",
        "contributions",
    ):
        assert label in labels, done.stdout
    assert "equal to the stored score, bit for bit" in done.stdout
    assert "they add up to it" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 400


def test_a_new_version_of_the_model_and_the_table_as_it_was(scored):
    old = published_row(scored)
    key = old["transaction_id"]
    in_job(scored, NEW_VERSION)
    done = scored.run("--model", "fraud_detection/2", "--on-new-model", "all")
    assert done.returncode == 0, done.stderr
    now = explained(scored, key)
    assert (now["row"]["version"], now["model"]["version"], now["row"]["newest"]) == (1, "2", True)
    assert values(now["row"])["prediction"] != old["prediction"]
    assert now["recomputed"]["equal"] is True
    assert (now["model"]["registry"]["aliases"], now["model"]["registry"]["description"]) == (
        ["challenger"],
        "fewer rows",
    )
    then = explained(scored, key, "--at", "0")
    assert (then["row"]["version"], then["model"]["version"], then["row"]["newest"]) == (0, "1", False)
    assert values(then["row"])["prediction"] == old["prediction"]
    assert then["recomputed"]["equal"] is True
    missing = explained(scored, key, "--at", "9", code=5)
    assert missing["allowed"] == ["versions 0 to 1"]


def test_rows_that_are_not_there(published):
    key = published_row(published)["transaction_id"]
    none = explained(published, 1, code=2)
    assert "no row of" in none["problem"]
    assert "transaction_id goes from" in " ".join(none["detail"])
    wrong = explained(published, "abc", code=2)
    assert "no value of type long" in wrong["problem"]
    elsewhere = explained(published, key, "--key", "ds=2026-12-01", code=2)
    assert "2026-11-01" in elsewhere["found"]
    several = published.batchscore("explain", TABLE, "--key", "ds=2026-11-03", "--json")
    assert several.returncode == 2
    assert "more than 10 rows" in json.loads(several.stdout)["problem"]
    nothing = published.batchscore("explain", TABLE, "--json")
    assert json.loads(nothing.stdout)["problem"] == "no key is named"
    assert published.batchscore("explain", "--key", "transaction_id=1").returncode == 2


def test_old_runs_lack_pieces_and_say_which(own):
    row = published_row(own)
    key = row["transaction_id"]
    (path,) = (own.data / f"ds={row['ds']}").glob("*.parquet")
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
    changed = explained(own, key)
    assert changed["input"]["verified"] is False
    assert f"the files of ds={row['ds']} changed since the run" in changed["input"]["problem"]
    assert values(changed["input"]) == {}
    assert changed["recomputed"]["problem"] == "the row's inputs are not at hand"
    other = next(line for line in DeltaTable(own.table).to_pyarrow_table().to_pylist() if line["ds"] != row["ds"])
    assert explained(own, other["transaction_id"])["input"]["verified"] is True

    path.unlink()
    assert f"the files of ds={row['ds']} are gone" in explained(own, key)["input"]["problem"]

    in_job(
        own,
        "from mlflow import MlflowClient\n"
        "MlflowClient('sqlite:///mlruns.db', 'sqlite:///mlruns.db').delete_model_version('fraud_detection', '1')\n",
    )
    deleted = explained(own, other["transaction_id"])
    assert deleted["model"]["registry"] is None
    assert deleted["model"]["registry_problem"] == "version 1 was deleted from the registry"
    assert deleted["recomputed"]["equal"] is True, "the files are still in the cache, by their digest"
    shutil.rmtree(own.folder / "cache")
    gone = explained(own, other["transaction_id"])
    assert gone["model"]["files_problem"]
    assert gone["recomputed"]["problem"] == "the model is not at hand"
    assert values(gone["input"])["transaction_id"] == other["transaction_id"]

    (own.table / "_batchscore/manifests" / f"{row['_run_id']}.json").unlink()
    shutil.rmtree(f"{own.table}__runs")
    lost = explained(own, key)
    assert values(lost["row"])["prediction"] == row["prediction"]
    assert "its manifest is missing" in lost["run"]["problem"]
    assert lost["input"]["problem"] == "no manifest of the row's run is there"
    text = own.batchscore("explain", TABLE, "--key", f"transaction_id={key}")
    assert text.returncode == 0, text.stderr
    assert "not available" in text.stdout


def test_what_the_table_records_vouches_for_no_code(own):
    row = published_row(own)
    key = row["transaction_id"]
    flags = (["--tracking-uri", "sqlite:///mlruns.db"], ["--allow-path", "models"], ["--config", own.settings])
    for vouched in flags:
        shutil.rmtree(own.folder / "cache")
        refused = explained(own, key)
        assert "would run code of its own" in refused["model"]["files_problem"]
        assert "--tracking-uri" in refused["model"]["files_problem"]
        assert refused["recomputed"]["problem"] == "the model is not at hand"
        assert refused["input"]["verified"] is True
        run = ("reproduce", row["_run_id"], "--table", TABLE, "--sample", "20", "--json")
        done = own.batchscore(*run)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "--tracking-uri" in json.loads(done.stdout)["hint"]
        assert explained(own, key, *vouched)["recomputed"]["engine"]
        assert explained(own, key)["recomputed"]["engine"], "the cache has what was allowed"
        shutil.rmtree(own.folder / "cache")
        assert json.loads(own.batchscore(*run, *vouched).stdout)["equal"] is True
    assert explained(own, key, MLFLOW_TRACKING_URI="sqlite:///mlruns.db")["recomputed"]["engine"]


def test_a_delta_input_is_read_as_it_was(job):
    rows = pads.dataset(job.data, partitioning="hive").to_table()
    source = job.folder / "data" / "delta"
    write_deltalake(source, rows, partition_by=["ds"])
    done = job.run("--input", "data/delta", "--output", "predictions/delta", "--set", "validation.suite=null")
    assert done.returncode == 0, done.stderr
    expected = published_row(job, table="predictions/delta")
    key = expected["transaction_id"]
    doubled = rows.set_column(rows.schema.get_field_index("amount"), "amount", [[1.0] * len(rows)])
    write_deltalake(source, doubled, partition_by=["ds"], mode="overwrite")
    found = explained(job, key, table="predictions/delta")
    assert (found["input"]["version"], found["input"]["verified"]) == (0, True)
    assert values(found["input"])["amount"] != 1.0
    assert found["recomputed"]["equal"] is True
    DeltaTable(source).vacuum(0, dry_run=False, enforce_retention_duration=False)
    vacuumed = explained(job, key, table="predictions/delta")
    assert "lost a file that may hold the row" in vacuumed["input"]["problem"]
    assert vacuumed["recomputed"]["problem"] == "the row's inputs are not at hand"
    assert values(vacuumed["row"])["prediction"] == expected["prediction"]
    shutil.rmtree(source)
    write_deltalake(source, doubled, partition_by=["ds"])
    assert "it was made anew" in explained(job, key, table="predictions/delta")["input"]["problem"]


def test_a_tampered_score_is_noticed(scored):
    row = published_row(scored)
    key = row["transaction_id"]
    path = Path(explained(scored, key)["row"]["file"])
    table = pq.ParquetFile(path).read()
    place = table["transaction_id"].to_pylist().index(key)
    changed = table["prediction"].to_pylist()
    changed[place] += 1e-12
    index = table.schema.get_field_index("prediction")
    pq.write_table(table.set_column(index, table.schema.field(index), [changed]), path)
    found = explained(scored, key)
    assert found["recomputed"]["equal"] is False
    assert found["recomputed"]["difference"] == pytest.approx(1e-12, rel=0.1)
