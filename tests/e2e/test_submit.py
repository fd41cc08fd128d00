"""``spark-submit jobs/score.py``: the same arguments and exit codes, on one machine and on a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from deltalake import DeltaTable

from batchscore.session import DELTA_PACKAGE
from tests.conftest import ROOT
from tests.e2e.bad_models import bad_model
from tests.e2e.conftest import ROWS, SECONDS
from tests.factories.delta import active_adds

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.spark,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.usefixtures("cores"),
]


def submit(job, *arguments: object, options: tuple[str, ...] = ()):
    """Submits the job file as a user does, from the job's folder."""
    return subprocess.run(
        [
            str(Path(pyspark.__file__).parent / "bin" / "spark-submit"),
            *("--packages", DELTA_PACKAGE, "--driver-memory", "1g"),
            *options,
            str(ROOT / "jobs" / "score.py"),
            *map(str, arguments),
        ],
        cwd=job.folder,
        env={
            **job.environment,
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def scores(job):
    table = DeltaTable(job.table).to_pyarrow_table(columns=["transaction_id", "prediction"])
    return table.sort_by("transaction_id")


def test_on_this_machine(job, published):
    options = ("--master", "local[2]", "--conf", "spark.ui.enabled=false")
    done = submit(job, "--model", "fraud_detection/1", "--json", options=options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["rows"] == ROWS
    assert scores(job).equals(scores(published))
    unknown = submit(job, "--model", "fraud_detection/99", "--json", options=options)
    assert unknown.returncode == 3
    assert json.loads(unknown.stdout)["exit_code"] == 3


def on_cluster(job, cluster, *arguments):
    conf = [flag for key, value in cluster.driver_conf.items() for flag in ("--conf", f"{key}={value}")]
    return submit(job, *arguments, options=("--master", cluster.master, *conf))


@pytest.mark.cluster
def test_on_a_cluster_whose_executors_have_no_checkout(job, published, cluster):
    done = on_cluster(job, cluster, "--model", "fraud_detection/1", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["rows"] == ROWS
    assert scores(job).equals(scores(published))
    again = on_cluster(job, cluster, "--model", "fraud_detection/1", "--json")
    assert json.loads(again.stdout)["state"] == "skipped"


@pytest.mark.cluster
def test_workers_of_a_cluster_that_are_killed_for_memory_get_half_the_batch(job, cluster):
    """SIGKILL is what the kernel's out-of-memory killer, YARN and Kubernetes send."""
    body = "if rows > 120: import os; os.kill(os.getpid(), 9)\n        return [0.05] * rows"
    arguments = ("--config", job.settings, *bad_model(job, body), "--set", "scoring.batch_rows=200")
    done = on_cluster(job, cluster, *arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "once more, with 100" in done.stdout, "spark-submit sends what a script says there"
    assert len(list(job.table.rglob("part-*.parquet"))) == len(active_adds(job.table)), "the first try left a file"
    assert scores(job).num_rows == ROWS
