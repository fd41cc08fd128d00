"""What later commands changed of what runs published: rollbacks, and rows that were forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from batchscore.contracts.columns import UnitValues
from batchscore.contracts.targets import UnitState


@dataclass(frozen=True, slots=True)
class WithdrawnContent:
    """What a unit held before a rollback: the run, the unit's key, and the key of the run's whole input."""

    run_id: str
    key: str
    source_key: str


@dataclass(frozen=True, slots=True)
class WithdrawnUnit:
    """A unit that a rollback changed.

    Attributes:
        values: its partition values.
        after: what its files said after the rollback; what was withdrawn stays so while they say it.
        contents: what was taken back.
    """

    values: UnitValues
    after: UnitState
    contents: tuple[WithdrawnContent, ...]


@dataclass(frozen=True, slots=True)
class Rollback:
    """One rollback: readers see version ``to_version``, which run ``to_run`` made, instead of ``from_version``.

    ``created_at`` is ISO 8601 in UTC, ``by`` the user and the machine. ``version`` is the one that holds it, -1 where
    nobody noted that its commit landed.
    """

    rollback_id: str
    created_at: str
    by: str
    to_run: str
    to_version: int
    from_version: int
    units: tuple[WithdrawnUnit, ...]
    version: int = -1


@dataclass(frozen=True, slots=True)
class ForgottenUnit:
    """How many rows of one run a unit held before some were forgotten, and after.

    A unit that lost rows has one for each of its runs: what is left beside a run that lost all of its rows tells an
    erasure from a later run in its place.
    """

    values: UnitValues
    run_id: str
    rows_before: int
    rows_left: int


@dataclass(frozen=True, slots=True)
class Forgetting:
    """One erasure; it says nothing of whose rows they were.

    ``files`` are the data files, relative to the table's root, that held them: no version that has one of these may
    become the table again. ``created_at`` is ISO 8601 in UTC, ``by`` the user and the machine. ``from_version`` is what
    its commit was to follow: erasures are told in the order of the table's versions, not of clocks; -1 in records of
    earlier releases.
    """

    forget_id: str
    created_at: str
    by: str
    units: tuple[ForgottenUnit, ...]
    files: tuple[str, ...]
    from_version: int = -1
