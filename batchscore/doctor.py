"""What this machine has and lacks for batchscore, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; ``mend`` says what to do where it is not fine."""

    name: str
    fine: bool
    found: str
    mend: str = ""
