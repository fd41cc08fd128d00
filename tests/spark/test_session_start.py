"""A session of one's own: what starts beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.spark

SCRIPT = """
import json, sys, time
from batchscore import session
from batchscore.runners import warming
from batchscore.runners.warm import WARM_GROUP
from tests import samples
master, conf, load = json.loads(sys.argv[1])
expected = "run-1" if load == "works" else ""

def loading(task):
    import os
    if load == "raises":
        raise OSError("no such model")
    os.environ["LOADED"] = task.run_id

task = samples.scoring_task() if load else None
on_context = warming(MODULE, loading, task)
spark = session.start(master, conf, use="tasks", on_context=on_context, on_notice=print)
tracker = spark.sparkContext.statusTracker()
deadline = time.monotonic() + 60
jobs = []
while time.monotonic() < deadline and not (jobs and jobs[0].status != "RUNNING"):
    time.sleep(0.1)
    jobs = [tracker.getJobInfo(number) for number in tracker.getJobIdsForGroup(WARM_GROUP)]

def loaded(_):
    import os, sys
    yield os.getpid(), MODULE in sys.modules and os.environ.get("LOADED", "") == expected

seen = spark.sparkContext.parallelize(range(2), 2).mapPartitions(loaded).collect()
print(json.dumps([[job.status for job in jobs], len({pid for pid, _ in seen}), all(there for _, there in seen)]))
"""


def outcome(module, master="local[2]", conf=None, folder=None, load=""):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_")}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(SCRIPT).replace("MODULE", repr(module)),
            json.dumps([master, conf or {}, load]),
        ],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_python_workers_start_beside_the_session():
    assert outcome("batchscore.score") == [["SUCCEEDED"], 2, True]


@pytest.mark.cluster
def test_workers_of_executors_elsewhere_get_the_package_and_start_too(cluster, tmp_path):
    conf = {**cluster.driver_conf, "spark.scheduler.minRegisteredResourcesRatio": "1.0"}
    assert outcome("batchscore.score", cluster.master, conf, tmp_path) == [["SUCCEEDED"], 2, True]


@pytest.mark.parametrize("load", ["works", "raises"])
def test_workers_load_the_tasks_model_too_and_a_failure_is_the_first_tasks(load):
    assert outcome("batchscore.score", load=load) == [["SUCCEEDED"], 2, True]


def test_a_module_that_cannot_be_imported_is_no_failure_of_the_session():
    statuses, processes, loaded = outcome("batchscore.none")
    assert (statuses, processes, loaded) == (["FAILED"], 2, False)
