from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from batchscore.errors import FencedOutError
from batchscore.plan.units import is_live
from batchscore.publish import commit, discard, discard_run, fence
from batchscore.tables import open_table
from batchscore.tables.delta import FENCE_PREFIX
from tests.factories.delta import actions
from tests.factories.staging import day, look, make_plan, offer, publish_run, stage

D1, D2 = day("2026-01-01"), day("2026-01-02")


only_delta = pytest.mark.parametrize("table", ["delta"], indirect=True)


@pytest.fixture(params=["delta", "parquet"])
def table(request, tmp_path):
    path = str(tmp_path / request.param)
    publish_run(path, "r0", {D1: "k"})
    return path


@only_delta
def test_a_fence_holds_no_data(table):
    assert fence(table, "r1")
    assert open_table(table).version == 1
    entries = {next(iter(action)) for action in actions(table, 1)}
    assert entries == {"commitInfo", "txn"}
    (txn,) = [action["txn"] for action in actions(table, 1) if "txn" in action]
    assert txn["appId"] == FENCE_PREFIX + "r1"
    assert txn["lastUpdated"]


def test_a_second_fence_is_no_commit(table):
    assert fence(table, "r1")
    assert fence(table, "r1")
    assert open_table(table).version == 1


def test_a_fence_is_for_one_run(table):
    fence(table, "r1")
    assert publish_run(table, "r2", {D2: "k"}).version == 2


@only_delta
def test_a_fence_outlives_restore_delete_and_checkpoint(table):
    fence(table, "r1")
    DeltaTable(table).restore(0)
    DeltaTable(table).delete("id = 0")
    DeltaTable(table).create_checkpoint()
    plan = make_plan(look(table), "r1", {D2: "k"})
    staged, manifest = offer(plan, [stage(plan, D2, [1])], {D2: "k"})
    with pytest.raises(FencedOutError):
        commit(plan, staged, manifest, is_live=is_live)


def test_discard_deletes_what_was_never_published(table):
    plan = make_plan(look(table), "r1", {D2: "k"})
    files = [stage(plan, D2, [1]), stage(plan, D2, [2])]
    assert discard(table, files) == 2
    assert discard(table, files) == 0
    assert not any((Path(table) / file.path).exists() for file in files)


def test_discard_without_a_table(tmp_path):
    plan = make_plan(look(tmp_path / "n"), "r1", {D2: "k"})
    assert discard(str(tmp_path / "n"), [stage(plan, D2, [1])]) == 1
    assert discard(str(tmp_path / "n"), []) == 0


def test_discard_never_touches_an_active_file(table):
    plan = make_plan(look(table), "r1", {D2: "k"})
    file = stage(plan, D2, [1])
    commit(plan, *offer(plan, [file], {D2: "k"}), is_live=is_live)
    assert discard(table, [file]) == 0
    assert (Path(table) / file.path).exists()


@only_delta
def test_discard_never_touches_an_active_file_whose_commit_the_log_forgot(table):
    plan = make_plan(look(table), "r1", {D2: "k"})
    file = stage(plan, D2, [1])
    commit(plan, *offer(plan, [file], {D2: "k"}), is_live=is_live)
    DeltaTable(table).create_checkpoint()
    (Path(table) / "_delta_log" / f"{1:020d}.json").unlink()
    assert discard(table, [file]) == 0
    assert (Path(table) / file.path).exists()


def test_a_fence_outlives_a_restore(table):
    fence(table, "r1")
    open_table(table).restore(0, {})
    plan = make_plan(look(table), "r1", {D2: "k"})
    staged, manifest = offer(plan, [stage(plan, D2, [1])], {D2: "k"})
    with pytest.raises(FencedOutError):
        commit(plan, staged, manifest, is_live=is_live)


def test_discard_run_deletes_what_the_run_staged_and_nothing_else(table):
    plan, other = (make_plan(look(table), name, {D2: "k"}) for name in ("r1", "r2"))
    mine = [stage(plan, D1, [1]), stage(plan, D2, [2])]
    theirs = stage(other, D2, [3])
    assert discard_run(table, "r1") == 2
    assert not any((Path(table) / file.path).exists() for file in mine)
    assert (Path(table) / theirs.path).exists()
    assert discard_run(table, "r0") == 0


def test_discard_never_touches_a_replaced_file(table):
    """Time travel needs it, and so does a rollback."""
    plan = make_plan(look(table), "r1", {D2: "k"})
    file = stage(plan, D2, [1])
    commit(plan, *offer(plan, [file], {D2: "k"}), is_live=is_live)
    publish_run(table, "r2", {D2: "n"})
    assert discard(table, [file]) == 0
    assert (Path(table) / file.path).exists()
