"""Random sequences of what people and machines do to a table, against a model of it in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.factories.jobs import Oracle, SmallJob, day_frame, make_job, text_of
from tests.factories.models import save_estimator, train_trees
from tests.torture.scenarios import COMMITTED, IN_DRIVER, orphans

DAYS = 4
BAD = 1e9  # outside of the rule's range
SANE = {"column": "f0", "range": [-1e6, 1e6], "name": "sane"}
MODELS = {"model": "sklearn_tree_regressor", "model2": "sklearn_forest_regressor"}
# Points that a run passes only where a checkpoint is due, or that come before anything is decided.
POINTS = tuple(point for point in IN_DRIVER if not point.startswith("checkpoint."))

days = st.integers(1, DAYS)
places = st.frozensets(st.integers(0, 9), max_size=3)


@dataclass
class Day:
    """What the table holds of one day."""

    stamp: int
    model: str
    rows: dict[int, float]
    missing: set[int]
    runs: list[str] = field(default_factory=list)
    replayed: set[str] = field(default_factory=set)


def make_template(folder: Path) -> dict[str, Oracle]:
    """A job with two models whose engines are proved, and no data."""
    job, first = make_job(folder, 1)
    model, frame, _ = train_trees(MODELS["model2"], "float32")
    save_estimator(folder / "model2", model, frame, model.predict(frame))
    settings = yaml.safe_load(job.settings.read_text())
    settings["quarantine"] = {"rules": [SANE], "max_fraction": 0.9}
    settings["output"]["partition_by"] = ["ds"]
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

    def teardown(self) -> None:
        try:
            if self.table:
                done = self.job.run(str(self.job.table), command="clean")
                assert done.code == 0, done.err
                assert orphans(self.job.table) == []
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
        wanted = self.due(named=True, only=set(range(first, last + 1)))
        done = self.job.run(*self.flags(), "--from", text_of(first), "--to", text_of(last), command="backfill")
        assert done.code == 0, done.err
        self.publish(wanted)
        self.read_runs(wanted)
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
        done = self.job.run(run_id, "--config", str(self.job.settings), command="replay")
        assert done.code == 0, done.err
        added = 0
        for other, unit in self.table.items():
            if run_id not in unit.runs or run_id in unit.replayed or not unit.missing:
                continue
            variant, spoiled, _ = self.inputs[other]
            found = dict(self.oracles[unit.model].rows(other, variant))
            sound = {key for key in unit.missing if key not in spoiled}
            unit.rows |= {key: found[key] for key in sound}
            unit.missing -= sound
            added += len(sound)
            if sound:
                unit.replayed.add(run_id)
                unit.runs.append(done.answer["run_id"])
        assert done.answer["rows"] == added
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
            if (only is None or day in only) and (not same_input or (named and other_model)):
                found.add(day)
        return found

    def ended(self, done, wanted: set[int]) -> None:
        assert done.code == 0, done.err
        assert done.answer["units_published"] == len(wanted), (done.answer, wanted)
        self.publish(wanted)
        for day in wanted:
            self.table[day].runs = [done.answer["run_id"]]
        self.check()

    def publish(self, wanted: set[int]) -> None:
        for day in wanted:
            variant, spoiled, stamp = self.inputs[day]
            rows = {key: score for key, score in self.oracles[self.current].rows(day, variant) if key not in spoiled}
            self.table[day] = Day(stamp, self.current, rows, set(spoiled))

    def read_runs(self, wanted: set[int]) -> None:
        """The table says which run published, where the command could not."""
        content = self.job.content()
        for day in wanted:
            self.table[day].runs = [content[text_of(day)].run_id]

    def check(self) -> None:
        found = {}
        if (self.job.table / "_delta_log").exists():
            found = {day: dict(rows) for day, rows in rows_by_day(self.job).items()}
        assert found == {text_of(day): unit.rows for day, unit in self.table.items()}


def rows_by_day(job: SmallJob) -> dict[str, dict[int, float]]:
    """The rows of each day by key, whichever runs they are of.

    Raises:
        AssertionError: a key is there twice.
    """
    from deltalake import DeltaTable

    rows = DeltaTable(job.table).to_pyarrow_table(columns=["id", "ds", "prediction"])
    found: dict[str, dict[int, float]] = {}
    for key, day, score in zip(*(rows[name].to_pylist() for name in ("id", "ds", "prediction")), strict=True):
        unit = found.setdefault(str(day), {})
        assert key not in unit, f"{key} is there twice"
        unit[key] = score
    return found
