"""Writes the counts of a torture run into ``docs/reliability.md``: ``python -m tests.torture.report RESULTS.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"


def table(counts: Mapping[str, tuple[int, int]]) -> str:
    """The counts as a Markdown table: what was tried, and how many cases held.

    >>> print(table({"a": (2, 2), "b": (0, 1)}))
    | what was tried | cases that held |
    | --- | --- |
    | a | 2 of 2 |
    | b | **0 of 1** |
    """
    lines = ["| what was tried | cases that held |", "| --- | --- |"]
    for what, (held, tried) in sorted(counts.items()):
        shown = f"{held:,} of {tried:,}"
        lines.append(f"| {what} | {shown if held == tried else f'**{shown}**'} |")
    return "\n".join(lines)


def replaced(page: str, counts: Mapping[str, tuple[int, int]]) -> str:
    """The page with the table between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks its marks {BEGIN} and {END}")
    return f"{before}{begin}\n{table(counts)}\n{end}{after}"


def main() -> None:
    counts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), counts), encoding="utf-8")


if __name__ == "__main__":
    main()
