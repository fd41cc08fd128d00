"""The figures of README and docs/benchmarks.md: batchscore beside its peers, case by case.

    python -m benchmarks.speed headline | full [--dir DIR] [--peers-python P] [--rounds 5] [--only CASE ...]

Each finished case is kept in DIR/results, and a second call goes on with those that are missing. What is finished is
written to ``benchmarks/results/<set>.json`` with the chart beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchscore.benchmark import CASES, NAMES, Rules, benchmark
from batchscore.benchmark.report import chart, machine, write
from batchscore.cli.benchmark_table import table_lines

RESULTS = Path(__file__).parent / "results"
OWN = ("batchscore-spark", "batchscore-local")


@dataclass(frozen=True, slots=True)
class Entry:
    """A case of a set: who takes part, over how many rows, and whether batchscore runs a suite of expectations."""

    case: str
    candidates: tuple[str, ...]
    rows: int | None = None
    suite: bool = True


# 8 million rows each; bounded by 45 minutes on two cores, so the other peers take part in the full set.
HEADLINE = tuple(
    Entry(case, (*OWN, "spark_udf", "limit"))
    for case in ("lightgbm-50x31", "lightgbm-200x63", "xgboost-200x6", "pipeline", "mlp")
)
# The built-in checks alone, closer to what checks nothing; what a table's shape and size do; every peer on every model.
_BOUNDS = (*OWN, "limit")
_NOT_OF_TREES = tuple(name for name in NAMES if name != "daft-tl2cgen")
FULL = (
    Entry("lightgbm-50x31", (*OWN, "limit", "daft-tl2cgen"), suite=False),
    Entry("lightgbm-200x63", (*OWN, "limit"), suite=False),
    Entry("xgboost-200x6", (*OWN, "limit"), suite=False),
    Entry("pipeline", (*OWN, "limit", "daft-onnx"), suite=False),
    Entry("mlp", (*OWN, "limit", "daft-onnx"), suite=False),
    *(
        Entry(f"lightgbm-50x31-{shape}", _BOUNDS)
        for shape in ("one-file", "float64", "300-columns", "4-GB-file", "2000-files", "delta", "partitioned")
    ),
    Entry("lightgbm-50x31-30M", (*_BOUNDS, "floor")),
    *(
        Entry(name, (*_BOUNDS, "spark_udf"))
        for name in ("lightgbm-50x31-100k", "lightgbm-50x31-1M", "lightgbm-50x31-3M")
    ),
    Entry("lightgbm-50x31", NAMES),
    Entry("lightgbm-200x63", (*OWN, "spark_udf", "daft-tl2cgen", "limit")),
    Entry("xgboost-200x6", NAMES, 1_000_000),
    Entry("pipeline", _NOT_OF_TREES, 1_000_000),
    Entry("mlp", _NOT_OF_TREES, 1_000_000),
    Entry("lightgbm-200x63", NAMES, 1_000_000),
    Entry("lightgbm-50x31", ("batchscore-spark-uv", "spark_udf-uv"), 1_000_000),
)
SETS = {"headline": HEADLINE, "full": FULL}


def main() -> None:
    """Runs a set and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--dir", type=Path, default=Path(".benchmarks"))
    parser.add_argument("--peers-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=())
    arguments = parser.parse_args()
    rules = Rules(arguments.rounds, arguments.peers_python)
    wanted = [entry for entry in SETS[arguments.set] if not arguments.only or entry.case in arguments.only]
    results: list[dict[str, Any]] = []
    for entry in wanted:
        results.append(finished(entry, arguments.dir, replace(rules, suite=entry.suite), arguments.set))
        if not arguments.only:  # also of a set that is stopped later
            keep(arguments.set, results)
    sys.stdout.write("\n".join(table_lines({"machine": machine(), "results": results})) + "\n")


def keep(name: str, results: list[dict[str, Any]]) -> None:
    """Writes what is finished of a set, and its chart."""
    RESULTS.mkdir(exist_ok=True)
    write({"machine": machine(), "results": results}, RESULTS / f"{name}.json")
    (RESULTS / f"{name}.svg").write_text(chart(results), encoding="utf-8")


def finished(entry: Entry, folder: Path, rules: Rules, name: str) -> dict[str, Any]:
    """The result of a case, taken now unless an earlier call has it."""
    rows = entry.rows or CASES[entry.case].rows
    parts = [name, entry.case, str(rows), *([] if entry.suite else ["builtin"])]
    place = folder / "results" / f"{'-'.join(parts)}.json"
    if not place.exists():
        document = benchmark([entry.case], entry.candidates, rules, rows=entry.rows, folder=folder, on_event=_say)
        place.parent.mkdir(parents=True, exist_ok=True)
        write({**document["results"][0], "machine": document["machine"]}, place)
    return dict(json.loads(place.read_text(encoding="utf-8")))


def _say(event: Mapping[str, object]) -> None:
    sys.stderr.write(f"{event.get('stage', 'note')}: {event.get('text')}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
