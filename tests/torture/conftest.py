"""Torture: long, and run by ``make torture``; the end-to-end tests hold a short form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.jobs import end_started
from tests.tally import tally  # noqa: F401  # a fixture
from tests.torture.scenarios import Stage, make_stage

ROUNDS = "BATCHSCORE_TORTURE_ROUNDS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.torture)


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
