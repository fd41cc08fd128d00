"""A model's files that change after planning are never unpickled, wherever they are loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.spark, pytest.mark.cluster]

DRIVER = """
import json, os, pickle, sys
from pathlib import Path
import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from batchscore import pipeline, runners, score, session
from batchscore.config import load
from batchscore.contracts import RunOptions
from batchscore.errors import BatchscoreError

given = json.loads(sys.argv[1])

class Honest(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["amount"]

class Trap:
    def __reduce__(self):
        return (os.mkdir, (given["trap"],))

mlflow.pyfunc.save_model(
    "model", python_model=Honest(), pip_requirements=["mlflow"],
    signature=ModelSignature(inputs=Schema([ColSpec("double", "amount")]), outputs=Schema([ColSpec("double")])),
)
settings = {"model.name": "./model", "input.path": "in", "output.path": "out", "output.keys": ["id"],
            "scoring.engine": "pyfunc", "registry.allowed_paths": ["model"],
            "spark.master": given["master"], "spark.conf": given["conf"]}
plan = pipeline.plan(load(None, settings), RunOptions())
if given["tampered"]:
    Path(plan.model.path, "python_model.pkl").write_bytes(pickle.dumps(Trap()))
if given["master"] == "local":
    runner = runners.LocalRunner(2)
else:
    runner = runners.SparkRunner(session.start(given["master"], given["conf"], on_notice=print))
try:
    results = runner.run_splits(score.run_splits_task, plan.task, plan.tasks, lambda _: None)
    print(json.dumps({"rows": sum(result.rows_staged for result in results)}))
except BatchscoreError as error:
    print(json.dumps(error.as_dict()))
"""


@pytest.mark.parametrize("tampered", [False, True])
@pytest.mark.parametrize("where", ["local workers", "executors of a cluster"])
def test_a_file_that_changed_is_never_unpickled(cluster, tmp_path, where, tampered):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": range(40), "amount": [0.5] * 40}), tmp_path / "in" / "a.parquet", row_group_size=10)
    elsewhere = where != "local workers"
    given = {
        "master": cluster.master if elsewhere else "local",
        "conf": cluster.driver_conf if elsewhere else {},
        "trap": str(tmp_path / "sprung"),
        "tampered": tampered,
    }
    inherited = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(given)],
        env={**inherited, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    if tampered:
        assert answer["error"] == "ModelError"
        assert "not those that were resolved" in answer["problem"]
    else:
        assert answer == {"rows": 40}, "the same way works with the model that was planned"
    assert not Path(given["trap"]).exists()
