"""A disk that is full, or may no longer be written, in the middle of a run: a small tmpfs, where one may be mounted."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import batchscore
from batchscore import pipeline
from batchscore.config import load
from batchscore.contracts import RunOptions
from batchscore.errors import UnavailableError
from tests.e2e.conftest import LONG, ROWS

pytestmark = pytest.mark.e2e
DAY = "2026-11-01"


@dataclass(frozen=True)
class Disk:
    """A file system of a few kilobytes."""

    root: Path

    def mount(self, *options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", self.root], check=True)

    def again(self, *options: str) -> None:
        """Changes size or mode of what is mounted."""
        subprocess.run(["mount", "-o", ",".join(("remount", *options)), self.root], check=True)

    def free(self) -> int:
        facts = os.statvfs(self.root)
        return facts.f_bavail * facts.f_bsize

    def leave(self, free: int) -> None:
        """Fills all but so many bytes."""
        with (self.root / "filler").open("wb") as stream:
            stream.write(b"x" * max(0, self.free() - free))

    def empty(self) -> None:
        (self.root / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "disk")
    made.root.mkdir()
    try:
        made.mount("size=8m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a tmpfs")
    yield made
    subprocess.run(["umount", "--lazy", made.root], check=True)


@pytest.fixture(params=["delta", "parquet"])
def output(request, disk):
    return ("--output", disk.root / request.param, "--set", f"output.format={request.param}")


def rows(output):
    return batchscore.read_predictions(str(output[1])).sort_by("transaction_id")


def staged(output):
    return {path.name for path in Path(output[1]).rglob("*.parquet") if "_delta_log" not in path.parts}


def test_a_full_disk_ends_the_run_and_leaves_the_table(scored, disk, output):
    first = scored.run(*output, "--partition", f"ds={DAY}")
    assert first.returncode == 0, first.stderr
    before, files = rows(output), staged(output)
    # Full from the start, while staging, and around manifest and commit.
    for free in (0, 12_000, 60_000, 120_000):
        disk.leave(free)
        done = scored.run(*output)
        disk.empty()
        assert done.returncode in ({7} if free < 60_000 else {0, 7}), done.stdout + done.stderr
        if done.returncode == 0:
            break
        assert "No space left" in done.stdout
        assert rows(output).equals(before)
        assert staged(output) == files
    done = scored.run(*output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows(output)) == ROWS


@pytest.mark.parametrize(
    ("output", "stage"),
    [
        ("delta", "score"),
        ("parquet", "validate"),
        ("delta", "publish"),
        pytest.param("parquet", "score", marks=LONG),
        pytest.param("delta", "validate", marks=LONG),
        pytest.param("parquet", "publish", marks=LONG),
    ],
    indirect=["output"],
)
def test_a_disk_that_may_no_longer_be_written_leaves_the_table(scored, disk, output, stage, monkeypatch):
    monkeypatch.chdir(scored.folder)
    given = {"output.path": str(output[1]), "output.format": output[3].partition("=")[2], "scoring.runner": "local"}
    config = load(scored.settings, given)
    pipeline.run(config, RunOptions())
    before, files = rows(output), staged(output)

    def on_event(event):
        if event.get("stage") == stage:
            disk.again("ro")

    with pytest.raises(UnavailableError, match=r"(?i)read-only file system|could not be committed"):
        pipeline.run(config, RunOptions(force=True), on_event)
    assert rows(output).equals(before)
    disk.again("rw")
    pipeline.run(config, RunOptions(force=True))
    after = rows(output)
    assert len(after) == ROWS
    assert set(after["_run_id"].to_pylist()).isdisjoint(before["_run_id"].to_pylist())
    assert files < staged(output)
