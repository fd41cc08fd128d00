"""URIs as pyarrow file systems."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pyarrow.fs as pafs

from batchscore import faults
from batchscore.errors import SettingsError


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    A path without a scheme is local and made absolute.

    Raises:
        SettingsError: for a scheme that pyarrow does not know.
    """
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
