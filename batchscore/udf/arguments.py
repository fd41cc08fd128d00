"""The arguments of ``spark_udf`` that are checked when it is called: environment, variables, configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscore.documents import DocumentError, read_yaml_file
from batchscore.errors import SettingsError, nearest
from batchscore.models.mlmodel import Document

LOCAL = "local"
ENVIRONMENTS = (LOCAL, "uv")
MAX_CONFIG_BYTES = 1_000_000


def environment_of(env_manager: str | None, prebuilt_env_uri: str | None) -> str:
    """The environment that the model runs in: ``local`` or ``uv``.

    Raises:
        SettingsError: one that there is not.
    """
    if prebuilt_env_uri is not None:
        raise SettingsError(
            "prebuilt_env_uri is not supported: it is for Databricks, and batchscore restores no such archive",
            found=prebuilt_env_uri,
            hint='leave it out; env_manager="uv" restores the model\'s environment once on each host',
        )
    manager = env_manager or LOCAL
    if manager not in ENVIRONMENTS:
        raise SettingsError(
            "env_manager is not supported",
            found=manager,
            allowed=ENVIRONMENTS,
            hint="uv restores the requirements that the model was logged with, as virtualenv and conda do",
        )
    return manager


def variables_of(extra_env: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Environment variables, sorted by name.

    Raises:
        SettingsError: a name or a value is no text.
    """
    for name, value in (extra_env or {}).items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name:
            raise SettingsError(
                f"extra_env maps names of environment variables to text, and {name!r} does not",
                found=type(value).__name__,  # a value may be a secret
                hint='write numbers as text: {"N": "1"}',
            )
    return tuple(sorted((extra_env or {}).items()))


def config_of(model_config: str | Path | Mapping[str, Any] | None, document: Document) -> str:
    """What overrides the configuration that the model was logged with, as JSON; '' for nothing.

    Args:
        model_config: the values, or the path of a YAML file with them, read here.
        document: the model's MLmodel file.

    Raises:
        SettingsError: the model was logged without a configuration, which MLflow only warns of, or has no such key.
    """
    if not model_config:
        return ""
    given = _read(model_config) if isinstance(model_config, str | Path) else model_config
    own = document["flavors"].get("python_function", {}).get("config")
    if not isinstance(own, Mapping) or not own:
        raise SettingsError(
            "model_config is given, and the model takes none",
            found=", ".join(map(str, given)),
            hint="log the model with model_config={...}: its keys are those that may be changed here",
        )
    for key in given:
        if key not in own:
            raise SettingsError(
                f"the model's configuration has no {key!r}", near=nearest(str(key), own), allowed=sorted(own)
            )
    text = _json(given)
    if text is None:
        raise SettingsError("model_config holds a value that JSON does not know", allowed=("text, numbers, lists",))
    return text


def _read(path: str | Path) -> Mapping[str, Any]:
    try:
        content = read_yaml_file(Path(path), MAX_CONFIG_BYTES)
    except (OSError, DocumentError) as error:
        raise SettingsError("the file of model_config cannot be read", found=error) from error
    if not isinstance(content, Mapping):
        raise SettingsError("the file of model_config holds no mapping", found=path)
    return content


def _json(values: Mapping[str, Any]) -> str | None:
    try:
        text = json.dumps(dict(values), sort_keys=True)
    except (TypeError, ValueError):
        return None
    return text if json.loads(text) == values else None
