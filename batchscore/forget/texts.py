"""Masks keys in what was written about rows: checks' samples and conditions in manifests, messages in the ledger."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem, write_durably
from batchscore.contracts import METADATA_FOLDER
from batchscore.errors import UnavailableError
from batchscore.manifests import FOLDER as MANIFESTS

MASK = "***"
# A value of fewer characters is masked where its column stands beside it, or where it is all of a sample: alone it
# may be any count.
TELLING_CHARS = 4
_VALUE = r"(?P<sign>\s*(?:=|<=>|:)\s*)(?P<quote>['\"]?)(?P<value>[^\s,;:()'\"]+)(?P=quote)"
_WORD = re.compile(r"[\w.@+\-]*\w")


class Masker:
    """Replaces the values of keys in text.

    Args:
        keys: column and value of each key, as text.

    >>> Masker([{"id": "42"}]).text("42 rows failed; for example id=42: column amount = -1")
    '42 rows failed; for example id=***: column amount = -1'
    """

    def __init__(self, keys: Iterable[Mapping[str, str]]) -> None:
        self._by_name: dict[str, set[str]] = defaultdict(set)
        for key in keys:
            for name, value in key.items():
                if value:
                    self._by_name[name].add(value)
        names = "|".join(re.escape(name) for name in self._by_name) or r"\b\B"  # no name: nothing matches
        self._assignments = re.compile(rf"(?<!\w)(?P<name>{names}){_VALUE}")
        everything = set().union(*self._by_name.values())
        self._values = everything
        self._telling = {value for value in everything if len(value) >= TELLING_CHARS}
        spaced = sorted((value for value in self._telling if not _WORD.fullmatch(value)), key=len, reverse=True)
        self._spaced = re.compile("|".join(map(re.escape, spaced))) if spaced else None

    def text(self, text: str) -> str:
        """A sentence without the values."""
        if self._spaced is not None:
            text = self._spaced.sub(MASK, text)
        text = self._assignments.sub(self._assigned, text)
        return _WORD.sub(lambda found: MASK if found[0] in self._telling else found[0], text)

    def sample(self, text: str) -> str:
        """One value of a sample, or a sentence."""
        return MASK if text.strip("'\"") in self._values else self.text(text)

    def _assigned(self, found: re.Match[str]) -> str:
        if found["value"] not in self._by_name.get(found["name"], ()):
            return found[0]
        return f"{found['name']}{found['sign']}{found['quote']}{MASK}{found['quote']}"


def mask_files(table_uri: str, masker: Masker, *, dry_run: bool) -> tuple[str, ...]:
    """Masks keys in the manifests and reports under ``_batchscore``.

    Args:
        table_uri: root of the table.
        masker: knows the keys.
        dry_run: only say which files would change.

    Returns:
        The files that held some, relative to the table's root.

    Raises:
        UnavailableError: storage could not be reached.
    """
    filesystem, root = open_filesystem(table_uri)
    root = root.rstrip("/")
    found = []
    try:
        selector = pafs.FileSelector(f"{root}/{METADATA_FOLDER}", allow_not_found=True, recursive=True)
        for info in filesystem.get_file_info(selector):
            relative = info.path[len(root) + 1 :]
            if not info.is_file or not _is_told(relative):
                continue
            with filesystem.open_input_stream(info.path) as stream:
                text = stream.read().decode(errors="surrogateescape")
            masked = _masked_file(relative, text, masker)
            if masked == text:
                continue
            found.append(relative)
            if not dry_run:
                _replace(filesystem, info.path, masked.encode(errors="surrogateescape"))
    except OSError as error:
        raise UnavailableError(f"the texts of the table at {table_uri} could not be masked", found=error) from error
    return tuple(sorted(found))


def _is_told(relative: str) -> bool:
    """Whether a file tells of rows: manifests and reports. Other JSON says which files and runs count."""
    if relative.endswith(".json"):
        return relative.startswith(f"{MANIFESTS}/")
    return relative.endswith((".html", ".txt", ".md"))


def _masked_file(relative: str, text: str, masker: Masker) -> str:
    if not relative.endswith(".json"):
        return masker.text(text)
    try:
        facts = json.loads(text)
        changed = masked_manifest(facts, masker)
    except (ValueError, TypeError, KeyError, AttributeError):  # damaged: it counts as missing
        return text
    return json.dumps(changed, sort_keys=True, indent=1) if changed != facts else text


def masked_manifest(facts: dict[str, object], masker: Masker) -> dict[str, object]:
    """A manifest without the keys: in its checks and its settings. Units, counts and digests stay.

    Args:
        facts: the manifest's JSON.
        masker: knows the keys.
    """
    checks = facts.get("checks") or []
    settings = facts.get("settings") or {}
    if not isinstance(checks, list) or not isinstance(settings, dict):
        raise TypeError("no manifest")
    masked_checks = [
        {
            **check,
            "observed": masker.text(check["observed"]),
            "sample": [masker.sample(text) for text in check["sample"]],
        }
        for check in checks
    ]
    masked_settings = {**settings, "input": _masked_values(settings.get("input", {}), masker.text)}
    return {**facts, "checks": masked_checks, "settings": masked_settings if "input" in settings else settings}


def _masked_values(value: object, mask: Callable[[str], str]) -> object:
    """The condition of the input; other settings name no rows."""
    if isinstance(value, dict) and isinstance(value.get("where"), str):
        return {**value, "where": mask(value["where"])}
    return value


def _replace(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
    if isinstance(filesystem, pafs.LocalFileSystem):
        write_durably(Path(path), data)
        return
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)
