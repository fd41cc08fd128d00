"""Texts that users see, kept as files: a change of wording shows up in the review."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """Compares with ``golden/<name>.txt``; ``UPDATE_GOLDEN=1`` writes the file instead."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text + "\n", encoding="utf-8")
    assert path.exists(), f"no golden file {path.name}: run once with UPDATE_GOLDEN=1 and read what it writes"
    assert text + "\n" == path.read_text(encoding="utf-8")
