"""One case made ready for every candidate: table, model, settings, and what the peers need of them."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from batchscore.benchmark.cases import KEY, PARTITION, Case
from batchscore.benchmark.data import features, make_table
from batchscore.benchmark.training import register
from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.demo.training import LABELS, NUMBERS

PEERS = Path(__file__).parent / "peers"
COMPILE_SECONDS = 600
OWN_ONNX = "onnx"

# What the headline's "validation on" means, beside the built-in checks (rows, unique keys, finite scores).
EXPECTATIONS = (
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "prediction"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "prediction", "min_value": 0, "max_value": 1}},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "prediction", "min_value": 0, "max_value": 1}},
    {"type": "expect_column_min_to_be_between", "kwargs": {"column": "prediction", "min_value": 0}},
)


@dataclass(frozen=True, slots=True)
class Job:
    """Where a prepared case lies.

    Attributes:
        case: the case.
        folder: holds ``job.json`` for the peers, ``job.yaml`` for batchscore, and the outputs.
        model: folder of the model's files.
        table: the table to score.
        tracking_uri: the registry.
        suite: whether the user's suite is run beside the built-in checks.
    """

    case: Case
    folder: Path
    model: Path
    table: Path
    tracking_uri: str
    suite: bool = True

    @property
    def document(self) -> Path:
        """What the peers read."""
        return self.folder / "job.json"

    @property
    def settings(self) -> Path:
        """What batchscore reads."""
        return self.folder / "job.yaml"

    @property
    def key(self) -> str:
        """The column that identifies a row."""
        return "transaction_id" if self.case.model == "pipeline" else KEY

    @property
    def partition_by(self) -> list[str]:
        """The output's partition columns."""
        if not self.case.days:
            return []
        return ["ds" if self.case.model == "pipeline" else PARTITION]

    @property
    def features(self) -> list[str]:
        """The model's columns, in its order."""
        return [*NUMBERS, *LABELS] if self.case.model == "pipeline" else features(self.case)

    def output(self, candidate: str) -> Path:
        """Where a candidate writes."""
        return self.folder / "outputs" / candidate


def prepare(case: Case, folder: Path, *, suite: bool = True) -> Job:
    """Makes table, model and settings, where they are not there yet.

    Args:
        case: what to compare.
        folder: keeps everything, also for other cases.
        suite: whether batchscore runs a Great Expectations suite.
    """
    tracking_uri = f"sqlite:///{folder}/registry.db"
    place = folder / "jobs" / case.name
    place.mkdir(parents=True, exist_ok=True)
    model = register(case, folder / "models", tracking_uri)
    job = Job(case, place, model, make_table(case, folder / "data"), tracking_uri, suite)
    (place / "suite.json").write_text(json.dumps({"name": case.name, "expectations": EXPECTATIONS}))
    job.settings.write_text(yaml.safe_dump(_settings(job), sort_keys=False))
    return job


def _settings(job: Job) -> dict[str, Any]:
    return {
        "model": {"name": job.case.model_name, "version": 1},
        "input": {"path": str(job.table), "format": job.case.format},
        "output": {"path": str(job.output("batchscore")), "keys": [job.key], "partition_by": job.partition_by},
        "validation": {"suite": str(job.folder / "suite.json") if job.suite else None},
        "registry": {"tracking_uri": job.tracking_uri},
    }


def pin(job: Job) -> PinnedModel:
    """The job's model as batchscore resolves it."""
    from batchscore import models

    return models.pin(f"{job.case.model_name}/1", tracking_uri=job.tracking_uri, signature=None, params={})


def write_document(job: Job, *, cores: int, engine: str | None, peers_python: str | None) -> None:
    """Writes ``job.json``: what the peers and the limit need; converts the model for them.

    Args:
        job: the prepared case.
        cores: cores that each candidate may use.
        engine: the engine that the limit runs, as batchscore chose it.
        peers_python: interpreter that has tl2cgen, or None.
    """
    from batchscore.engines import artifacts
    from batchscore.session.conf import session_conf

    model = pin(job)
    files = None
    if engine is not None:
        files = job.folder / "model_files.pickle"
        files.write_bytes(pickle.dumps(artifacts.files_for(engine, model)))
    document = {
        "case": dataclasses.asdict(job.case),
        "cores": cores,
        "input": str(job.table),
        "files": sorted(str(path) for path in job.table.rglob("*.parquet")),
        "format": job.case.format,
        "key": job.key,
        "partition_by": job.partition_by,
        "features": job.features,
        "dtype": job.case.dtype,
        "tracking_uri": job.tracking_uri,
        "model_uri": f"models:/{job.case.model_name}/1",
        "spark_conf": session_conf(f"local[{cores}]", {}, delta_on_classpath=False),
        "engine": engine,
        "model_files": str(files),
        "tl2cgen": _compiled(job, peers_python),
        **_graph(job, model),
    }
    job.document.write_text(json.dumps(document, indent=1))


def _graph(job: Job, model: PinnedModel) -> dict[str, Any]:
    """The ONNX graph that every peer gets, and how its inputs are filled; {} where there is none."""
    from batchscore.engines import artifacts
    from batchscore.engines.onnx_artifact import GRAPH_FILE, read_description
    from batchscore.errors import BatchscoreError

    if job.case.model == "mlp":
        feed = {"name": "features", "dtype": "float32", "columns": job.features}
        feeds = [{**feed, "vocabularies": [None] * len(job.features)}]
        return {"onnx": str(job.model / "model.onnx"), "feeds": feeds, "onnx_output": "prediction"}
    try:
        files: ModelFiles = artifacts.files_for(OWN_ONNX, model)
    except BatchscoreError as error:
        return {"onnx": None, "onnx_missing": error.text()}
    description = read_description(Path(files.path))
    feeds = [dataclasses.asdict(feed) for feed in description.feeds]
    return {"onnx": str(Path(files.path) / GRAPH_FILE), "feeds": feeds, "onnx_output": description.output}


def _compiled(job: Job, peers_python: str | None) -> str | None:
    """tl2cgen's library, compiled once; None for models that it does not take."""
    source = {"lightgbm": "model.lgb", "xgboost": "model.ubj"}.get(job.case.model)
    if source is None or peers_python is None:
        return None
    library = job.model.parent / f"{job.case.model_name}.so"
    if not library.exists():
        script = [peers_python, str(PEERS / "compile_trees.py")]
        command = [*script, str(job.model / source), job.case.model, str(library)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
        if done.returncode:
            return None
    return str(library)
