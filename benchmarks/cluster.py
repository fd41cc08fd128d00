"""Two executors of a standalone cluster beside one, and two bare processes beside one: what the second one gains.

    python -m benchmarks.cluster [--case lightgbm-200x63] [--rows 16000000] [--rounds 5] [--dir .benchmarks]

The gain of the scoring stage and of the whole run, the session's start left out, as shares of the bare processes' gain.
A session counts as started when its executors are there: two that start beside the scoring would take its cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from batchscore.benchmark.candidates import LIMIT
from batchscore.benchmark.cases import CASES
from batchscore.benchmark.job import Job, prepare, write_document
from batchscore.benchmark.process import inherited, timed
from tests.spark_cluster import Cluster, standalone_cluster

LIMIT_SECONDS = 1_800
# SparkContext's constructor waits for them; a standalone cluster's default is not to.
EXECUTORS_FIRST = {
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "60s",
}


def main() -> None:
    """Prints the gains, and keeps them in ``benchmarks/results/cluster.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="lightgbm-200x63", choices=CASES)
    parser.add_argument("--rows", type=int, default=16_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path(".benchmarks"))
    arguments = parser.parse_args()
    folder = arguments.dir.resolve()
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    job = prepare(CASES[arguments.case].of(arguments.rows), folder)
    with tempfile.TemporaryDirectory() as place, standalone_cluster(Path(place)) as cluster:
        taken = measured(job, cluster, arguments.rounds)
    document = {"case": arguments.case, "rows": arguments.rows, "seconds": taken, "gain": gains(taken)}
    Path(__file__).parent.joinpath("results", "cluster.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, (one, two) in taken.items():
        sys.stdout.write(f"{name:10} one {statistics.median(one):6.2f} s, two {statistics.median(two):6.2f} s\n")
    for name, gain in document["gain"].items():
        sys.stdout.write(f"gain of {name:8} {gain:.2f}\n")


def measured(job: Job, cluster: Cluster, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds with one and with two: of the bare processes, of the scoring stage, and of the whole run."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ("bare", "scoring", "run")}
    for number in range(rounds + 1):
        for index, count in enumerate((1, 2)):
            run, stages, engine = on_cluster(job, cluster, count)
            write_document(job, cores=count, engine=engine, peers_python=None)
            seconds = {"run": run, "scoring": stages["score"], "bare": bare(job)}
            if number:  # the first proves the engine and warms the disk cache
                for name, value in seconds.items():
                    taken[name][index].append(round(value, 3))
    return taken


def on_cluster(job: Job, cluster: Cluster, count: int) -> tuple[float, dict[str, float], str]:
    """One run on so many executors of one core each: seconds without the session's start, of its stages, engine."""
    output = job.output("cluster")
    for path in (output, output.with_name("cluster__runs")):
        shutil.rmtree(path, ignore_errors=True)
    conf = {**cluster.driver_conf, **EXECUTORS_FIRST, "spark.cores.max": str(count)}
    flags = ["--set", f"spark.master={cluster.master}", "--set", f"spark.conf={json.dumps(conf)}"]
    command = [sys.executable, "-m", "batchscore", "run", "--config", str(job.settings), "--output", str(output)]
    outcome = timed([*command, "--json", *flags], job.folder, environment(), LIMIT_SECONDS)
    return outcome.seconds, dict(outcome.stage_seconds), str(outcome.answer["engine"])


def bare(job: Job) -> float:
    """The same rows in processes with pyarrow and the same engine, without a framework."""
    output = job.output("bare")
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, *LIMIT, str(job.document), str(output)]
    return timed(command, job.folder, environment(), LIMIT_SECONDS).seconds


def environment() -> dict[str, str]:
    """The driver's: it finds this checkout, and the executors get the package from the driver."""
    return {**inherited(), "PYTHONPATH": os.pathsep.join((str(Path.cwd()), os.environ.get("PYTHONPATH", "")))}


def gains(taken: dict[str, tuple[list[float], list[float]]]) -> dict[str, Any]:
    """How many times as fast two are as one; of the cluster also as a share of the bare processes' gain."""
    found = {
        name: statistics.median(alone / both for alone, both in zip(one, two, strict=True))
        for name, (one, two) in taken.items()
    }
    shares = {f"{name} / bare": found[name] / found["bare"] for name in ("scoring", "run")}
    return {name: round(value, 3) for name, value in {**found, **shares}.items()}


if __name__ == "__main__":
    main()
