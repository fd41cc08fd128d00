"""Peak memory of a Python worker at 2 and at 10 million rows: bounded by the batch, not by the table.

The engine is the registered model itself, so that both numbers are of the same one.

python -m benchmarks.memory [--rows 2000000 10000000]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from batchscore.benchmark.process import inherited

LIMIT_SECONDS = 1_800


def main() -> None:
    """Prints the peak of the largest worker for each number of rows, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=[2_000_000, 10_000_000])
    arguments = parser.parse_args()
    peaks = [peak_bytes(rows) for rows in arguments.rows]
    for rows, peak in zip(arguments.rows, peaks, strict=True):
        sys.stdout.write(f"{rows:>12,} rows: {peak / 2**20:8.1f} MiB\n")
    sys.stdout.write(f"{'ratio':>12}     : {peaks[1] / peaks[0]:8.3f}\n")


def peak_bytes(rows: int) -> int:
    """Peak resident bytes of the largest worker of a demo run over ``rows`` rows."""
    folder = Path(tempfile.mkdtemp(prefix="batchscore-memory-"))
    try:
        _batchscore(folder, "demo", "--rows", str(rows), "--dir", str(folder), "--runner", "local")
        settings = str(folder / "conf" / "fraud_detection.yaml")
        done = _batchscore(folder, "run", "--config", settings, "--engine", "pyfunc", "--force")
        return int(done["peak_worker_bytes"])
    finally:
        shutil.rmtree(folder)


def _batchscore(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "batchscore", *arguments, "--json"],
        cwd=folder,
        env=inherited() | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
