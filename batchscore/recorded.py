"""What a run's manifest says of its settings and its input, compared with what is there today.

The manifest holds a digest of the whole input and, in each unit's key, one of the unit's files: what changed since is
told by unit, never guessed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.arrow.layout import NULL_FOLDER
from batchscore.config.redaction import MASK, redact, redact_setting
from batchscore.contracts import Manifest, PinnedSource, Restriction, SourceFile, UnitValues
from batchscore.errors import InputError, unit_text
from batchscore.plan.units import below, unit_key, unit_of

REGISTRY_VARIABLE = "MLFLOW_TRACKING_URI"


def settings_section(manifest: Manifest, name: str) -> Mapping[str, Any]:
    """A section of the recorded settings; empty where an old manifest has none."""
    section = manifest.settings.get(name)
    return section if isinstance(section, Mapping) else {}


def settings_list(manifest: Manifest, section: str, name: str) -> tuple[str, ...]:
    """A list of texts in the recorded settings; () where there is none.

    Raises:
        InputError: the manifest has something else there.
    """
    found = settings_section(manifest, section).get(name)
    return () if found is None else _texts(found, f"{section}.{name}")


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InputError("the settings in the manifest are damaged", found=f"{name} is no list of texts")
    return tuple(value)


def registry_of(manifest: Manifest, named: str | None) -> tuple[str, bool]:
    """Where the model's registry is, and whether the manifest alone says so: who writes the table may have forged it.

    Args:
        manifest: of the run.
        named: the registry that the operator names, if any; MLflow's own variable names one, too.
    """
    if named is not None:
        return named, False
    recorded = str(settings_section(manifest, "registry").get("tracking_uri") or "")
    own = os.environ.get(REGISTRY_VARIABLE, "")
    if own and recorded in {own, redact(own), redact_setting("tracking_uri", own)}:
        return own, False
    return recorded, True


def recorded_restriction(manifest: Manifest) -> Restriction:
    """The partitions that the run was restricted to.

    Raises:
        InputError: they are masked in the manifest, or it has something else there.
    """
    partitions = settings_section(manifest, "input").get("partitions") or {}
    if not isinstance(partitions, Mapping):
        raise InputError("the settings in the manifest are damaged", found="input.partitions is no mapping")
    found = []
    for name, named in partitions.items():
        values = (named,) if named == MASK else _texts(named, f"input.partitions.{name}")
        if MASK in values:
            raise InputError("the manifest masks which partitions were read", found=f"input.partitions.{name}")
        found.append((str(name), tuple(None if value == NULL_FOLDER else value for value in values)))
    return Restriction(partitions=tuple(found))


def recorded_files(
    manifest: Manifest, source: PinnedSource, units: Sequence[UnitValues]
) -> dict[UnitValues, tuple[SourceFile, ...] | None]:
    """The files of units, or of the whole input where its layout does not tell units; None where they changed.

    Args:
        manifest: of the run.
        source: the input as it is today, under the run's restriction.
        units: of the run.
    """
    names = [name for name, _ in units[0]] if units else []
    by_unit = set(names) <= set(source.partition_columns)
    same = source.snapshot == manifest.source_snapshot
    if not by_unit:
        return dict.fromkeys(units, source.files if same else None)
    grouped: dict[UnitValues, list[SourceFile]] = defaultdict(list)
    for file in source.files:
        grouped[unit_of(file, names)].append(file)
    keys = {unit.values: unit.read or unit.key for unit in manifest.units}

    def is_recorded(unit: UnitValues) -> bool:
        files = below(source.root, grouped[unit])
        return keys.get(unit) == unit_key(manifest.model_digest, files, manifest.settings_digest, unit)

    return {unit: tuple(grouped[unit]) if same or is_recorded(unit) else None for unit in units}


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
