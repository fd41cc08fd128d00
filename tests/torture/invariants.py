"""Random sequences of what people and machines do to a table, against a model of it in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import batchscore
from batchscore import amendments
from batchscore.contracts import RUN_COLUMN, OutputFormat
from batchscore.tables import open_table
from batchscore.tables.pointer import POINTER
from tests.factories.jobs import Oracle, SmallJob, day_frame, make_job, text_of
from tests.factories.models import save_estimator, train_trees
from tests.torture.scenarios import COMMITTED, IN_DRIVER

DAYS = 4
BAD = 1e9  # outside of the rule's range
SANE = {"column": "f0", "range": [-1e6, 1e6], "name": "sane"}
MODELS = {"model": "sklearn_tree_regressor", "model2": "sklearn_forest_regressor"}
# Points that a run passes only where a checkpoint is due, or that come before anything is decided.
POINTS = tuple(point for point in IN_DRIVER if not point.startswith("checkpoint."))

days = st.integers(1, DAYS)
places = st.frozensets(st.integers(0, 9), max_size=3)


Key = tuple[int, str]  # what a day was scored from: the stamp of its input, and the model


@dataclass
class Day:
    """What the table holds of one day."""

    stamp: int
    model: str
    rows: dict[int, float]
    missing: set[int]
    runs: list[str] = field(default_factory=list)
    replayed: set[str] = field(default_factory=set)

    @property
    def key(self) -> Key:
        return self.stamp, self.model


@dataclass
class Commit:
    """What a run published, and the table right after it."""

    run_id: str
    published: Mapping[int, Key]
    table: Mapping[int, Day]


@dataclass
class Withdrawn:
    """What a rollback took back of a day, for as long as the day is as the rollback left it."""

    day: int
    runs: list[str]
    keys: set[Key]


def make_template(folder: Path, output_format: OutputFormat) -> dict[str, Oracle]:
    """A job with two models whose engines are proved, and no data."""
    job, first = make_job(folder, 1)
    model, frame, _ = train_trees(MODELS["model2"], "float32")
    save_estimator(folder / "model2", model, frame, model.predict(frame))
    settings = yaml.safe_load(job.settings.read_text())
    settings["quarantine"] = {"rules": [SANE], "max_fraction": 0.9}
    settings["output"] |= {"partition_by": ["ds"], "format": output_format}
    job.settings.write_text(yaml.safe_dump(settings))
    for name in MODELS:
        done = job.run("--model", str(folder / name), "--output", "predictions/proof")
        assert done.code == 0, done.err
    shutil.rmtree(folder / "predictions")
    shutil.rmtree(job.data)
    return {"model": first, "model2": Oracle(model)}


class TableMachine(RuleBasedStateMachine):
    """The table always equals the model.

    ``template`` and ``oracles`` are set by the test before it runs the machine.
    """

    template: Path
    oracles: dict[str, Oracle]

    def __init__(self) -> None:
        super().__init__()
        self._place = Path(tempfile.mkdtemp(prefix="invariants-"))
        folder = self._place / "job"
        shutil.copytree(self.template, folder)
        self.job = SmallJob(folder)
        self.stamp = 0
        self.current = "model"
        self.inputs: dict[int, tuple[int, frozenset[int], int]] = {}
        self.table: dict[int, Day] = {}
        self.commits: list[Commit] = []
        self.withdrawn: list[Withdrawn] = []

    def teardown(self) -> None:
        try:
            if self.table:
                done = self.job.run(str(self.job.table), command="clean")
                assert done.code == 0, done.err
                assert strays(self.job.table) == []
        finally:
            shutil.rmtree(self._place, ignore_errors=True)

    # --- the input -------------------------------------------------------------------------------------------

    @initialize(spoiled=places)
    def first_day(self, spoiled: frozenset[int]) -> None:
        self.write(1, 0, spoiled)

    @rule(day=days, variant=st.integers(0, 2), spoiled=places)
    def change_a_day(self, day: int, variant: int, spoiled: frozenset[int]) -> None:
        self.write(day, variant, spoiled)

    @rule(day=days)
    @precondition(lambda self: any(spoiled for _, spoiled, _ in self.inputs.values()))
    def mend_a_day(self, day: int) -> None:
        if day in self.inputs:
            self.write(day, self.inputs[day][0], frozenset())

    @rule()
    def promote_the_other_model(self) -> None:
        self.current = "model2" if self.current == "model" else "model"

    def write(self, day: int, variant: int, spoiled: frozenset[int]) -> None:
        frame = day_frame(day, variant)
        values = frame["f0"].to_numpy().copy()
        values[sorted(spoiled)] = BAD
        frame = frame.set_column(frame.schema.names.index("f0"), "f0", pa.array(values.astype(np.float32)))
        path = self.job.data / f"ds={text_of(day)}" / "part.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(frame, path.with_name(".part"))
        self.stamp += 1
        moment = 1_700_000_000 + self.stamp  # a clock that is coarser than the steps must not hide a change
        os.utime(path.with_name(".part"), (moment, moment))
        path.with_name(".part").replace(path)
        self.inputs[day] = (variant, frozenset(day * 1_000 + place for place in spoiled), self.stamp)

    # --- runs ------------------------------------------------------------------------------------------------

    @rule()
    def run(self) -> None:
        wanted = self.due(named=False)
        self.ended(self.job.run(*self.flags()), wanted)

    @rule(day=days)
    def run_a_day(self, day: int) -> None:
        if day in self.inputs:
            wanted = self.due(named=True, only={day})
            self.ended(self.job.run(*self.flags(), "--partition", f"ds={text_of(day)}"), wanted)

    @rule(first=days, last=days)
    def backfill(self, first: int, last: int) -> None:
        if first > last:
            first, last = last, first
        if not any(first <= day <= last for day in self.inputs):
            return  # an error of its own: there is no input
        wanted = self.due(named=True, only=set(range(first, last + 1)))
        done = self.job.run(*self.flags(), "--from", text_of(first), "--to", text_of(last), command="backfill")
        assert done.code == 0, done.err
        for day in sorted(wanted):  # a commit each, oldest first
            self.publish({day})
            self.read_runs({day})
        self.check()

    @rule(point=st.sampled_from(POINTS))
    def kill_a_run(self, point: str) -> None:
        wanted = self.due(named=False)
        done = self.job.run(*self.flags(), fault=f"{point}=kill")
        assert done.code in {0, -9}, done.err
        if done.code == 0 or point in COMMITTED:
            self.publish(wanted)
            self.read_runs(wanted)
        self.check()

    @rule(day=days)
    def replay(self, day: int) -> None:
        held = self.table.get(day)
        if held is None or not held.missing:
            return
        run_id = held.runs[-1]
        trusted = ("--allow-path", str(self.job.folder))  # where the run's own model lies
        done = self.job.run(run_id, "--config", str(self.job.settings), *trusted, command="replay")
        assert done.code == 0, done.err
        added: dict[int, int] = {}
        for other, unit in self.table.items():
            if run_id not in unit.runs or run_id in unit.replayed or not unit.missing:
                continue
            variant, spoiled, _ = self.inputs[other]
            found = dict(self.oracles[unit.model].rows(other, variant))
            sound = {key for key in unit.missing if key not in spoiled}
            unit.rows |= {key: found[key] for key in sound}
            unit.missing -= sound
            if sound:
                added[other] = len(sound)
                unit.replayed.add(run_id)
                unit.runs.append(done.answer["run_id"])
        assert done.answer["rows"] == sum(added.values()), done.answer
        if added:
            self.note(done.answer["run_id"], set(added))
        self.check()

    @rule(pick=st.integers(0, 1_000))
    @precondition(lambda self: self.commits)
    def roll_back(self, pick: int) -> None:
        """Also forward again, to what a rollback took back."""
        place = pick % len(self.commits)
        commit = self.commits[place]
        changed = {day for day in {*self.table, *commit.table} if self.runs(day) != runs_of(commit.table, day)}
        held = {run for day in changed for run in self.runs(day)}
        done = self.job.run("--to", commit.run_id, command="rollback")
        assert done.code == 0, done.err
        assert done.answer["nothing_to_do"] == (not changed), done.answer
        since = [other for index, other in enumerate(self.commits) if index > place or other.run_id in held]
        for day in changed:
            keys = {other.published[day] for other in since if day in other.published}
            self.withdrawn.append(Withdrawn(day, runs_of(commit.table, day), keys))
        if changed:
            self.table = deepcopy(dict(commit.table))
        self.check()

    def flags(self) -> tuple[str, ...]:
        return ("--model", str(self.job.folder / self.current), "--allow-path", str(self.job.folder))

    def due(self, *, named: bool, only: set[int] | None = None) -> set[int]:
        """The days that must be published: new and changed ones, and named ones of another model."""
        found = set()
        for day, (_, _, stamp) in self.inputs.items():
            held = self.table.get(day)
            same_input = held is not None and held.stamp == stamp
            other_model = held is not None and held.model != self.current
            back = (stamp, self.current) in self.taken_back(day)
            if (only is None or day in only) and (not same_input or (named and other_model)) and not back:
                found.add(day)
        return found

    def taken_back(self, day: int) -> set[Key]:
        """What rollbacks took back of a day that is as they left it."""
        return {key for item in self.withdrawn if (item.day, item.runs) == (day, self.runs(day)) for key in item.keys}

    def runs(self, day: int) -> list[str]:
        """The runs whose rows the table holds of a day; none where it holds none."""
        return runs_of(self.table, day)

    def ended(self, done, wanted: set[int]) -> None:
        assert done.code == 0, done.err
        assert done.answer["units_published"] == len(wanted), (done.answer, wanted)
        self.publish(wanted)
        for day in wanted:
            self.table[day].runs = [done.answer["run_id"]]
        if wanted:
            self.note(done.answer["run_id"], wanted)
        self.check()

    def publish(self, wanted: set[int]) -> None:
        for day in wanted:
            variant, spoiled, stamp = self.inputs[day]
            rows = {key: score for key, score in self.oracles[self.current].rows(day, variant) if key not in spoiled}
            self.table[day] = Day(stamp, self.current, rows, set(spoiled))

    def read_runs(self, wanted: set[int]) -> None:
        """The table says which run published, where the command could not."""
        found = batchscore.read_predictions(str(self.job.table), columns=["ds", RUN_COLUMN]).to_pylist()
        for day in wanted:
            (self.table[day].runs,) = [
                [run] for run in {row[RUN_COLUMN] for row in found if str(row["ds"]) == text_of(day)}
            ]
        if wanted:
            ((run_id,),) = {tuple(self.table[day].runs) for day in wanted}
            self.note(run_id, wanted)

    def note(self, run_id: str, days: set[int]) -> None:
        """A commit of the run landed; the model of the table is what it is after it."""
        self.commits.append(Commit(run_id, {day: self.table[day].key for day in days}, deepcopy(self.table)))

    def check(self) -> None:
        found = rows_by_day(self.job) if open_table(str(self.job.table)) else {}
        assert found == {text_of(day): unit.rows for day, unit in self.table.items()}


def runs_of(table: Mapping[int, Day], day: int) -> list[str]:
    return table[day].runs if day in table else []


def strays(table: Path) -> list[str]:
    """Files that no version mentions and that are no record of what was published, rolled back or forgotten."""
    newest = open_table(str(table))
    assert newest is not None
    past = list(newest.past())
    known = {path for version in past for path in (*version.files, version.document)} | {POINTER, "_batchscore/table"}
    known |= {f"_batchscore/manifests/{version.commit.run_id}.json" for version in past}
    known |= {f"{amendments.ROLLBACKS}/{record.rollback_id}.json" for record in amendments.rollbacks(str(table))}
    files = (path.relative_to(table) for path in table.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] != "_delta_log" and str(path) not in known)


def rows_by_day(job: SmallJob) -> dict[str, dict[int, float]]:
    """The rows of each day by key, whichever runs they are of.

    Raises:
        AssertionError: a key is there twice.
    """
    rows = batchscore.read_predictions(str(job.table), columns=["id", "ds", "prediction"])
    found: dict[str, dict[int, float]] = {}
    for key, day, score in zip(*(rows[name].to_pylist() for name in ("id", "ds", "prediction")), strict=True):
        unit = found.setdefault(str(day), {})
        assert key not in unit, f"{key} is there twice"
        unit[key] = score
    return found
