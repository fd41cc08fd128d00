"""What pydantic found wrong with settings, in the words of :mod:`batchscore.errors`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from batchscore.config.redaction import MASK, is_secret_name, redact
from batchscore.config.settings import JobConfig
from batchscore.errors import MAX_ITEMS, SettingsError, bounded, listed, nearest

MAX_KEY_CHARS = 80
_FLAGS = {"model.name": "--model", "input.path": "--input", "output.path": "--output"}


@dataclass(frozen=True, slots=True)
class Origins:
    """Where each setting came from: lines (from 1) of the file, or the command line."""

    file: str | None
    lines: Mapping[tuple[str | int, ...], int]
    overridden: frozenset[tuple[str | int, ...]]

    def of(self, path: tuple[str | int, ...]) -> str:
        """A prefix such as ``conf/a.yaml line 3: ``; the nearest known parent counts."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.overridden:
                return "command line: "
            if path[:end] in self.lines:
                return f"{self.file} line {self.lines[path[:end]]}: "
        return f"{self.file}: " if self.file else ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong setting."""

    where: str
    text: str
    found: str | None = None
    allowed: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    hint: str | None = None

    def line(self) -> str:
        """The problem on one line."""
        parts = [self.where + self.text]
        if self.found is not None:
            parts.append(f"found: {bounded(self.found, 60)}")
        if self.near:
            parts.append(f"did you mean: {listed(self.near)}?")
        elif self.allowed:
            parts.append(f"allowed: {listed(self.allowed)}")
        return "; ".join(parts)


def error_of(problems: Sequence[Problem], origins: Origins) -> SettingsError:
    """One error for all problems; of many the first ten are shown."""
    if len(problems) == 1:
        one = problems[0]
        return SettingsError(one.where + one.text, found=one.found, allowed=one.allowed, near=one.near, hint=one.hint)
    lines = [problem.line() for problem in problems[:MAX_ITEMS]]
    if len(problems) > MAX_ITEMS:
        lines.append(f"and {len(problems) - MAX_ITEMS} more")
    source = origins.file or "the command line"
    return SettingsError(
        f"{len(problems)} settings of {source} are wrong",
        detail=lines,
        hint="conf/reference.yaml in the repository shows every key",
    )


def settings_problems(error: ValidationError, document: object, origins: Origins) -> list[Problem]:
    """One problem for each wrong setting, in the order of the declarations."""
    problems: dict[tuple[str | int, ...], Problem] = {}
    for detail in error.errors(include_url=False):
        path = _path_in(document, detail["loc"])
        problems.setdefault(path, _problem(path, detail, origins))
    return list(problems.values())


def _path_in(document: object, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Pydantic's location without what it adds for unions and mapping keys."""
    path: list[str | int] = []
    for part in location:
        path.append(part)
        document = _child(document, part)
        if document is None:
            break
    return tuple(path)


def _child(document: object, part: str | int) -> object:
    if isinstance(document, Mapping):
        return document.get(part)
    if isinstance(document, Sequence) and not isinstance(document, str) and isinstance(part, int):
        return document[part]
    return None


def _problem(path: tuple[str | int, ...], detail: ErrorDetails, origins: Origins) -> Problem:
    key = bounded(".".join(map(str, path)), MAX_KEY_CHARS)
    where = origins.of(path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        near = _near_keys(path)
        allowed = () if near else tuple(_fields_at(path[:-1]))
        return Problem(where, f"unknown key {key}", near=near, allowed=allowed)
    if kind == "missing":
        flag = f" ({_FLAGS[key]})" if key in _FLAGS else ""
        return Problem(where, f"{key}{flag} is missing", hint="give it in the settings file or on the command line")
    found = _shown(key, detail["input"])
    if kind == "literal_error":
        allowed = tuple(re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", ""))))
        return Problem(where, f"{key} is not known", found=found, allowed=allowed, near=tuple(nearest(found, allowed)))
    accepted = tuple(_accepted(item) for item in detail.get("ctx", {}).get("accepted", ()))
    hint = f"leave {key} out" if kind == "not_built" else None
    return Problem(where, f"{key} {_sentence(detail)}", found=found, allowed=accepted, hint=hint)


def _accepted(value: object) -> str:
    return f"[{listed(value)}]" if isinstance(value, list | tuple) else bounded(value)


def _sentence(detail: ErrorDetails) -> str:
    if detail["type"] in ("model_type", "dict_type"):
        return "should be a section: keys and values, indented below it"
    if detail["type"] in ("list_type", "tuple_type"):
        return "should be a list"
    return detail["msg"].removeprefix("Input ").removesuffix(".")


def _shown(key: str, value: object) -> str:
    return MASK if is_secret_name(key) else bounded(redact(str(value)))


def _fields_at(path: tuple[str | int, ...]) -> list[str]:
    fields: type[BaseModel] = JobConfig
    for part in path:
        below = fields.model_fields[str(part)].annotation if part in fields.model_fields else None
        arguments = [below, *getattr(below, "__args__", ())]
        models = [item for item in arguments if isinstance(item, type) and issubclass(item, BaseModel)]
        if not models:
            return []
        fields = models[0]
    return list(fields.model_fields)


def _near_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Near keys of the same section, else the whole names of keys elsewhere that are called so."""
    siblings = nearest(str(path[-1]), _fields_at(path[:-1]))
    if siblings:
        return tuple(siblings)
    everywhere = list(all_keys())
    last = {key.rpartition(".")[2]: key for key in reversed(everywhere)}
    return tuple(last[name] for name in nearest(str(path[-1]), last))


def all_keys(prefix: str = "", settings: type[BaseModel] = JobConfig) -> Iterator[str]:
    """The dotted names of all settings, sections not included."""
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from all_keys(f"{prefix}{name}.", kind)
        else:
            yield f"{prefix}{name}"
