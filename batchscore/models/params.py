"""Inference parameters: the signature's defaults, overridden by the settings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from batchscore.contracts import ModelParam
from batchscore.errors import SettingsError, nearest
from batchscore.models.mlmodel import Document
from batchscore.models.signature import signature_part
from batchscore.schema import element_of

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


def resolve_params(document: Document, settings: Mapping[str, object] | None) -> tuple[ModelParam, ...]:
    """The parameters with the values to use, in the signature's order.

    A parameter of shape (-1,) has the type ``array<T>`` and a tuple as value.

    Raises:
        SettingsError: the settings name an unknown parameter, or a value has the wrong type.
    """
    entries = signature_part(document, "params") or []
    given = dict(settings or {})
    names = [str(entry.get("name")) for entry in entries]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise SettingsError(
            f"the model has no parameter {unknown[0]}",
            allowed=names,
            near=nearest(unknown[0], names),
            hint=None if names else "the model's signature declares no parameters: remove them from the settings",
        )
    return tuple(_param(entry, given) for entry in entries)


def _param(entry: Mapping[str, Any], given: Mapping[str, object]) -> ModelParam:
    name, kind = str(entry["name"]), str(entry.get("type"))
    if entry.get("shape") is not None:
        kind = f"array<{kind}>"
    if name not in given:
        return ModelParam(name, kind, _frozen(entry.get("default")))
    value = given[name]
    if not _fits(value, kind):
        raise SettingsError(f"parameter {name} has the wrong type", found=f"{value!r}", allowed=(kind,))
    return ModelParam(name, kind, _frozen(value))


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _fits(value: object, kind: str) -> bool:
    element = element_of(kind)
    if element is not None:
        return isinstance(value, list | tuple) and all(_fits(item, element) for item in value)
    # Objects and what later MLflow versions add: MLflow checks them itself.
    check = _CHECKS.get(kind)
    return check is None or check(value)


def _is_whole(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -limit - 1 <= value <= limit


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    if isinstance(value, dt.date):
        return True
    try:
        dt.datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return isinstance(value, str)


_CHECKS: dict[str, Callable[[object], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_whole(value, INT32_MAX),
    "long": lambda value: _is_whole(value, INT64_MAX),
    "float": _is_number,
    "double": _is_number,
    "string": lambda value: isinstance(value, str),
    "datetime": _is_time,
}
