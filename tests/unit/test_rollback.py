"""Rolling a table back and forward: what readers see, what is refused, and what planning knows of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from batchscore import amendments, publish, record
from batchscore.contracts import TargetState, UnitState, Withdrawal
from batchscore.errors import FencedOutError, InputError, SettingsError, SetupError, UnavailableError
from batchscore.forget import forget
from batchscore.plan import make
from batchscore.plan.units import is_live
from batchscore.plan.withdrawals import withdrawal_of
from batchscore.predictions import read_predictions
from batchscore.publish import commit, fence, swap
from batchscore.publish import rollback as room
from batchscore.retain import retain
from batchscore.rollback import rollback
from batchscore.tables import open_table
from tests.factories import values
from tests.factories.delta import commit_by_hand, set_properties
from tests.factories.staging import day, live_units, look, make_plan, offer, publish_run, replay_run, stage

D1, D2, D3 = day("2026-01-01"), day("2026-01-02"), day("2026-01-03")
BOTH = {D1: "k1", D2: "k2"}


@pytest.fixture(params=["delta", "parquet"])
def table(request, tmp_path):
    return str(tmp_path / request.param)


def rows_of(table, version=None):
    found = read_predictions(table, version=version)
    return sorted((str(row["_run_id"]), str(row["ds"]), row["id"]) for row in found.to_pylist())


def version_of(table):
    return open_table(table).version


def prepared(table, run_id, keys, **options):
    plan = make_plan(look(table), run_id, keys, **options)
    staged, manifest = offer(plan, [stage(plan, unit, range(2)) for unit in keys], keys)
    return plan, staged, manifest


# --- what readers see ---------------------------------------------------------------------------------------


def test_back_and_forward_again(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    publish_run(table, "r3", {D3: "k3"})
    back = rollback(table, "r1")
    assert (back.version, back.plan.from_version, back.plan.to_version) == (3, 2, 0)
    assert rows_of(table) == rows_of(table, 0)
    assert {item.run_id: (item.units, item.rows) for item in back.plan.leaving} == {"r2": (1, 2), "r3": (1, 2)}
    assert {item.run_id: (item.units, item.rows) for item in back.plan.returning} == {"r1": (1, 2)}
    assert {unit.values for unit in back.plan.units} == {D1, D3}
    forward = rollback(table, "r3")
    assert forward.version == 4
    assert rows_of(table) == rows_of(table, 2)
    assert rollback(table, "r2").version == 5
    assert rows_of(table) == rows_of(table, 1)
    assert [len(rows_of(table, version)) for version in range(6)] == [4, 4, 6, 4, 6, 4]  # nothing was destroyed


def test_a_dry_run_changes_nothing(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    files = sorted(path for path in Path(table).rglob("*") if path.is_file())
    outcome = rollback(table, "r1", dry_run=True)
    assert (outcome.version, outcome.rollback_id, len(outcome.plan.units)) == (-1, "", 1)
    assert version_of(table) == 1
    assert sorted(path for path in Path(table).rglob("*") if path.is_file()) == files


def test_nothing_to_do_is_no_commit(table):
    publish_run(table, "r1", BOTH)
    assert rollback(table, "r1").version == -1
    assert version_of(table) == 0
    assert amendments.rollbacks(table) == ()


def test_odd_partition_values_come_back(table):
    odd = {day("2026-01-01"): "k", day(None): "k"}
    publish_run(table, "r1", odd)
    publish_run(table, "r2", {day(None): "n"})
    rollback(table, "r1")
    assert rows_of(table) == rows_of(table, 0)


def test_the_ledger_says_who_did_what(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    outcome = rollback(table, "r1")
    entry = record.history(table, 9)[0]
    assert (entry.run_id, entry.state, entry.table_version, entry.exit_code) == (
        outcome.rollback_id,
        "rolled_back",
        2,
        0,
    )
    assert entry.message == f"to run r1 (version 0) from version 1, by {amendments.operator_name()}"
    assert [item.state for item in record.history(table, 9)[1:]] == ["published", "published"]
    (commit_of_it,) = open_table(table).versions(1)
    assert commit_of_it.metadata["batchscore.rollback"] == outcome.rollback_id
    assert commit_of_it.run_id == ""


def test_fences_hold(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    fence(table, "r9")
    rollback(table, "r1")
    assert open_table(table).is_fenced("r9")


# --- refusals -----------------------------------------------------------------------------------------------


def test_no_table(tmp_path):
    with pytest.raises(InputError, match="no prediction table"):
        rollback(str(tmp_path / "nothing"), "r1")


def test_an_unknown_run_and_one_that_published_nothing(table):
    publish_run(table, "r1", BOTH)
    with pytest.raises(SettingsError, match="has no run nothing"):
        rollback(table, "nothing")
    record.append(table, replace(record.history(table, 9)[0], run_id="q1", state="refused", message="3 checks failed"))
    with pytest.raises(SettingsError, match=r"q1 published nothing(.|\n)*refused: 3 checks failed"):
        rollback(table, "q1")


def test_a_rollback_is_no_run(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    outcome = rollback(table, "r1")
    with pytest.raises(SettingsError, match="is no run of a model"):
        rollback(table, outcome.rollback_id)


def test_files_that_are_gone_are_named_and_so_are_the_runs_within_reach(table):
    for number in range(3):
        publish_run(table, f"r{number}", {D1: f"k{number}"})
    (gone,) = Path(table).rglob("*-r0-*.parquet")
    gone.unlink()
    with pytest.raises(InputError) as caught:
        rollback(table, "r0")
    assert "gone (vacuumed)" in caught.value.found
    assert "the oldest is r1 (version 1" in caught.value.hint
    assert [text[:2] for text in caught.value.allowed] == ["r2", "r1"]
    assert version_of(table) == 2
    assert rollback(table, "r1").version == 3


def test_a_version_that_left_the_history(tmp_path):
    table = str(tmp_path / "parquet")
    for number in range(3):
        publish_run(table, f"r{number}", {D1: f"k{number}"})
    record.history(table, 9)
    for path in (Path(table) / "_batchscore/versions").glob(f"{0:020d}-*"):
        path.unlink()
    with pytest.raises(InputError, match=r"r0\n(.|\n)*no longer in the table's history"):
        rollback(table, "r0")


def test_a_delta_log_that_was_cleaned(tmp_path):
    table = str(tmp_path / "delta")
    for number in range(3):
        publish_run(table, f"r{number}", {D1: f"k{number}"})
    record.history(table, 9)
    DeltaTable(table).create_checkpoint()
    (Path(table) / "_delta_log" / f"{0:020d}.json").unlink()
    with pytest.raises(InputError, match="cannot be rolled back to run r0"):
        rollback(table, "r0")
    with pytest.raises(InputError, match="cannot be rolled back to run r1"):
        rollback(table, "r1")


def test_a_commit_that_says_nothing_of_itself_shifts_no_version(tmp_path):
    table = str(tmp_path / "delta")
    for run, keys in (("r1", BOTH), ("r2", {D1: "n1"})):
        publish_run(table, run, keys)
    commit_by_hand(table, [{"txn": {"appId": "another-engine", "version": 1}}])  # no commitInfo: the protocol allows it
    publish_run(table, "r3", {D3: "k3"})
    numbers = {"r1": 0, "r2": 1, "": 2, "r3": 3}
    assert {commit.run_id: commit.version for commit in open_table(table).versions()} == numbers
    assert [commit.run_id for commit in open_table(table).versions(3)] == ["r3", "", "r2"]
    assert {item.commit.run_id: item.commit.version for item in open_table(table).past()} == numbers
    assert [swap.landed_version(open_table(table), run, 0) for run in ("r1", "r2", "r3")] == [None, 1, 3]
    assert all(commit.committed_at for commit in open_table(table).versions())
    assert [commit.run_id for commit in open_table(table, 1).versions()] == ["r2", "r1"]  # newer ones are not its past
    back = rollback(table, "r1")
    assert (back.plan.to_version, rows_of(table)) == (0, rows_of(table, 0))


def test_a_damaged_commit_below_a_checkpoint_ends_what_looks_back(tmp_path):
    table = str(tmp_path / "delta")
    for number in range(4):
        publish_run(table, f"r{number}", {D1: f"k{number}"})
    DeltaTable(table).create_checkpoint()
    (Path(table) / "_delta_log" / f"{1:020d}.json").write_bytes(b"\x00garbage")
    for ask in (lambda: rollback(table, "r2"), lambda: retain(table), lambda: forget(table, [{"id": "1"}])):
        with pytest.raises(InputError, match="version 1 cannot be read"):
            ask()
    assert publish_run(table, "r4", {D1: "k4"}).version == 4  # runs look at newer commits alone


def test_of_many_commits_those_that_are_left_are_listed(tmp_path, monkeypatch):
    table = str(tmp_path / "delta")
    for number in range(4):
        publish_run(table, f"r{number}", {D1: f"k{number}"})
    DeltaTable(table).create_checkpoint()
    (Path(table) / "_delta_log" / f"{0:020d}.json").unlink()
    by_name = open_table(table).versions()
    monkeypatch.setattr("batchscore.arrow.commits.MOST_UNLISTED", 1)
    assert [commit.version for commit in by_name] == [3, 2, 1]
    assert open_table(table).versions() == by_name
    assert open_table(table).versions(2) == by_name[:2]


def test_a_table_that_batchscore_may_not_write(tmp_path):
    table = str(tmp_path / "delta")
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    set_properties(table, delta__constraints__positive="id > 0")
    with pytest.raises(SettingsError, match="CHECK constraint"):
        rollback(table, "r1")


# --- compare and swap ---------------------------------------------------------------------------------------


def test_a_run_that_publishes_meanwhile_is_not_taken_back_unseen(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    plan = publish.plan_rollback(table, "r1")
    publish_run(table, "r3", {D2: "n2"})
    with pytest.raises(FencedOutError, match=r"2026-01-02"):
        publish.roll_back(plan, "b1", created_at="2026-01-01T00:00:00Z", by="me")
    assert version_of(table) == 2


def test_a_commit_that_changes_no_unit_is_no_matter(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    plan = publish.plan_rollback(table, "r1")
    fence(table, "r9")
    assert publish.roll_back(plan, "b1", created_at="2026-01-01T00:00:00Z", by="me") == 3
    assert rows_of(table) == rows_of(table, 0)


def test_a_conflict_is_looked_at_again(table, monkeypatch):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    real = room._record

    def meanwhile(*given):
        monkeypatch.setattr(room, "_record", real)
        fence(table, "r9")  # another commit between the look and the swap
        return real(*given)

    monkeypatch.setattr(room, "_record", meanwhile)
    assert rollback(table, "r1").version == 3
    assert rows_of(table) == rows_of(table, 0)
    assert len(amendments.rollbacks(table)) == 1


def test_a_busy_table_is_given_up(table, monkeypatch):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    real, fences = room._record, iter(range(99))
    monkeypatch.setattr(room, "_record", lambda *given: (fence(table, f"x{next(fences)}"), real(*given))[1])
    plan = publish.plan_rollback(table, "r1")
    with pytest.raises(UnavailableError, match="other commits came first 3 times"):
        publish.roll_back(plan, "b1", created_at="t", by="me", max_attempts=3, sleep=lambda _: None)
    assert amendments.rollbacks(table) == ()


def test_a_live_run_that_publishes_later_is_fenced_out(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    plan, staged, manifest = prepared(table, "r3", {D1: "m1"})
    rollback(table, "r1")
    with pytest.raises(FencedOutError, match="changed in the table"):
        commit(plan, staged, manifest, is_live=is_live)
    assert rows_of(table) == rows_of(table, 0)


def test_a_run_that_was_planned_before_both_publication_and_rollback_is_fenced_out(table):
    """The unit is again what it was when the run was planned: its state alone does not tell."""
    publish_run(table, "r1", BOTH)
    late = prepared(table, "r3", {D1: "n1"})
    publish_run(table, "r2", {D1: "n1"})
    rollback(table, "r1")
    with pytest.raises(FencedOutError, match="rolled back since it was planned"):
        commit(late[0], late[1], late[2], is_live=is_live)
    forced = replace(late[0], force=True)
    assert commit(forced, late[1], late[2], is_live=is_live).version == 3


# --- what planning knows ------------------------------------------------------------------------------------


def test_what_was_rolled_back_is_withdrawn_while_the_unit_stays_so(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1", D3: "n3"})
    outcome = rollback(table, "r1")
    target = look(table)
    found = withdrawal_of(target, D1, "n1")
    assert (found.run_id, found.to_run, found.by, found.rollback_id) == ("r2", "r1", outcome.by, outcome.rollback_id)
    assert withdrawal_of(target, D3, "n3").run_id == "r2"  # a unit that is gone again
    assert withdrawal_of(target, D1, "another") is None
    assert withdrawal_of(target, D2, "k2") is None
    assert live_units(table, BOTH) == {D1: True, D2: True}
    assert "r2" in target.manifests
    publish_run(table, "r4", {D1: "m1"})  # new content, then the old one is not withdrawn any more
    assert withdrawal_of(look(table), D1, "n1") is None
    assert withdrawal_of(look(table), D3, "n3") is not None


def test_a_replay_that_was_rolled_back_can_be_asked_for_again(table):
    publish_run(table, "r1", {D1: "k1"})
    replay_run(table, "r2", "r1", D1, [7])
    rollback(table, "r1")
    assert replay_run(table, "r3", "r1", D1, [7]).version == 3
    assert [row[::2] for row in rows_of(table)] == [("r1", 0), ("r1", 1), ("r3", 7)]
    assert live_units(table, {D1: "k1"}) == {D1: True}


def test_all_runs_since_are_withdrawn(table):
    publish_run(table, "r1", {D1: "a"})
    publish_run(table, "r2", {D1: "b"})
    publish_run(table, "r3", {D1: "c"})
    rollback(table, "r2")
    rollback(table, "r1")
    assert {withdrawal_of(look(table), D1, key).run_id for key in "bc"} == {"r2", "r3"}
    rollback(table, "r3")
    assert live_units(table, {D1: "c"}) == {D1: True}
    assert withdrawal_of(look(table), D1, "a").run_id == "r1"


def test_a_rollback_that_was_undone_takes_nothing_back(tmp_path):
    table = str(tmp_path / "delta")
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D2: "k2"})
    rollback(table, "r1")
    assert withdrawal_of(look(table), D2, "k2") is not None
    rollback(table, "r2")
    DeltaTable(table).delete("ds = '2026-01-02'")  # the unit is as the first rollback left it, and not by it
    assert D2 not in look(table).units
    assert withdrawal_of(look(table), D2, "k2") is None
    assert publish_run(table, "r3", {D2: "k2"}).version == 5


def test_a_rollback_to_behind_another_one_leaves_it_standing(table):
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D1: "k2"})
    rollback(table, "r1")
    publish_run(table, "r5", {D2: "k5"})
    publish_run(table, "r6", {D1: "k6"})
    rollback(table, "r5")
    assert withdrawal_of(look(table), D1, "k2") is not None
    assert withdrawal_of(look(table), D1, "k6") is not None


def test_a_rollback_that_does_not_change_a_unit_undoes_nothing_of_it(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "k2"})
    rollback(table, "r1")
    publish_run(table, "r3", {D2: "k3"})
    rollback(table, "r1")
    assert withdrawal_of(look(table), D1, "k2") is not None
    assert withdrawal_of(look(table), D2, "k3") is not None


def test_a_rollback_that_never_landed_undoes_none(table):
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D1: "k2"})
    rollback(table, "r1")
    (record_of_it,) = amendments.rollbacks(table)
    assert record_of_it.version == 2
    killed = replace(record_of_it, rollback_id="9", to_run="r2", to_version=1, from_version=2, version=-1)
    amendments.write(table, killed)
    assert withdrawal_of(look(table), D1, "k2") is not None


def test_a_record_whose_commit_never_landed_counts_for_nothing(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    found = room._look(table, "r1")
    amendments.write(table, room._record(found, "b1", "t", "me"))
    assert look(table).withdrawn == {}
    assert live_units(table, {D1: "n1"}) == {D1: True}


def test_a_record_that_is_removed_while_it_is_read_is_no_matter(table):
    publish_run(table, "r1", BOTH)
    folder = Path(table) / amendments.ROLLBACKS
    folder.mkdir(parents=True)
    (folder / "b1.json").symlink_to(folder / "gone")
    assert amendments.rollbacks(table) == ()


def test_records_damaged_and_of_a_newer_batchscore(table, caplog):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    rollback(table, "r1")
    (path,) = (Path(table) / amendments.ROLLBACKS).iterdir()
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "format_version": 2}))
    with pytest.raises(SetupError, match="newer batchscore"):
        look(table)
    path.write_text("{")
    assert look(table).withdrawn == {}
    assert "damaged" in caplog.text


def withdrawn_target(plan, run_id="run2"):
    """The target as a rollback of a run of ``plan`` would have left it: empty."""
    gone = {
        unit.values: (Withdrawal(run_id, unit.key, plan.source_key, "b1", "run1", "2026-11-22T00:00:00Z", "me@here"),)
        for unit in plan.to_score
    }
    return TargetState("/data/predictions", 3, (), plan.task.partition_by, {}, {}, withdrawn=gone)


def test_withdrawn_units_are_planned_as_such_and_force_scores_them():
    target = withdrawn_target(make(values.plan_inputs()))
    plan = make(values.plan_inputs(target=target))
    assert [unit.action for unit in plan.units] == ["withdrawn", "withdrawn"]
    assert plan.units[0].reason == "rolled back by me@here on 2026-11-22 from run run2; --force scores it again"
    assert plan.nothing_to_do
    assert plan.tasks == ()
    assert any("2 units were rolled back" in notice for notice in plan.notices)
    forced = make(values.plan_inputs(target=target, force=True))
    assert [unit.action for unit in forced.units] == ["score", "score"]


def test_a_changed_input_or_a_new_model_is_scored_as_usual():
    target = withdrawn_target(make(values.plan_inputs()))
    first, second = values.source().files
    changed = values.source(files=(first, replace(second, stamp="t3")))
    plan = make(values.plan_inputs(target=target, source=changed))
    assert [unit.action for unit in plan.units] == ["withdrawn", "score"]
    newer = make(values.plan_inputs(target=target, model=values.model(version="8", digest="e" * 64)))
    assert [unit.action for unit in newer.units] == ["score", "score"]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_withdrawn_in_other_modes(mode):
    config = values.config(output={"mode": mode})
    target = withdrawn_target(make(values.plan_inputs(config=config)))
    other = {(("ds", "2026-10-01"),): UnitState((("run1", 5),))}
    plan = make(values.plan_inputs(config=config, target=replace(target, units=other)))
    assert [unit.action for unit in plan.units] == ["withdrawn", "withdrawn"]
