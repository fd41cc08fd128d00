"""URIs as pyarrow file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from batchscore import faults, s3
from batchscore.errors import SettingsError
from batchscore.redaction import redact, secrets_of

# pyarrow's names of file systems that have no folders.
OBJECT_STORES = ("s3", "gcs", "abfs")


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    A path without a scheme is local and made absolute. S3 is reached as :mod:`batchscore.s3` says.

    Raises:
        SettingsError: for a scheme that pyarrow does not know, credentials in the URI, or an S3 location that cannot be
            reached as it is.
    """
    refuse_credentials(uri)
    if "://" not in uri and not uri.startswith("file:"):
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    if s3.is_s3(uri):
        return _s3_filesystem(s3.access()), s3.path_of(uri)
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise SettingsError(
            "this location cannot be opened",
            found=str(error),
            allowed=("a path", "file://", "s3://", "gs://", "abfss://", "hdfs://"),
        ) from error
    return filesystem, path


@lru_cache(maxsize=8)
def _s3_filesystem(access: s3.Access) -> pafs.FileSystem:
    """One client for each way to reach a service: it keeps its connections."""
    return pafs.S3FileSystem(
        region=access.region,
        scheme=access.scheme,
        endpoint_override=access.host or None,
        connect_timeout=s3.CONNECT_SECONDS,
        request_timeout=s3.STALL_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=s3.ATTEMPTS),
        # A small file is one put then, and so is there whole or not at all.
        allow_delayed_open=True,
    )


def has_folders(filesystem: pafs.FileSystem) -> bool:
    """Whether the file system has folders; a "folder" made in an object store is an empty object that stays."""
    return filesystem.type_name not in OBJECT_STORES


def make_folder(filesystem: pafs.FileSystem, path: str) -> None:
    """Makes a folder and those above it, where there are such things.

    Raises:
        OSError: storage refused.
    """
    if has_folders(filesystem):
        filesystem.create_dir(path, recursive=True)


def remove_file(uri: str, relative: str) -> bool:
    """Deletes a file below a location if it is there, and leaves nothing in its place.

    pyarrow puts an empty object where it deletes the last file of a "folder" on S3.

    Returns:
        False where no such file was there; S3 does not tell.

    Raises:
        OSError: storage refused.
    """
    if not s3.is_s3(uri):
        filesystem, root = open_filesystem(uri)
        try:
            filesystem.delete_file(f"{root}/{relative}")
        except FileNotFoundError:
            return False
        return True
    import obstore  # noqa: PLC0415  # for object stores alone
    from obstore import exceptions  # noqa: PLC0415

    refuse_credentials(uri)
    try:
        obstore.delete(_s3_store(uri.rstrip("/"), s3.access()), relative)
    except FileNotFoundError:
        return False
    except exceptions.BaseError as error:
        raise OSError(s3.said(error)) from error
    return True


@lru_cache(maxsize=8)
def _s3_store(uri: str, _: s3.Access) -> Any:  # noqa: ANN401  # obstore is imported where it is needed alone
    """One client for each location and way to reach it: it keeps its connections."""
    from obstore import store  # noqa: PLC0415

    return store.from_url(uri, **s3.obstore_options(uri))


@contextmanager
def storing(problem: str) -> Iterator[None]:
    """Turns what storage raises inside into errors that say whether to try again.

    Args:
        problem: what could not be done where it raises.

    Raises:
        UnavailableError: storage did not answer, has no space, or gave up in between.
        SettingsError: it does not let this process in.
    """
    try:
        yield
    except OSError as error:
        raise s3.failure(problem, error) from error


def write_durably(path: Path, data: bytes) -> None:
    """Writes a local file so that a crash leaves the old one or the new one; its folder is made where there is none.

    The rename is durable once the folder is synced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        faults.reached("manifest.temporary")
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
