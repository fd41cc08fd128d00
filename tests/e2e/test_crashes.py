"""Killed, doubled and paused runs, in short; ``make torture`` does the same at length."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import pytest
from deltalake import DeltaTable

from batchscore import faults
from tests.factories.jobs import end_started
from tests.torture import scenarios
from tests.torture.doubles import Game, Zombie
from tests.torture.scenarios import Stage, check_recovery, kill_at, make_stage

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("crashes")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return make_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def stage(prepared: Stage, tmp_path) -> Iterator[Stage]:
    yield prepared.copy(tmp_path / "job")
    end_started()


@pytest.mark.parametrize("point", ["score.end", "manifest.end", "commit.written", "clean.deleted"])
def test_a_killed_run_leaves_the_old_table_or_the_new_one(stage, point):
    with scenarios.reading(stage.job, stage.judged):
        killed = kill_at(stage, point)
    assert killed.code == -signal.SIGKILL, killed.err
    assert stage.check_readers() == ("new" if point in scenarios.COMMITTED else "old")
    check_recovery(stage)


def test_a_run_that_found_its_worker_killed_leaves_nothing(stage):
    failed = stage.job.run(fault="worker.closing=kill")
    assert failed.code == 7
    assert stage.check_readers() == "old"
    assert scenarios.orphans(stage.job.table) == []


def test_ordinary_and_failing_runs_come_by_every_point(stage, tmp_path):
    log = tmp_path / "reached"
    failing = stage.job.run(fault=f"*=log:{log};validate.end=raise")
    assert failing.code == 1
    killed = stage.job.run(fault=f"*=log:{log};manifest.end=kill")
    assert killed.code == -signal.SIGKILL
    assert stage.job.run(fault=f"*=log:{log}").code == 0
    reached = {line.split()[0] for line in log.read_text().splitlines()}
    assert reached == set(faults.POINTS)


def test_what_a_dead_run_left_is_shown_and_removed_by_clean(stage):
    assert kill_at(stage, "manifest.end").code == -signal.SIGKILL
    shown = stage.job.run("--config", stage.job.settings, "--dry-run", command="clean")
    assert shown.code == 0, shown.err
    assert shown.answer["dry_run"]
    assert shown.answer["files"] == 4  # two data files, the manifest, the heartbeat
    assert len(scenarios.orphans(stage.job.table)) == 4
    done = stage.job.run(stage.job.table, command="clean")
    assert done.answer["removed"] == shown.answer["removed"]
    assert scenarios.orphans(stage.job.table) == []
    assert stage.check_readers() == "old"


def test_a_zombie_and_its_retry(stage):
    zombie = Zombie(stage)
    refused = stage.job.run()
    assert refused.code == 7
    assert zombie.run_id in refused.answer["problem"]
    taken = stage.job.run("--take-over")
    assert (taken.code, taken.answer["state"]) == (0, "published"), taken.err
    woken = zombie.wake()
    assert woken.code == 6, woken.err
    assert stage.check_readers() == "new"
    zombie.check_published_once()
    assert scenarios.orphans(stage.job.table) == []
    states = [run["state"] for run in stage.job.run(command="history").answer["runs"]]
    assert states == ["fenced", "published", "failed", "published"]


@pytest.mark.parametrize("blind", [False, True], ids=["seeing", "blind"])
def test_several_at_a_time_publish_each_day_once(stage, blind):
    game = Game.of(stage, random.Random(20261127 + blind))
    if blind:
        game.blind()
    with game.reading():
        for _ in range(2):
            game.round()
    scenarios.check_books(stage.job)
    if blind:
        game.see()
    assert scenarios.orphans(stage.job.table) == []


def test_a_zombie_whose_files_were_cleaned_away_is_told_why(stage):
    zombie = Zombie(stage)
    alone = stage.job.run(stage.job.table, command="clean")
    assert [(left["run_id"], left["reason"]) for left in alone.answer["kept"]] == [(zombie.run_id, "it is at work")]
    named = stage.job.run(stage.job.table, "--take-over", zombie.run_id, command="clean")
    assert named.answer["removed"][0]["run_id"] == zombie.run_id
    woken = zombie.wake()
    assert woken.code == 6, woken.err
    assert woken.answer["found"] == "cleaned up by batchscore clean"
    assert stage.check_readers() == "old"
    check_recovery(stage)


def test_two_at_a_time_and_one_waits(stage, tmp_path):
    since = DeltaTable(stage.job.table).version()
    first = Zombie(stage)
    second = first.awaited(tmp_path)
    assert f"waiting for run {first.run_id}" in second.err
    assert (second.code, second.answer["state"]) == (0, "skipped"), second.err
    assert len(scenarios.days_published(stage.job.table, since)) == 2
