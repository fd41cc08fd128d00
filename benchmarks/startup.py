"""Fixed costs: import and help beside a bare interpreter, and a run over 10,000 rows beside ``import mlflow``.

    python -m benchmarks.startup [--rounds 7] [--dir .benchmarks]

The runs publish a new table each time; their engine was proved before. The bare session is the one that the peers of
``batchscore benchmark`` start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from batchscore.benchmark.cases import CASES
from batchscore.benchmark.job import Job, prepare
from batchscore.benchmark.process import inherited

CASE, ROWS = "lightgbm-50x31", 10_000
IMPORTS = {
    "python -c pass": ["-c", "pass"],
    "import batchscore": ["-c", "import batchscore"],
    "batchscore --help": ["-m", "batchscore", "--help"],
    "import mlflow": ["-c", "import mlflow"],
}
SESSION = (
    "from batchscore.session.conf import session_conf; from pyspark.sql import SparkSession;"
    "b = SparkSession.builder.master('local[2]');"
    "[b.config(k, v) for k, v in session_conf('local[2]', {}, delta_on_classpath=False).items()];"
    "b.getOrCreate().stop()"
)
LIMIT_SECONDS = 300


def main() -> None:
    """Alternates the commands and prints their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=Path(".benchmarks"))
    arguments = parser.parse_args()
    folder = arguments.dir.resolve()
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    job = prepare(CASES[CASE].of(ROWS), folder, suite=False)
    _run([*_score(job, "local"), "--engine", "compiled"], job)  # proves it
    commands = {
        **IMPORTS,
        f"{ROWS:,} rows, local": _score(job, "local"),
        "a bare Spark session": ["-c", SESSION],
        f"{ROWS:,} rows, Spark": _score(job, "spark"),
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            taken[name].append(_run(command, job))
    for name, seconds in taken.items():
        sys.stdout.write(f"{name:22} {statistics.median(seconds):7.3f} s (min {min(seconds):.3f})\n")


def _score(job: Job, runner: str) -> list[str]:
    return ["-m", "batchscore", "run", "--config", str(job.settings), "--runner", runner, "--json"]


def _run(arguments: list[str], job: Job) -> float:
    """Seconds of one process, for which no output is there yet."""
    output = job.output("batchscore")
    for path in (output, output.with_name("batchscore__runs")):
        shutil.rmtree(path, ignore_errors=True)
    paths = os.pathsep.join((str(Path.cwd()), os.environ.get("PYTHONPATH", "")))
    started = time.perf_counter()
    subprocess.run(  # noqa: S603  # our own commands
        [sys.executable, *arguments],
        cwd=job.folder,
        env={**inherited(), "PYTHONPATH": paths},
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=True,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
