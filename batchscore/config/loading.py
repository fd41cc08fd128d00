"""From a YAML file and the command line to a checked :class:`JobConfig`, with errors that say where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import yaml
from pydantic import ValidationError

from batchscore.config.model_name import split_model
from batchscore.config.problems import Origins, error_of, settings_problems
from batchscore.config.redaction import MASK, is_secret_name, learn_settings
from batchscore.config.settings import JobConfig
from batchscore.documents import YAML_FAILURES, why
from batchscore.errors import SettingsError, nearest
from batchscore.redaction import learn, secrets_of

SETTINGS_FOLDER = Path("conf")
MAX_FILE_BYTES = 1_000_000
MAX_NODES = 20_000  # aliases of aliases can make a small file endless

KeyPath: TypeAlias = tuple[str | int, ...]

_SECTIONS = ("model", "input", "output", "scoring", "quarantine", "validation", "spark", "registry")

# Scalars that are kept as they are written: YAML would read 01 as 1, NO as false, 2026-11-21 as a date.
_VERBATIM = re.compile(
    r"model\.(name|version)|input\.(path|version|where)|input\.partitions\..+|output\.(path|keys|carry|partition_by)"
    r"(\.\d+)?|spark\.conf\..+|model\.signature\.(inputs|outputs)\.\d+\.(name|type)|schedule|registry\.(tracking_uri|allowed_paths(\.\d+)?)"
)
# What no path, name or SQL can hold: the end of a C string, and halves of characters.
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")
_NULL_TAG = "tag:yaml.org,2002:null"
_TEXT_TAG = "tag:yaml.org,2002:str"
_MERGE_TAG = "tag:yaml.org,2002:merge"


def settings_file_of(model: str, folder: Path = SETTINGS_FOLDER) -> Path | None:
    """``conf/<model name>.yaml`` for a model as ``--model`` names it, or None where there is no such file."""
    name, _ = split_model(model)
    if not name or "/" in name or ":" in name:
        return None
    path = folder / f"{name}.yaml"
    return path if path.is_file() else None


def load(path: Path | str | None, overrides: Mapping[str, object] | None = None) -> JobConfig:
    """The settings of a file, with ``overrides`` put over them.

    Args:
        path: a YAML file, or None for the overrides alone.
        overrides: values by dotted key, for example ``{"input.path": "data/day"}``.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, given twice or missing, or a value is wrong.
            Names the file, the line, near keys and allowed values; of many problems the first ten are shown.
    """
    document: dict[str, object] = {}
    lines: dict[KeyPath, int] = {}
    if path is not None:
        document, lines = _read(Path(path))
    overridden = frozenset(_put(document, key, value) for key, value in (overrides or {}).items())
    for section in _SECTIONS:
        if document.get(section) is None:  # left out, or `spark:` with nothing below it
            document[section] = {}
    learn_settings(document)
    origins = Origins(str(path) if path is not None else None, lines, overridden)
    _check_texts(document, (), origins)
    try:
        return JobConfig.model_validate(document)
    except ValidationError as error:
        raise error_of(settings_problems(error, document, origins), origins) from error


def parse_assignment(text: str) -> tuple[str, object]:
    """The key and the value of ``--set a.b=c``; the value is read as YAML.

    >>> parse_assignment("output.keys=[a, b]")
    ('output.keys', ['a', 'b'])

    Raises:
        SettingsError: there is no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise SettingsError(
            "--set takes KEY=VALUE", found=text, hint="name the key with dots, for example --set scoring.engine=pyfunc"
        )
    learn(secrets_of(key, value))
    try:
        return key, _assigned(value, tuple(key.split(".")))
    except (*YAML_FAILURES, _DuplicateKeyError, _TooManyNodesError) as error:
        found = MASK if is_secret_name(key) else value
        raise SettingsError(f"the value of --set {key} is not YAML", found=found, hint=why(error)) from error


def _assigned(value: str, path: KeyPath) -> object:
    loader = yaml.SafeLoader(value)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        for _ in _walk(node, path):
            pass
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_texts(value: object, path: KeyPath, origins: Origins) -> None:
    """Refuses text that no file system, engine or log takes, before it ends as a failure of one of them."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_texts(str(key), path, origins)
            _check_texts(item, (*path, str(key)), origins)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_texts(item, path, origins)
    elif isinstance(value, str) and _NOT_TEXT.search(value):
        name = ascii(".".join(map(str, path)))[1:-1]
        raise SettingsError(f"{origins.of(path)}{name} holds a character that is none", found=ascii(value))


def _put(document: dict[str, object], key: str, value: object) -> KeyPath:
    """Sets a dotted key and returns its path. ``spark.conf`` holds names that have dots themselves."""
    parts = ["spark", "conf", key[11:]] if key.startswith("spark.conf.") else key.split(".")
    place = document
    for part in parts[:-1]:
        below = place.get(part)
        if not isinstance(below, dict):
            below = {}
            place[part] = below
        place = below
    place[parts[-1]] = value
    return tuple(parts)


def _read(path: Path) -> tuple[dict[str, object], dict[KeyPath, int]]:
    text = _text_of(path)
    try:
        return _document(path, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(
            f"{path}{where}: not YAML: {error.problem or error.context}",
            hint="check the indentation, quotes and brackets there",
        ) from error
    except YAML_FAILURES as error:
        raise SettingsError(f"{path}: not YAML", found=why(error)) from error
    except _DuplicateKeyError as error:
        raise SettingsError(
            f"{path} line {error.line}: {error.key} is given twice",
            found=f"first on line {error.first_line}",
            hint="keep one of them",
        ) from error
    except _TooManyNodesError as error:
        raise SettingsError(f"{path}: more than {MAX_NODES:,} values", hint="unfold the YAML aliases") from error


def _document(path: Path, text: str) -> tuple[dict[str, object], dict[KeyPath, int]]:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            found = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise SettingsError(f"{path} holds no settings", found=found, hint="write `key: value` lines")
        lines = dict(_walk(node, ()))
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:  # a device or a pipe has no size of its own
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes", hint="is this a settings file?")
        return content.decode("utf-8")
    except FileNotFoundError as error:
        folder = path.parent
        present = sorted(item.name for item in folder.glob("*.y*ml")) if folder.is_dir() else []
        raise SettingsError(
            f"there is no settings file {path}",
            near=[str(folder / name) for name in nearest(path.name, present)],
            allowed=[str(folder / name) for name in present],
        ) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"the settings file {path} cannot be read", found=str(error)) from error


class _DuplicateKeyError(Exception):
    def __init__(self, key: str, line: int, first_line: int) -> None:
        super().__init__(f"{key} is given twice")
        self.key, self.line, self.first_line = key, line, first_line


class _TooManyNodesError(Exception):
    pass


def _walk(node: yaml.Node, path: KeyPath, budget: list[int] | None = None) -> Iterator[tuple[KeyPath, int]]:
    """Each key path with its line (from 1); turns the scalars of ``_VERBATIM`` into text on the way."""
    budget = [MAX_NODES] if budget is None else budget
    budget[0] -= 1
    if budget[0] < 0:
        raise _TooManyNodesError
    if isinstance(node, yaml.MappingNode):
        yield from _walk_mapping(node, path, budget)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _walk(item, (*path, index), budget)
    elif node.tag not in (_NULL_TAG, _TEXT_TAG) and _VERBATIM.fullmatch(".".join(map(str, path))):
        node.tag = _TEXT_TAG


def _walk_mapping(node: yaml.MappingNode, path: KeyPath, budget: list[int]) -> Iterator[tuple[KeyPath, int]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE_TAG:
            continue
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if isinstance(key_node, yaml.ScalarNode):
            key_node.tag = _TEXT_TAG  # a key is a name, whatever it looks like
        if key in seen:
            raise _DuplicateKeyError(".".join(map(str, (*path, key))), line, seen[key])
        seen[key] = line
        yield (*path, key), line
        yield from _walk(value_node, (*path, key), budget)
