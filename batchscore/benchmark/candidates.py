"""Who takes part in a comparison, and how each is started."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchscore.benchmark.job import PEERS, Job

BASELINE = "spark_udf"
# Of candidates whose model runs in a Python environment of its own, restored from its requirements.
ISOLATED = "-uv"
PROBE_SECONDS = 120
# As a script: as a module it would import this package first, which needs half a second for what it does not use.
LIMIT = ("-P", str(Path(__file__).with_name("limit.py")))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to score the table.

    Attributes:
        name: as it is asked for and printed.
        label: what it is, for a table.
        modules: packages that it needs, beside batchscore's own.
        own: whether it is batchscore.
        usual: whether it takes part where no names are given.
    """

    name: str
    label: str
    modules: tuple[str, ...] = ()
    own: bool = False
    usual: bool = True


CANDIDATES = (
    Candidate("batchscore-spark", "batchscore run --runner spark", own=True),
    Candidate("batchscore-local", "batchscore run --runner local", own=True),
    Candidate(BASELINE, "mlflow.pyfunc.spark_udf, Delta write"),
    Candidate("predict_batch_udf", "predict_batch_udf, ONNX Runtime, Delta write"),
    Candidate("ray-onnx", "Ray Data map_batches, ONNX Runtime, Parquet write", ("ray",)),
    Candidate("daft-onnx", "Daft batch UDF, ONNX Runtime, Parquet write", ("daft",)),
    Candidate("daft-tl2cgen", "Daft batch UDF, tl2cgen library, Parquet write", ("daft", "tl2cgen")),
    Candidate("limit", "processes with pyarrow and batchscore's engine, no framework"),
    Candidate("floor", "the same without a model: read and write"),
    Candidate(
        f"batchscore-spark{ISOLATED}", "batchscore run --runner spark, model.environment uv", own=True, usual=False
    ),
    Candidate(f"{BASELINE}{ISOLATED}", 'mlflow.pyfunc.spark_udf(env_manager="uv"), Delta write', usual=False),
)
NAMES = tuple(candidate.name for candidate in CANDIDATES if candidate.usual)
EVERY_NAME = tuple(candidate.name for candidate in CANDIDATES)


def command(name: str, job: Job, python: str, peers_python: str | None) -> list[str]:
    """The command line of a candidate.

    Args:
        name: of the candidate, for batchscore's own with ``@ENGINE`` where one is asked for.
        job: what it scores.
        python: interpreter that has batchscore.
        peers_python: interpreter that has the peers' frameworks.
    """
    base, _, engine = name.partition("@")
    isolated, base = base.endswith(ISOLATED), base.removesuffix(ISOLATED)
    output = job.output(name)
    if base in ("batchscore-spark", "batchscore-local"):
        settings = ["--config", str(job.settings), "--output", str(output)]
        flags = ["--runner", base.removeprefix("batchscore-"), "--engine", engine or "auto", "--json"]
        flags += ["--set", "model.environment=uv"] if isolated else []
        return [python, "-m", "batchscore", "run", *settings, *flags]
    if base in ("limit", "floor"):
        flags = ["--no-model"] if base == "floor" else []
        return [python, *LIMIT, str(document(job, name)), str(output), *flags]
    if base in (BASELINE, "predict_batch_udf"):
        return [python, str(PEERS / f"{base}.py"), str(document(job, name)), *(["uv"] if isolated else [])]
    script = {"ray-onnx": ["ray_data.py"], "daft-onnx": ["daft_udf.py"], "daft-tl2cgen": ["daft_udf.py"]}[base]
    arguments = [str(document(job, name)), *([base.removeprefix("daft-")] if base.startswith("daft") else [])]
    return [peers_python or python, str(PEERS / script[0]), *arguments]


def document(job: Job, name: str) -> Path:
    """The job as one candidate reads it, which names its output."""
    return job.folder / f"job-{name}.json"


def missing(names: Sequence[str], peers_python: str | None) -> dict[str, str]:
    """Candidates that cannot take part, with the package that each lacks."""
    found: dict[str, str] = {}
    for candidate in CANDIDATES:
        if candidate.name not in names:
            continue
        lacking = [module for module in candidate.modules if not _has(module, peers_python)]
        if lacking:
            found[candidate.name] = lacking[0]
    return found


def _has(module: str, peers_python: str | None) -> bool:
    if peers_python is None or peers_python == sys.executable:
        return importlib.util.find_spec(module) is not None
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    done = subprocess.run([peers_python, "-c", probe], capture_output=True, timeout=PROBE_SECONDS, check=False)
    return done.returncode == 0
