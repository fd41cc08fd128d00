"""This machine's rows per second, batchscore's and the peers', side by side."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchscore.benchmark.candidates import EVERY_NAME, NAMES
from batchscore.benchmark.cases import CASES, Case
from batchscore.benchmark.rounds import OnEvent, Rules, compare
from batchscore.errors import SettingsError, nearest

__all__ = ["CASES", "EVERY_NAME", "NAMES", "Case", "Rules", "benchmark"]


def benchmark(
    cases: Sequence[str],
    names: Sequence[str],
    rules: Rules,
    *,
    rows: int | None = None,
    folder: Path | None = None,
    on_event: OnEvent = lambda _: None,
) -> dict[str, Any]:
    """Compares the candidates on each case.

    Args:
        cases: names out of :data:`CASES`.
        names: candidates out of :data:`EVERY_NAME`; batchscore's own may be asked for an engine: ``NAME@ENGINE``.
        rules: how often, and with what.
        rows: another number of rows than the cases'.
        folder: keeps tables, models and certificates for the next time; a temporary one otherwise.
        on_event: is told how far it is.

    Returns:
        A document with the machine and one result per case.

    Raises:
        SettingsError: there is no case or candidate of that name.
    """
    from batchscore.benchmark.report import machine  # heavy: looks at installed packages

    for asked, known, what in (
        (cases, tuple(CASES), "case"),
        ([name.split("@")[0] for name in names], EVERY_NAME, "candidate"),
    ):
        for name in asked:
            if name not in known:
                raise SettingsError(f"unknown {what}", found=name, allowed=known, near=nearest(name, known))
    place = folder or Path(tempfile.mkdtemp(prefix="batchscore-benchmark-"))
    try:
        place.mkdir(parents=True, exist_ok=True)
        wanted = [CASES[name] if rows is None else CASES[name].of(rows) for name in cases]
        results = [compare(case, place, names, rules, on_event) for case in wanted]
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    return {"machine": machine(), "results": results}
