"""Settings and texts without their secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchscore.config.settings import JobConfig

MASK = "***"

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|pwd$|secret|token|credential|private.?key|api.?key|access.?key|account.?key|shared.?key"
    r"|\bsas\b|sas$|auth|\.key\.|fs\.azure\.account\.key",
    re.IGNORECASE,
)
# Names that say where data is and how it is reached; any other query value may be a token.
_OPEN_QUERY_NAMES = frozenset({"region", "scheme", "endpoint_override", "mode", "timeout", "charset", "driver"})
# In these the part before "@" names a container.
_CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<rest>[^\s'\"<>]*)")
_ASSIGNED = re.compile(
    r"(?P<name>[A-Za-z0-9_.\-]*(?:password|passwd|pwd|secret|token|accountkey|sharedkey|accesskey))"
    r"(?P<eq>\s*[=:]\s*)(?P<value>(?!\*\*\*)[^;&,\s'\"]+)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """``text`` with the user, password and query tokens of each URI in it, and ``password=…`` pairs, masked.

    >>> redact("postgresql://ml:hunter2@db/mlflow?sslkey=abc&mode=ro")
    'postgresql://***@db/mlflow?sslkey=***&mode=ro'
    >>> redact("abfss://lake@account.dfs.core.windows.net/t")
    'abfss://lake@account.dfs.core.windows.net/t'
    """
    return _ASSIGNED.sub(rf"\g<name>\g<eq>{MASK}", _URI.sub(_redacted_uri, text))


def _redacted_uri(match: re.Match[str]) -> str:
    scheme, rest = match["scheme"], match["rest"]
    body, mark, query = rest.partition("?")
    authority, slash, path = body.partition("/")
    _, colon, after = authority.partition(":")
    if colon and not after.isdecimal() and "@" not in authority and "@" in path:
        authority, slash, path = body, "", ""  # a password with a slash in it
    user, at, host = authority.rpartition("@")
    if at and (scheme.lower() not in _CONTAINER_SCHEMES or ":" in user):
        authority = f"{MASK}@{host}"
    shown = "&".join(_redacted_pair(pair) for pair in query.split("&")) if query else ""
    return f"{scheme}://{authority}{slash}{path}{mark}{shown}"


def _redacted_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    if not equals:
        return MASK
    return pair if name.lower() in _OPEN_QUERY_NAMES else f"{name}={MASK}"


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name is likely to hold a secret.

    >>> is_secret_name("spark.hadoop.fs.s3a.secret.key"), is_secret_name("spark.sql.shuffle.partitions")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None


def redacted(config: JobConfig) -> dict[str, object]:
    """All settings as JSON values, secrets masked: what a manifest, a log or a report may hold."""
    shown = _redacted_value("", config.model_dump(mode="json"))
    assert isinstance(shown, dict)  # noqa: S101  # a mapping stays a mapping
    return shown


def _redacted_value(name: str, value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _redacted_value(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted_value(name, item) for item in value]
    if value is not None and name and is_secret_name(name):
        return MASK
    return redact(value) if isinstance(value, str) else value
