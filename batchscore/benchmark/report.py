"""What a comparison came to: a document, a table and a bar chart."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from batchscore.benchmark.candidates import BASELINE, CANDIDATES, ISOLATED
from batchscore.engines.installed import installed

PACKAGES = ("pyspark", "mlflow", "pyarrow", "onnxruntime", "lightgbm", "xgboost", "scikit-learn", "deltalake", "numpy")
LABELS = {candidate.name: candidate.label for candidate in CANDIDATES}

BAR_HEIGHT, ROW_HEIGHT, HEAD = 16, 24, 34
LEFT, RIGHT, WIDTH = 150, 260, 860  # room for names and for what stands behind a bar
COLOURS = {"own": "#0b6e4f", "peer": "#8a99a6", "bound": "#d8dee3"}


def machine() -> dict[str, Any]:
    """What the figures were taken on; figures of two machines are not comparable."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": installed(PACKAGES),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def write(document: Mapping[str, Any], path: Path) -> None:
    """Writes a document as JSON."""
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def baseline(result: Mapping[str, Any]) -> str:
    """The candidate that the others are compared with: ``spark_udf``, in the local environment where it took part."""
    return BASELINE if BASELINE in result["candidates"] else BASELINE + ISOLATED


def ratio(result: Mapping[str, Any], name: str, other: str, *, with_session: bool = False) -> float | None:
    """How many times as fast as ``other`` a candidate was: the median of the rounds' own ratios.

    >>> result = {"candidates": {"a": {"seconds": [1.0, 2.0, 2.0]}, "b": {"seconds": [4.0, 4.0, 10.0]}}}
    >>> ratio(result, "a", "b")
    4.0
    """
    mine, theirs = result["candidates"].get(name, {}), result["candidates"].get(other, {})
    if not mine.get("seconds") or not theirs.get("seconds"):
        return None
    pairs = zip(_seconds(mine, with_session), _seconds(theirs, with_session), strict=False)
    return round(statistics.median(slow / fast for fast, slow in pairs), 2)


def _seconds(candidate: Mapping[str, Any], with_session: bool) -> list[float]:
    if not with_session:
        return list(candidate["seconds"])
    return [work + start for work, start in zip(candidate["seconds"], candidate["session_seconds"], strict=True)]


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The candidates of a case, the fastest first, under a head."""
    head = ("candidate", "rows/s", "median s", "spread", "with start", "x spark_udf", "memory", "difference")
    timed = [(name, found) for name, found in result["candidates"].items() if "seconds" in found]
    rows: list[tuple[str, ...]] = [head]
    for name, found in sorted(timed, key=lambda item: item[1]["median_seconds"]):
        times = ratio(result, name, baseline(result))
        difference = found["largest_difference"]
        rows.append(
            (
                name,
                f"{found['rows_per_second']:,}",
                f"{found['median_seconds']:.1f}",
                f"{min(found['seconds']):.1f}-{max(found['seconds']):.1f}",
                f"{found['median_seconds_with_session']:.1f}",
                "" if times is None else f"{times:.1f}",
                f"{found['peak_bytes'] / 2**20:,.0f} MiB",
                "no scores" if difference is None else f"{difference:.1e}" if difference else "0",
            )
        )
    return rows


def failures(result: Mapping[str, Any]) -> list[str]:
    """Why candidates have no times, one line each."""
    return [
        f"{name}: {': '.join(dict.fromkeys(line.strip() for line in (lines[0], lines[-1])))}"
        for name, found in result["candidates"].items()
        if (lines := [line for line in found.get("failure", "").splitlines() if line.strip()])
    ]


def chart(results: Sequence[Mapping[str, Any]]) -> str:
    """A bar chart as SVG: rows per second of each candidate, case by case; batchscore's bars are green."""
    blocks, top = [], 10
    for result in results:
        block, height = _block(result, top)
        blocks.append(block)
        top += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + 10}" viewBox="0 0 {WIDTH} {top + 10}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img" '
        'aria-label="Rows per second of batchscore and of its peers">\n'
        f'<rect width="{WIDTH}" height="{top + 10}" fill="#ffffff"/>\n' + "".join(blocks) + "</svg>\n"
    )


def _block(result: Mapping[str, Any], top: int) -> tuple[str, int]:
    case = result["case"]
    timed = [(name, found) for name, found in result["candidates"].items() if "seconds" in found and name != "floor"]
    timed.sort(key=lambda item: -item[1]["rows_per_second"])
    most = max((found["rows_per_second"] for _, found in timed), default=1)
    scale = (WIDTH - LEFT - RIGHT) / most
    title = escape(f"{case['name']}: {case['rows']:,} rows, {result['cores']} cores, engine {result['engine']}")
    lines = [f'<text x="10" y="{top + 20}" font-weight="600" fill="#1c2733">{title}</text>\n']
    for index, (name, found) in enumerate(timed):
        y = top + HEAD + index * ROW_HEIGHT
        own = name.startswith("batchscore")
        colour = COLOURS["own" if own else "bound" if name == "limit" else "peer"]
        length = max(2, round(found["rows_per_second"] * scale))
        times = ratio(result, name, baseline(result)) if name != baseline(result) else None
        text = f"{found['rows_per_second']:,} rows/s" + (f"  ({times:.1f}x spark_udf)" if times else "")
        lines.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" fill="#1c2733">{escape(name)}</text>')
        lines.append(f'<rect x="{LEFT}" y="{y}" width="{length}" height="{BAR_HEIGHT}" rx="2" fill="{colour}"/>')
        lines.append(f'<text x="{LEFT + length + 6}" y="{y + 13}" fill="#44525f">{escape(text)}</text>\n')
    return "".join(lines), HEAD + len(timed) * ROW_HEIGHT + 14
