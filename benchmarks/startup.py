"""Time to import batchscore and to print the help, beside a bare interpreter: medians of 15.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import batchscore": ["-c", "import batchscore"],
    "batchscore --help": ["-m", "batchscore", "--help"],
}


def main() -> None:
    """Alternates the commands and prints their medians in ms."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)  # noqa: S603  # our own
            taken[name].append((time.perf_counter() - started) * 1_000)
    for name, values in taken.items():
        sys.stdout.write(f"{name:20} {statistics.median(values):7.0f} ms (min {min(values):.0f})\n")


if __name__ == "__main__":
    main()
