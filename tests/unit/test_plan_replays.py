"""What a replay adds to, and when a unit of two runs is live."""

from __future__ import annotations

from dataclasses import replace

from batchscore.contracts import ManifestHead, ManifestUnit, Replay, TargetState, UnitState
from batchscore.plan.replays import replay_units
from batchscore.plan.units import is_live

DAY = (("ds", "2026-11-21"),)
HEAD = ManifestHead("r1", "m", "1", "d", "s", (ManifestUnit(DAY, "k", 90),))
AGAIN = ManifestHead("r2", "m", "1", "d", "s", (ManifestUnit(DAY, "k", 7, (("r1", 90),)),), replays="r1")
THIRD = ManifestHead("r3", "m", "1", "d", "s", (ManifestUnit(DAY, "k", 3, (("r1", 90), ("r2", 7))),), replays="r2")
HEADS = {"r1": HEAD, "r2": AGAIN, "r3": THIRD}


def state(*runs):
    return UnitState(tuple(sorted(runs)))


def live(*runs, key="k", heads=HEADS, mode="partitions"):
    return is_live(state(*runs), key, DAY, heads, mode)


def test_a_unit_is_live_with_what_replays_added():
    assert live(("r1", 90))
    assert live(("r1", 90), ("r2", 7))
    assert live(("r1", 90), ("r2", 7), ("r3", 3))


def test_it_is_not_live_where_rows_of_a_run_are_gone_or_foreign():
    assert not live(("r2", 7))
    assert not live(("r1", 89), ("r2", 7))
    assert not live(("r1", 90), ("r2", 6))
    assert not live(("r1", 90), ("r3", 3))
    assert not live(("r1", 90), ("r2", 7), ("r9", 1))
    assert not live(("r1", 90), ("r2", 7), key="other")
    assert not live(("r1", 90), ("r2", 7), heads={"r1": HEAD})
    assert not is_live(replace(state(("r1", 90), ("r2", 7)), foreign_files=1), "k", DAY, HEADS, "partitions")


def planned(run, *runs, heads=HEADS):
    target = TargetState("/t", 3, units={DAY: state(*runs)} if runs else {}, manifests=heads)
    (unit,) = replay_units(Replay(run, (), ("f",), "/q", (DAY,)), target, "partitions")
    return unit


def test_a_replay_adds_to_what_its_run_published():
    unit = planned("r1", ("r1", 90))
    assert (unit.action, unit.key, unit.beside) == ("score", "k", (("r1", 90),))


def test_a_replay_of_a_replay():
    unit = planned("r2", ("r1", 90), ("r2", 7))
    assert (unit.action, unit.key, unit.beside) == ("score", "k", (("r1", 90), ("r2", 7)))


def test_nothing_is_added_twice_nor_to_another_content():
    assert planned("r1", ("r1", 90), ("r2", 7)).reason == "replayed already by run r2"
    assert planned("r1", ("r9", 90)).action == "live"
    assert "no longer holds" in planned("r1").reason
    assert "changed since" in planned("r1", ("r1", 80)).reason
    assert planned("r1", ("r1", 90), heads={}).action == "live"


def test_a_replay_into_a_unit_of_which_the_run_published_no_row():
    head = replace(HEAD, units=(ManifestUnit(DAY, "k", 0),))
    filled = ManifestHead("r2", "m", "1", "d", "s", (ManifestUnit(DAY, "k", 7),), replays="r1")

    def planned(*runs, emptied=("k",)):
        units = {DAY: state(*runs)} if runs else {}
        target = TargetState("/t", 3, units=units, manifests={"r1": head, "r2": filled}, emptied={DAY: emptied})
        (unit,) = replay_units(Replay("r1", (), ("f",), "/q", (DAY,)), target, "partitions")
        return unit

    unit = planned()
    assert (unit.action, unit.key, unit.beside) == ("score", "k", ())
    assert planned(("r2", 7)).reason == "replayed already by run r2"
    assert "changed since" in planned(("r9", 7)).reason
    assert "changed since" in planned(emptied=()).reason
    assert is_live(state(("r2", 7)), "k", DAY, {"r1": head, "r2": filled}, "partitions")
