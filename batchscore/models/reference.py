"""What a user writes for a model, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from batchscore.errors import SettingsError

STAGES = ("Production", "Staging", "Archived")
ALLOWED = ("name/7", "name/Production", "name@champion", "models:/name/7", "runs:/RUN_ID/PATH", "a model folder")
MODEL_FILE = "MLmodel"

Kind = Literal["version", "stage", "alias", "latest", "bare", "logged", "run", "folder"]

_LOGGED_MODEL = re.compile(r"^m-[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model reference.

    ``name`` is the registered name, or the folder for ``folder``; ``value`` is the version, stage or alias,
    the id of a logged model, or ``RUN_ID/PATH``. ``shadows_registry`` marks a folder that could have been
    meant as a registered name.
    """

    kind: Kind
    name: str
    value: str = ""
    shadows_registry: bool = False


def parse_reference(text: str, version: str | None = None) -> Reference:
    """Takes a reference apart; ``version`` comes from the settings and goes with a bare name only.

    Raises:
        SettingsError: the text has none of the allowed forms.

    >>> parse_reference("fraud/7")
    Reference(kind='version', name='fraud', value='7', shadows_registry=False)
    >>> parse_reference("models:/fraud@champion").kind
    'alias'
    >>> parse_reference("fraud", version="Production").value
    'Production'
    """
    found = _parse(text.strip())
    if version is None or version == "":
        return found
    if found.kind != "bare":
        raise SettingsError(
            "the model is named with a version twice",
            found=f"{text} and version {version}",
            hint="give the version in one of both places",
        )
    return _tagged(found.name, version[1:], alias=True) if version.startswith("@") else _tagged(found.name, version)


def _refuse_other_registry(text: str) -> None:
    scheme, _, rest = text.partition(":")
    if scheme in ("models", "runs") and re.match("//[^/]", rest):
        raise SettingsError(
            "this names a model of another registry",
            found=text,
            allowed=ALLOWED,
            hint="models load from one registry alone: name it in registry.tracking_uri (--tracking-uri)",
        )


def _parse(text: str) -> Reference:
    _refuse_other_registry(text)
    scheme, _, rest = text.partition(":")
    if scheme == "models" and rest.startswith("/"):
        return _registered(rest.strip("/"), text)
    if scheme == "runs" and rest.startswith("/"):
        run_id, _, path = rest.strip("/").partition("/")
        if not run_id or not path:
            raise SettingsError(
                "a runs:/ reference needs a run id and a path", found=text, allowed=("runs:/RUN_ID/PATH",)
            )
        return Reference("run", path.rsplit("/", 1)[-1], f"{run_id}/{path}")
    if scheme == "file":
        return Reference("folder", local_path(text))
    if "://" in text:
        raise SettingsError(
            "a model is loaded from the registry or from a local folder",
            found=text,
            allowed=ALLOWED,
            hint="register the model, or copy its folder here",
        )
    if text.startswith(("/", "./", "../", "~")):
        return Reference("folder", text)
    if text and Path(text, MODEL_FILE).is_file():
        return Reference("folder", text, shadows_registry=True)
    return _registered(text, text)


def _registered(text: str, original: str) -> Reference:
    if _LOGGED_MODEL.match(text):
        return Reference("logged", text, text)
    name, at, alias = text.partition("@")
    if at:
        parts = [name, alias]
    else:
        parts = text.split("/")
        name, alias = parts[0], ""
    if not all(parts) or len(parts) > 2 or ":" in name or "/" in name or "/" in alias or name in (".", ".."):  # noqa: PLR2004  # a name and a version
        raise SettingsError("this is not a model reference", found=original or "nothing", allowed=ALLOWED)
    if at:
        return _tagged(name, alias, alias=True)
    return Reference("bare", name) if len(parts) == 1 else _tagged(name, parts[1])


def _tagged(name: str, tag: str, *, alias: bool = False) -> Reference:
    if alias:
        return Reference("alias", name, tag)
    if tag.isascii() and tag.isdigit():
        return Reference("version", name, str(int(tag)))
    if tag.casefold() == "latest":
        return Reference("latest", name)
    stage = next((known for known in STAGES if known.casefold() == tag.casefold()), tag)
    return Reference("stage", name, stage)


def local_path(uri: str) -> str:
    """The path that a ``file:`` URI names.

    Raises:
        SettingsError: it is none.

    >>> local_path("file:///data/m%201")
    '/data/m 1'
    """
    try:
        return unquote(urlparse(uri).path)
    except ValueError as error:  # a bracket that is not closed
        raise SettingsError("this is no address of a file or folder", found=uri, allowed=("file:///folder",)) from error
