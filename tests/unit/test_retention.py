"""Retention: what goes, what stays, and that readers and runs at work notice nothing."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from batchscore import publish, record
from batchscore.contracts import RunRecord
from batchscore.errors import InputError, SettingsError
from batchscore.plan.units import is_live
from batchscore.predictions import read_predictions
from batchscore.publish import commit, retention
from batchscore.publish import rollback as rollback_room
from batchscore.retain import merging, retain
from batchscore.rollback import rollback
from batchscore.tables import open_table
from tests.factories.delta import actions, set_properties
from tests.factories.staging import day, live_units, look, make_plan, offer, publish_run, stage

D1, D2 = day("2026-01-01"), day("2026-01-02")
OLD = dt.timedelta(days=40)
# Delta's log still has the commit; of a Parquet table the version's file is gone.
OUT_OF_REACH = {"delta": "gave version 0 up", "parquet": "no longer in the table's history"}


@pytest.fixture(params=["delta", "parquet"])
def table(request, tmp_path):
    return str(tmp_path / request.param)


def rows_of(table):
    return sorted((str(row["_run_id"]), str(row["ds"]), row["id"]) for row in read_predictions(table).to_pylist())


def data_of(table):
    return sorted(path.name for path in Path(table).rglob("*.parquet") if "_delta_log" not in path.parts)


def age(table, version, by=OLD):
    """Dates a version back, as if it had been committed so long ago."""
    if table.endswith("delta"):
        path = Path(table) / "_delta_log" / f"{version:020d}.json"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "commitInfo" in line:
                line["commitInfo"]["timestamp"] -= int(by.total_seconds() * 1000)
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        for path in [*(Path(table) / "_batchscore/versions").glob(f"{version:020d}-*")]:
            facts = json.loads(path.read_text())
            moment = dt.datetime.fromisoformat(facts["committed_at"]) - by
            path.write_text(json.dumps({**facts, "committed_at": moment.isoformat()}))


def make_history(table):
    """Three versions of one unit and one other; the first two are old."""
    publish_run(table, "r0", {D1: "k0", D2: "z"})
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D1: "k2"})
    age(table, 0)
    age(table, 1)


def test_what_only_old_versions_need_goes(table):
    make_history(table)
    before = rows_of(table)
    shown = retain(table, 30)
    assert shown.dry_run
    assert len(data_of(table)) == 4
    plan = shown.plans[0]
    # Version 1 was the table 30 days ago: it stays, and with it what it needs.
    assert (plan.kept_from, plan.versions) == (1, (0,))
    assert [path.rsplit("/", 1)[-1].split("-")[2] for path in plan.files] == ["r0"]
    assert plan.size == sum((Path(table) / path).stat().st_size for path in plan.files)
    assert [item.run_id for item in plan.before] == ["r2", "r1", "r0"]
    assert [item.run_id for item in plan.after] == ["r2", "r1"]
    done = retain(table, 30, dry_run=False)
    assert done.plans[0].files == plan.files
    assert len(data_of(table)) == 3
    assert rows_of(table) == before
    assert live_units(table, {D1: "k2", D2: "z"}) == {D1: True, D2: True}
    with pytest.raises(InputError, match=OUT_OF_REACH[Path(table).name]):
        rollback(table, "r0")
    assert rollback(table, "r1").version == 4


def test_a_second_time_there_is_nothing_to_do_and_no_commit(table):
    make_history(table)
    retain(table, 30, dry_run=False)
    version = open_table(table).version
    again = retain(table, 30, dry_run=False)
    assert again.empty
    assert open_table(table).version == version


def test_what_was_brought_back_stays(table):
    make_history(table)
    rollback(table, "r0")
    before = rows_of(table)
    for version in range(3):
        age(table, version)
    done = retain(table, 30, dry_run=False)
    assert not {path for path in done.plans[0].files if "-r0-" in path}
    assert rows_of(table) == before


def test_zero_days_leave_the_newest_version_alone(table):
    make_history(table)
    before = rows_of(table)
    done = retain(table, 0, shorter=True, dry_run=False)
    assert [item.run_id for item in done.plans[0].after] == ["r2"]
    assert len(data_of(table)) == 2
    assert rows_of(table) == before
    retain(table, 0, shorter=True, dry_run=False)
    version = open_table(table).version
    assert retain(table, 0, shorter=True, dry_run=False).plans[0].empty
    assert open_table(table).version == version


def test_staged_files_of_a_run_at_work_are_never_touched(table):
    make_history(table)
    run_id = "20260102T000000-0123abcd"
    plan = make_plan(look(table), run_id, {D2: "n"})
    staged, manifest = offer(plan, [stage(plan, D2, range(2))], {D2: "n"})
    for file in staged.files:  # it has been working for a long time
        os.utime(Path(table) / file.path, (0, 0))
    retain(table, 0, shorter=True, dry_run=False)
    assert commit(plan, staged, manifest, is_live=is_live).version > 2
    assert {run for run, _, _ in rows_of(table)} == {"r2", run_id}


def test_what_a_published_run_left_behind_the_history_goes(table):
    run_id = "20260101T000000-0123abcd"
    publish_run(table, run_id, {D1: "k0"})
    publish_run(table, "r1", {D1: "k1"})
    (left,) = Path(table).rglob(f"*-{run_id}-*.parquet")
    os.utime(left, (0, 0))
    if table.endswith("delta"):
        DeltaTable(table).create_checkpoint()
        (Path(table) / "_delta_log" / f"{0:020d}.json").unlink()
    else:
        next((Path(table) / "_batchscore/versions").glob(f"{0:020d}-*")).unlink()
    assert not retain(table, 30, dry_run=False).plans[0].files  # nobody says that the run published
    row = RunRecord(
        run_id=run_id, state="published", started_at="2026-01-01", ended_at="2026-01-01", model_name="m",
        model_version="1", model_digest="d", source_uri="/in", source_version=None, source_snapshot="s", table=table,
        table_version=0, mode="partitions", units_published=1, units_live=0, rows_read=2, rows=2, engine="pyfunc",
        runner="local", seconds=1.0, exit_code=0, message="",
    )  # fmt: skip
    record.append(table, replace(row, run_id="20260101T000000-ffffffff", state="failed"))
    record.append(table, row)
    os.utime(left)
    assert not retain(table, 30, dry_run=False).plans[0].files  # it is not old enough
    os.utime(left, (0, 0))
    assert [path.rsplit("/", 1)[-1] for path in retain(table, 30, dry_run=False).plans[0].files] == [left.name]
    assert not left.exists()


def test_fewer_days_than_promised_need_a_word(table):
    make_history(table)
    with pytest.raises(SettingsError, match="promises to keep older versions for 30 days"):
        retain(table, 7)
    with pytest.raises(SettingsError, match="for 60 days"):
        retain(table, 30, settings_days=60)
    assert retain(table, 7, shorter=True).days == 7
    assert retain(table).days == 30


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("interval 1 week", 7),
        ("interval 720 hours", 30),
        ("interval 25 hours", 2),
        ("14 days", 14),
        ("odd", 7),
        ("interval 99999999999 weeks", publish.MOST_DAYS),
    ],
)
def test_days_that_a_delta_table_promises(tmp_path, text, days):
    table = str(tmp_path / "delta")
    publish_run(table, "r0", {D1: "k0"})
    set_properties(table, delta__deletedFileRetentionDuration=text)
    assert publish.retention_days_of(open_table(table)) == days


def test_a_rollback_that_was_planned_before_meets_the_commit(table, monkeypatch):
    """Else it would bring a version back while its files are being deleted."""
    make_history(table)
    real = rollback_room._record

    def meanwhile(*given):
        monkeypatch.setattr(rollback_room, "_record", real)
        retain(table, 30, dry_run=False)
        return real(*given)

    monkeypatch.setattr(rollback_room, "_record", meanwhile)
    with pytest.raises(InputError, match=OUT_OF_REACH[Path(table).name]):
        rollback(table, "r0")
    assert len(rows_of(table)) == 4


def test_a_rollback_that_lands_first_is_seen(table, monkeypatch):
    """The plan is made again from the version that the old ones are given up on."""
    make_history(table)
    real = retention._give_up

    def meanwhile(*given):
        monkeypatch.setattr(retention, "_give_up", real)
        rollback(table, "r0")
        return real(*given)

    monkeypatch.setattr(retention, "_give_up", meanwhile)
    retain(table, 30, dry_run=False)
    assert {run for run, _, _ in rows_of(table)} == {"r0"}
    assert len(rows_of(table)) == 4


def test_documents_of_versions_that_are_given_up_go_with_them(tmp_path):
    table = str(tmp_path / "parquet")
    make_history(table)
    folder = Path(table) / "_batchscore/versions"
    stray = folder / f"{1:020d}-nobody-00000000.json"
    stray.write_text("{}")
    os.utime(stray, (0, 0))
    done = retain(table, 30, dry_run=False)
    assert len(done.plans[0].documents) == 2
    assert sorted(int(path.name[:20]) for path in folder.iterdir()) == [1, 2, 3]
    assert [entry.version for entry in open_table(table).versions()] == [3, 2, 1]
    stray.write_text("{}")  # of a commit that is just under way
    retain(table, 0, shorter=True, dry_run=False)
    assert stray.exists()
    assert [entry.version for entry in open_table(table).versions()] == [4, 3]


def test_the_ledger_loses_old_files_and_no_row(table):
    make_history(table)
    history = record.history(table, 9)
    DeltaTable(record.ledger_uri(table)).optimize.compact()
    ledger = record.ledger_uri(table)
    record.append(table, replace(history[0], run_id="x1"))
    DeltaTable(ledger).optimize.compact()
    count = len(data_of(ledger))
    done = retain(table, 0, shorter=True, dry_run=False)
    assert [Path(plan.table).name for plan in done.plans] == [Path(table).name, Path(ledger).name]
    assert len(data_of(ledger)) < count
    assert {run.run_id for run in record.history(table, 9)} == {"r0", "r1", "r2", "x1"}


def test_no_table(tmp_path):
    with pytest.raises(InputError, match="no prediction table"):
        retain(str(tmp_path / "nothing"), 30)


# --- small files --------------------------------------------------------------------------------------------


def make_small_files(table):
    """Two units; one holds files of two runs."""
    plan = make_plan(look(table), "r1", {D1: "k1", D2: "k2"})
    files = [
        stage(plan, D1, [1, 2], 0.1),
        stage(plan, D1, [3], float("nan")),
        stage(plan, D1, [4]),
        stage(plan, D2, [5]),
    ]
    staged, manifest = offer(plan, files, {D1: "k1", D2: "k2"})
    commit(plan, staged, manifest, is_live=is_live)
    plan = make_plan(look(table), "r2", {D2: "r2"}, mode="append")
    files = [stage(plan, D2, [6]), stage(plan, D2, [7, 8])]
    staged, manifest = offer(plan, files, {D2: "r2"})
    commit(plan, staged, manifest, is_live=is_live)


def test_small_files_are_merged_and_units_stay_published(table):
    make_small_files(table)
    before = read_predictions(table).sort_by([("id", "ascending")])
    units = look(table).units
    assert retain(table, optimize=True).merged.files == 5
    done = retain(table, optimize=True, dry_run=False).merged
    assert (done.files, done.units, done.into, done.version) == (5, 2, 2, 2)
    found = open_table(table)
    assert sorted(file.runs for file in found.files) == [(("r1", 1),), (("r1", 4),), (("r2", 3),)]
    assert found.units == units
    assert str(read_predictions(table).sort_by([("id", "ascending")]).to_pylist()) == str(before.to_pylist())
    assert live_units(table, {D1: "k1"}) == {D1: True}
    assert live_units(table, {D2: "r2"}, "append") == {D2: True}
    assert publish_run(table, "r3", {D1: "k1"}, rows=4).version == -1
    assert retain(table, optimize=True, dry_run=False).merged.files == 0
    assert rollback(table, "r1").version == 3


def test_merged_files_have_no_bounds_for_nan(tmp_path):
    table = str(tmp_path / "delta")
    make_small_files(table)
    retain(table, optimize=True, dry_run=False)
    adds = actions(table, 2)
    stats = [json.loads(entry["add"]["stats"]) for entry in adds if "add" in entry]
    of_four = next(facts for facts in stats if facts["numRecords"] == 4)
    assert "prediction" not in of_four["minValues"]
    assert of_four["minValues"]["_run_id"] == of_four["maxValues"]["_run_id"] == "r1"
    assert all(not entry[kind]["dataChange"] for entry in adds for kind in ("add", "remove") if kind in entry)


def test_a_run_that_publishes_while_files_are_merged(table, monkeypatch):
    make_small_files(table)
    real = merging._merged

    def meanwhile(*given):
        monkeypatch.setattr(merging, "_merged", real)
        publish_run(table, "r3", {D1: "n1"})
        return real(*given)

    monkeypatch.setattr(merging, "_merged", meanwhile)
    assert retain(table, optimize=True, dry_run=False).merged.files == 2
    assert live_units(table, {D1: "n1"}) == {D1: True}
    assert len(read_predictions(table)) == 6


def test_a_run_that_was_planned_before_files_were_merged_publishes(table):
    make_small_files(table)
    plan = make_plan(look(table), "r3", {D1: "n1"})
    staged, manifest = offer(plan, [stage(plan, D1, range(2))], {D1: "n1"})
    retain(table, optimize=True, dry_run=False)
    assert commit(plan, staged, manifest, is_live=is_live).version == 3
    assert look(table).units[D1].runs == (("r3", 2),)


def test_what_a_killed_retention_left_is_removed_by_the_next(table, monkeypatch):
    make_history(table)
    before = rows_of(table)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(retention, "delete_files", killed)
        with pytest.raises(KeyboardInterrupt):
            retain(table, 30, dry_run=False)
    assert rows_of(table) == before
    version = open_table(table).version
    with pytest.raises(InputError, match="gave version 0 up"):
        rollback(table, "r0")
    again = retain(table, 30, dry_run=False).plans[0]
    assert len(again.files) == 1
    assert "r0" not in [item.run_id for item in again.before]  # its files are there, but may go at any time
    assert open_table(table).version == version  # given up already
    assert rows_of(table) == before
