from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import samples

pytestmark = [pytest.mark.spark, pytest.mark.cluster]

TESTS = Path(samples.__file__).parent

DRIVER = """
import dataclasses, json, os, sys
from pathlib import Path
from tests import samples
from pyspark import cloudpickle
from batchscore import session
from batchscore.errors import BatchscoreError
from batchscore.runners import SparkRunner

cloudpickle.register_pickle_by_value(samples)  # the executors have no tests
given = json.loads(sys.argv[1])
notices = []
spark = session.start(given["master"], given["conf"], on_notice=notices.append)
runner = SparkRunner(spark)
task = samples.scoring_task(given["model"], digest="a" * 64, staging=given["staging"])
heard = []
def see(results):
    return [json.loads(result.files[0].path) for result in results]
answer = {"notices": notices}
answer["splits"] = see(runner.run_splits(samples.describe, task, samples.groups_of(1, 1, 1, 1), heard.append))
answer["heard"] = len(heard)
again = SparkRunner(spark)
answer["again"] = see(again.run_splits(samples.describe, task, samples.groups_of(1), heard.append))
frame = spark.range(1000).repartition(2)
answer["frame"] = see(again.run_dataframe(samples.describe_batches, task, frame, heard.append))
answer["files"] = list(spark.sparkContext.listFiles) + list(spark.sparkContext.listArchives)
answer["flaky"] = see(runner.run_splits(samples.flaky, task, samples.groups_of(1), heard.append))
try:
    runner.run_splits(samples.unavailable, task, samples.groups_of(1), heard.append)
except BatchscoreError as error:
    answer["unavailable"] = error.as_dict()
try:
    runner.run_splits(samples.bad_rows_in_second, task, samples.groups_of(1, 1), heard.append)
except BatchscoreError as error:
    answer["bad_rows"] = error.as_dict()
print(json.dumps(answer))
spark.stop()
"""


STARVED = """
import json, logging, os, signal, sys
from tests import samples
from batchscore import session
from batchscore.runners import SparkRunner, spark

class Impatient(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        os.kill(os.getpid(), signal.SIGINT)

logging.getLogger("batchscore.runners").addHandler(Impatient())
spark.PATIENCE_SECONDS = 3.0
given = json.loads(sys.argv[1])
started = session.start(given["master"], given["conf"], on_notice=print)
task = samples.scoring_task(given["model"], digest="a" * 64, staging=given["staging"])
try:
    SparkRunner(started).run_splits(samples.describe, task, samples.groups_of(1), print)
except KeyboardInterrupt:
    print("interrupted")
"""


ENVIRONMENT = """
import json, os, sys
import pyarrow as pa
from batchscore import runners, session
given = json.loads(sys.argv[1])
variables = {"AWS_REGION": "eu-north-1", "AWS_SECRET_ACCESS_KEY": "secret-CANARY"}
warm = runners.warming("batchscore.score", environment=variables)
spark = session.start(given["master"], given["conf"], use="sql", on_context=warm, on_notice=print)

def region(batches):
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"region": [os.environ.get("AWS_REGION")] * batch.num_rows})

context = spark.sparkContext
tasks = context.parallelize(range(2), 2).map(lambda _: os.environ.get("AWS_REGION")).collect()
rows = spark.range(1).mapInArrow(region, "region string").collect()
settings = str(context.getConf().getAll()) + str(list(spark.conf.getAll.items()))
print(json.dumps({"tasks": tasks, "rows": [row["region"] for row in rows], "shown": "CANARY" in settings}))
spark.stop()
"""


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("staging")


@pytest.fixture(scope="module")
def answer(cluster, staging, tmp_path_factory):
    model = tmp_path_factory.mktemp("model")
    (model / "sub").mkdir()
    (model / "MLmodel").write_text("flavors: {}", encoding="utf-8")
    (model / "sub" / "weights.bin").write_bytes(b"\x00\x01weights")
    given = {"master": cluster.master, "conf": cluster.driver_conf, "model": str(model), "staging": str(staging)}
    return json.loads(driven(DRIVER, given, tmp_path_factory.mktemp("driver")))


def driven(script: str, given: dict[str, object], folder: Path) -> str:
    """What a driver of its own prints."""
    # A session that other tests started in this process has set it; it would win over the cluster's interpreter.
    inherited = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    driver = subprocess.run(
        [sys.executable, "-c", script, json.dumps(given)],
        env={**inherited, "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert driver.returncode == 0, driver.stderr[-3000:]
    return driver.stdout


def test_executors_are_elsewhere_and_got_the_package_and_the_model(answer, cluster):
    assert len(answer["splits"]) == 4
    assert answer["heard"] == 4
    for seen in [*answer["splits"], *answer["again"], *answer["frame"]]:
        assert seen["cwd"].startswith(str(cluster.folder))
        assert ".zip/batchscore/errors.py" in seen["package"]
        assert not any(entry == str(TESTS.parent) for entry in seen["path"])
        assert seen["model"].startswith(str(cluster.folder))
        assert seen["files"] == {"MLmodel": "flavors: {}", "sub/weights.bin": "\x00\x01weights"}
    assert len({seen["cwd"] for seen in answer["splits"]}) == 2


def test_frames_are_scored_on_the_cluster(answer):
    assert sum(seen["rows"] for seen in answer["frame"]) == 1000


def test_package_and_model_are_shipped_once(answer):
    names = [path.rpartition("/")[2] for path in answer["files"]]
    assert len([name for name in names if name.startswith("batchscore-")]) == 1
    assert len([name for name in names if name.startswith("model-")]) == 1


def test_a_task_that_fails_for_storage_is_tried_again_and_counted_once(answer, staging):
    assert len(answer["flaky"]) == 1
    assert len(list(staging.glob("flaky-*"))) == 2
    assert answer["unavailable"]["problem"] == "the bucket does not answer"
    assert len(list(staging.glob("f0-*"))) >= 4


def test_an_error_that_would_repeat_is_not_tried_again(answer, staging):
    assert answer["bad_rows"]["error"] == "BadRowsError"
    assert len(list(staging.glob("f1-*"))) == 1


def test_a_cluster_without_room_is_not_waited_for_in_silence(cluster, tmp_path):
    (tmp_path / "MLmodel").write_text("flavors: {}", encoding="utf-8")
    conf = {**cluster.driver_conf, "spark.executor.memory": "500g"}
    given = {"master": cluster.master, "conf": conf, "model": str(tmp_path), "staging": str(tmp_path)}
    said = driven(STARVED, given, tmp_path).splitlines()
    assert said[-2].startswith(f"no executor has taken a task for 3 s: does {cluster.master} have free cores")
    assert said[-1] == "interrupted"


def test_workers_elsewhere_get_the_variables_of_storage_and_no_setting_shows_them(cluster, tmp_path):
    printed = driven(ENVIRONMENT, {"master": cluster.master, "conf": cluster.driver_conf}, tmp_path)
    found = json.loads(printed.splitlines()[-1])
    assert found == {"tasks": ["eu-north-1"] * 2, "rows": ["eu-north-1"], "shown": False}
