"""Whether storage answers and lets this process in: asked before anything else is, and told when it fails later."""

from __future__ import annotations

import socket
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError

from batchscore import s3
from batchscore.arrow.damage import is_of_store
from batchscore.arrow.filesystem import open_filesystem
from batchscore.errors import BatchscoreError, InputError, SettingsError, UnavailableError

Role: TypeAlias = Literal["input", "output"]

_REFUSED: dict[Role, type[BatchscoreError]] = {"input": InputError, "output": SettingsError}
_PORTS = {"http": 80, "https": 443}


def require_reachable(uri: str, role: Role) -> None:
    """Refuses a location on S3 whose service, bucket or credentials will not do; takes seconds at most.

    Other locations are not asked: what is wrong with them shows at once when they are opened.

    Args:
        uri: path or URI.
        role: what the location is to the job.

    Raises:
        UnavailableError: the service does not answer, or credentials have expired.
        InputError: the input's bucket is not there or not for this process.
        SettingsError: the same of the output's; or region or endpoint are missing or wrong.
    """
    if not s3.is_s3(uri):
        return
    bucket = s3.path_of(uri).partition("/")[0]
    _connect(s3.access())
    filesystem, _ = open_filesystem(uri)
    try:
        info = filesystem.get_file_info(bucket)
    except OSError as error:
        raise _refusal(bucket, role, error) from error
    if info.type == pafs.FileType.NotFound:
        raise _REFUSED[role](f"there is no bucket {bucket}", found=_service(), hint=s3.advice("no_bucket"))


def storage_failure(error: Exception) -> BatchscoreError | None:
    """What a library of storage raised where nobody was ready for it, as an error to tell; None for anything else."""
    if isinstance(error, FileNotFoundError):  # what should be there is not: no storage says so of what we write
        return None
    if isinstance(error, OSError) or (isinstance(error, DeltaError) and is_of_store(error)):
        return s3.failure("storage failed in the middle of the work", error)
    return None


def _connect(access: s3.Access) -> None:
    """An endpoint that does not even take a connection is told apart from everything else, without retries."""
    if not access.endpoint:
        return
    parts = urlsplit(access.endpoint)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or _PORTS[parts.scheme]), s3.CONNECT_SECONDS):
            return
    except OSError as error:
        raise UnavailableError(
            f"the S3 service at {access.endpoint} does not answer",
            found=error,
            hint="check AWS_ENDPOINT_URL and that the service runs, then run again",
        ) from error


def _refusal(bucket: str, role: Role, error: OSError) -> BatchscoreError:
    kind = s3.kind_of(error)
    problem = {
        "expired": f"the credentials for bucket {bucket} have expired",
        "denied": f"bucket {bucket} does not let this process in",
        "no_credentials": f"there are no credentials for bucket {bucket}",
        "no_bucket": f"there is no bucket {bucket}",
        "region": f"bucket {bucket} is in another region than {s3.access().region}",
        "unavailable": f"the S3 service of bucket {bucket} does not answer as it should",
    }[kind]
    raised = UnavailableError if kind in {"expired", "unavailable"} else _REFUSED[role]
    return raised(problem, found=s3.said(error), detail=(_service(),), hint=s3.advice(kind))


def _service() -> str:
    access = s3.access()
    return f"service {access.endpoint or 'of AWS'}, region {access.region}"
