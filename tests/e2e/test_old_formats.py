"""What earlier releases wrote stays readable; see ``tests/fixtures/make_format.py``."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from batchscore import history, manifests, pipeline, record
from batchscore.config import load
from batchscore.contracts import RunOptions
from batchscore.forget import forget
from tests.fixtures.make_format import DAYS, LATER_PARTS, day

pytestmark = pytest.mark.e2e
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MOST_BYTES = 200_000


@dataclass(frozen=True)
class Old:
    """A copy of a fixture, in the current folder."""

    folder: Path
    runs: list[str]
    predictions: dict[str, float]

    @property
    def table(self) -> str:
        return str(self.folder / "out")

    def published(self) -> dict[str, float]:
        rows = DeltaTable(self.table).to_pyarrow_table().to_pylist()
        return {str(row["id"]): row["prediction"] for row in rows}


@pytest.fixture(params=sorted(path.name for path in FIXTURES.glob("format_*")))
def old(request, tmp_path, monkeypatch):
    shutil.copytree(FIXTURES / request.param, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    return Old(tmp_path / "job", **json.loads(Path("facts.json").read_text()))


def test_every_format_version_has_a_fixture():
    versions = {int(re.sub(r"\D", "", path.name)) for path in FIXTURES.glob("format_*")}
    assert versions == set(range(1, manifests.FORMAT_VERSION + 1))
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < MOST_BYTES


def test_runs_and_manifests_are_read(old):
    runs = history.history(old.table)
    assert [run.run_id for run in runs] == old.runs[::-1]
    assert {run.state for run in runs} == {"published"}
    for run in old.runs:
        found, manifest = history.show(old.table, run)
        assert manifest is not None
        assert manifest.rows_staged == found.rows > 0
        assert {name for name, _ in manifest.units[0].values} == {"ds"}
    first = history.show(old.table, old.runs[0])
    raw = json.loads((old.folder / "out" / manifests.FOLDER / f"{old.runs[0]}.json").read_text())
    assert not set(raw) & set(LATER_PARTS), "the fixture has a manifest without the optional parts"
    assert (first[0].detail, first[0].peak_worker_bytes, first[1].checks) == ("", 0, ())


def test_its_units_are_live_and_only_a_new_one_is_scored(old):
    plan = pipeline.plan(load("job.yaml"), RunOptions())
    assert {unit.action for unit in plan.units} == {"live"}
    assert len(plan.units) == len(DAYS)
    version = DeltaTable(old.table).version()
    assert pipeline.run(load("job.yaml"), RunOptions()).state == "skipped"
    assert (DeltaTable(old.table).version(), old.published()) == (version, old.predictions)
    write_deltalake("in", day("2026-11-04", range(30, 33)), mode="append")
    done = pipeline.run(load("job.yaml"), RunOptions())
    assert (done.state, done.rows, done.units_live) == ("published", 3, len(DAYS))
    assert old.predictions.items() < old.published().items()


def test_a_lost_ledger_is_rebuilt_from_its_manifests(old):
    shutil.rmtree(old.folder / "out__runs")
    assert {run.run_id for run in history.history(old.table)} == set(old.runs)


def test_a_merged_ledger_has_nulls_where_older_rows_had_no_column(old):
    DeltaTable(f"{old.table}__runs").optimize.compact()
    assert [run.detail for run in history.history(old.table)] == ["", ""]


def test_rows_are_forgotten_and_its_ledger_is_masked(old):
    key = next(iter(old.predictions))
    outcome = forget(old.table, [{"id": key}])
    assert outcome.erasures[0].rows == 1
    assert old.published().keys() == old.predictions.keys() - {key}
    assert {run.run_id for run in history.history(old.table) if run.state == "published"} == set(old.runs)


def test_text_of_its_ledger_is_masked(old):
    words = {run.message for run in history.history(old.table)}
    masked = record.mask(old.table, lambda text: text.replace("rows", "***"), dry_run=False)
    assert masked.rows == len(old.runs)
    assert {run.message for run in history.history(old.table)} == {text.replace("rows", "***") for text in words}
