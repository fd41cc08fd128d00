"""The main job as its user runs it: published once, skipped the second time, refused when it must be."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tests.conftest import ROOT
from tests.e2e.conftest import DAYS, ROWS

pytestmark = pytest.mark.e2e


def predictions(job):
    return DeltaTable(job.table).to_pyarrow_table().sort_by("transaction_id")


def test_every_row_is_published_once_with_its_lineage(published):
    table = predictions(published)
    assert len(table) == ROWS
    assert pc.count_distinct(table["transaction_id"]).as_py() == ROWS
    assert pc.min(table["transaction_id"]).as_py() > 2**53
    assert table["_model"].unique().to_pylist() == ["fraud_detection"]
    assert table["_model_version"].unique().to_pylist() == ["1"]
    assert len(table["_run_id"].unique()) == 1
    assert set(table.column_names) == {
        "transaction_id", "ds", "prediction", "_model", "_model_version", "_run_id", "_scored_at",
    }  # fmt: skip


def test_scores_are_the_models_own_to_the_last_bit(published):
    import mlflow

    (folder,) = (path.parent for path in (published.folder / "models").rglob("MLmodel"))
    model = mlflow.pyfunc.load_model(str(folder))
    data = pq.read_table(published.data).sort_by("transaction_id")
    frame = data.select(model.metadata.get_input_schema().input_names()).to_pandas()
    own = model.predict(frame)
    assert predictions(published)["prediction"].to_numpy().tobytes() == own.tobytes()


def test_a_second_run_scores_nothing_and_commits_nothing(scored):
    version = DeltaTable(scored.table).version()
    files = {name for name in scored.files() if "__runs" not in name}
    done = scored.run()
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["state"], document["rows"], document["rows_read"]) == ("skipped", 0, 0)
    assert f"{DAYS} units are already published" in document["message"]
    assert DeltaTable(scored.table).version() == version
    assert {name for name in scored.files() if "__runs" not in name} == files


def test_only_a_changed_day_is_scored_again(scored):
    before = predictions(scored)
    folder = sorted(scored.data.iterdir())[4]
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    doubled = pc.multiply(table["amount"], 2.0)
    pq.write_table(table.set_column(table.schema.get_field_index("amount"), "amount", doubled), path)
    done = scored.run()
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["units_published"], document["units_live"], document["rows"]) == (1, DAYS - 1, len(table))
    after = predictions(scored)
    changed = pc.not_equal(before["_run_id"], after["_run_id"])
    assert pc.sum(changed).as_py() == len(table)
    assert after.filter(changed)["ds"].unique().to_pylist() == [before.filter(changed)["ds"][0].as_py()]


INTERRUPTED = """
import sys
from batchscore import pipeline
from batchscore.config import load
from batchscore.contracts import RunOptions

def on_event(event):
    if event.get("stage") == sys.argv[1]:
        raise KeyboardInterrupt

try:
    pipeline.run(load("conf/fraud_detection.yaml", {"scoring.runner": "local"}), RunOptions(), on_event)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("stage", "state", "rows"), [("publish", "interrupted", 0), ("record", "published", ROWS)])
def test_the_ledger_knows_on_which_side_of_the_commit_a_run_was_interrupted(job, stage, state, rows):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, stage], cwd=job.folder, env=job.environment, check=False, timeout=120
    )
    assert done.returncode == 130
    (run,) = job.history()["runs"]
    assert (run["state"], run["rows"]) == (state, rows)
    assert job.table.exists() == (stage == "record") or not (job.table / "_delta_log").exists()


def test_force_scores_again(scored):
    done = scored.run("--force", "--partition", f"ds={sorted(scored.data.iterdir())[0].name[3:]}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["units_published"] == 1


def test_pandas_is_loaded_for_nothing_that_does_without(job):
    # 0.2 s of a core in the command and in each worker: a tenth of a run over eight million rows.
    without_suite = ("--engine", "onnx", "--set", "validation.suite=null")
    proved = job.run(*without_suite)
    assert proved.returncode == 0, proved.stderr
    seen, blocked = job.folder / "pandas-was-imported", job.folder / "blocked"
    blocked.mkdir()
    (blocked / "pandas.py").write_text(
        "import traceback\n"
        f"with open({str(seen)!r}, 'a') as log: traceback.print_stack(file=log)\n"
        "raise ImportError('pandas is blocked')\n"
    )
    done = job.run(*without_suite, "--force", PYTHONPATH=os.pathsep.join((str(blocked), str(ROOT))))
    assert not seen.exists(), seen.read_text()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS


def test_plan_reads_and_writes_nothing(unscored):
    before = unscored.files()
    done = unscored.batchscore("plan", "--model", "fraud_detection/Production", "--json", JAVA_HOME="/nowhere")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["units"]) == DAYS
    assert document["expected_rows"] == ROWS
    assert unscored.files() == before
    same = unscored.batchscore("run", "--dry-run", "--model", "fraud_detection/Production", "--json")
    assert json.loads(same.stdout)["units"] == document["units"]


def test_a_suite_that_fails_refuses_and_leaves_the_table(scored):
    suite = scored.folder / "strict.json"
    expectation = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "prediction", "min_value": 0.0, "max_value": 0.0001},
    }
    suite.write_text(json.dumps({"name": "strict", "expectations": [expectation]}))
    version, files = DeltaTable(scored.table).version(), scored.files()
    done = scored.run("--force", "--suite", suite)
    assert done.returncode == 4, done.stdout
    assert "expect_column_values_to_be_between" in done.stdout
    assert DeltaTable(scored.table).version() == version
    assert {name for name in scored.files() - files if "__runs" not in name} == set()
    history = scored.history()
    assert [run["state"] for run in history["runs"]] == ["refused", "published"]


def test_history_and_show(scored):
    history = scored.history()
    (run,) = history["runs"]
    assert run["rows"] == ROWS
    shown = json.loads(scored.batchscore("show", run["run_id"][:18], "--model", "fraud_detection/1", "--json").stdout)
    assert shown["run"]["run_id"] == run["run_id"]
    assert len(shown["manifest"]["units"]) == DAYS
    missing = scored.batchscore("show", "20200101T000000-ffffffff", "--model", "fraud_detection/1")
    assert missing.returncode == 2
    assert run["run_id"] in missing.stderr


def test_a_where_that_workers_evaluate(job):
    done = job.run("--where", "amount > 50 AND country IS NOT NULL", "--carry", "amount,country")
    assert done.returncode == 0, done.stderr
    table = predictions(job)
    data = pq.read_table(job.data)
    kept = data.filter(pc.and_(pc.greater(data["amount"], 50), pc.is_valid(data["country"])))
    assert table["transaction_id"].to_pylist() == sorted(kept["transaction_id"].to_pylist())


def test_modes(scored):
    ids = predictions(scored)["transaction_id"]
    day = sorted(scored.data.iterdir())[0].name
    appended = scored.run("--mode", "append", "--partition", day, "--force")
    assert appended.returncode == 0, appended.stderr
    rows = json.loads(appended.stdout)["rows"]
    assert len(predictions(scored)) == len(ids) + rows
    replaced = scored.run("--mode", "replace", "--partition", day)
    assert replaced.returncode == 0, replaced.stderr
    assert len(predictions(scored)) == rows
    assert predictions(scored)["ds"].cast(pa.string()).unique().to_pylist() == [day.removeprefix("ds=")]


def test_without_keys_every_column_is_kept(job):
    done = job.run("--keys", "", "--output", "predictions/all")
    assert done.returncode == 0, done.stderr
    table = DeltaTable(job.folder / "predictions" / "all").to_pyarrow_table()
    assert set(pq.read_table(job.data).column_names) < set(table.column_names)


def test_check_names_what_does_not_fit(job):
    fits = job.batchscore("check", "--model", "fraud_detection/1", "--json", JAVA_HOME="/nowhere")
    assert fits.returncode == 0, fits.stderr
    for folder in job.data.iterdir():
        for path in folder.glob("*.parquet"):
            table = pq.read_table(path, partitioning=None)
            pq.write_table(table.drop_columns(["amount"]), path)
    misfit = job.batchscore("check", "--model", "fraud_detection/1", "--json")
    assert misfit.returncode == 3
    assert "amount" in misfit.stdout


NO_SIGNATURE = """
import sys
import mlflow, pandas as pd
from sklearn.tree import DecisionTreeClassifier
frame = pd.DataFrame({"amount": [1.0, 5.0, 20.0, 500.0], "hour": [1, 2, 3, 4]})
tree = DecisionTreeClassifier(random_state=0).fit(frame, [0, 0, 1, 1])
mlflow.sklearn.save_model(
    tree, sys.argv[1], pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
    pyfunc_predict_fn="predict_proba",
)
"""


def test_a_model_without_a_signature_takes_it_from_the_settings(job):
    folder = job.folder / "unsigned"
    subprocess.run([sys.executable, "-c", NO_SIGNATURE, folder], check=True, capture_output=True, timeout=120)
    flags = (
        "--config",
        job.settings,
        "--model",
        folder,
        "--allow-path",
        folder,
        "--set",
        "validation.suite=null",
        "--output",
        "predictions/unsigned",
    )
    unsigned = job.run(*flags)
    assert unsigned.returncode == 3
    assert "signature: {inputs:" in unsigned.stdout
    inputs = "[{name: amount, type: double}, {name: hour, type: long}]"
    signature = f"model.signature={{inputs: {inputs}, outputs: [{{type: array<double>}}]}}"
    signed = job.run(*flags, "--set", signature)
    assert signed.returncode == 0, signed.stderr
    table = DeltaTable(job.folder / "predictions" / "unsigned").to_pyarrow_table()
    assert table.schema.field("prediction").type == pa.list_(pa.field("element", pa.float64()))
    assert {sum(row) for row in table["prediction"].to_pylist()} == {1.0}
