"""The main job on Spark with input and output on S3: workers read and write by themselves, or Spark reads."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import DAYS, ROWS
from tests.e2e.test_s3 import Lake, upload

pytestmark = [pytest.mark.e2e, pytest.mark.spark]


@pytest.fixture
def lake(unscored, bucket, store):
    made = Lake(unscored, bucket, store, "delta")
    upload(unscored.data, made.data)
    return made


def test_workers_read_and_write_splits_without_any_jar(lake):
    done = lake.run("--runner", "spark")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert (document["rows"], document["units_published"]) == (ROWS, DAYS)
    assert len(lake.rows()) == ROWS
    again = json.loads(lake.run("--runner", "spark").stdout)
    assert (again["state"], again["rows"]) == ("skipped", 0)


def test_spark_itself_reads_what_workers_cannot(lake):
    """Only Spark evaluates this condition, so it reads the files: with Hadoop's jars, which are fetched."""
    done = lake.run(
        "--runner", "spark", "--where", "abs(amount) >= 0 AND ds = '2026-11-03'", "--set", "scoring.engine=pyfunc"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dataframe route" in done.stderr
    rows = lake.rows()
    assert {str(value) for value in rows["ds"].to_pylist()} == {"2026-11-03"}
    assert json.loads(done.stdout)["rows"] == len(rows) == ROWS // DAYS
