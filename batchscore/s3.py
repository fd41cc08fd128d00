"""How S3 is reached: endpoint and region from the environment, told to each library in its own words.

Nothing of it stands in settings files. Each library finds the credentials itself, by AWS' usual chain (environment,
profile, web identity, container, instance); only for the one that knows no profiles are a profile's keys read here.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from batchscore.errors import BatchscoreError, SettingsError, UnavailableError, bounded

SCHEMES = ("s3", "s3a")
CONNECT_SECONDS = 3
STALL_SECONDS = 10  # an answer of which no byte comes for as long is given up
REQUEST_SECONDS = 30  # one request of delta-rs or of the pointer, which are small
ATTEMPTS = 5  # of one request; the waits between them grow to seconds
RETRY_SECONDS = 30
# An endpoint that is not AWS' own mostly takes any region, but a signature needs one.
REGION_OF_ENDPOINTS = "us-east-1"

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
FILE_VARIABLES = ("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "HOME")
# What executors elsewhere need to reach the same storage by the same way.
SHIPPED_VARIABLES = (*ENDPOINT_VARIABLES, *REGION_VARIABLES, *KEY_VARIABLES, "AWS_EC2_METADATA_DISABLED")

Kind: TypeAlias = Literal["expired", "denied", "no_credentials", "no_bucket", "region", "unavailable"]
# How the libraries and services say what went wrong, most telling first. Whatever is none of these may pass.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CAUSE = "\u21b3"
_BETWEEN = f" :\t{_CAUSE}"
_KINDS: Mapping[Kind, re.Pattern[str]] = {
    "expired": re.compile(r"expired.?token|token.*expired|request.?expired", re.IGNORECASE),
    "no_credentials": re.compile(
        r"169\.254\.169\.254|no providers? in chain|(load|find|provide\w*|no) credentials", re.IGNORECASE
    ),
    "denied": re.compile(
        r"access.?denied|forbidden|\b403\b|invalid.?access.?key|signature.?does.?not.?match|invalid.?signature"
        r"|necessary privileges|invalid.?client.?token|unrecognized.?client|invalid.?token",
        re.IGNORECASE,
    ),
    "no_bucket": re.compile(r"no.?such.?bucket", re.IGNORECASE),
    "region": re.compile(
        r"permanent.?redirect|moved.?permanently|authorization.?header.?malformed|\b301\b", re.IGNORECASE
    ),
}


@dataclass(frozen=True, slots=True)
class Access:
    """How the service is reached.

    Attributes:
        endpoint: URL of the service; '' is AWS' own.
        region: region of the bucket.
        keys: a profile's keys by obstore's names, where the environment has none; never shown.
    """

    endpoint: str
    region: str
    keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return urlsplit(self.endpoint).scheme or "https"

    @property
    def host(self) -> str:
        """Host and port of the endpoint; '' for AWS' own."""
        return urlsplit(self.endpoint).netloc


def is_s3(uri: str) -> bool:
    """Whether a location lies on S3, or on what speaks its protocol.

    >>> is_s3("s3://bucket/t"), is_s3("/data/s3://odd"), is_s3("gs://bucket/t")
    (True, False, False)
    """
    return uri.partition("://")[0].lower() in SCHEMES


def path_of(uri: str) -> str:
    """Bucket and key of a location.

    Raises:
        SettingsError: there is no bucket, or the URI holds more than a bucket and a key.

    >>> path_of("s3://lake/predictions/fraud/")
    'lake/predictions/fraud'
    """
    rest = uri.partition("://")[2]
    bucket = rest.partition("/")[0]
    if "@" in bucket or ":" in bucket:
        raise SettingsError(
            "the location holds credentials or a port",
            found=f"s3://***/{rest.partition('/')[2]}",
            hint="give credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the service as AWS_ENDPOINT_URL",
        )
    odd = sorted({character for character in rest if character in "?#%"})
    if not bucket or odd:
        raise SettingsError(
            "an s3:// location is a bucket and a key, without ?, # and %",
            found=uri.partition("?")[0],
            allowed=("s3://bucket/folder",),
            hint="region and endpoint come from AWS_REGION and AWS_ENDPOINT_URL",
        )
    return rest.rstrip("/")


def access() -> Access:
    """How the service is reached, by this process' environment now.

    Raises:
        SettingsError: no region is known, or the endpoint is no URL.
    """
    names = (*ENDPOINT_VARIABLES, *REGION_VARIABLES, *KEY_VARIABLES, *FILE_VARIABLES)
    return _access(tuple((name, os.environ[name]) for name in names if os.environ.get(name)))


@lru_cache(maxsize=8)
def _access(variables: tuple[tuple[str, str], ...]) -> Access:
    given = dict(variables)
    profile = _profile(given)
    endpoint = _first(given, ENDPOINT_VARIABLES) or profile.get("endpoint_url", "")
    region = _first(given, REGION_VARIABLES) or profile.get("region", "")
    if endpoint and not _is_url(endpoint):
        raise SettingsError(
            "the endpoint of S3 is no URL", found=endpoint, allowed=("https://host", "http://host:9000")
        )
    if not region and not endpoint:
        raise SettingsError(
            "the region of the bucket is not known", found="no AWS_REGION", hint="export AWS_REGION=eu-central-1, say"
        )
    names = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
    keys = () if KEY_VARIABLES[0] in given else tuple(sorted((n, v) for n, v in profile.items() if n in names))
    return Access(endpoint.rstrip("/"), region or REGION_OF_ENDPOINTS, keys)


def _is_url(endpoint: str) -> bool:
    """Whether every part of it can be used: scheme, host and port."""
    try:
        parts = urlsplit(endpoint)
        host, _ = (parts.hostname or "").encode("idna"), parts.port  # reading the port is what checks it
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host)


def _first(given: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((given[name] for name in names if name in given), "")


def _profile(given: Mapping[str, str]) -> dict[str, str]:
    """What AWS' files say of the profile in use; a file that cannot be read says nothing."""
    name = given.get("AWS_PROFILE", "default")
    home = Path(given.get("HOME", "/nonexistent")) / ".aws"
    places = {
        Path(given.get("AWS_CONFIG_FILE", home / "config")): "default" if name == "default" else f"profile {name}",
        Path(given.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials")): name,
    }
    found: dict[str, str] = {}
    for path, section in places.items():
        parser = configparser.ConfigParser(interpolation=None)
        with suppress(OSError, UnicodeDecodeError, configparser.Error):
            parser.read(path, encoding="utf-8")
            found |= dict(parser[section]) if section in parser else {}
    return found


# --- each library's own words ------------------------------------------------------------------------------


def delta_options(uri: str) -> dict[str, str] | None:
    """delta-rs' ``storage_options`` of a location; None where it needs none.

    Raises:
        SettingsError: as :func:`access`.
    """
    if not is_s3(uri):
        return None
    found = access()
    options = {
        "AWS_REGION": found.region,
        # A commit is the conditional put of a version's file: who comes second gets 412 and nothing is lost.
        "aws_conditional_put": "etag",
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{REQUEST_SECONDS}s",
        "max_retries": str(ATTEMPTS - 1),
        "retry_timeout": f"{RETRY_SECONDS}s",
    }
    if found.endpoint:
        options["AWS_ENDPOINT_URL"] = found.endpoint
    if found.scheme == "http":
        options["AWS_ALLOW_HTTP"] = "true"
    return options


def obstore_options(uri: str) -> dict[str, Any]:
    """Arguments of obstore's ``from_url`` for a location; {} where it needs none.

    Raises:
        SettingsError: as :func:`access`.
    """
    if not is_s3(uri):
        return {}
    found = access()
    config = {"aws_region": found.region, "aws_conditional_put": "etag", **dict(found.keys)}
    if found.endpoint:
        config["aws_endpoint"] = found.endpoint
    return {
        "config": config,
        "client_options": {
            "allow_http": found.scheme == "http",
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
        },
        "retry_config": {"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    }


def hadoop_conf() -> dict[str, str]:
    """Spark's settings of its own S3 file system. It takes keys from the environment, so none stand in here.

    Raises:
        SettingsError: as :func:`access`.
    """
    found = access()
    conf = {
        "endpoint.region": found.region,
        # Spark copies keys of the driver's environment into Hadoop's settings, which the first two read.
        "aws.credentials.provider": (
            "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider,"
            "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider,"
            "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
        ),
        "connection.establish.timeout": f"{CONNECT_SECONDS * 1000}",
        "connection.timeout": f"{STALL_SECONDS * 1000}",
        "attempts.maximum": str(ATTEMPTS),
        "retry.limit": str(ATTEMPTS),
    }
    if found.endpoint:
        conf |= {"endpoint": found.endpoint, "path.style.access": "true"}
    return {f"spark.hadoop.fs.s3a.{name}": value for name, value in conf.items()}


def shipped_environment(*uris: str) -> dict[str, str]:
    """Variables that a process elsewhere needs for these locations; {} where none is on S3."""
    if not any(is_s3(uri) for uri in uris):
        return {}
    return {name: os.environ[name] for name in SHIPPED_VARIABLES if os.environ.get(name)}


# --- what went wrong ---------------------------------------------------------------------------------------


def kind_of(error: object) -> Kind:
    """What an error of a storage library means; ``unavailable`` where its text does not tell.

    >>> kind_of("AWS Error ACCESS_DENIED during HeadBucket operation"), kind_of("error sending request")
    ('denied', 'unavailable')
    """
    text = str(error)
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(text)), "unavailable")


def said(error: object) -> str:
    """What a library says of an error, on one line; of a service's XML its code and message alone.

    A refused signature is answered with the whole request, session token included. delta-rs tells a chain of causes, a
    line each: the first and the last two say it.
    """
    text = _COLOUR.sub("", str(error)) or type(error).__name__
    answer = [match[1] for tag in ("Code", "Message") if (match := re.search(rf"<{tag}>([^<]*)</{tag}>", text))]
    first, *others = re.split(r"<\?xml|<Error>", text.strip(), maxsplit=1)[0].splitlines() or [""]
    causes = [line.strip(_BETWEEN) for line in others if line.strip().startswith(_CAUSE)]
    told = [first.strip(_BETWEEN), *[cause for cause in causes if cause][-2:]]
    return bounded(": ".join(part for part in (*told, *answer) if part), 400)


def advice(kind: Kind) -> str:
    """What to do about it."""
    return {
        "expired": "get new credentials, then run again",
        "denied": f"{credentials_in_use()}; check that they are right and may list, read and write there",
        "no_credentials": f"{credentials_in_use()}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        "no_bucket": "check the bucket's name and AWS_ENDPOINT_URL; batchscore makes no buckets",
        "region": "set AWS_REGION to the region of the bucket",
        "unavailable": "check the network, AWS_ENDPOINT_URL and the service, then run again",
    }[kind]


def credentials_in_use() -> str:
    """Where credentials come from, without any of them."""
    if os.environ.get(KEY_VARIABLES[0]):
        token = " with AWS_SESSION_TOKEN" if os.environ.get(KEY_VARIABLES[2]) else ""
        return f"credentials are AWS_ACCESS_KEY_ID of the environment{token}"
    if os.environ.get("AWS_PROFILE"):
        return f"credentials are those of profile {bounded(os.environ['AWS_PROFILE'], 60)}"
    return "no AWS_ACCESS_KEY_ID is set: credentials are those of the default profile or of this machine, if any"


def failure(problem: str, error: Exception) -> BatchscoreError:
    """An error of a storage library in the middle of work, as the error that says whether to try again.

    Args:
        problem: what could not be done.
        error: what the library raised, for local storage, too.
    """
    if isinstance(error, BatchscoreError):
        return error
    kind = kind_of(error)
    found = said(error)
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ""
    if reason and reason not in found[:100]:  # pyarrow has it behind the path, where it would be cut off
        found = f"{reason}: {found}"
    if isinstance(error, PermissionError) and kind == "unavailable":
        return SettingsError(problem, found=found, hint="mend the permissions, then run again")
    raised: type[BatchscoreError] = UnavailableError if kind in {"expired", "unavailable"} else SettingsError
    on_s3 = kind != "unavailable" or re.search(r"AWS|S3|http", str(error)) is not None
    hint = advice(kind) if on_s3 else "check the space left and that the storage answers, then run again"
    return raised(problem, found=found, hint=hint)
