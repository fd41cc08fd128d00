"""Texts without their secrets: the lowest room of all, so that no error and no log can be made without it.

Two nets lie behind each other. Patterns know what a secret looks like: user and query of a URI, ``password=…``, an
authorization header. And the values that this process was given under a secret's name (in settings, in the
environment) are masked wherever they turn up, whatever a library has written around them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

MASK = "***"
# Shorter ones are words: masking each "true" or "8080" would hide what a message is about.
MIN_SECRET_CHARS = 6
# Masked also where nobody had the environment learned: storage services quote what they refuse.
ALWAYS_SECRET = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
LONG_CHARS = 16  # shorter ones are masked where they stand alone: one may be a part of other words
# A message is cut much earlier; this only keeps the patterns from reading a megabyte.
MAX_READ_CHARS = 50_000

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|pass$|pwd|secret|token|credential|private.?key|api.?key|access.?key|account.?key|shared.?key"
    r"|\bsas\b|sas$|auth(?!or)|\.key\.|fs\.azure\.account\.key",
    re.IGNORECASE,
)
# Names that say where data is and how it is reached; any other query value may be a token.
_OPEN_QUERY_NAMES = frozenset({"region", "scheme", "endpoint_override", "mode", "timeout", "charset", "driver"})
_SIGNING_NAMES = ("sig", "signature", "key")
# In these the part before "@" names a container.
_CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
# In these a user without a password is a token; elsewhere, as in hdfs://hadoop@…, it is a name.
_TOKEN_SCHEMES = frozenset({"http", "https"})
# In these digits before a slash are a port, though an "@" follows; elsewhere a password may begin so.
_PORT_SCHEMES = frozenset({*_TOKEN_SCHEMES, "hdfs", "webhdfs", "swebhdfs", "dbfs", "spark", "kafka", "grpc", "grpcs"})

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{0,30})://(?P<rest>[^\s'\"<>]*)")
_WHOLE_URI = re.compile(r"\s*(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{0,30})://(?P<rest>.*)", re.DOTALL)
_PORT = re.compile(r"\d{1,5}(?:[/?#]|$)")
_WORD = r"(?:password|passwd|pwd|secret|token|credential|(?:account|shared|access|api|private)[._\-]?key)"
_ASSIGNED = re.compile(
    rf"(?P<name>[A-Za-z0-9_.\-]{{0,80}}{_WORD}[A-Za-z0-9_.\-]{{0,80}})"
    r"(?P<eq>=\s*['\"]?|['\"]\s*:\s*['\"]|['\"]\s*,\s*['\"])(?P<value>(?!\*\*\*)[^;&,\s'\"]+)",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"(?P<name>\b(?:password|passwd|pwd))(?P<eq>\s*[=:]\s*)(?P<value>(?!\*\*\*)[^;&,\s'\"]+)", re.IGNORECASE
)
_SIGNED = re.compile(
    r"(?P<name>[?&][\w.\-]{0,40}(?:sig|signature|key|credential))(?P<eq>=)(?P<value>(?!\*\*\*)[^&\s'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<name>authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic))(?P<eq>\s+)(?P<value>(?!\*\*\*)[^\s'\"]+)",
    re.IGNORECASE,
)

# Storage services quote a request that they refuse.
_SESSION = re.compile(
    r"(?P<name>x-amz-security-token[\"'>]*)(?P<eq>\s*[:=]\s*)(?P<value>(?!\*\*\*)[^\s<&,]+)", re.IGNORECASE
)

_learned: set[str] = set()


def redact(text: str) -> str:
    """``text`` with the user, password and query tokens of each URI in it, and ``password=…`` pairs, masked.

    >>> redact("postgresql://ml:hunter2@db/mlflow?sslkey=abc&mode=ro")
    'postgresql://***@db/mlflow?sslkey=***&mode=ro'
    >>> redact("abfss://lake@account.dfs.core.windows.net/t")
    'abfss://lake@account.dfs.core.windows.net/t'
    """
    given = (value for name in ALWAYS_SECRET if len(value := os.environ.get(name, "")) >= MIN_SECRET_CHARS)
    for value in sorted({*_learned, *given}, key=len, reverse=True):
        if value in text:
            text = _learned_as_word(value).sub(MASK, text) if len(value) < LONG_CHARS else text.replace(value, MASK)
    text = _URI.sub(_redacted_uri, text)
    for pattern in (_HEADER, _SESSION, _ASSIGNED, _SIGNED, _SAID):
        text = pattern.sub(rf"\g<name>\g<eq>{MASK}", text)
    return text


def _learned_as_word(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])")


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


def learn(values: Iterable[str]) -> None:
    """Has these values masked from now on, as they are, percent-encoded and decoded; short ones are left out."""
    for value in values:
        spellings = {value, quote(value, safe=""), unquote(value)}
        _learned.update(text for text in spellings if len(text) >= MIN_SECRET_CHARS and not _is_path(text))


def learn_environment(environment: Mapping[str, str]) -> None:
    """Has the values of variables that are named like secrets masked, and the passwords of URIs in any variable."""
    for name, value in environment.items():
        learn(secrets_of(name, value))


def secrets_of(name: str, value: str) -> list[str]:
    """What is secret in a setting: all of it where its name says so, else passwords and tokens of the URIs in it.

    >>> secrets_of("AWS_SECRET_ACCESS_KEY", "abc"), secrets_of("uri", "postgresql://ml:hunter2@db/x")
    (['abc'], ['hunter2'])
    """
    if is_secret_name(name):
        return [value]
    found = [secret for match in _URI.finditer(value) for secret in _of_uri(match["scheme"], match["rest"])]
    whole = _WHOLE_URI.fullmatch(value)
    if whole is not None:
        found += _passwords(whole["scheme"], whole["rest"])
    return list(dict.fromkeys(found))


def redact_setting(name: str, value: str) -> str:
    """A setting as it may be shown: what is secret in it is masked whatever characters it holds."""
    if is_secret_name(name):
        return MASK
    whole = _WHOLE_URI.fullmatch(value)
    for password in _passwords(whole["scheme"], whole["rest"]) if whole is not None else ():
        value = value.replace(f":{password}@", f":{MASK}@")
    return redact(value)


def _passwords(scheme: str, rest: str) -> list[str]:
    """What may be the password of a value that is a URI as a whole.

    Drivers of databases cut it at the last "@" and take it as it stands, so it may hold what ends a URI in a sentence:
    blanks, quotes, slashes, question marks. Where an "@" follows in the path, too, both readings count.
    """
    user, colon, after = rest.partition(":")
    if not colon or "@" not in after or "/" in user or user.startswith("["):
        return []
    if scheme.lower().partition("+")[0] in _PORT_SCHEMES and _PORT.match(after):
        return []
    return [text for text in (after.rpartition("@")[0], after.partition("@")[0]) if text]


def _of_uri(scheme: str, rest: str) -> list[str]:
    body, _, query = rest.partition("?")
    user, _, _ = body.partition("/")[0].rpartition("@")
    name, colon, password = user.partition(":")
    found = [password] if colon else [name] if scheme.lower() in _TOKEN_SCHEMES else []
    pairs = [pair.partition("=") for pair in query.split("&")]
    found += [value for name, _, value in pairs if is_secret_name(name) or name.lower().endswith(_SIGNING_NAMES)]
    return [text for text in found if text]


def forget() -> None:
    """Forgets what was learned."""
    _learned.clear()


def _is_path(text: str) -> bool:
    """``SSH_AUTH_SOCK`` and its like: what lies on the disk under its own name is no secret."""
    try:
        return text.startswith("/") and Path(text).exists()
    except (OSError, ValueError):
        return False
