"""What changed since the committed figures: ``python -m benchmarks.compare NEW.json [--baseline OLD.json]``.

Only ratios within one run are compared, never seconds of two runs: the machines, or what else they did, may differ.
Exit code 1 where batchscore's advantage over ``spark_udf`` fell by more than a quarter in a case.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from batchscore.benchmark.report import ratio

BASELINE = Path(__file__).parent / "results" / "headline.json"
TOLERANCE = 0.75
OWN = ("batchscore-spark", "batchscore-local")


def main() -> None:
    """Prints a line for each case that both documents have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", type=Path)
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    arguments = parser.parse_args()
    lines, worse = changes(_read(arguments.baseline), _read(arguments.new))
    sys.stdout.write("\n".join(lines) + "\n")
    raise SystemExit(1 if worse else 0)


def changes(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], bool]:
    """One line for each case and each of batchscore's runners, and whether one of them became worse."""
    before = {(result["case"]["name"], result["case"]["rows"]): result for result in old["results"]}
    lines, worse = [f"{'case':32} {'candidate':18} {'before':>7} {'now':>7}  times spark_udf"], False
    for result in new["results"]:
        earlier = before.get((result["case"]["name"], result["case"]["rows"]))
        for name in OWN:
            now = ratio(result, name, "spark_udf")
            then = ratio(earlier, name, "spark_udf") if earlier is not None else None
            if now is None or then is None:
                continue
            fell = now < then * TOLERANCE
            worse = worse or fell
            lines.append(f"{result['case']['name']:32} {name:18} {then:7.2f} {now:7.2f}{'  worse' if fell else ''}")
    return lines, worse


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
