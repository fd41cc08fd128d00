"""URIs as pyarrow file systems."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs

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
