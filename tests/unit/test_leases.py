from __future__ import annotations

from dataclasses import replace

import pytest

from batchscore import heartbeats, leases
from batchscore.contracts import RunOptions
from batchscore.errors import UnavailableError
from batchscore.heartbeats import Heartbeat, Process, Watch
from batchscore.leases import Lease
from batchscore.publish import fence, inspect, may_publish
from batchscore.publish.cleanup import fenced_by
from batchscore.tables import open_table
from tests.factories.staging import day, make_plan, offer, publish_run, stage

D1, D2 = day("2026-01-01"), day("2026-01-02")
MINE, THEIRS, LATER = (f"20260101T000000-{letter * 8}" for letter in "bac")


@pytest.fixture
def table(tmp_path):
    path = str(tmp_path / "t")
    publish_run(path, "20250101T000000-00000000", {D1: "k"})
    return path


@pytest.fixture
def plan(table):
    return make_plan(inspect(table), MINE, {D1: "n"})


def beating(table, run_id=THEIRS, units=(D1,), **process):
    other = Heartbeat(run_id, replace(Process.own(), **process), "ann", "2026-01-01T00:00:00.000Z", units, "fraud/7", 1)
    heartbeats.write(table, other)
    return other


def lease(options=None, events=None, sleep=lambda _: None, **watch):
    heard = [].append if events is None else lambda event: events.append(event["text"])
    return Lease(options or RunOptions(), heard, watch=Watch(**watch), sleep=sleep)


def running(table):
    return sorted(beat.run_id for beat in heartbeats.read_all(table))


def test_a_turn_is_seen_from_begin_to_end(table, plan):
    turn = lease()
    assert turn.take(plan)
    (seen,) = heartbeats.read_all(table)
    assert (seen.run_id, seen.units, seen.model, seen.started_at) == (MINE, (D1,), "m/1", plan.created_at)
    turn.end()
    turn.end()
    assert running(table) == []


@pytest.mark.parametrize("overrides", [{"mode": "replace"}, {"units_known": False, "units": ()}])
def test_a_run_whose_units_are_not_known_means_the_whole_table(table, plan, overrides):
    turn = lease()
    assert turn.take(replace(plan, **overrides))
    assert next(iter(heartbeats.read_all(table))).units is None
    turn.end()


def test_a_live_run_on_the_same_units_is_named(table, plan):
    beating(table)
    with pytest.raises(UnavailableError) as caught:
        lease().take(plan)
    text = caught.value.text()
    for fact in (THEIRS, Process.own().host, str(Process.own().pid), "ann", "2026-01-01T00:00:00.000Z", "fraud/7",
                 "ds=2026-01-01", "--wait", "--take-over"):  # fmt: skip
        assert fact in text
    assert running(table) == [THEIRS]


def test_a_live_run_on_other_units_is_no_matter(table, plan):
    beating(table, units=(D2,))
    turn = lease()
    assert turn.take(plan)
    turn.end()
    assert running(table) == [THEIRS]


def test_runs_of_one_backfill_do_not_block_each_other(table, plan):
    """Their dates differ, also where the units of each are found only while it scores."""
    unknown = replace(plan, units_known=False, units=())
    beside = replace(beating(table, units=None), backfill="backfill-1")
    heartbeats.write(table, beside)
    turn = Lease(RunOptions(), [].append, backfill="backfill-1")
    assert turn.take(unknown)
    (mine,) = (beat for beat in heartbeats.read_all(table) if beat.run_id == MINE)
    assert mine.backfill == "backfill-1"
    turn.end()
    for other in ("backfill-2", ""):
        with pytest.raises(UnavailableError, match=THEIRS):
            Lease(RunOptions(), [].append, backfill=other).take(unknown)
    heartbeats.write(table, replace(beside, backfill=""))
    with pytest.raises(UnavailableError, match=THEIRS):
        Lease(RunOptions(), [].append, backfill="backfill-1").take(unknown)


def test_a_dead_run_blocks_nobody(table, plan):
    beating(table, begun="1")
    turn = lease()
    assert turn.take(plan)
    turn.end()


def test_a_silent_run_elsewhere_blocks_for_as_long_as_it_is_watched(table, plan):
    beating(table, host="elsewhere")
    now, events = [0.0], []
    turn = lease(events=events, sleep=lambda _: now.__setitem__(0, now[0] + 1), silent_seconds=10, clock=lambda: now[0])
    assert turn.take(plan)
    assert 10 <= now[0] <= 12
    assert events == [f"watching whether run {THEIRS} on elsewhere (pid {Process.own().pid}, user ann) still works"]
    turn.end()


def test_a_run_elsewhere_that_beats_is_alive(table, plan):
    other = beating(table, host="elsewhere")
    with pytest.raises(UnavailableError, match=THEIRS):
        lease(sleep=lambda _: heartbeats.write(table, replace(other, beat=2))).take(plan)


def test_of_two_that_begin_at_once_one_goes_on(table, plan, monkeypatch):
    turn = lease()
    begin = turn._begin
    monkeypatch.setattr(turn, "_begin", lambda plan: (beating(table, LATER), begin(plan))[1])
    assert turn.take(plan)
    turn.end()
    heartbeats.remove(table, LATER)
    monkeypatch.setattr(turn, "_begin", lambda plan: (beating(table, THEIRS), begin(plan))[1])
    with pytest.raises(UnavailableError, match=THEIRS):
        turn.take(plan)
    assert running(table) == [THEIRS]


def test_waiting_ends_with_the_other_run_and_asks_for_a_new_plan(table, plan):
    beating(table)
    naps = []

    def nap(_):
        naps.append(1)
        if len(naps) == 3:
            heartbeats.remove(table, THEIRS)

    turn = lease(RunOptions(wait_minutes=1), sleep=nap)
    assert not turn.take(plan)
    assert len(naps) == 3
    assert turn.take(plan)
    turn.end()


def test_waiting_has_a_bound(table, plan):
    beating(table)
    with pytest.raises(UnavailableError, match=r"waited 1e-05 minutes"):
        lease(RunOptions(wait_minutes=1e-5)).take(plan)


def test_taking_over_fences_the_other_run_which_then_is_no_matter(table, plan):
    beating(table)
    events = []
    turn = lease(RunOptions(take_over=True), events)
    assert not turn.take(plan)
    assert not may_publish(table, THEIRS)
    assert "was fenced" in events[0]
    assert fenced_by(open_table(table), table, THEIRS).startswith("taken over by a run on ")
    assert turn.take(plan)
    assert running(table) == [THEIRS, MINE]
    turn.end()


def test_a_fenced_run_that_still_beats_blocks_nobody(table, plan):
    beating(table)
    fence(table, THEIRS)
    turn = lease()
    assert turn.take(plan)
    turn.end()


def test_heartbeats_that_cannot_be_read_or_written_block_nobody(table, plan, tmp_path):
    (tmp_path / "t" / "_batchscore" / "runs").write_text("in the way")
    events = []
    turn = lease(events=events)
    assert turn.take(plan)
    turn.end()
    assert "its heartbeat could not be written" in events[0]


def test_a_run_whose_heartbeat_could_not_be_removed_blocks_nobody_in_its_own_process(table, monkeypatch):
    ended = lease()
    run_id = "20260101T000000-0000ended"
    assert ended.take(make_plan(inspect(table), run_id, {D1: "n"}))
    with monkeypatch.context() as patch:
        patch.setattr(heartbeats, "remove", failing)
        ended.end()
    assert running(table) == [run_id]
    turn = lease()
    assert turn.take(make_plan(inspect(table), MINE, {D1: "n"}))
    turn.end()


def failing(*_):
    raise OSError(30, "Read-only file system")


def test_the_next_run_removes_what_a_dead_one_left(table, plan, tmp_path):
    other = make_plan(inspect(table), THEIRS, {D2: "x"})
    file = stage(other, D2, [1])
    offer(other, [file], {D2: "x"})
    beating(table, units=(D2,), begun="1")
    events = []
    turn = lease(events=events)
    assert turn.take(plan)
    turn.clear(plan)
    turn.end()
    assert not (tmp_path / "t" / file.path).exists()
    assert not may_publish(table, THEIRS)
    assert running(table) == []
    assert events == [f"run {THEIRS} had ended without a word: 3 files of {events[0].split()[-3]} bytes removed"]


def test_an_ordinary_run_lists_no_folder(table, plan, monkeypatch):
    monkeypatch.setattr(leases.publish, "clear", lambda *_: pytest.fail("looked for leftovers"))
    turn = lease()
    assert turn.take(plan)
    turn.clear(plan)
    turn.end()


def test_what_cannot_be_removed_is_a_notice(table, plan, tmp_path):
    beating(table, begun="1")
    (tmp_path / "t" / "_delta_log" / f"{0:020d}.json").write_text("{")
    events = []
    turn = lease(events=events)
    turn._dead = {THEIRS: "gone"}
    turn.clear(plan)
    assert len(events) == 1
    assert "could not be removed" in events[0]
