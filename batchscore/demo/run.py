"""The demo: its folder, its settings, and the job run in it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeAlias

from batchscore.config import JobConfig, load
from batchscore.contracts import RunOptions, RunRecord
from batchscore.demo.data import DAYS, SEED, make_data
from batchscore.demo.training import MODEL_NAME, STAGE, train_and_register
from batchscore.errors import SettingsError

OnEvent: TypeAlias = Callable[[Mapping[str, object]], None]

MARKER = Path("demo.json")
DATA = Path("data/transactions")
SETTINGS = Path(f"conf/{MODEL_NAME}.yaml")
MEANING = 1  # to be raised when the same arguments make other data


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo made. Paths are absolute, but for ``table``, which is the run's own word for it."""

    directory: str
    rows: int
    model: str
    table: str
    ledger: str
    record: RunRecord

    def next_steps(self) -> list[str]:
        """Where things are, and commands to try."""
        model = f"--model {MODEL_NAME}/{STAGE}"
        return [
            f"results    {self.directory}/{self.table}  (Delta, one folder a day)",
            f"ledger     {self.directory}/{self.ledger}  (one row a run)",
            f"settings   {self.directory}/{SETTINGS}",
            "",
            "next:",
            f"  cd {self.directory}",
            f"  batchscore plan {model}       what a run would do",
            f"  batchscore run {model}        the same again: scores 0 rows",
            f"  batchscore history {model}    all runs of the table",
            f"  batchscore show {self.record.run_id} {model}",
        ]


@dataclass(frozen=True, slots=True)
class _Recipe:
    rows: int
    days: int
    seed: int
    meaning: int


def run_demo(directory: Path, rows: int, runner: str, on_event: OnEvent) -> DemoOutcome:
    """Makes data, trains and registers the model, and runs the job in ``directory``.

    What is there already is used: a second run with the same rows finds all published, one with other rows
    makes the data anew and scores it.

    Args:
        directory: made when it does not exist.
        rows: transactions, over 14 days.
        runner: ``spark`` or ``local``.
        on_event: receives the progress.

    Raises:
        SettingsError: the folder holds data that the demo did not make.
        BatchscoreError: what the run raises.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # The settings have paths relative to the folder, as for someone who works in it.
    with contextlib.chdir(directory):
        config = _prepare(rows, runner, on_event)
        from batchscore import pipeline  # noqa: PLC0415  # heavy, and not needed to make data

        record = pipeline.run(config, RunOptions(), on_event)
    return DemoOutcome(
        directory=str(directory.resolve()),
        rows=rows,
        model=f"{record.model_name}/{record.model_version}",
        table=config.output.path,
        ledger=f"{config.output.path}__runs",
        record=record,
    )


def _prepare(rows: int, runner: str, on_event: OnEvent) -> JobConfig:
    _write_settings()
    config = load(SETTINGS, {"scoring.runner": runner})
    _make_data_once(_Recipe(rows, DAYS, SEED, MEANING), on_event)
    on_event({"event": "stage", "stage": "model", "text": f"{MODEL_NAME}: as registered here before, or trained now"})
    train_and_register(config.registry.tracking_uri, Path())
    return config


def _write_settings() -> None:
    """Copies the demo's settings; a file that is there is the user's by now and stays."""
    with as_file(files("batchscore.demo") / "conf") as shipped:
        for name in (SETTINGS, Path("conf/expectations") / f"{MODEL_NAME}.json"):
            if not name.exists():
                name.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(shipped / name.relative_to("conf"), name)


def _make_data_once(recipe: _Recipe, on_event: OnEvent) -> None:
    made = json.loads(MARKER.read_text()) if MARKER.exists() else None
    if DATA.exists() and made is None:
        raise SettingsError(
            f"{DATA.resolve()} holds data that the demo did not make",
            hint="choose another folder: batchscore demo --dir DIR",
        )
    if DATA.exists() and made == asdict(recipe):
        return
    on_event({"event": "stage", "stage": "data", "text": f"{recipe.rows:,} transactions over {recipe.days} days"})
    unfinished = DATA.with_name("transactions.unfinished")
    for folder in (unfinished, DATA):
        shutil.rmtree(folder, ignore_errors=True)
    make_data(unfinished, recipe.rows, recipe.days, recipe.seed)
    MARKER.write_text(json.dumps(asdict(recipe)))
    unfinished.rename(DATA)
