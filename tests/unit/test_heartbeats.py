from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from batchscore import heartbeats
from batchscore.heartbeats import Heartbeat, Process, Pulse, Watch
from tests.unit.test_runner_local import gone_within

RUN = "20260101T000000-aaaaaaaa"
DAY1, DAY2 = (("ds", "2026-01-01"),), (("ds", None),)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def beat(run_id=RUN, process=None, units=(DAY1,), count=1):
    return Heartbeat(run_id, process or Process.own(), "me", "2026-01-01T00:00:00.000Z", units, "fraud/7", count)


def elsewhere(**facts):
    return replace(Process.own(), host="elsewhere", **facts)


def test_what_is_written_is_what_is_read(tmp_path):
    written = [beat(units=(DAY1, DAY2)), beat("20260101T000000-bbbbbbbb", units=None)]
    for one in written:
        heartbeats.write(str(tmp_path), one)
    assert set(heartbeats.read_all(str(tmp_path))) == set(written)
    heartbeats.remove(str(tmp_path), RUN)
    heartbeats.remove(str(tmp_path), RUN)
    assert set(heartbeats.read_all(str(tmp_path))) == {written[1]}


def test_no_folder_is_no_heartbeat(tmp_path):
    assert heartbeats.read_all(str(tmp_path / "none")) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"units": 3}',
        '{"process": {"pid": 1}, "units": null}',
        "\x00",
        '{"process": {"pid": -1, "host": "h", "begun": "1", "boot": "b", "space": "s"}, '
        '"user": "u", "started_at": "", "units": null, "model": "m", "beat": 1}',
    ],
)
def test_a_damaged_heartbeat_is_that_of_an_unknown_run_on_the_whole_table(tmp_path, text):
    heartbeats.write(str(tmp_path), beat())
    (tmp_path / heartbeats.FOLDER / f"{RUN}.json").write_text(text)
    (found,) = heartbeats.read_all(str(tmp_path))
    assert found == Heartbeat(RUN)
    assert found.overlaps([DAY1])
    assert Watch().judge(found, b"x") == "unsure"


def test_other_files_in_the_folder_are_none(tmp_path):
    folder = tmp_path / heartbeats.FOLDER
    folder.mkdir(parents=True)
    (folder / heartbeats.temporary_name(RUN)).write_text("{")
    (folder / "readme").write_text("")
    assert heartbeats.read_all(str(tmp_path)) == {}


def test_units_overlap():
    assert beat(units=(DAY1, DAY2)).overlaps([DAY2])
    assert not beat(units=(DAY1,)).overlaps([DAY2])
    assert not beat(units=(DAY1,)).overlaps([])
    assert beat(units=(DAY1,)).overlaps(None)
    assert beat(units=None).overlaps([DAY1])


def test_a_run_of_very_many_units_claims_the_whole_table():
    units = [(("n", str(number)),) for number in range(heartbeats.MAX_UNITS + 1)]
    of = Heartbeat.of_this_process
    assert of(RUN, started_at="", units=units, model="m/1").units is None
    assert of(RUN, started_at="", units=units[1:], model="m/1").units == tuple(units[1:])


# --- who is alive ------------------------------------------------------------------------------------------


def test_this_process_is_alive():
    assert Watch().judge(beat(), b"x") == "live"


def test_a_process_of_this_machine_that_ended_is_gone_at_once(tmp_path):
    code = "import dataclasses, json; from batchscore.heartbeats import Process; "
    code += "print(json.dumps(dataclasses.asdict(Process.own())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    ended = Process(**json.loads(done.stdout))
    assert Watch().judge(beat(process=ended), b"x") == "gone"


def test_a_process_that_was_killed_and_not_reaped_is_gone():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status, begun = heartbeats._status(child.pid)
    alive = replace(Process.own(), pid=child.pid, begun=begun)
    assert status
    assert Watch().judge(beat(process=alive), b"x") == "live"
    child.kill()
    assert gone_within([child.pid], 5)  # a zombie until somebody waits for it
    assert Watch().judge(beat(process=alive), b"x") == "gone"
    child.communicate(timeout=10)


def test_a_process_id_that_is_used_again_is_another_process():
    again = replace(Process.own(), begun="1")
    assert Watch().judge(beat(process=again), b"x") == "gone"


@pytest.mark.parametrize("other", [{"host": "b"}, {"boot": "b"}, {"space": "pid:[1]"}, {"boot": ""}, {"pid": 0}])
def test_a_process_elsewhere_is_not_judged_by_process_ids_of_this_machine(other):
    process = replace(Process.own(), begun="1", **other)
    assert Watch().judge(beat(process=process), b"x") == "unsure"


def test_somebody_elses_process_that_this_user_may_not_look_at_is_watched(monkeypatch):
    monkeypatch.setattr(heartbeats, "_status", lambda pid: ("", ""))
    assert Watch(here=Process.own()).judge(beat(process=replace(Process.own(), begun="1")), b"x") == "unsure"


def test_a_run_elsewhere_is_alive_while_its_file_changes():
    clock = Clock()
    watch = Watch(silent_seconds=10, clock=clock)
    away = beat(process=elsewhere())
    assert watch.judge(away, b"1") == "unsure"
    clock.now += 9
    assert watch.judge(away, b"1") == "unsure"
    assert watch.judge(away, b"2") == "live"
    clock.now += 9
    assert watch.judge(away, b"2") == "live"
    clock.now += 1
    assert watch.judge(away, b"2") == "silent"
    assert watch.judge(away, b"3") == "live"


def test_no_clock_but_the_own_monotonic_one_is_looked_at(tmp_path):
    """A heartbeat from the future or from long ago is judged as any other."""
    for when in ("1970-01-01T00:00:00.000Z", "2199-01-01T00:00:00.000Z"):
        clock = Clock()
        watch = Watch(silent_seconds=10, clock=clock)
        away = replace(beat(process=elsewhere()), started_at=when)
        heartbeats.write(str(tmp_path), away)
        os.utime(tmp_path / heartbeats.FOLDER / f"{RUN}.json", (0, 0))
        ((found, data),) = heartbeats.read_all(str(tmp_path)).items()
        assert watch.judge(found, data) == "unsure"
        clock.now += 10
        assert watch.judge(found, data) == "silent"


# --- beating -----------------------------------------------------------------------------------------------


def test_a_pulse_beats_until_it_ends(tmp_path):
    troubles = []
    pulse = Pulse(str(tmp_path), replace(beat(), beat=0), troubles.append, seconds=0.01)
    pulse.start()
    seen = set()
    while len(seen) < 3:
        seen |= {found.beat for found in heartbeats.read_all(str(tmp_path))}
    pulse.end()
    assert heartbeats.read_all(str(tmp_path)) == {}
    assert list((tmp_path / heartbeats.FOLDER).iterdir()) == []
    assert troubles == []


def test_a_heartbeat_that_cannot_be_written_is_told_once(tmp_path):
    (tmp_path / "_batchscore").write_text("in the way")
    troubles = []
    pulse = Pulse(str(tmp_path), beat(), troubles.append, seconds=0.005)
    pulse.start()
    assert not gone_within([os.getpid()], 0.1)
    pulse.end()
    assert len(troubles) == 1
