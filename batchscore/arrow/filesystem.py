"""URIs as pyarrow file systems."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from batchscore.errors import SettingsError
from batchscore.redaction import redact, secrets_of


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    A path without a scheme is local and made absolute.

    Raises:
        SettingsError: for a scheme that pyarrow does not know, and for credentials in the URI.
    """
    refuse_credentials(uri)
    if "://" not in uri and not uri.startswith("file:"):
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise SettingsError(
            "this location cannot be opened",
            found=str(error),
            allowed=("a path", "file://", "s3://", "gs://", "abfss://", "hdfs://"),
        ) from error
    return filesystem, path


def refuse_credentials(uri: str) -> None:
    """Refuses a location with a password or a token in it: locations stand in manifests, ledgers and logs.

    Raises:
        SettingsError: without repeating them.
    """
    if "://" not in uri:
        return
    try:
        parts = urlsplit(uri)
        user = parts.username is not None and not parts.scheme.startswith(("abfs", "wasb", "hdfs"))
        held = user or parts.password is not None or bool(secrets_of("", uri))
    except ValueError as error:  # a bracket that is not closed
        raise SettingsError("this is not a location", found=redact(uri)) from error
    if held:
        raise SettingsError(
            "the location holds credentials",
            found=f"{parts.scheme}://…{parts.path}",
            hint="give them in the environment (AWS_ACCESS_KEY_ID, …) or in the storage's own configuration",
        )
