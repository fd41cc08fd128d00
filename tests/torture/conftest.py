"""Torture: long, and run by ``make torture``; the end-to-end tests hold a short form."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.factories.jobs import end_started
from tests.torture.scenarios import Stage, make_stage

RESULTS = "BATCHSCORE_TORTURE_RESULTS"  # a file that gets the counts, for tests/torture/report.py
ROUNDS = "BATCHSCORE_TORTURE_ROUNDS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.torture)


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
        path = Path(target)
        known = json.loads(path.read_text()) if path.exists() else {}
        known |= {what: [counts.held[what], tried] for what, tried in counts.tried.items()}
        path.write_text(json.dumps(known, indent=1))


@pytest.fixture(scope="session")
def rounds() -> int:
    """Rounds of each game of chance."""
    return int(os.environ.get(ROUNDS, "100"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A published table whose input has changed since; not to be touched."""
    return make_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def stage(prepared: Stage, tmp_path: Path) -> Iterator[Stage]:
    yield prepared.copy(tmp_path / "job")
    end_started()
