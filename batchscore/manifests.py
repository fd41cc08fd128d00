"""Manifests: the durable record of what a run publishes, a file under the table that outlives Delta's log."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem, remove_file, write_durably
from batchscore.contracts import (
    MAX_RUN_ID_CHARS,
    METADATA_FOLDER,
    Certificate,
    Check,
    Manifest,
    ManifestHead,
    ManifestUnit,
    Measurement,
    ReasonCount,
)
from batchscore.errors import SettingsError, SetupError, UnavailableError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT_VERSION = 1
FOLDER = f"{METADATA_FOLDER}/manifests"
READERS = 8  # manifests read at a time; each is one request on an object store

_RUN_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_RUN_ID_CHARS - 1}}}")
# What a damaged file ends with when it is read.
DAMAGE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
# The kinds of a record's values, by how its fields are declared; others are checked where they are made.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "bool": (bool,),
    "Mode": (str,),
    "RunState": (str,),
}
_LOG = logging.getLogger(__name__)

Proof = TypeVar("Proof", Certificate, Measurement)


def is_run_id(text: str) -> bool:
    """Whether ``text`` can be a run id of batchscore: it is safe as a file name and fits Delta's statistics.

    >>> is_run_id("20260131-abc"), is_run_id("../x")
    (True, False)
    """
    return _RUN_ID.fullmatch(text) is not None


def write(table_uri: str, manifest: Manifest) -> str:
    """Makes the manifest durable before the commit that names it.

    Args:
        table_uri: root of the table.
        manifest: what the run offers.

    Returns:
        The path relative to the table's root.

    Raises:
        SettingsError: the run id cannot be a file name.
        UnavailableError: storage refused.
    """
    if not is_run_id(manifest.run_id):
        raise SettingsError("this cannot be a run id", found=manifest.run_id, allowed=[_RUN_ID.pattern])
    relative = f"{FOLDER}/{manifest.run_id}.json"
    filesystem, root = open_filesystem(table_uri)
    data = to_json(manifest).encode()
    try:
        if isinstance(filesystem, pafs.LocalFileSystem):
            write_durably(Path(root) / relative, data)
        else:
            with filesystem.open_output_stream(f"{root}/{relative}") as stream:
                stream.write(data)
    except OSError as error:
        raise UnavailableError(
            "the run's manifest could not be written", found=error, hint="check space and write permission"
        ) from error
    return relative


def read(table_uri: str, run_id: str) -> Manifest | None:
    """The manifest of a run; None where there is none or it is damaged (a warning says so).

    Raises:
        SetupError: it was written by a newer batchscore.
        UnavailableError: storage could not be read.
    """
    if not is_run_id(run_id):  # a foreign table's `_run_id` may hold anything
        return None
    filesystem, root = open_filesystem(table_uri)
    try:
        with filesystem.open_input_stream(f"{root}/{FOLDER}/{run_id}.json") as stream:
            data = stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"the manifest of run {run_id} could not be read", found=error) from error
    try:
        manifest = from_json(data.decode())
    except DAMAGE as error:
        _LOG.warning("the manifest of run %s is damaged and counts as missing: %s", run_id, error)
        return None
    if manifest.run_id != run_id:
        _LOG.warning("the manifest of run %s names run %s and counts as missing", run_id, manifest.run_id)
        return None
    return manifest


def remove(table_uri: str, run_id: str) -> None:
    """Deletes the manifest of a run that published nothing, if there is one.

    Raises:
        OSError: storage refused.
    """
    remove_file(table_uri, f"{FOLDER}/{run_id}.json")


def heads(table_uri: str, run_ids: Iterable[str]) -> dict[str, ManifestHead]:
    """What planning needs of the manifests of these runs, by run id; missing and damaged ones are absent."""
    wanted = sorted(set(run_ids))
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda run_id: read(table_uri, run_id), wanted)
        return {manifest.run_id: head_of(manifest) for manifest in found if manifest is not None}


def head_of(manifest: Manifest) -> ManifestHead:
    """The part of a manifest that decides liveness."""
    return ManifestHead(
        run_id=manifest.run_id,
        model_name=manifest.model_name,
        model_version=manifest.model_version,
        model_digest=manifest.model_digest,
        source_key=manifest.source_key,
        units=manifest.units,
        replays=manifest.replays,
    )


def all_ids(table_uri: str) -> tuple[str, ...]:
    """The run ids of all manifests under the table, sorted."""
    filesystem, root = open_filesystem(table_uri)
    try:
        found = filesystem.get_file_info(pafs.FileSelector(f"{root}/{FOLDER}", allow_not_found=True))
    except OSError as error:
        raise UnavailableError("the table's manifests could not be listed", found=error) from error
    names = (info.base_name.removesuffix(".json") for info in found if info.base_name.endswith(".json"))
    return tuple(sorted(name for name in names if is_run_id(name)))


def to_json(manifest: Manifest) -> str:
    """The manifest as JSON; keys sorted, so equal manifests are equal files, and a line for each unit."""
    facts = {**asdict(replace(manifest, units=())), "settings": dict(manifest.settings)}
    lines = {name: json.dumps(value, sort_keys=True, indent=1).replace("\n", "\n ") for name, value in facts.items()}
    if manifest.units:  # there may be ten thousand
        names = sorted(entry.name for entry in fields(ManifestUnit))
        units = (json.dumps({name: getattr(unit, name) for name in names}) for unit in manifest.units)
        lines["units"] = "[\n  " + ",\n  ".join(units) + "\n ]"
    return "{\n" + ",\n".join(f" {json.dumps(name)}: {lines[name]}" for name in sorted(lines)) + "\n}"


def from_json(text: str) -> Manifest:
    """A manifest from :func:`to_json`.

    Raises:
        SetupError: it was written by a newer batchscore.
        One of DAMAGE: it is damaged.
    """
    facts: dict[str, Any] = json.loads(text)
    version = facts["format_version"]
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise SetupError(
            f"the manifest of run {facts.get('run_id')} was written by a newer batchscore",
            found=f"format version {version} (batchscore {facts.get('batchscore_version')})",
            allowed=(f"format version {FORMAT_VERSION} or older",),
            hint="upgrade batchscore on this machine",
        )
    check_kinds(facts, Manifest)
    known = {entry.name for entry in fields(Manifest)}
    kept = {name: value for name, value in facts.items() if name in known}
    kept["units"] = tuple(_unit(unit) for unit in facts["units"])
    kept["checks"] = tuple(_check(check) for check in facts.get("checks", ()))
    kept["quarantined"] = tuple(ReasonCount(**count) for count in facts.get("quarantined", ()))
    kept["certificate"] = _record(facts.get("certificate"), Certificate)
    kept["measurement"] = _record(facts.get("measurement"), Measurement)
    if not isinstance(facts["settings"], Mapping):
        raise TypeError("settings is not an object")
    return Manifest(**kept)


def check_kinds(values: Mapping[str, object], record: type[DataclassInstance]) -> None:
    """Checks that the values of a record are text, numbers and so on, as its fields are declared.

    Raises:
        TypeError: naming the first that is not.
    """
    for entry in fields(record):
        kinds = _KINDS.get(str(entry.type))
        if kinds is None or entry.name not in values:
            continue
        value = values[entry.name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{entry.name} is {type(value).__name__}, not {entry.type}")


def _unit(facts: dict[str, Any]) -> ManifestUnit:
    values = tuple((str(name), None if value is None else str(value)) for name, value in facts["values"])
    beside = tuple((str(run), int(rows)) for run, rows in facts.get("beside", ()))
    read = str(facts.get("read", ""))
    return ManifestUnit(values=values, key=str(facts["key"]), rows=int(facts["rows"]), beside=beside, read=read)


def _record(facts: dict[str, Any] | None, kind: type[Proof]) -> Proof | None:
    if facts is None:
        return None
    check_kinds(facts, kind)
    values: dict[str, Any] = {name: _frozen(value) for name, value in facts.items()}
    return kind(**values)


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _check(facts: dict[str, Any]) -> Check:
    check_kinds(facts, Check)
    return Check(**{**facts, "sample": tuple(str(value) for value in facts.get("sample", ()))})
