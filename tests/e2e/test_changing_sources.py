"""The input changes while it is scored: an error that names the file, or no part of the run; never a mix."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tests.e2e.bad_models import bad_model
from tests.e2e.conftest import LONG, ROWS, Job

pytestmark = pytest.mark.e2e

# What the model does with an input file at its first batch, while that file and others are being read.
CHANGES = {
    "other pages": "text = path.read_bytes(); path.write_bytes(text[:40] + bytes([text[40] ^ 1]) + text[41:])",
    "another time": "import os; os.utime(path, (1, 1))",
    "gone": "path.unlink()",
    "another file": "other = path.with_name('.x'); other.write_bytes(path.read_bytes()); other.replace(path)",
}
ONCE = """import pathlib
        path = pathlib.Path({path!r})
        mark = path.parent.parent / '_touched'
        if not mark.exists():
            mark.touch()
            {change}
        return [0.05] * rows"""


def touching(job: Job, change: str) -> tuple[object, ...]:
    """Flags of a job whose model changes a file of the input; small batches, so that more is to be read then."""
    path = sorted(job.data.rglob("*.parquet"))[0]
    model = bad_model(job, ONCE.format(path=str(path), change=change))
    return ("--config", job.settings, *model, "--set", "scoring.batch_rows=50", "--set", "validation.suite=null")


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_scored(job, change):
    done = job.run(*touching(job, CHANGES[change]))
    assert done.returncode == 5, done.stderr
    answer = json.loads(done.stdout)
    assert sorted(job.data.rglob("*.parquet"))[0].parent.name in json.dumps(answer) or change == "gone"
    assert ".parquet" in answer["problem"]
    assert not DeltaTable.is_deltatable(str(job.table))
    assert not list(job.table.rglob("*.parquet")), "what was staged is removed"


def test_a_file_that_is_added_while_others_are_scored_is_of_the_next_run(job):
    added = "(path.parent / 'zz.parquet').write_bytes(path.read_bytes())"
    flags = touching(job, added)
    done = job.run(*flags, "--keys", "")  # the copy has the same keys
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS
    again = json.loads(job.run(*flags, "--keys", "").stdout)
    (day,) = [path.parent for path in job.data.rglob("zz.parquet")]
    assert again["units_published"] == 1
    assert again["rows"] == sum(pq.read_metadata(path).num_rows for path in day.glob("*.parquet"))


@pytest.mark.spark
@pytest.mark.parametrize("change", ["other pages", pytest.param("another time", marks=LONG)])
def test_a_file_that_changes_while_spark_reads(job, change):
    flags = ("--runner", "spark", "--where", "amount + 0 > -1", "--set", "spark.master=local[1]")
    done = job.run(*touching(job, CHANGES[change]), *flags)
    assert done.returncode == 5, done.stderr
    assert "changed after planning" in json.loads(done.stdout)["problem"]
    assert not DeltaTable.is_deltatable(str(job.table))
