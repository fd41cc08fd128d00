"""Settings without their secrets; what a secret looks like stands in :mod:`batchscore.redaction`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchscore.redaction import MASK, is_secret_name, learn, redact, redact_setting, secrets_of

if TYPE_CHECKING:
    from batchscore.config.settings import JobConfig

__all__ = ["MASK", "is_secret_name", "learn_settings", "redact", "redact_setting", "redacted"]


def redacted(config: JobConfig) -> dict[str, object]:
    """All settings as JSON values, secrets masked: what a manifest, a log or a report may hold."""
    shown = _redacted_value("", config.model_dump(mode="json"))
    assert isinstance(shown, dict)  # noqa: S101  # a mapping stays a mapping
    return shown


def learn_settings(document: object) -> None:
    """Has the secrets among settings masked in whatever this process says from now on.

    Args:
        document: settings as they were given, checked or not.
    """
    learn(_secrets("", document))


def _secrets(name: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets(str(key), item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(name, item)
    elif isinstance(value, str):
        yield from secrets_of(name, value)


def _redacted_value(name: str, value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _redacted_value(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted_value(name, item) for item in value]
    if not isinstance(value, str):
        return value  # a number is no secret, whatever its name: `max_new_tokens: 64`
    return redact_setting(name, value)
