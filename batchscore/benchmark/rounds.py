"""Alternating rounds of the candidates of one case, and what they come to."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pd
from deltalake import DeltaTable

import batchscore
from batchscore.benchmark import candidates
from batchscore.benchmark.cases import Case
from batchscore.benchmark.job import PEERS, Job, prepare, write_document
from batchscore.benchmark.process import Outcome, inherited, timed
from batchscore.errors import BatchscoreError, bounded

LIMIT_SECONDS = 3_600
OnEvent = Callable[[Mapping[str, object]], None]


@dataclass
class Tally:
    """What a candidate's rounds came to; a candidate that failed says why and has no times."""

    seconds: list[float] = field(default_factory=list)
    session_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    worker_peak_bytes: list[int] = field(default_factory=list)
    stage_seconds: list[Mapping[str, float]] = field(default_factory=list)
    largest_difference: float | None = None
    settings: Mapping[str, Any] | None = None
    failure: str = ""

    def add(self, outcome: Outcome) -> None:
        """Counts a round."""
        self.seconds.append(round(outcome.seconds, 3))
        self.session_seconds.append(round(outcome.session_seconds, 3))
        self.peak_bytes.append(outcome.peak_bytes)
        if "peak_worker_bytes" in outcome.answer:  # what batchscore itself says, of its largest worker
            self.stage_seconds.append(outcome.stage_seconds)
            self.worker_peak_bytes.append(int(outcome.answer["peak_worker_bytes"]))


@dataclass(frozen=True, slots=True)
class Rules:
    """How candidates are compared.

    Attributes:
        rounds: rounds that count.
        peers_python: interpreter that has the peers' frameworks; None: this one.
        suite: whether batchscore runs a Great Expectations suite beside its own checks.
    """

    rounds: int = 5
    peers_python: str | None = None
    suite: bool = True


def compare(case: Case, folder: Path, names: Sequence[str], rules: Rules, on_event: OnEvent) -> dict[str, Any]:
    """Runs the candidates in turn, ``rules.rounds`` times.

    Before that batchscore's own run once: they prove and measure its engines, and bring the table into the disk
    cache. What a candidate scores in its first run is compared, row by row, with the first candidate's scores.

    Args:
        case: what to score.
        folder: keeps tables, models and certificates.
        names: the candidates, in the order in which they alternate.
        rules: how often, and with what.
        on_event: is told how far it is.

    Returns:
        A document with the case, the machine and, for each candidate, times, memory and differences.
    """
    folder = folder.resolve()
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # also for what is converted in this process
    on_event({"event": "stage", "stage": "prepare", "text": f"{case.name}: {case.rows:,} rows"})
    job = prepare(case, folder, suite=rules.suite)
    course = _Course(job, names, rules.peers_python, on_event)
    for round_ in range(rules.rounds + 1):
        course.round(round_)
    return {
        "case": asdict(case),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "rounds": rules.rounds,
        "suite": rules.suite,
        "cores": course.cores,
        "engine": course.engine,
        "candidates": {name: _summary(tally, case.rows) for name, tally in course.tallies.items()},
    }


class _Course:
    def __init__(self, job: Job, names: Sequence[str], peers_python: str | None, on_event: OnEvent) -> None:
        self._job = job
        self._peers_python = peers_python
        self._on_event = on_event
        self._reference: _Scores | None = None
        self.cores = len(os.sched_getaffinity(0))
        self.engine: str | None = None
        self.tallies = {name: Tally() for name in names}
        for name, module in candidates.missing(names, peers_python).items():
            self.tallies[name].failure = f"the package {module} is not installed"
        write_document(job, cores=self.cores, engine=None, peers_python=peers_python or sys.executable)

    def round(self, number: int) -> None:
        for name, tally in self.tallies.items():
            if tally.failure or not (number or _is_own(name)):
                continue
            try:
                outcome = self._run(name)
                if number:
                    tally.add(outcome)
                if tally.settings is None:
                    self._look_at(name, tally, outcome)
            except BatchscoreError as error:
                tally.failure = bounded(error.text(), 2_000)
                self._on_event({"event": "notice", "text": f"{name}: {tally.failure}"})
                continue
            text = f"{name}: {outcome.seconds:.1f} s and {outcome.session_seconds:.1f} s of its framework's start"
            self._on_event({"event": "stage", "stage": f"round {number}", "text": text})

    def _run(self, name: str) -> Outcome:
        output = self._job.output(name)
        # A first run: batchscore would find its output published already.
        for path in (output, output.with_name(f"{name}__runs")):
            shutil.rmtree(path, ignore_errors=True)
        document = json.loads(self._job.document.read_text(encoding="utf-8"))
        candidates.document(self._job, name).write_text(json.dumps({**document, "output": str(output)}))
        command = candidates.command(name, self._job, sys.executable, self._peers_python)
        return timed(command, self._job.folder, _environment(name), LIMIT_SECONDS)

    def _look_at(self, name: str, tally: Tally, outcome: Outcome) -> None:
        """A first run: whose scores these are, and which engine batchscore took."""
        tally.settings = outcome.answer.get("settings") or {}
        if name.startswith("batchscore"):
            tally.settings = {"engine": outcome.answer["engine"], "runner": outcome.answer["runner"]}
            if self.engine is None:
                self.engine = str(outcome.answer["engine"])
                python = self._peers_python or sys.executable
                write_document(self._job, cores=self.cores, engine=self.engine, peers_python=python)
        if name == "floor":
            return
        scores = _Scores.of(self._job.output(name), self._job.key)
        self._reference = self._reference or scores
        tally.largest_difference = scores.difference(self._reference)


def _is_own(name: str) -> bool:
    return name.startswith("batchscore") or name in ("limit", "floor")


def _environment(name: str) -> dict[str, str]:
    """A candidate's environment: batchscore's own find batchscore, the peers' workers find the peers' scripts."""
    own = _is_own(name)
    place = str(Path(batchscore.__file__).parents[1] if own else PEERS)
    found = os.environ.get("PYTHONPATH", "") if own else ""
    path = os.pathsep.join(filter(None, (place, found)))
    # MLflow calls uv by its name; it lies beside the interpreter.
    commands = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {**inherited(), "PYTHONPATH": path, "PATH": commands, "PYSPARK_PYTHON": sys.executable}


@dataclass(frozen=True)
class _Scores:
    """Scores in the order of their keys."""

    keys: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]

    @classmethod
    def of(cls, output: Path, key: str) -> _Scores:
        if DeltaTable.is_deltatable(str(output)):
            table = DeltaTable(output).to_pyarrow_table(columns=[key, "prediction"])
        else:
            table = pd.dataset(output).to_table(columns=[key, "prediction"])
        keys = table.column(key).to_numpy()
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], table.column("prediction").to_numpy().astype(np.float64)[order])

    def difference(self, other: _Scores) -> float:
        """The largest difference of a score.

        Raises:
            BatchscoreError: other rows were scored.
        """
        if not np.array_equal(self.keys, other.keys):
            raise BatchscoreError("the candidates scored different rows", found=f"{len(self.keys):,} rows")
        return float(np.max(np.abs(self.values - other.values))) if len(self.keys) else 0.0


def _summary(tally: Tally, rows: int) -> dict[str, Any]:
    if tally.failure or not tally.seconds:
        return {"failure": tally.failure}
    median = statistics.median(tally.seconds)
    totals = [work + session for work, session in zip(tally.seconds, tally.session_seconds, strict=True)]
    return {
        "seconds": tally.seconds,
        "session_seconds": tally.session_seconds,
        "median_seconds": round(median, 3),
        "median_seconds_with_session": round(statistics.median(totals), 3),
        "rows_per_second": round(rows / median),
        "peak_bytes": max(tally.peak_bytes),
        "worker_peak_bytes": max(tally.worker_peak_bytes, default=None),
        "median_stage_seconds": _medians(tally.stage_seconds),
        "largest_difference": tally.largest_difference,
        "settings": tally.settings,
    }


def _medians(stages: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Of each stage; None of a candidate that tells of none."""
    names = dict.fromkeys(name for seconds in stages for name in seconds)
    found = {name: statistics.median(seconds.get(name, 0.0) for seconds in stages) for name in names}
    return {name: round(seconds, 3) for name, seconds in found.items()} or None
