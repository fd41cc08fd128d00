"""What `batchscore benchmark` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.benchmark import report
from batchscore.cli.show import aligned

REMARK = (
    "rows/s and seconds are medians without the start of Spark, Ray or Daft, which 'with start' includes; "
    "'x spark_udf' is the median of the rounds' own ratios"
)


def table_lines(document: Mapping[str, Any]) -> list[str]:
    """One table a case, and why candidates are missing."""
    lines: list[str] = []
    for result in document["results"]:
        case, machine = result["case"], _machine(result.get("machine", document["machine"]))
        lines += [
            *([machine] if machine not in lines else []),
            "",
            f"{case['name']}: {case['rows']:,} rows in {case['files']} files, {result['rounds']} rounds, "
            f"batchscore's engine: {result['engine']}",
            *aligned(report.table_rows(result)),
            *report.failures(result),
        ]
    return [*lines, "", REMARK]


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}"
