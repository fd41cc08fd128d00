"""Erasing rows: from the newest version, from what was written about them, and what is said of the rest."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from batchscore import amendments, manifests, record
from batchscore.contracts import Check, Forgetting, ForgottenUnit, OutputColumn, UnitState
from batchscore.errors import FencedOutError, InputError, SettingsError, UnavailableError
from batchscore.forget import erase, forget, from_file, from_flags
from batchscore.forget.keys import Keys
from batchscore.forget.texts import Masker
from batchscore.plan.units import is_live
from batchscore.plan.withdrawals import withdrawal_of
from batchscore.predictions import read_predictions
from batchscore.publish import commit, fence
from batchscore.retain import retain
from batchscore.rollback import rollback
from batchscore.tables import open_table
from tests.factories.delta import active_adds, delete_rows, set_properties
from tests.factories.staging import COLUMNS, day, look, make_plan, offer, publish_run, replay_run, stage

D1, D2, D3 = day("2026-01-01"), day("2026-01-02"), day("2026-01-03")
BOTH = {D1: "k1", D2: "k2"}


@pytest.fixture(params=["delta", "parquet"])
def table(request, tmp_path):
    return str(tmp_path / request.param)


def rows_of(table, version=None):
    found = read_predictions(table, version=version)
    return sorted((str(row["ds"]), row["id"], str(row["_run_id"])) for row in found.to_pylist())


def ids_of(table):
    return sorted(row[1] for row in rows_of(table))


def live(table, keys):
    """As planning finds it."""
    state = look(table)
    return {
        values: is_live(state.as_published(values), key, values, state.manifests, "partitions")
        for values, key in keys.items()
    }


def append(table, run_id, unit, ids):
    plan = make_plan(look(table), run_id, {unit: run_id}, mode="append")
    staged, manifest = offer(plan, [stage(plan, unit, ids)], {unit: run_id})
    return commit(plan, staged, manifest, is_live=is_live)


# --- rows and liveness --------------------------------------------------------------------------------------


def test_rows_are_erased_and_their_units_stay_published(table):
    publish_run(table, "r1", BOTH, rows=3)
    outcome = forget(table, [{"id": "1"}])
    (erasure,) = outcome.erasures
    assert (erasure.rows, erasure.version) == (2, 1)
    assert {unit.values: unit.rows for unit in erasure.units} == {D1: 1, D2: 1}
    assert ids_of(table) == [0, 0, 2, 2]
    assert live(table, BOTH) == {D1: True, D2: True}
    # A run that was planned meanwhile drops the units, too.
    assert publish_run(table, "r2", BOTH, rows=3).version == -1
    assert ids_of(table) == [0, 0, 2, 2]


def test_only_files_that_hold_the_rows_are_written_again(table):
    plan = make_plan(look(table), "r1", BOTH)
    files = [stage(plan, D1, [1, 2]), stage(plan, D1, [3, 4]), stage(plan, D2, [5])]
    staged, manifest = offer(plan, files, BOTH)
    commit(plan, staged, manifest, is_live=is_live)
    outcome = forget(table, [{"id": "3"}])
    assert outcome.erasures[0].remains.files == (files[1].path,)
    active = {file.path for file in open_table(table).files}
    assert {files[0].path, files[2].path} < active
    assert len(active) == 3
    assert live(table, BOTH) == {D1: True, D2: True}


def test_everything_but_the_rows_is_as_it_was(table):
    publish_run(table, "r1", BOTH, rows=4)
    before = read_predictions(table).sort_by([("ds", "ascending"), ("id", "ascending")])
    forget(table, [{"id": "2", "ds": "2026-01-02"}])
    after = read_predictions(table).sort_by([("ds", "ascending"), ("id", "ascending")])
    kept = pc.invert(pc.and_(pc.equal(before["id"], 2), pc.equal(before["ds"], pa.scalar(dt.date(2026, 1, 2)))))
    assert after.equals(before.filter(kept))
    assert all(file.runs == (("r1", file.rows),) for file in open_table(table).files)


def test_a_unit_of_which_no_row_is_left_is_not_scored_again(table):
    publish_run(table, "r1", {D1: "k1", D2: "k2"}, rows=1)
    forget(table, [{"id": "0", "ds": "2026-01-01"}])
    assert D1 not in look(table).units
    assert live(table, BOTH) == {D1: True, D2: True}
    assert publish_run(table, "r2", {D1: "k1"}, rows=1).version == -1
    publish_run(table, "r3", {D1: "n1"}, rows=2)
    assert live(table, {D1: "n1", D2: "k2"}) == {D1: True, D2: True}


def test_a_unit_that_was_emptied_under_two_models_is_not_scored_again(table):
    for run, key in (("r1", "k1"), ("r2", "n1")):
        publish_run(table, run, {D1: key, D2: "k2"}, rows=1)
        forget(table, [{"id": "0", "ds": "2026-01-01"}])
        assert live(table, {D1: key, D2: "k2"}) == {D1: True, D2: True}
        assert publish_run(table, f"again-{run}", {D1: key}, rows=1).version == -1
    assert live(table, {D1: "k1"}) == {D1: False}


def test_the_clocks_of_erasures_decide_nothing(table):
    for run, key in (("r1", "k1"), ("r2", "n1")):
        publish_run(table, run, {D1: key, D2: "k2"}, rows=1)
        forget(table, [{"id": "0", "ds": "2026-01-01"}])
    first, second = sorted(amendments.forgettings(table), key=lambda record: record.from_version)
    assert (first.from_version, second.from_version) == (0, 2)
    for record_of_it, at in ((first, "2026-01-02"), (second, "2026-01-01")):
        amendments.write(table, replace(record_of_it, created_at=at))
    assert live(table, {D1: "n1"}) == {D1: True}


def test_of_two_runs_in_a_unit_one_loses_all_its_rows(table):
    publish_run(table, "r1", {D1: "k1"}, rows=1)
    replay_run(table, "r2", "r1", D1, [7, 8])
    forget(table, [{"id": "0"}])
    assert look(table).units[D1].runs == (("r2", 2),)
    assert live(table, {D1: "k1"}) == {D1: True}
    forget(table, [{"id": "7"}])
    forget(table, [{"id": "8"}])
    assert D1 not in look(table).units
    assert live(table, {D1: "k1"}) == {D1: True}
    publish_run(table, "r3", {D1: "n1"}, rows=2)
    assert look(table).as_published(D1).runs == (("r3", 2),)


def test_records_from_before_untouched_runs_were_noted():
    def records(*units):
        return [Forgetting(f"f{n}", "t", "me", (ForgottenUnit(D1, *unit),), ()) for n, unit in enumerate(units)]

    def published(erased, *runs):
        return dict(amendments.Forgotten(records(*erased)).as_published(D1, UnitState(runs)).runs)

    assert published([("r1", 3, 2), ("r1", 2, 1)], ("r1", 1)) == {"r1": 3}
    assert published([("r1", 3, 2), ("r2", 3, 2)], ("r1", 2), ("r2", 2)) == {"r1": 3, "r2": 3}
    assert published([("r1", 3, 0)], ("r9", 5)) == {"r9": 5}
    assert published([("r1", 3, 0)]) == {"r1": 3}
    assert published([("r1", 3, 2), ("r1", 2, 2)], ("r1", 2)) == {"r1": 3}


def test_twice_in_one_unit(table):
    publish_run(table, "r1", BOTH, rows=4)
    forget(table, [{"id": "1", "ds": "2026-01-01"}])
    forget(table, [{"id": "2", "ds": "2026-01-01"}])
    assert [row[1] for row in rows_of(table) if row[0] == "2026-01-01"] == [0, 3]
    assert live(table, BOTH) == {D1: True, D2: True}


def test_two_runs_in_one_unit(table):
    publish_run(table, "r1", {D1: "k1"}, rows=3)
    append(table, "r2", D1, [2, 3, 4])
    forget(table, [{"id": "2"}])
    assert look(table).units[D1].runs == (("r1", 2), ("r2", 2))
    assert look(table).as_published(D1).runs == (("r1", 3), ("r2", 3))


def test_a_replay_after_rows_were_forgotten_leaves_the_unit_published(table):
    publish_run(table, "r1", {D1: "k1"}, rows=99)
    forget(table, [{"id": "1"}])
    replay_run(table, "r2", "r1", D1, [200])
    assert look(table).units[D1].runs == (("r1", 98), ("r2", 1))
    assert live(table, {D1: "k1"}) == {D1: True}
    assert publish_run(table, "r3", {D1: "k1"}, rows=99).version == -1
    assert 1 not in ids_of(table)


def test_a_foreign_change_is_still_noticed(table):
    publish_run(table, "r1", BOTH, rows=4)
    forget(table, [{"id": "1", "ds": "2026-01-01"}])
    append(table, "r2", D1, [9])
    assert live(table, BOTH) == {D1: False, D2: True}


def test_a_record_whose_commit_never_landed_counts_for_nothing(table):
    publish_run(table, "r1", BOTH, rows=3)
    order = erase.Order(Keys([{"id": "1"}], open_table(table).columns), "f1", "t", "me")
    eraser = erase.Eraser(open_table(table), order, recorded=True)
    amendments.write(table, erase._record(eraser._look(open_table(table)), order))
    assert live(table, BOTH) == {D1: True, D2: True}
    forget(table, [{"id": "1"}, {"id": "2"}])
    assert live(table, BOTH) == {D1: True, D2: True}


def test_without_partitions(table):
    publish_run(table, "r1", {(): "k"}, rows=3, partition_by=())
    forget(table, [{"id": "1"}])
    assert ids_of(table) == [0, 2]
    assert live(table, {(): "k"}) == {(): True}


def test_a_record_holds_counts_and_nothing_personal(table):
    publish_run(
        table, "r1", {D1: "k1"}, columns=(*COLUMNS[:-1], OutputColumn("who", "string", "source", "who"), COLUMNS[-1])
    )
    plan = make_plan(
        look(table),
        "r2",
        {D2: "k2"},
        columns=(*COLUMNS[:-1], OutputColumn("who", "string", "source", "who"), COLUMNS[-1]),
    )
    staged, manifest = offer(plan, [stage(plan, D2, [1, 2, 3], who="Ada Lovelace")], {D2: "k2"})
    commit(plan, staged, manifest, is_live=is_live)
    outcome = forget(table, [{"who": "Ada Lovelace"}])
    (path,) = (Path(table) / amendments.FORGOTTEN).iterdir()
    assert "Lovelace" not in path.read_text()
    (found,) = amendments.forgettings(table)
    assert found.forget_id == outcome.forget_id
    assert [(unit.values, unit.run_id, unit.rows_before, unit.rows_left) for unit in found.units] == [(D2, "r2", 3, 0)]
    entry = record.history(table, 1)[0]
    assert (entry.state, entry.run_id) == ("forgotten", outcome.forget_id)
    assert "3 rows erased by" in entry.message
    assert "Lovelace" not in json.dumps(open_table(table).versions(1)[0].metadata)


# --- files of other types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "found"),
    [
        (pa.array(["1", "0", "C-17", None]), 1),
        (pa.array([1.0, 1.5, 2.0, None]), 1),
        (pa.array([dt.date(1970, 1, 2)] * 4), 0),
    ],
)
def test_an_older_version_had_keys_of_another_type(tmp_path, older, found):
    """As Spark's overwriteSchema leaves it."""
    table = str(tmp_path / "delta")
    other = pa.table({"id": older, "ds": pa.array([dt.date(2026, 1, 1)] * 4), "_run_id": ["x"] * 4})
    write_deltalake(table, other, partition_by=["ds"])
    new = pa.table({"id": pa.array([0, 1], pa.int64()), "ds": pa.array([dt.date(2026, 1, 1)] * 2)})
    write_deltalake(table, new, mode="overwrite", schema_mode="overwrite")
    erasure = forget(table, [{"id": "1"}]).erasures[0]
    assert (erasure.rows, erasure.remains.rows) == (1, 1 + found)
    assert read_predictions(table)["id"].to_pylist() == [0]


def test_files_of_nobody_with_other_keys(table):
    publish_run(table, "r1", BOTH, rows=3)
    folder = next(Path(table).rglob("*r1*.parquet")).parent
    pq.write_table(pa.table({"id": ["1", "one"]}), folder / "foreign.parquet")
    pq.write_table(pa.table({"id": [{"a": 1}]}), folder / "nested.parquet")
    erasure = forget(table, [{"id": "1"}]).erasures[0]
    assert erasure.rows == 2
    assert [Path(path).name for path in erasure.unmentioned] == ["foreign.parquet"]


def test_an_older_version_whose_keys_have_no_text_is_named(tmp_path):
    table = str(tmp_path / "delta")
    write_deltalake(table, pa.table({"id": [{"a": 1}], "other": [1]}))
    (older,) = DeltaTable(table).file_uris()
    write_deltalake(table, pa.table({"id": [0, 1]}), mode="overwrite", schema_mode="overwrite")
    with pytest.raises(InputError, match="cannot be compared") as caught:
        forget(table, [{"id": "1"}])
    assert Path(older).name in str(caught.value)
    assert read_predictions(table)["id"].to_pylist() == [0, 1]


# --- rollback, older versions, retention --------------------------------------------------------------------


def test_no_rollback_brings_them_back(table):
    publish_run(table, "r1", BOTH, rows=3)
    publish_run(table, "r2", {D2: "n2"}, rows=1)
    forget(table, [{"id": "1"}])
    for run in ("r1", "r2"):
        with pytest.raises(InputError, match="`batchscore forget` has erased"):
            rollback(table, run)
    publish_run(table, "r3", {D2: "m2"}, rows=1)
    publish_run(table, "r4", {D2: "l2"}, rows=1)
    assert rollback(table, "r3").version > 0
    assert ids_of(table) == [0, 0, 2]


def test_rows_of_older_versions_alone(table):
    publish_run(table, "r1", {D1: "k1"}, rows=5)
    publish_run(table, "r2", {D1: "k2"}, rows=2)
    outcome = forget(table, [{"id": "4"}])
    erasure = outcome.erasures[0]
    assert (erasure.rows, len(erasure.remains.files), erasure.remains.versions) == (0, 1, (0,))
    assert erasure.version == 2  # nothing changes for readers, and no rollback brings the row back
    with pytest.raises(InputError, match="has erased"):
        rollback(table, "r1")
    assert live(table, {D1: "k2"}) == {D1: True}


def test_what_remains_is_told_with_its_day(table):
    publish_run(table, "r1", BOTH, rows=3)
    remains = forget(table, [{"id": "1"}]).erasures[0].remains
    assert (len(remains.files), remains.rows, remains.versions) == (2, 2, (0,))
    assert remains.until == (dt.datetime.now(dt.UTC) + dt.timedelta(days=31)).date().isoformat()
    retain(table, 0, shorter=True, dry_run=False)
    assert not any((Path(table) / path).exists() for path in remains.files)
    with pytest.raises(InputError, match="no row of the table"):
        forget(table, [{"id": "1"}])


def test_now_deletes_what_older_versions_hold_and_nothing_else(table):
    publish_run(table, "r1", {D1: "k1"}, rows=3)
    publish_run(table, "r2", {D2: "k2"}, rows=1)
    publish_run(table, "r3", {D2: "n2"}, rows=1)
    outcome = forget(table, [{"id": "1"}], now=True)
    assert outcome.deleted == 1
    assert not (Path(table) / outcome.erasures[0].remains.files[0]).exists()
    assert list(Path(table).rglob("*-r2-*.parquet"))
    assert ids_of(table) == [0, 0, 2]
    assert live(table, {D1: "k1", D2: "n2"}) == {D1: True, D2: True}


def test_a_dry_run_changes_nothing(table):
    publish_run(table, "r1", BOTH, rows=3)
    record.history(table, 9)
    before = {path: path.stat().st_mtime_ns for path in Path(table).parent.rglob("*") if path.is_file()}
    outcome = forget(table, [{"id": "1"}], dry_run=True)
    assert (outcome.forget_id, outcome.erasures[0].rows, outcome.erasures[0].version) == ("", 2, -1)
    assert {path: path.stat().st_mtime_ns for path in Path(table).parent.rglob("*") if path.is_file()} == before


def test_a_rolled_back_unit_stays_so_when_rows_are_forgotten(table):
    publish_run(table, "r1", {D1: "k1"}, rows=3)
    publish_run(table, "r2", {D1: "n1"}, rows=3)
    rollback(table, "r1")
    forget(table, [{"id": "1"}])
    assert withdrawal_of(look(table), D1, "n1") is not None


# --- commits ------------------------------------------------------------------------------------------------


def test_a_run_that_publishes_meanwhile_is_looked_at_again(table, monkeypatch):
    publish_run(table, "r1", BOTH, rows=3)
    real = erase.Eraser._rewritten

    def meanwhile(*given):
        monkeypatch.setattr(erase.Eraser, "_rewritten", real)
        publish_run(table, "r2", {D2: "n2"}, rows=2)
        return real(*given)

    monkeypatch.setattr(erase.Eraser, "_rewritten", meanwhile)
    outcome = forget(table, [{"id": "1"}])
    assert outcome.erasures[0].rows == 2
    assert ids_of(table) == [0, 0, 2]
    assert live(table, {D1: "k1", D2: "n2"}) == {D1: True, D2: True}
    active = {file.path for file in open_table(table).files}
    staged = {str(path.relative_to(table)) for path in Path(table).rglob(f"*-{outcome.forget_id}-*")}
    assert {path for path in staged if path.endswith(".parquet")} <= active  # the first attempt left nothing


def test_a_busy_table_is_given_up_and_left_as_it_was(table, monkeypatch):
    publish_run(table, "r1", BOTH, rows=3)
    real, fences = erase.Eraser._rewritten, iter(range(99))
    monkeypatch.setattr(erase.Eraser, "_rewritten", lambda *given: (fence(table, f"x{next(fences)}"), real(*given))[1])
    order = erase.Order(Keys([{"id": "1"}], open_table(table).columns), "f1", "t", "me")
    with pytest.raises(UnavailableError, match="other commits came first 3 times"):
        erase.Eraser(open_table(table), order, recorded=True).erase(max_attempts=3, sleep=lambda _: None)
    assert ids_of(table) == [0, 0, 1, 1, 2, 2]
    assert not list(Path(table).rglob("*-f1-*"))
    assert amendments.forgettings(table) == ()


def test_a_run_that_was_planned_before_is_fenced_out(table):
    publish_run(table, "r1", BOTH, rows=3)
    plan = make_plan(look(table), "r2", {D1: "n1"})
    staged, manifest = offer(plan, [stage(plan, D1, range(3))], {D1: "n1"})
    forget(table, [{"id": "1"}])
    with pytest.raises(FencedOutError, match="changed in the table"):
        commit(plan, staged, manifest, is_live=is_live)


def test_deletion_vectors_are_left_to_spark(tmp_path):
    table = str(tmp_path / "delta")
    publish_run(table, "r1", BOTH, rows=3)
    set_properties(table, ("deletionVectors",), delta__enableDeletionVectors="true")
    path = next(path for path in active_adds(table) if "2026-01-01" in path)
    delete_rows(table, path, [0])
    with pytest.raises(SettingsError, match="deletion vectors"):
        forget(table, [{"id": "1", "ds": "2026-01-01"}])
    assert not amendments.forgettings(table)
    assert not list(Path(table).rglob("*-20*-*.parquet"))


# --- keys ---------------------------------------------------------------------------------------------------


def test_none_found(table):
    publish_run(table, "r1", BOTH, rows=3)
    with pytest.raises(InputError, match=r"has this key\n  found: id=77") as caught:
        forget(table, [{"id": "77"}])
    assert caught.value.exit_code == 5
    assert open_table(table).version == 0


def test_some_of_many_are_found(table):
    publish_run(table, "r1", BOTH, rows=3)
    outcome = forget(table, [{"id": "1"}, {"id": "77"}, {"id": "2"}])
    assert outcome.keys == (3, 2)
    assert ids_of(table) == [0, 0]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"idd": "1"}], r"no column idd\n  did you mean: id"),
        ([{"id": "one"}], r"no value of column id(.|\n)*long"),
        ([{"ds": "yesterday"}], r"no value of column ds(.|\n)*2026-11-21"),
        ([], "no key is named"),
    ],
)
def test_keys_that_do_not_fit(table, rows, problem):
    publish_run(table, "r1", BOTH)
    with pytest.raises(SettingsError, match=problem):
        forget(table, rows)


def test_flags():
    assert from_flags(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(SettingsError, match="COLUMN=VALUE"):
        from_flags(["a"])
    with pytest.raises(SettingsError, match=r"twice(.|\n)*--keys-file"):
        from_flags(["a=1", "a=2"])


def test_a_file_of_keys(tmp_path):
    path = tmp_path / "keys.csv"
    path.write_text('id,who\n1,"Lovelace, Ada"\n\n2,Grace\n')
    assert from_file(path) == [{"id": "1", "who": "Lovelace, Ada"}, {"id": "2", "who": "Grace"}]
    path.write_text("id\n")
    with pytest.raises(InputError, match="names no row"):
        from_file(path)
    path.write_text("id,who\n1\n")
    with pytest.raises(SettingsError, match="line 2"):
        from_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        from_file(path)
    with pytest.raises(InputError, match="cannot be read"):
        from_file(tmp_path / "nothing.csv")


def test_keys_of_several_columns_are_no_cross_product():
    schema = tuple(COLUMNS[:2])
    keys = Keys([{"id": "1", "ds": "2026-01-01"}, {"id": "2", "ds": "2026-01-02"}], schema)
    ids = pa.array([1, 1, 2, 2, None, 3], pa.int64())
    days = pa.array([dt.date(2026, 1, d) for d in (1, 2, 1, 2, 1, 1)], pa.date32())
    assert keys.places([ids, days]).tolist() == [0, -1, -1, 1, -1, -1]


# --- quarantine and texts -----------------------------------------------------------------------------------


def test_the_quarantine(table):
    publish_run(table, "r1", BOTH, rows=3)
    side = table + "__quarantine"
    values_type = pa.map_(pa.string(), pa.string())
    rows = pa.table(
        {
            "id": pa.array([1, 5, 6], pa.int64()),
            "_reason": ["a", "b", "c"],
            "_run_id": ["r1", "r1", "r1"],
            "_values": pa.array([[("x", "1")], [("x", "2")], None], values_type),
        }
    )
    write_deltalake(side, rows)
    outcome = forget(table, [{"id": "5"}, {"id": "1"}])
    assert [(Path(item.table).name, item.rows) for item in outcome.erasures] == [
        (Path(table).name, 2),
        (Path(side).name, 2),
    ]
    left = pa.table(DeltaTable(side).to_pyarrow_table())
    assert left["id"].to_pylist() == [6]
    assert left["_values"].to_pylist() == [None]
    assert outcome.keys == (2, 2)


def test_a_quarantine_without_the_column_is_said(table):
    publish_run(table, "r1", BOTH, rows=3)
    write_deltalake(table + "__quarantine", pa.table({"other": [1]}))
    said = []
    assert len(forget(table, [{"id": "1"}], on_event=said.append).erasures) == 1
    assert "no column id" in said[0]["text"]


def test_texts_of_manifests_and_ledger(table):
    publish_run(table, "r1", BOTH, rows=3)
    manifest = manifests.read(table, "r1")
    check = Check("amount in range", True, "1 row of id=1", 1, ("1", "17", "id=1, b=2: 3 rows"))
    settings = {**manifest.settings, "input": {"where": "id = 1 AND amount > 1"}}
    manifests.write(table, replace(manifest, checks=(check,), settings=settings))
    (entry,) = record.history(table, 9)
    detail = "id=1: column amount = -1: too small\nid=11: column amount = 1"
    record.append(table, replace(entry, run_id="bad", state="refused", message="1 of 6 rows", detail=detail))
    outcome = forget(table, [{"id": "1"}])
    assert outcome.texts == ("_batchscore/manifests/r1.json",)
    assert outcome.ledger.rows == 1
    found = manifests.read(table, "r1")
    assert found.checks[0].sample == ("***", "17", "id=***, b=2: 3 rows")
    assert found.checks[0].observed == "1 row of id=***"
    assert found.settings["input"] == {"where": "id = *** AND amount > 1"}
    assert found.units == manifest.units
    runs = {run.run_id: run for run in record.history(table, 9)}
    assert runs["bad"].detail == "id=***: column amount = -1: too small\nid=11: column amount = 1"
    assert runs["bad"].message == "1 of 6 rows"
    assert runs["r1"] == entry
    assert len(runs) == 3


def test_now_deletes_the_ledger_s_old_files_too(table):
    publish_run(table, "r1", BOTH, rows=3)
    (entry,) = record.history(table, 9)
    record.append(table, replace(entry, run_id="bad", state="refused", detail="id=1: too small"))
    forget(table, [{"id": "1"}], now=True)
    ledger = Path(record.ledger_uri(table))
    found = [pq.read_table(path)["detail"].to_pylist() for path in ledger.glob("*.parquet")]
    assert "id=1: too small" not in str(found)
    assert {run.run_id for run in record.history(table, 9)} > {"r1", "bad"}


@pytest.mark.parametrize(
    ("key", "text", "masked"),
    [
        ({"id": "4711"}, "row 4711 of 47110 and 14711; id='4711'", "row *** of 47110 and 14711; id='***'"),
        ({"id": "7"}, "7 rows; id = 7, other=7", "7 rows; id = ***, other=7"),
        ({"who": "Ada Lovelace"}, "who=Ada Lovelace: bad", "who=***: bad"),
        (
            {"mail": "ada@example.org"},
            "for example ada@example.org, bob@example.org",
            "for example ***, bob@example.org",
        ),
        ({"day": "2026"}, "at 2026-01-01T00:00:00", "at 2026-01-01T00:00:00"),
        ({"id": "x"}, "", ""),
    ],
)
def test_masks(key, text, masked):
    assert Masker([key]).text(text) == masked


def test_files_that_no_version_mentions_are_told(table):
    publish_run(table, "r1", BOTH, rows=3)
    plan = make_plan(look(table), "r2", {D2: "n"})
    left = stage(plan, D2, range(3))
    half = Path(table) / left.path.replace("-r2-", "-r3-")
    half.write_bytes(b"PAR1 not whole yet")
    os.utime(half)
    outcome = forget(table, [{"id": "1"}], now=True)
    assert outcome.erasures[0].unmentioned == (left.path,)
    assert (Path(table) / left.path).exists()
