"""The output table, as a run finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchscore.contracts.columns import Schema, UnitValues


@dataclass(frozen=True, slots=True)
class UnitState:
    """What a unit's active files in the target say about themselves.

    Attributes:
        runs: (run id, rows), summed over the unit's files and sorted by run id; a file whose statistics do not
            prove one run id has the column read.
        foreign_files: files that prove nothing: rows without a run id, a deletion vector.
        foreign_stamp: digest of their identities; changes when they change.
        vectors: files with a deletion vector.
    """

    runs: tuple[tuple[str, int], ...] = ()
    foreign_files: int = 0
    foreign_stamp: str = ""
    vectors: int = 0


@dataclass(frozen=True, slots=True)
class ManifestUnit:
    """A unit as a run's manifest records it.

    ``rows`` are those of the run itself; ``beside`` are (run id, rows) of the other runs that make the unit together
    with it: a replay adds to what its run published. Its ``key`` is that run's, so that the unit stays live; ``read``
    is the key of the files that it read itself, under its own settings, and '' where that is ``key`` (or, as in
    replays of older releases, not known).
    """

    values: UnitValues
    key: str
    rows: int
    beside: tuple[tuple[str, int], ...] = ()
    read: str = ""


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What planning needs to know of an older run."""

    run_id: str
    model_name: str
    model_version: str
    model_digest: str
    source_key: str
    units: tuple[ManifestUnit, ...]
    replays: str = ""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Content of a unit that a rollback took back, while the unit is as the rollback made it.

    ``by`` is who rolled back, ``at`` when (ISO 8601, UTC), ``to_run`` the run whose table came back.
    """

    run_id: str
    key: str
    source_key: str
    rollback_id: str
    to_run: str
    at: str
    by: str


@dataclass(frozen=True, slots=True)
class TargetState:
    """The output table as planning found it.

    Attributes:
        uri: where the table is or will be.
        version: Delta version, -1 where there is no table yet.
        columns: its columns, () where there is no table yet.
        partition_by: its partition columns.
        units: state of each unit that has active files.
        manifests: heads of the manifests of all runs that ``units`` mention (missing ones are absent).
        refused: why batchscore will not write this table (feature or property and the statement that drops
            it), or None.
        published: units of which rows were forgotten, as they were published; what else they say is in ``units``.
        withdrawn: what rollbacks took back, by unit; of units without files, too.
        emptied: the keys under which published runs found no row of a unit, by unit; only of units that were asked for.
    """

    uri: str
    version: int = -1
    columns: Schema = ()
    partition_by: tuple[str, ...] = ()
    units: Mapping[UnitValues, UnitState] = field(default_factory=dict)
    manifests: Mapping[str, ManifestHead] = field(default_factory=dict)
    refused: str | None = None
    published: Mapping[UnitValues, UnitState] = field(default_factory=dict)
    withdrawn: Mapping[UnitValues, tuple[Withdrawal, ...]] = field(default_factory=dict)
    emptied: Mapping[UnitValues, frozenset[str]] = field(default_factory=dict)

    def as_published(self, values: UnitValues) -> UnitState:
        """A unit's state as if no row of it had been forgotten: what liveness is judged by."""
        return self.published.get(values) or self.units.get(values) or UnitState()

    def is_emptied(self, values: UnitValues, key: str) -> bool:
        """Whether a unit is published under this key and holds no row: the table has no file of it."""
        return key in self.emptied.get(values, ()) and self.as_published(values) == UnitState()

    @property
    def exists(self) -> bool:
        """Whether there is a table."""
        return self.version >= 0
