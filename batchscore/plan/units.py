"""The unit of work: its key, and whether the table already holds it.

A unit is a partition of the output (the whole table when there are none). Its key is a digest of all that can
change its scores; it is live when the table's own files and the manifests of the runs that wrote them say so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from batchscore.contracts import ManifestHead, ManifestUnit, Mode, Restriction, SourceFile, UnitState, UnitValues
from batchscore.errors import SettingsError

# Manifests whose units are kept indexed: a table is seldom live by more runs than this at a time.
INDEXED_MANIFESTS = 256


def _digest(facts: object) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def below(root: str, files: Iterable[SourceFile]) -> list[SourceFile]:
    """The files by their paths below the source: moved or mounted elsewhere, they are still the same input."""
    return [replace(file, path=file.path.removeprefix(root).lstrip("/")) for file in files]


def unit_of(file: SourceFile, partition_by: Iterable[str]) -> UnitValues:
    """The unit of the output that a file of the input belongs to."""
    values = dict(file.partition)
    # Delta's log has one spelling for the empty text and for null.
    return tuple((name, values[name] or None) for name in partition_by)


def refuse_parts(restriction: Restriction, partition_by: Sequence[str]) -> None:
    """Refuses to replace whole units of the output by those of their rows that a partition of the input holds.

    Raises:
        SettingsError: naming a column that the command restricts and that is none of the output's partition columns.
    """
    outside = [column for column, _ in restriction.partitions if column not in partition_by]
    if outside:
        raise SettingsError(
            f"--partition {outside[0]}=… would replace whole units of the output by some of their rows",
            found=f"the output is partitioned by {', '.join(partition_by) or 'nothing'}",
            hint=f"partition the output by {outside[0]} (output.partition_by), or use --where to say that some "
            "rows are the whole unit, or --mode append or replace",
        )


def units_of(files: Iterable[SourceFile], partition_by: Iterable[str]) -> frozenset[UnitValues]:
    """The units of the output that files of the input belong to."""
    names = tuple(partition_by)
    return frozenset(unit_of(file, names) for file in files)


def unit_key(model_digest: str, files: Iterable[SourceFile], settings_digest: str, values: UnitValues) -> str:
    """The key of a unit whose input files are known; their order does not matter.

    Args:
        model_digest: digest of the model's files.
        files: the unit's input files: path, size and stamp count.
        settings_digest: digest of the settings that can change a score.
        values: the unit's partition values.

    Returns:
        SHA-256, hex.

    >>> unit_key("m", [], "s", ()) == unit_key("m", [], "s", (("ds", "2026-01-01"),))
    False
    """
    listing = sorted([file.path, file.size, file.stamp] for file in files)
    return _digest({"model": model_digest, "settings": settings_digest, "values": values, "files": listing})


def source_key(model_digest: str, snapshot: str, settings_digest: str) -> str:
    """The key of the whole input under a model and settings: SHA-256, hex."""
    return _digest({"model": model_digest, "settings": settings_digest, "snapshot": snapshot})


def derived_unit_key(source: str, values: UnitValues) -> str:
    """The key of a unit that is found only while scoring, from :func:`source_key` and its values."""
    return _digest({"source": source, "values": values})


def is_live(
    unit_state: UnitState,
    key: str,
    values: UnitValues,
    manifests: Mapping[str, ManifestHead],
    mode: Mode,
) -> bool:
    """Whether the table already holds this unit under this key.

    The unit's active files all carry one run id, their rows add up to what that run's manifest states for the
    unit, and that manifest holds this key. After a replay they carry its run id, too, and the replay's manifest
    states the rows of both. Under ``append`` other runs' files may lie beside them: one run's rows are enough.

    Args:
        unit_state: what the unit's active files say.
        key: the key that the unit would be scored under now.
        values: the unit's partition values.
        manifests: heads of the manifests of the runs that ``unit_state`` mentions; a missing one proves nothing.
        mode: the output mode.
    """
    if mode == "append":
        return any(_holds(manifests, run, rows, key, values) for run, rows in unit_state.runs)
    if unit_state.foreign_files:
        return False
    return any(
        _holds(manifests, run, rows, key, values, beside=tuple(other for other in unit_state.runs if other[0] != run))
        for run, rows in unit_state.runs
    )


def _holds(
    manifests: Mapping[str, ManifestHead],
    run: str,
    rows: int,
    key: str,
    values: UnitValues,
    *,
    beside: tuple[tuple[str, int], ...] | None = None,
) -> bool:
    head = manifests.get(run)
    if head is None:
        return False
    unit = _indexed(_Units(head.units)).get(values)
    if unit is None or unit.key != key or unit.rows != rows:
        return False
    return beside is None or tuple(sorted(unit.beside)) == tuple(sorted(beside))


class _Units:
    """A manifest's units, hashed by identity: hashing 10,000 of them at each look would be quadratic."""

    __slots__ = ("units",)

    def __init__(self, units: tuple[ManifestUnit, ...]) -> None:
        self.units = units

    def __hash__(self) -> int:
        return id(self.units)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Units) and self.units is other.units


@lru_cache(maxsize=INDEXED_MANIFESTS)
def _indexed(units: _Units) -> dict[UnitValues, ManifestUnit]:
    return {unit.values: unit for unit in units.units}
