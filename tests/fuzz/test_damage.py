"""Damaged files of every kind: a bounded message, a right exit code, no hang, and never another table.

The short form is part of the ordinary tests; ``make torture`` runs the long one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from batchscore import pipeline, publish, score
from batchscore.config import load
from batchscore.contracts import RunOptions
from batchscore.errors import BatchscoreError, FencedOutError
from tests.conftest import ROOT
from tests.fuzz.arena import LIMIT_SECONDS, MOST_CHARS, Answer, called, check_answer, time_limit
from tests.fuzz.conftest import FIXTURES, number_of
from tests.fuzz.damage import damaged

SHORT, LONG = 25, 400
CASES = pytest.mark.parametrize("cases", [SHORT, pytest.param(LONG, marks=pytest.mark.torture)])
PLAN = ("plan", "--config", "job.yaml")
PARQUET = ("--input", "parquet", "--output", "out_parquet")
FIRST_RUN = json.loads((max(FIXTURES.glob("format_*"), key=number_of) / "facts.json").read_text())["runs"][0]
LOOKING_BACK = [
    ("rollback", "out", "--to", FIRST_RUN, "--dry-run"),
    ("retain", "out", "--dry-run"),
    ("forget", "out", "--key", "id=1", "--dry-run"),
]
# What is damaged, and the commands that read it.
KINDS = {
    "the log of the Delta input": ("in/_delta_log/*", [PLAN, ("check", "--config", "job.yaml")]),
    "the log of the table": ("out/_delta_log/*", [PLAN, ("history", "--table", "out"), *LOOKING_BACK]),
    "manifests": ("out/_batchscore/manifests/*", [PLAN, ("show", "2", "--table", "out", "--json")]),
    "the ledger": ("out__runs/**/*", [("history", "--table", "out"), ("show", "2", "--table", "out"), PLAN]),
    "the model's folder": ("model/*", [PLAN, ("check", "--config", "job.yaml", "--json")]),
    "footers of Parquet": ("parquet/*/*", [(*PLAN, *PARQUET), ("check", "--config", "job.yaml", *PARQUET)]),
}


def files_of(arena, pattern):
    return sorted(path for path in arena.folder.glob(pattern) if path.is_file())


@CASES
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(arena, tally, kind, cases):
    pattern, commands = KINDS[kind]
    files = files_of(arena, pattern)
    before = arena.published()
    refused = 0
    for seed in range(cases):
        path = files[seed % len(files)]
        content = damaged(path.read_bytes(), seed, name=path.name)
        with tally.case(f"damaged: {kind}"), arena.with_content(path, content):
            for command in commands:
                answer = called(*command)
                check_answer(answer, (path, seed, command))
                refused += answer.code != 0
        files = files_of(arena, pattern) if kind == "the ledger" else files  # reading mends it: it may be made anew
    assert arena.published() == before
    assert refused or kind in {"manifests", "the ledger"}, "these mend themselves; of the others no damage was noticed"


@CASES
def test_damaged_pages_of_parquet(arena, tally, cases):
    """The worker, in this process: it stages rows or ends with an error that names the file."""
    files = files_of(arena, "parquet/*/*")
    for seed in range(cases):
        path = files[seed % len(files)]
        content = damaged(path.read_bytes(), seed)
        with tally.case("damaged: pages of Parquet"), arena.with_content(path, content), time_limit():
            scored(seed, path.name)


def scored(seed: int, name: str) -> None:
    settings = {"input.path": "parquet", "output.path": "out_parquet", "output.carry": ["*"]}
    try:
        plan = pipeline.plan(load("job.yaml", settings), RunOptions())
        publish.prepare(plan.target.uri)
        results = [score.run_splits_task(plan.task, group) for group in plan.tasks]
    except BatchscoreError as error:
        check_error(error, seed, name)
        return
    assert sum(result.rows_read for result in results) == plan.expected_rows, f"seed {seed}"
    publish.discard_run(plan.target.uri, plan.run_id)


def check_error(error: BatchscoreError, seed: int, name: str) -> None:
    assert error.exit_code not in {BatchscoreError.exit_code, FencedOutError.exit_code}, f"{seed}: {error!r}"
    assert len(error.text()) <= MOST_CHARS
    assert name in error.text(), f"{seed}: {error!r}"


@pytest.mark.parametrize("cases", [1, pytest.param(24, marks=pytest.mark.torture)])
def test_whole_runs_in_processes_of_their_own(arena, tally, cases):
    """A sample of all kinds, as a user would meet them."""
    before = arena.published()
    kinds = [*KINDS.values(), ("parquet/*/*", [])]
    for seed in range(cases):
        pattern, _ = kinds[seed % len(kinds)]
        path = files_of(arena, pattern)[0]
        given = PARQUET if pattern.startswith("parquet") else ()
        command = [sys.executable, "-m", "batchscore", "run", "--config", "job.yaml", *given]
        content = damaged(path.read_bytes(), seed + 7_000, name=path.name)
        with tally.case("damaged: whole runs in processes of their own"), arena.with_content(path, content):
            done = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=6 * LIMIT_SECONDS,
                check=False,
            )
            check_answer(Answer(done.returncode, done.stdout, done.stderr), (path, seed))
        if done.returncode:
            assert arena.published() == before
        before = arena.published()
