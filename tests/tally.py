"""Counts of what long tests try, summed over their processes, for ``tests/torture/report.py``."""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

RESULTS = "BATCHSCORE_TORTURE_RESULTS"  # a file that gets the counts


class Tally:
    """Counts cases by what they show, and how many of them held."""

    def __init__(self) -> None:
        self.tried: dict[str, int] = defaultdict(int)
        self.held: dict[str, int] = defaultdict(int)

    @contextmanager
    def case(self, what: str) -> Iterator[None]:
        self.tried[what] += 1
        yield
        self.held[what] += 1


@pytest.fixture(scope="session")
def tally() -> Iterator[Tally]:
    counts = Tally()
    yield counts
    target = os.environ.get(RESULTS)
    if target:
        add_up(Path(target), counts)


def add_up(path: Path, counts: Tally) -> None:
    """Adds to the counts of other test processes."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = json.loads(file.read() or "{}")
        for what, tried in counts.tried.items():
            before = known.get(what, [0, 0])
            known[what] = [before[0] + counts.held[what], before[1] + tried]
        file.truncate(0)
        file.write(json.dumps(known, indent=1, sort_keys=True))
