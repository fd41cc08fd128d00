"""What the torture tests do to a run, and what must hold afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deltalake import DeltaTable

from batchscore import faults, manifests, record
from batchscore.clean import Cleaning, clean
from batchscore.contracts import RUN_KEY
from tests.factories.delta import set_properties
from tests.factories.jobs import Content, Ended, Oracle, Rows, SmallJob, ended, make_job, rows_of, text_of

DAYS = 3
CHANGED, ADDED = 2, DAYS + 1
# After these points the version is in the log: readers see the new table.
COMMITTED = (
    "commit.written", "commit.read_back", "checkpoint.begin", "checkpoint.end", "commit.end", "ledger.begin",
    "ledger.end", "heartbeat.removed",
)  # fmt: skip
IN_WORKERS = tuple(point for point in faults.POINTS if point.startswith("worker."))
IN_CLEANING = tuple(point for point in faults.POINTS if point.startswith("clean."))
IN_DISCARDING = tuple(point for point in faults.POINTS if point.startswith("discard."))
IN_DRIVER = tuple(point for point in faults.POINTS if point not in (*IN_WORKERS, *IN_CLEANING, *IN_DISCARDING))


@dataclass(frozen=True)
class Stage:
    """A job with a published table whose input has changed since: one day is other, one is new."""

    job: SmallJob
    old: Content
    new: dict[str, Rows]
    oracle: Oracle

    def copy(self, folder: Path) -> Stage:
        """The same in another place, to be spoiled."""
        shutil.copytree(self.job.folder, folder)
        return Stage(SmallJob(folder), self.old, self.new, self.oracle)

    def check_readers(self) -> str:
        """Readers see exactly the old table or exactly the new one.

        Returns:
            ``old`` or ``new``.
        """
        return self.judged(self.job.content())

    def judged(self, content: Content) -> str:
        if content == self.old:
            return "old"
        rows = rows_of(content)
        assert rows == self.new, "readers see neither the old table nor the new one"
        kept = {day: unit for day, unit in content.items() if unit == self.old.get(day)}
        assert set(kept) == set(self.old) - {text_of(CHANGED)}, "a day that did not change was published again"
        assert len({content[text_of(CHANGED)].run_id, content[text_of(ADDED)].run_id}) == 1, "a mix of two runs"
        return "new"


def make_stage(folder: Path) -> Stage:
    job, oracle = make_job(folder, DAYS)
    first = job.run()
    assert first.code == 0, first.err
    set_properties(job.table, delta__checkpointInterval="1")
    old = job.content()
    job.change(CHANGED, 1)
    job.change(ADDED, 0)
    new = {text_of(day): oracle.rows(day, int(day == CHANGED)) for day in range(1, ADDED + 1)}
    assert {day: rows for day, rows in new.items() if day in old and day != text_of(CHANGED)} == {
        day: rows for day, rows in rows_of(old).items() if day != text_of(CHANGED)
    }
    return Stage(job, old, new, oracle)


def check_recovery(stage: Stage) -> Cleaning:
    """The re-run publishes what is not there, ``clean`` leaves no orphan, and the books are right."""
    again = stage.job.run()
    assert again.code == 0, again.err
    assert stage.check_readers() == "new"
    cleaned = clean(str(stage.job.table))
    assert not cleaned.kept, cleaned.kept
    assert stage.check_readers() == "new"
    assert orphans(stage.job.table) == []
    check_books(stage.job)
    version = DeltaTable(stage.job.table).version()
    idle = stage.job.run()
    assert (idle.code, idle.answer["state"], idle.answer["rows_read"]) == (0, "skipped", 0), idle.err
    assert DeltaTable(stage.job.table).version() == version
    return cleaned


def orphans(table: Path) -> list[str]:
    """Files that no retained version mentions and that are no record of a published run."""
    log = "\n".join(path.read_text() for path in (table / "_delta_log").glob("*.json"))
    published = {entry.get(RUN_KEY) for entry in DeltaTable(table).history()}
    allowed = {f"_batchscore/manifests/{run}.json" for run in published} | {"_batchscore/table"}
    files = [path.relative_to(table) for path in table.rglob("*") if path.is_file()]
    return sorted(
        str(path)
        for path in files
        if path.parts[0] != "_delta_log" and str(path) not in allowed and path.name not in log
    )


def check_books(job: SmallJob) -> None:
    """Ledger, manifests and table agree on every published run, to the row."""
    seen = job.content()
    rows_by_run: dict[str, int] = {}
    for unit in seen.values():
        rows_by_run[unit.run_id] = rows_by_run.get(unit.run_id, 0) + len(unit.rows)
    records = {entry.run_id: entry for entry in record.history(str(job.table), limit=10**6)}
    for run_id in rows_by_run:
        manifest, entry = manifests.read(str(job.table), run_id), records[run_id]
        assert manifest is not None
        assert entry.state == "published"
        assert manifest.rows_read == manifest.rows_staged == sum(unit.rows for unit in manifest.units)
        assert entry.rows == committed_rows(job.table, run_id)  # less than staged where another run came first
        for unit in manifest.units:
            ((_, day),) = unit.values
            assert day is not None
            if seen[day].run_id == run_id:
                assert unit.rows == len(seen[day].rows)


def committed_rows(table: Path, run_id: str) -> int:
    """The rows that a run's own commit added."""
    for path in (table / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        if any(action.get("commitInfo", {}).get(RUN_KEY) == run_id for action in actions):
            return sum(json.loads(action["add"]["stats"])["numRecords"] for action in actions if "add" in action)
    raise AssertionError(f"no commit names run {run_id}")


def kill_at(stage: Stage, point: str, *arguments: object) -> Ended:
    """Runs the job until it kills itself at a point."""
    armed = f"{point}=kill"
    if point in IN_DISCARDING:
        armed += ";validate.end=raise"  # only a run that fails discards what it staged
    if point in IN_CLEANING:
        left = stage.job.run(*arguments, fault="manifest.end=kill")
        assert left.code == -signal.SIGKILL, left.err
    return stage.job.run(*arguments, fault=armed)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("waited in vain")
        time.sleep(0.02)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def pids_at(log: Path, point: str) -> list[int]:
    """Processes that reached a point, by the file of the action ``log``."""
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [int(pid) for name, pid in lines if name == point]


def resumed(process: object) -> Ended:
    os.kill(process.pid, signal.SIGCONT)  # type: ignore[attr-defined]
    return ended(process)  # type: ignore[arg-type]


@dataclass
class Reader:
    """Reads the whole table again and again; what it saw of a day published by a run must never differ."""

    job: SmallJob
    judge: Callable[[Content], object]
    reads: int = 0
    problems: list[str] = field(default_factory=list)

    def read(self) -> None:
        try:
            self.judge(self.job.content())
        except Exception as error:  # noqa: BLE001  # whatever a reader meets is a finding
            self.problems.append(f"{type(error).__name__}: {error}")
        self.reads += 1


@contextmanager
def reading(job: SmallJob, judge: Callable[[Content], object]) -> Iterator[Reader]:
    """A reader that polls all the time; what it found wrong fails the test at the end."""
    reader, done = Reader(job, judge), threading.Event()

    def poll() -> None:
        while not done.is_set():
            reader.read()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        done.set()
        thread.join(30)
    assert reader.problems == []
    assert reader.reads


def days_published(table: Path, since: int) -> list[str]:
    """Each day as often as a commit after version ``since`` added files to it."""
    found: list[str] = []
    for version in range(since + 1, DeltaTable(table).version() + 1):
        text = (table / "_delta_log" / f"{version:020d}.json").read_text()
        adds = [json.loads(line).get("add") for line in text.splitlines()]
        found.extend(sorted({add["partitionValues"]["ds"] for add in adds if add}))
    return found
