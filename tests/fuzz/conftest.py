"""The job that is damaged: the fixture of the newest format, with a Parquet input beside the Delta one."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, settings

from batchscore import pipeline
from batchscore.config import load
from batchscore.contracts import RunOptions
from tests.fuzz.arena import Arena
from tests.tally import tally  # noqa: F401  # a fixture

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
ROWS = 300

settings.register_profile(
    "fuzz",
    derandomize=True,  # the same cases each time: a failure is of the change at hand
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def number_of(fixture: Path) -> int:
    """The format version that it is of."""
    return int(fixture.name.partition("_")[2])


def rows(first: int) -> pa.Table:
    """Numbers, text with few and with many values, times and a column of nulls."""
    ids = list(range(first, first + ROWS))
    return pa.table(
        {
            "id": ids,
            "amount": [float(value % 7) for value in ids],
            "name": [f"name {value}" for value in ids],
            "kind": [("a", "bb", None)[value % 3] for value in ids],
            "at": pa.array([value * 1_000_000 for value in ids], pa.timestamp("us", tz="UTC")),
            "none": pa.nulls(ROWS, pa.string()),
        }
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The finished job; each test works in a copy."""
    folder = tmp_path_factory.mktemp("arena") / "job"
    newest = max(FIXTURES.glob("format_*"), key=number_of)
    shutil.copytree(newest, folder)
    for number in range(2):
        place = folder / "parquet" / f"ds=2026-11-0{number + 1}"
        place.mkdir(parents=True)
        pq.write_table(rows(number * ROWS), place / "a.parquet", row_group_size=100)
    DeltaTable(str(folder / "in")).create_checkpoint()
    return folder


@pytest.fixture
def arena(finished, tmp_path, monkeypatch):
    """A copy of the finished job as the current folder, with a clean environment."""
    shutil.copytree(finished, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///none.db")
    for name in [name for name in os.environ if name.startswith("BATCHSCORE_")]:
        monkeypatch.delenv(name)
    with warnings.catch_warnings():
        assert pipeline.plan(load("job.yaml"), RunOptions()).nothing_to_do
        yield Arena(tmp_path / "job")
