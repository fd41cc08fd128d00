"""What a run's manifest says of its settings and its input, compared with what is there today.

The manifest holds a digest of the whole input and, in each unit's key, one of the unit's files: what changed since is
told by unit, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.arrow.layout import NULL_FOLDER
from batchscore.config.redaction import MASK
from batchscore.contracts import Manifest, PinnedSource, Restriction, SourceFile, UnitValues
from batchscore.errors import InputError, unit_text
from batchscore.plan.units import below, unit_key, unit_of


def settings_section(manifest: Manifest, name: str) -> Mapping[str, Any]:
    """A section of the recorded settings; empty where an old manifest has none."""
    section = manifest.settings.get(name)
    return section if isinstance(section, Mapping) else {}


def recorded_restriction(manifest: Manifest) -> Restriction:
    """The partitions that the run was restricted to.

    Raises:
        InputError: they are masked in the manifest.
    """
    found = []
    for name, values in dict(settings_section(manifest, "input").get("partitions") or {}).items():
        if values == MASK or MASK in values:
            raise InputError("the manifest masks which partitions were read", found=f"input.partitions.{name}")
        found.append((str(name), tuple(None if value == NULL_FOLDER else str(value) for value in values)))
    return Restriction(partitions=tuple(found))


def recorded_files(manifest: Manifest, source: PinnedSource, unit: UnitValues) -> tuple[SourceFile, ...] | None:
    """The files of a unit, or of the whole input where its layout does not tell units; None where they changed.

    Args:
        manifest: of the run.
        source: the input as it is today, under the run's restriction.
        unit: one of the run's units.
    """
    names = [name for name, _ in unit]
    by_unit = set(names) <= set(source.partition_columns)
    files = tuple(file for file in source.files if not by_unit or unit_of(file, names) == unit)
    if source.snapshot == manifest.source_snapshot:
        return files
    recorded = next((known.key for known in manifest.units if known.values == unit), None)
    if not by_unit or recorded is None:
        return None
    now = unit_key(manifest.model_digest, below(source.root, files), manifest.settings_digest, unit)
    return files if now == recorded else None


def changed(manifest: Manifest, source: PinnedSource, unit: UnitValues) -> str:
    """What is said of a unit's input that is no longer the recorded one."""
    if source.kind == "delta":
        return f"version {manifest.source_version} of {source.uri} is not the table that the run read: it was made anew"
    names = [name for name, _ in unit]
    if not set(names) <= set(source.partition_columns):
        return f"the files of {source.uri} changed since the run: other files, sizes, times or footers"
    count = sum(unit_of(file, names) == unit for file in source.files)
    if not count:
        return f"the files of {unit_text(unit)} are gone"
    return f"the files of {unit_text(unit)} changed since the run ({count:,} now): other sizes, times or footers"
