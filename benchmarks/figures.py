"""The figures that the project asks of itself, beside what the kept results say: ``python -m benchmarks.figures``.

Reads ``headline.json``, ``full.json`` and ``cluster.json`` of ``benchmarks/results``; a case that is missing there is
left out. Ratios are medians of the rounds' own, without the start of Spark, Ray or Daft.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscore.benchmark.report import ratio

RESULTS = Path(__file__).parent / "results"
SPARK, LOCAL = OWN = ("batchscore-spark", "batchscore-local")
Result = dict[str, Any]

TIMES_SPARK_UDF = {"lightgbm-50x31": 10.0, "lightgbm-200x63": 10.0, "xgboost-200x6": 5.0, "pipeline": 4.0, "mlp": 4.0}
TIMES_LIMIT = {SPARK: 0.85, LOCAL: 0.95}
GROWTH = ("lightgbm-50x31-100k", "lightgbm-50x31-1M", "lightgbm-50x31-3M", "lightgbm-50x31", "lightgbm-50x31-30M")
FULL_ROWS = 8_000_000
MOST_VALIDATION, LEAST_OF_MANY_FILES, LEAST_OF_BARE = 0.10, 0.9, 0.9
MOST_MEMORY_GROWTH, MOST_MEMORY_MIB = 1.10, 700


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what, in which case, what is asked at least (or at most) and what was found."""

    what: str
    case: str
    found: float
    asked: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is what is asked."""
        return self.found <= self.asked if self.at_most else self.found >= self.asked

    def line(self) -> str:
        """For people."""
        bound = f"{'<=' if self.at_most else '>='} {self.asked:g}"
        return f"{self.what:46} {self.case:36} {self.found:8.2f}  {bound:8} {'' if self.reached else 'NOT REACHED'}"


def main() -> None:
    """Prints all figures, and how time grows with rows."""
    results = [*_read("headline"), *_read("full")]
    lines = [figure.line().rstrip() for figure in figures(results)]
    lines += [figure.line().rstrip() for figure in _of_cluster()]
    sys.stdout.write("\n".join([*lines, *growth_lines(results)]) + "\n")


def figures(results: Sequence[Result]) -> Iterator[Figure]:
    """Every figure of which the results have both sides."""
    for result in results:
        yield from _beside_peers(result)
    yield from _beside_limit(results)
    yield from _shares(results)


def _beside_peers(result: Result) -> Iterator[Figure]:
    name, case = result["case"]["name"], _label(result)
    for own in OWN:
        asked = {"ray-onnx": 1.5, "daft-onnx": 1.1 if result["engine"] == "onnx" else 1.5, "daft-tl2cgen": 1.1}
        if name in TIMES_SPARK_UDF and result["case"]["rows"] == FULL_ROWS:
            asked["spark_udf"] = TIMES_SPARK_UDF[name]
        for peer, least in asked.items():
            times = ratio(result, own, peer)
            if times is not None:
                yield Figure(f"{own}, times as fast as {peer}", case, times, least)
    times = ratio(result, "batchscore-spark-uv", "spark_udf-uv")
    if times is not None:
        yield Figure("environment uv, times as fast as spark_udf", case, times, 10.0)


def _beside_limit(results: Sequence[Result]) -> Iterator[Figure]:
    for result in results:
        if result["case"]["name"] not in TIMES_SPARK_UDF or result["case"]["rows"] != FULL_ROWS:
            continue
        for own, least in TIMES_LIMIT.items():
            times = ratio(result, own, "limit")
            if times is not None:
                yield Figure(f"{own}, share of the limit's speed", _label(result), times, least)


def _shares(results: Sequence[Result]) -> Iterator[Figure]:
    by_name = {(result["case"]["name"], result["suite"]): result for result in results}
    for (name, suite), result in by_name.items():
        found = result["candidates"].get(SPARK, {})
        if name in TIMES_SPARK_UDF and suite and result["case"]["rows"] == FULL_ROWS and "seconds" in found:
            share = found["median_stage_seconds"]["validate"] / found["median_seconds_with_session"]
            yield Figure("validation's share of the run, start included", _label(result), share, MOST_VALIDATION, True)
    one, most = by_name.get(("lightgbm-50x31-one-file", True)), by_name.get(("lightgbm-50x31-30M", True))
    many = one and _of(results, "lightgbm-50x31", _processor(one))
    few = most and _of(results, "lightgbm-50x31-1M", _processor(most))
    for own in OWN:
        if many and one:
            share = _seconds(many, own) / _seconds(one, own)
            yield Figure(f"{own}, one file beside 16", _label(one), share, LEAST_OF_MANY_FILES)
        if few and most:
            small, large = (result["candidates"][own]["worker_peak_bytes"] for result in (few, most))
            yield Figure(
                f"{own}, worker's memory beside 1M rows", _label(most), large / small, MOST_MEMORY_GROWTH, True
            )
            yield Figure(f"{own}, worker's memory, MiB", _label(most), large / 2**20, MOST_MEMORY_MIB, True)


def _of_cluster() -> Iterator[Figure]:
    path = RESULTS / "cluster.json"
    if path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
        for part in ("scoring", "run"):
            found = document["gain"][f"{part} / bare"]
            case = f"{document['case']}, {document['rows']:,}"
            yield Figure(f"gain of a second executor, {part}, of bare", case, found, LEAST_OF_BARE)


def growth_lines(results: Sequence[Result]) -> list[str]:
    """Seconds as a line in rows: the least squares of relative errors, and how far a case lies off it.

    Of the machine that the most rows were taken on: times of another one lie on another line.
    """
    of_most_rows_first = (result for name in reversed(GROWTH) for result in results if result["case"]["name"] == name)
    largest = next(of_most_rows_first, None)
    if largest is None:
        return []
    found = (_of(results, name, _processor(largest)) for name in GROWTH)
    cases = [result for result in found if result is not None]
    lines = []
    for own in (*OWN, "limit", "spark_udf"):
        points = [(r["case"]["rows"], _seconds(r, own)) for r in cases if "seconds" in r["candidates"].get(own, {})]
        if len(points) > 2:  # noqa: PLR2004  # a line through two points always fits
            fixed, slope = fitted(points)
            off = max(abs(fixed + slope * rows - seconds) / seconds for rows, seconds in points)
            sizes = f"{points[0][0]:,} to {points[-1][0]:,} rows"
            lines.append(
                f"{own}: {fixed:.2f} s + {slope * 1e6:.3f} s a million rows ({sizes}; off by at most {off:.0%})"
            )
    return lines


def fitted(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """(fixed seconds, seconds a row) of the line whose relative errors have the least squares.

    >>> [round(part, 3) for part in fitted([(0, 1.0), (1000, 3.0), (2000, 5.0)])]
    [1.0, 0.002]
    """
    weights = [1 / seconds**2 for _, seconds in points]
    total = sum(weights)
    rows = sum(w * r for w, (r, _) in zip(weights, points, strict=True)) / total
    seconds = sum(w * s for w, (_, s) in zip(weights, points, strict=True)) / total
    above = sum(w * (r - rows) * (s - seconds) for w, (r, s) in zip(weights, points, strict=True))
    slope = above / sum(w * (r - rows) ** 2 for w, (r, _) in zip(weights, points, strict=True))
    return seconds - slope * rows, slope


def _processor(result: Result) -> str:
    return str(result.get("machine", {}).get("processor", ""))


def _of(results: Sequence[Result], name: str, processor: str) -> Result | None:
    """The result of a case with its suite, taken on this processor; None where there is none."""
    known = (result for result in results if result["case"]["name"] == name and result["suite"])
    return next((result for result in known if _processor(result) == processor), None)


def _seconds(result: Result, name: str) -> float:
    return statistics.median(result["candidates"][name]["seconds"])


def _label(result: Result) -> str:
    return f"{result['case']['name']}, {result['case']['rows']:,}{'' if result['suite'] else ', no suite'}"


def _read(name: str) -> list[Result]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    document = json.loads(path.read_text(encoding="utf-8"))
    return [{"machine": document["machine"], **result} for result in document["results"]]


if __name__ == "__main__":
    main()
