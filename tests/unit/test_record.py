from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from batchscore import manifests
from batchscore.contracts import RunRecord
from batchscore.errors import SettingsError
from batchscore.plan.units import is_live
from batchscore.publish import commit, inspect
from batchscore.record import append, history, ledger, ledger_uri, mask, rebuild, show, versions_given
from batchscore.rollback import rollback
from batchscore.tables import open_table
from tests.factories.staging import day, look, make_plan, offer, publish_run, stage

D1, D2 = day("2026-01-01"), day("2026-01-02")


only_delta = pytest.mark.parametrize("table", ["delta"], indirect=True)


@pytest.fixture(params=["delta", "parquet"])
def table(request, tmp_path):
    return str(tmp_path / request.param)


def record(table, run_id, ended="2026-01-01T00:00:00+00:00", **facts):
    base = {
        "run_id": run_id, "state": "published", "started_at": ended, "ended_at": ended, "model_name": "m",
        "model_version": "1", "model_digest": "d", "source_uri": "/in", "source_version": None, "source_snapshot": "s",
        "table": table, "table_version": 0, "mode": "partitions", "units_published": 1, "units_live": 0, "rows_read": 2,
        "rows": 2, "engine": "pyfunc", "runner": "local", "seconds": 1.5, "exit_code": 0, "message": "",
    }  # fmt: skip
    return RunRecord(**{**base, **facts})


def test_round_trip(table):
    one = record(table, "r1", source_version=7, detail="x\ny")
    append(table, one)
    assert history(table, 10) == [one]
    assert ledger_uri(table) == table + "__runs"


def test_newest_first_and_bounded(table):
    for number in range(5):
        append(table, record(table, f"r{number}", f"2026-01-0{number + 1}T00:00:00+00:00"))
    assert [entry.run_id for entry in history(table, 2)] == ["r4", "r3"]


def test_the_last_row_of_a_run_counts(table):
    append(table, record(table, "r1", state="failed", exit_code=7))
    append(table, record(table, "r1", "2026-01-02T00:00:00+00:00"))
    assert [entry.state for entry in history(table, 9)] == ["published"]


def test_an_empty_history(table):
    assert history(table, 9) == []


def test_a_crash_between_commit_and_record_is_mended(table):
    publish_run(table, "r1", {D1: "k1"})
    append(table, record(table, "r1", "2020-01-01T00:00:00+00:00"))
    publish_run(table, "r2", {D2: "k2"})
    found = history(table, 9)
    assert [(entry.run_id, entry.state, entry.table_version, entry.rows) for entry in found] == [
        ("r2", "published", 1, 2),
        ("r1", "published", 0, 2),
    ]
    assert DeltaTable(ledger_uri(table)).count() == 2
    assert history(table, 9) == found
    assert DeltaTable(ledger_uri(table)).count() == 2


def test_a_run_whose_commit_landed_after_it_was_noted_as_failed_is_published(table):
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D1: "k2"})
    append(table, record(table, "r1", "9999-01-01T00:00:00+00:00", state="failed", exit_code=7, backfill="b1"))
    append(table, record(table, "r2", "2020-01-01T00:00:00+00:00"))
    found = {entry.run_id: entry for entry in history(table, 9)}
    assert (found["r1"].state, found["r1"].table_version, found["r1"].exit_code) == ("published", 0, 0)
    assert found["r1"].backfill == "b1"
    assert {entry.run_id: entry for entry in history(table, 9)} == found
    assert DeltaTable(ledger_uri(table)).count() == 3
    assert rollback(table, "r1").version == 2


def test_what_a_failed_run_offered_is_looked_for_in_commits_since_then(table, monkeypatch):
    monkeypatch.setattr("batchscore.record.published.FIRST_COMMITS", 1)
    for number in range(6):
        publish_run(table, f"r{number}", {D1: f"k{number}"})
        append(table, record(table, f"r{number}", state="failed" if number == 1 else "published"))
    assert {entry.run_id: entry.table_version for entry in history(table, 9)}["r1"] == 1
    seen = []
    real = type(open_table(table)).versions
    monkeypatch.setattr(type(open_table(table)), "versions", lambda self, limit=None: seen.append(limit) or real(self))
    later = replace(manifests.read(table, "r5"), run_id="r9", created_at="9999-01-01T00:00:00+00:00")
    manifests.write(table, later)
    assert len(history(table, 9)) == 6
    assert seen == [1]


def test_a_run_that_never_committed_is_not_history(table):
    publish_run(table, "r1", {D1: "k1"})
    plan = make_plan(look(table), "r2", {D2: "k2"})
    offer(plan, [stage(plan, D2, [1])], {D2: "k2"})
    assert [entry.run_id for entry in history(table, 9)] == ["r1"]


@only_delta
def test_a_published_run_is_known_when_the_log_forgot_its_commit(table):
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D2: "k2"})
    DeltaTable(table).create_checkpoint()
    for version in (0, 1):
        (Path(table) / "_delta_log" / f"{version:020d}.json").unlink()
    assert {(entry.run_id, entry.table_version) for entry in history(table, 9)} == {("r1", -1), ("r2", -1)}


def test_a_lost_ledger_is_rebuilt(table):
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D1: "k2"})  # r1 is no longer active: only its commit names it
    append(table, record(table, "r1"))
    shutil.rmtree(ledger_uri(table))
    assert [entry.run_id for entry in rebuild(table)] == ["r2", "r1"]
    assert len(history(table, 9)) == 2


@pytest.mark.parametrize("damage", ["log", "data"])
def test_a_damaged_ledger_keeps_refused_runs(table, damage, caplog):
    publish_run(table, "r1", {D1: "k1"})
    append(table, record(table, "r1"))
    append(table, record(table, "bad", state="refused", exit_code=4))
    ledger = Path(ledger_uri(table))
    if damage == "log":
        (ledger / "_delta_log" / f"{1:020d}.json").write_text("{broken")
    else:
        next(path for path in ledger.glob("*.parquet") if b"r1" in path.read_bytes()).write_bytes(b"PAR1")
    assert {entry.run_id: entry.state for entry in history(table, 9)} == {"r1": "published", "bad": "refused"}
    assert "ledger" in caplog.text
    append(table, record(table, "r3"))
    assert len(history(table, 9)) == 3


def test_a_file_that_a_retention_has_just_deleted_is_no_damage(table, monkeypatch, caplog):
    append(table, record(table, "r1"))
    append(table, record(table, "bad", state="refused", exit_code=4))
    real = ledger._active_names

    def names(uri):
        found = real(uri)
        monkeypatch.setattr(ledger, "_active_names", real)
        merged = DeltaTable(ledger_uri(table))
        merged.optimize.compact()
        merged.vacuum(0, dry_run=False, enforce_retention_duration=False)
        return found

    monkeypatch.setattr(ledger, "_active_names", names)
    assert {entry.run_id: entry.state for entry in history(table, 9)} == {"r1": "published", "bad": "refused"}
    assert caplog.text == ""
    assert not list(Path(ledger_uri(table)).glob("_damaged_*"))


def test_a_file_that_is_gone_for_good_is_damage(table):
    append(table, record(table, "r1"))
    append(table, record(table, "bad", state="refused", exit_code=4))
    next(path for path in Path(ledger_uri(table)).glob("*.parquet") if b"r1" in path.read_bytes()).unlink()
    assert [entry.run_id for entry in history(table, 9)] == ["bad"]
    assert [entry.run_id for entry in history(table, 9)] == ["bad"]


@pytest.mark.parametrize("damage", ["log", "data"])
def test_a_rebuilt_ledger_does_not_bring_masked_text_back(table, damage):
    append(table, record(table, "r1", message="row id=4711 is odd"))
    append(table, record(table, "bad", state="refused", exit_code=4, detail="row id=4711 is odd"))
    assert mask(table, lambda text: text.replace("4711", "***"), dry_run=False).rows == 2
    append(table, record(table, "r3"))
    folder = Path(ledger_uri(table))
    if damage == "log":
        (folder / "_delta_log" / f"{3:020d}.json").write_text("{broken")
    else:
        next(path for path in folder.glob("*.parquet") if b"r3" in path.read_bytes()).write_bytes(b"PAR1")
    found = {entry.run_id: entry.message + entry.detail for entry in history(table, 9)}
    assert found["r1"] == found["bad"] == "row id=*** is odd"


def test_of_a_file_that_was_replaced_a_row_comes_back_without_its_text(table):
    append(table, record(table, "bad", state="refused", exit_code=4, detail="row id=4711 is odd"))
    mask(table, lambda text: text.replace("4711", "***"), dry_run=False)
    (masked,) = DeltaTable(ledger_uri(table)).file_uris()
    (Path(ledger_uri(table)) / masked.rsplit("/", 1)[-1]).write_bytes(b"PAR1")
    (entry,) = history(table, 9)
    assert (entry.state, entry.exit_code, entry.detail) == ("refused", 4, "")
    assert "without its text" in entry.message


def test_appending_to_a_damaged_ledger_rebuilds_it(table):
    publish_run(table, "r1", {D1: "k1"})
    append(table, record(table, "r1"))
    (Path(ledger_uri(table)) / "_delta_log" / f"{0:020d}.json").write_text("{broken")
    append(table, record(table, "r2"))
    assert {entry.run_id for entry in history(table, 9)} == {"r1", "r2"}


def test_many_runs_stay_few_files(table, monkeypatch):
    monkeypatch.setattr("batchscore.record.ledger.MAX_SMALL_FILES", 3)
    for number in range(6):
        append(table, record(table, f"r{number}", f"2026-01-0{number + 1}T00:00:00+00:00"))
    assert len(DeltaTable(ledger_uri(table)).file_uris()) <= 4
    assert len(history(table, 99)) == 6


def test_show(table):
    publish_run(table, "abc1", {D1: "k1"})
    append(table, record(table, "abc1"))
    append(table, record(table, "abd2"))
    found, manifest = show(table, "abc")
    assert (found.run_id, manifest.run_id) == ("abc1", "abc1")
    assert show(table, "abd2")[1] is None


def test_show_unknown_and_ambiguous(table):
    append(table, record(table, "abc1"))
    append(table, record(table, "abd2"))
    with pytest.raises(SettingsError, match="did you mean: abc1"):
        show(table, "bc1")
    with pytest.raises(SettingsError, match="several runs"):
        show(table, "ab")
    with pytest.raises(SettingsError):
        show(table, "")


def test_a_ledger_from_before_a_column_is_read_and_goes_on(table):
    """Columns of the first release; once its file is merged with newer ones, its rows have nulls."""
    old = record(table, "r1")
    later = ("detail", "peak_worker_bytes", "model_requested", "backfill")
    row = {name: value for name, value in asdict(old).items() if name not in later}
    kinds = {"source_version": pa.int64()}
    columns = {name: pa.array([value], kinds.get(name)) for name, value in row.items()}
    write_deltalake(ledger_uri(table), pa.table(columns))
    assert history(table, 9) == [old]
    new = record(table, "r2", "2026-01-02T00:00:00+00:00", backfill="backfill-1", model_requested="m@best")
    append(table, new)
    assert history(table, 9) == [new, old]
    DeltaTable(ledger_uri(table)).optimize.compact()
    assert history(table, 9) == [new, old]


def test_the_ledger_remembers_which_version_a_run_was_given(table):
    publish_run(table, "r1", {D1: "k1"})
    rows = (
        record(table, "r2", "2026-01-02T00:00:00+00:00", model_requested="m@best", state="refused"),
        record(table, "r3", "2026-01-03T00:00:00+00:00", model_requested="m/1"),
        record(table, "r4", "2026-01-04T00:00:00+00:00", model_requested="other@best", model_name="other"),
        record(table, "r5", "2026-01-05T00:00:00+00:00", model_requested="m@best", model_version="2"),
    )
    for row in rows:
        append(table, row)
    given = versions_given(table, "m", lambda asked: asked == "m@best")
    assert [(item.at[:10], item.version) for item in given] == [("2026-01-05", "2"), ("2026-01-02", "1")]
    assert "run r5" in given[0].said_by


@pytest.mark.parametrize(
    ("model", "asked"),
    [({"name": "m", "version": "@best"}, "m@best"), ({"name": "m", "version": "Production"}, "m/Production"),
     ({"name": "m/7", "version": None}, "m/7"), (None, None)],
)  # fmt: skip
def test_rows_from_before_that_are_completed_by_their_manifests(table, model, asked):
    plan = make_plan(inspect(table), "r1", {D1: "k1"})
    staged, manifest = offer(plan, [stage(plan, D1, [1])], {D1: "k1"})
    manifest = replace(manifest, settings={"model": model} if model else {})
    manifests.write(table, manifest)
    commit(plan, staged, manifest, is_live=is_live)
    append(table, record(table, "r1"))
    texts = []
    versions_given(table, "m", lambda text: bool(texts.append(text)))
    assert texts == ([asked] if asked else [])
