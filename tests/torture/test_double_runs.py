"""Several runs at a time, and a run that sleeps through its retry: each unit is published once."""

from __future__ import annotations

import random
import shutil

import pytest
from deltalake import DeltaTable

from tests.factories.jobs import rows_of, text_of
from tests.torture.doubles import DAYS, Game, Zombie
from tests.torture.scenarios import check_books, orphans

SEEING = "double runs, heartbeats at work: rounds"
BLIND = "double runs, heartbeats out of order, so that the commit alone decides: rounds"
ZOMBIE = "a run stopped after validation and resumed after its retry: cases"


@pytest.mark.parametrize("blind", [False, True], ids=["seeing", "blind"])
def test_rounds(prepared, tmp_path, tally, rounds, blind):
    game = Game.of(prepared.copy(tmp_path / "job"), random.Random(20261127 + blind))
    if blind:
        game.blind()
    with game.reading() as reader:
        for _ in range(rounds):
            with tally.case(BLIND if blind else SEEING):
                game.round()
    tally.tried["reads of the whole table meanwhile, by delta-rs"] += reader.reads
    tally.held["reads of the whole table meanwhile, by delta-rs"] += reader.reads
    check_books(game.job)
    if blind:
        game.see()
    game.job.run(str(game.job.table), command="clean")
    assert orphans(game.job.table) == []


@pytest.mark.spark
def test_rounds_under_the_eyes_of_spark(prepared, spark, tmp_path, tally):
    game = Game.of(prepared.copy(tmp_path / "job"), random.Random(7))
    reads = 0
    for _ in range(5):
        with tally.case("double runs, read by Spark and delta-rs: rounds"), game.reading():
            processes = game.begin()
            while any(process.poll() is None for process in processes):
                game.judge_rows(spark.read.format("delta").load(str(game.job.table)).toArrow())
                reads += 1
            game.finish(processes)
    tally.tried["reads of the whole table meanwhile, by Spark"] += reads
    tally.held["reads of the whole table meanwhile, by Spark"] += reads


def test_a_zombie_is_named_and_left_in_peace(stage, tally):
    with tally.case(ZOMBIE):
        zombie = Zombie(stage)
        refused = stage.job.run()
        assert refused.code == 7
        assert zombie.run_id in refused.answer["problem"]
        assert f"pid {zombie.process.pid}" in refused.answer["detail"][0]
        woken = zombie.wake()
        assert (woken.code, woken.answer["state"]) == (0, "published"), woken.err
        assert stage.check_readers() == "new"


def test_a_zombie_whose_retry_took_over_is_fenced_out(stage, tally):
    with tally.case(ZOMBIE):
        zombie = Zombie(stage)
        taken = stage.job.run("--take-over")
        assert (taken.code, taken.answer["state"]) == (0, "published"), taken.err
        assert "was fenced" in taken.err
        before = stage.job.content()
        woken = zombie.wake()
        assert woken.code == 6, woken.err
        assert "taken over by a run on" in woken.answer["found"]
        assert stage.job.content() == before
        zombie.check_published_once()


def test_a_zombie_that_nobody_saw_finds_its_work_done(stage, tally):
    with tally.case(ZOMBIE):
        zombie = Zombie(stage)
        shutil.rmtree(stage.job.heartbeats)
        assert stage.job.run().code == 0
        before = stage.job.content()
        woken = zombie.wake()
        assert (woken.code, woken.answer["state"]) == (0, "skipped"), woken.err
        assert stage.job.content() == before
        zombie.check_published_once()


def test_a_zombie_with_other_content_is_fenced_out_by_the_commit(stage, tally):
    with tally.case(ZOMBIE):
        zombie = Zombie(stage)
        shutil.rmtree(stage.job.heartbeats)
        stage.job.change(2, 9)
        retry = stage.job.run()
        assert retry.code == 0, retry.err
        woken = zombie.wake()
        assert woken.code == 6
        assert retry.answer["run_id"] in woken.answer["found"]
        assert rows_of(stage.job.content())[text_of(2)] == stage.oracle.rows(2, 9)
        assert orphans(stage.job.table) == []


def test_a_zombie_of_another_machine_is_watched_and_counts_as_dead(stage, tally):
    with tally.case(ZOMBIE):
        zombie = Zombie(stage)
        zombie.move_to("elsewhere")
        retry = stage.job.run()
        assert (retry.code, retry.answer["state"]) == (0, "published"), retry.err
        assert "watching whether run" in retry.err
        assert "had ended without a word" in retry.err
        woken = zombie.wake()
        assert woken.code == 6, woken.err
        assert stage.check_readers() == "new"


def test_a_run_that_waits_finds_all_done(stage, tally, tmp_path):
    with tally.case("a run that waits for another one: cases"):
        first = Zombie(stage)
        second = first.awaited(tmp_path)
        assert f"waiting for run {first.run_id}" in second.err
        assert (second.code, second.answer["state"]) == (0, "skipped"), second.err
        assert DeltaTable(stage.job.table).history()[0]["batchscore.run_id"] == first.run_id


def test_a_run_of_other_units_goes_on(stage, tally):
    with tally.case("a run beside another one, on other units: cases"):
        first = Zombie(stage, "--partition", f"ds={text_of(2)}")
        done = stage.job.run("--partition", f"ds={text_of(DAYS + 1)}")
        assert (done.code, done.answer["state"]) == (0, "published"), done.err
        assert first.wake().code == 0
        assert rows_of(stage.job.content()) == stage.new
