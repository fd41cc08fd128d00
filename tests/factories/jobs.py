"""A small job whose run takes two seconds: a tiny model, a few days of a few rows, the compiled engine, no registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from deltalake import DeltaTable

from batchscore import faults
from tests.factories.models import TREE_COLUMNS, save_estimator, train_trees

ROOT = Path(__file__).resolve().parents[2]
ROWS = 40
SECONDS = 180
Rows = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class UnitContent:
    """What readers see of one day: the one run that published it, and its rows by key."""

    run_id: str
    rows: Rows


Content = Mapping[str, UnitContent]
_started: list[subprocess.Popen[str]] = []


def end_started() -> None:
    """Ends what a failed test has left running or stopped."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class SmallJob:
    """A folder with data, a model and settings, and the command run in it."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def table(self) -> Path:
        return self.folder / "predictions" / "scores"

    @property
    def settings(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def heartbeats(self) -> Path:
        return self.table / "_batchscore" / "runs"

    def start(self, *arguments: object, fault: str = "", command: str = "run") -> subprocess.Popen[str]:
        """Starts a command; ``fault`` arms the fault points, of its workers as well."""
        given = [] if command == "clean" else ["--config", str(self.settings)]
        process = subprocess.Popen(
            [sys.executable, "-m", "batchscore", command, *given, "--json", *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), faults.VARIABLE: fault},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _started.append(process)
        return process

    def run(self, *arguments: object, fault: str = "", command: str = "run") -> Ended:
        return ended(self.start(*arguments, fault=fault, command=command))

    def change(self, day: int, variant: int) -> None:
        """Gives one day other values; the keys stay."""
        path = self.data / f"ds={text_of(day)}" / "part.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(".part")
        pq.write_table(day_frame(day, variant), temporary)
        temporary.replace(path)

    def content(self) -> Content:
        """What a reader sees now, read with delta-rs as a whole.

        Raises:
            AssertionError: a key is there twice, or a day mixes runs.
        """
        return content_of(DeltaTable(self.table).to_pyarrow_table(columns=["id", "ds", "prediction", "_run_id"]))


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        return json.loads(self.out)


def ended(process: subprocess.Popen[str], seconds: float = SECONDS) -> Ended:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def text_of(day: int) -> str:
    return f"2026-01-{day:02d}"


def content_of(table: pa.Table) -> Content:
    assert pc.count_distinct(table["id"]).as_py() == len(table), "a key is there twice"
    found: dict[str, UnitContent] = {}
    days = table["ds"].cast(pa.string())
    for day in pc.unique(days).to_pylist():
        part = table.filter(pc.equal(days, day)).sort_by("id")
        (run,) = pc.unique(part["_run_id"]).to_pylist() or [""]  # two runs in one day: ValueError
        found[day] = UnitContent(run, tuple(zip(part["id"].to_pylist(), part["prediction"].to_pylist(), strict=True)))
    return found


def rows_of(content: Content) -> dict[str, Rows]:
    return {day: unit.rows for day, unit in content.items()}


def day_frame(day: int, variant: int) -> pa.Table:
    random = np.random.default_rng([day, variant])
    values = random.normal(size=(ROWS, TREE_COLUMNS)).astype(np.float32)
    columns = {f"f{index}": values[:, index] for index in range(TREE_COLUMNS)}
    return pa.table({"id": pa.array(range(day * 1_000, day * 1_000 + ROWS), pa.int64()), **columns})


class Oracle:
    """The rows that a day must have, by the model's own library."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def rows(self, day: int, variant: int) -> Rows:
        frame = day_frame(day, variant)
        scores = self._model.predict(frame.drop_columns(["id"]).to_pandas())
        return tuple(zip(frame["id"].to_pylist(), (float(score) for score in scores), strict=True))


def make_job(folder: Path, days: int = 3) -> tuple[SmallJob, Oracle]:
    """A job with ``days`` days of variant 0, unscored; its first run proves the engine, later ones know it."""
    model, frame, _ = train_trees("sklearn_tree_regressor", "float32")
    save_estimator(folder / "model", model, frame, model.predict(frame))
    job = SmallJob(folder)
    for day in range(1, days + 1):
        job.change(day, 0)
    settings = {
        "model": {"name": str(folder / "model")},
        "input": {"path": "data"},
        "output": {"path": "predictions/scores", "keys": ["id"]},
        "scoring": {"runner": "local", "engine": "compiled"},
        "registry": {"allowed_paths": [str(folder)]},
    }
    job.settings.write_text(yaml.safe_dump(settings))
    return job, Oracle(model)
