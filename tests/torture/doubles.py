"""Runs that meet: rounds of a game of chance, and zombies."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pyarrow as pa
from deltalake import DeltaTable

from tests.factories.jobs import Content, Ended, Oracle, Rows, SmallJob, content_of, ended, rows_of, text_of
from tests.torture import scenarios
from tests.torture.scenarios import DAYS, Reader, Stage, days_published, is_stopped, pids_at, resumed, wait_for

PAUSES = ("plan.made", "heartbeat.written", "score.end", "manifest.end", "commit.looked", "commit.written")
MOST_SECONDS = 0.6
ENDS = {0, 6, 7}


@dataclass
class Game:
    """Rounds: some days get other values, and two to four processes score the same or overlapping days at a time."""

    job: SmallJob
    oracle: Oracle
    random: Random
    variants: dict[int, int]
    known: dict[tuple[str, Rows], None] = field(default_factory=dict)
    seen: dict[tuple[str, str], Rows] = field(default_factory=dict)
    since: int = 0
    changed: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, stage: Stage, random: Random) -> Game:
        days = range(1, DAYS + 2)
        game = cls(stage.job, stage.oracle, random, {day: int(day == scenarios.CHANGED) for day in days})
        for day, variant in game.variants.items():
            game._learn(day, variant)
            game._learn(day, 0)
        assert game.job.run().code == 0
        return game

    def blind(self) -> None:
        """No heartbeat can be written: its folder is a file."""
        shutil.rmtree(self.job.heartbeats, ignore_errors=True)
        self.job.heartbeats.touch()

    def see(self) -> None:
        self.job.heartbeats.unlink()

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        with scenarios.reading(self.job, self.judge) as reader:
            yield reader

    def judge(self, content: Content) -> None:
        """Each day holds all rows of one version of its input, and what a run published of it never changes."""
        for day, unit in content.items():
            assert (day, unit.rows) in self.known, f"{day} by run {unit.run_id} mixes two contents"
            assert self.seen.setdefault((day, unit.run_id), unit.rows) == unit.rows

    def judge_rows(self, table: pa.Table) -> None:
        self.judge(content_of(table))

    def round(self) -> None:
        self.finish(self.begin())

    def begin(self) -> list[subprocess.Popen[str]]:
        """Changes some days, and starts the runs."""
        self.since = DeltaTable(self.job.table).version()
        days = sorted(self.variants)
        self.changed = set(self.random.sample(days, self.random.randint(1, len(days))))
        for day in self.changed:
            self.variants[day] += 1
            self._learn(day, self.variants[day])
            self.job.change(day, self.variants[day])
        processes = []
        for _ in range(self.random.randint(2, 4)):
            processes.append(self.job.start(*self._arguments(days), fault=self._pause()))
            time.sleep(self.random.random() * MOST_SECONDS)
        return processes

    def finish(self, processes: list[subprocess.Popen[str]]) -> None:
        """Waits for the runs, runs once more, and looks at what was published."""
        ends = [ended(process) for process in processes]
        for end in ends:
            assert end.code in ENDS, end.err
            if end.code:
                assert "run 2" in end.answer["problem"] + str(end.answer["found"]), end.out  # it says who
        last = self.job.run()
        assert last.code == 0, last.err
        want = {text_of(day): self.oracle.rows(day, variant) for day, variant in self.variants.items()}
        assert rows_of(self.job.content()) == want
        assert sorted(days_published(self.job.table, self.since)) == sorted(text_of(day) for day in self.changed)

    def _arguments(self, days: list[int]) -> list[str]:
        chosen = self.random.sample(days, self.random.randint(1, len(days)))
        arguments = [part for day in chosen for part in ("--partition", f"ds={text_of(day)}")]
        asked = self.random.choice(["", "", "", "--wait", "--take-over"])
        return [*(arguments if self.random.random() < 0.7 else ()), *([asked] if asked else ())]

    def _pause(self) -> str:
        points = self.random.sample(PAUSES, 2)
        return ";".join(f"{point}=sleep:{self.random.random() * MOST_SECONDS:.2f}" for point in points)

    def _learn(self, day: int, variant: int) -> None:
        self.known[text_of(day), self.oracle.rows(day, variant)] = None


class Zombie:
    """A run that was stopped when all was scored and judged."""

    def __init__(self, stage: Stage, *arguments: object) -> None:
        self.stage = stage
        self.since = DeltaTable(stage.job.table).version()
        self.process = stage.job.start(*arguments, fault="validate.end=stop")
        wait_for(lambda: is_stopped(self.process.pid))
        (self.path,) = stage.job.heartbeats.glob("*.json")
        self.run_id = self.path.stem

    def awaited(self, folder: Path) -> Ended:
        """A second run waits for this one, which then goes on; how the second one ended."""
        log = folder / "reached"
        second = self.stage.job.start("--wait-minutes", "2", fault=f"plan.made=log:{log}")
        wait_for(lambda: bool(pids_at(log, "plan.made")))
        time.sleep(1.0)
        assert second.poll() is None
        woken = self.wake()
        assert (woken.code, woken.answer["state"]) == (0, "published"), woken.err
        return ended(second)

    def move_to(self, host: str) -> None:
        """Makes the heartbeat that of another machine whose clock is an hour ahead."""
        facts = json.loads(self.path.read_text())
        facts["process"]["host"] = host
        facts["started_at"] = "2199-01-01T00:00:00.000Z"
        self.path.write_text(json.dumps(facts))

    def wake(self) -> Ended:
        return resumed(self.process)

    def check_published_once(self) -> None:
        published = days_published(self.stage.job.table, self.since)
        assert sorted(published) == [text_of(scenarios.CHANGED), text_of(scenarios.ADDED)]
