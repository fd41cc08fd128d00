"""The demo's job end to end, Delta write included: batchscore beside ``mlflow.pyfunc.spark_udf`` + write.

    python -m benchmarks.end_to_end [--rows 2000000] [--repeats 5] [--output results.json]

Scores are compared row by row before a time counts. Each process starts cold: Python, JVM and imports are in
the time, as they are in a nightly job.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc
from deltalake import DeltaTable

from batchscore.benchmark.process import inherited

LIMIT_SECONDS = 1_800


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--directory", type=Path, help="keep the data here instead of in a temporary folder")
    arguments = parser.parse_args()
    folder = arguments.directory or Path(tempfile.mkdtemp(prefix="batchscore-bench-"))
    try:
        result = compare(folder, arguments.rows, arguments.repeats)
    finally:
        if arguments.directory is None:
            shutil.rmtree(folder)
    print_result(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


def compare(folder: Path, rows: int, repeats: int) -> dict[str, object]:
    """Seconds of each candidate in ``repeats`` alternating rounds, after one round that warms the disk cache."""
    demo = [sys.executable, "-m", "batchscore", "demo", "--rows", str(rows), "--dir", str(folder), "--runner", "local"]
    _timed(demo, folder)
    seconds: dict[str, list[float]] = {name: [] for name in ("spark_udf", "batchscore-spark", "batchscore-local")}
    for round_ in range(repeats + 1):
        for name, taken in seconds.items():
            output = folder / "bench" / name
            shutil.rmtree(output, ignore_errors=True)
            duration = _timed(command(name, folder, output), folder)
            if round_:
                taken.append(duration)
    reference = _scores(folder / "bench" / "spark_udf")
    differences = {name: _largest_difference(reference, _scores(folder / "bench" / name)) for name in seconds}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rows": rows,
        "seconds": seconds,
        "median_seconds": medians,
        "rows_per_second": {name: round(rows / value) for name, value in medians.items()},
        "times_spark_udf": {
            name: round(statistics.median(a / b for a, b in zip(seconds["spark_udf"], values, strict=True)), 2)
            for name, values in seconds.items()
        },
        "largest_difference": differences,
    }


def command(name: str, folder: Path, output: Path) -> list[str]:
    """The command line of a candidate."""
    tracking_uri = f"sqlite:///{folder}/mlruns.db"
    if name == "spark_udf":
        script = [sys.executable, "-m", "benchmarks.peers.spark_udf"]
        return [*script, str(folder / "data" / "transactions"), tracking_uri, str(output)]
    runner = name.removeprefix("batchscore-")
    settings = str(folder / "conf" / "fraud_detection.yaml")
    flags = ["--config", settings, "--runner", runner, "--engine", "pyfunc", "--output", str(output)]
    return [sys.executable, "-m", "batchscore", "run", *flags, "--input", str(folder / "data" / "transactions")]


def _timed(arguments: list[str], folder: Path) -> float:
    started = time.perf_counter()
    environment = inherited() | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(  # noqa: S603  # our own commands
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def _scores(table: Path):  # noqa: ANN202  # a pyarrow Table
    return DeltaTable(table).to_pyarrow_table(columns=["transaction_id", "prediction"]).sort_by("transaction_id")


def _largest_difference(reference, scores) -> float:  # noqa: ANN001  # pyarrow Tables
    if not reference.column("transaction_id").equals(scores.column("transaction_id")):
        raise SystemExit("the candidates scored different rows")
    return pc.max(pc.abs(pc.subtract(reference.column("prediction"), scores.column("prediction")))).as_py()


def print_result(result: dict) -> None:
    """A table for people."""
    lines = [f"{result['rows']:,} rows, {result['machine']}, {len(result['seconds']['spark_udf'])} alternating rounds"]
    lines.append(f"{'candidate':18} {'median s':>9} {'min-max s':>15} {'rows/s':>10} {'times':>6} {'difference':>11}")
    for name, values in result["seconds"].items():
        spread = f"{min(values):.1f}-{max(values):.1f}"
        lines.append(
            f"{name:18} {result['median_seconds'][name]:9.1f} {spread:>15} {result['rows_per_second'][name]:>10,} "
            f"{result['times_spark_udf'][name]:>6} {result['largest_difference'][name]:>11.3g}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
