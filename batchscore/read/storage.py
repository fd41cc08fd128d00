"""Where a source lies, and the digest of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.footers import unreadable
from batchscore.arrow.reach import require_reachable
from batchscore.contracts import SourceFile
from batchscore.errors import InputError, nearest

DELTA_LOG = "_delta_log"


@dataclass(frozen=True, slots=True)
class Location:
    """An existing file or folder.

    Attributes:
        uri: as the user wrote it; a local path is made absolute.
        filesystem: pyarrow's file system for it.
        path: path within the file system, without a trailing slash.
        info: what is there.
    """

    uri: str
    filesystem: pafs.FileSystem
    path: str
    info: pafs.FileInfo

    def relative(self, path: str) -> str:
        """A file's path below the location; a single file's own name."""
        return relative_to(self.path, path)

    def file_uri(self, path: str) -> str:
        """The URI of a file below the location, for readers that take URIs."""
        return self.uri if path == self.path else f"{self.uri.rstrip('/')}/{self.relative(path)}"

    @property
    def is_delta(self) -> bool:
        """Whether the folder is a Delta table."""
        return not self.info.is_file and _is_folder(self.filesystem, f"{self.path}/{DELTA_LOG}")

    def enclosing_delta(self) -> str | None:
        """The Delta table that a file or folder lies within, or None."""
        for parent in PurePosixPath(self.path).parents:
            if len(parent.parts) > 1 and _is_folder(self.filesystem, f"{parent}/{DELTA_LOG}"):
                return str(parent)
        return None


def relative_to(root: str, path: str) -> str:
    """A file's path below the root; a root that is the file itself leaves its name.

    >>> relative_to("/data", "/data/ds=1/a.parquet"), relative_to("/data/a.parquet", "/data/a.parquet")
    ('ds=1/a.parquet', 'a.parquet')
    """
    return path[len(root) + 1 :] if path != root else PurePosixPath(path).name


def _is_folder(filesystem: pafs.FileSystem, path: str) -> bool:
    return bool(filesystem.get_file_info(path).type == pafs.FileType.Directory)


def looks_like_table_name(path: str) -> bool:
    """Whether ``path`` can only be a table of Spark's catalog: no slash, no scheme, and nothing there.

    >>> looks_like_table_name("sales.transactions"), looks_like_table_name("data/transactions")
    (True, False)
    """
    return "/" not in path and ":" not in path and not path.startswith(".") and not Path(path).exists()


def locate(path: str) -> Location:
    """The location of a path or URI.

    Raises:
        InputError: when nothing is there, with near names of its folder.
        SettingsError: for an unknown scheme, or credentials in the URI.
        UnavailableError: when the storage did not answer.
    """
    require_reachable(path, "input")
    filesystem, inner = open_filesystem(path)
    inner = inner.rstrip("/") or "/"
    try:
        info = filesystem.get_file_info(inner)
        if info.type == pafs.FileType.NotFound:
            raise InputError(
                f"nothing is at {path}",
                near=_neighbours(filesystem, inner),
                hint="check the path; a table of the catalog is named without a slash",
            )
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    local = isinstance(filesystem, pafs.LocalFileSystem)
    return Location(inner if local else path.rstrip("/"), filesystem, inner, info)


def _neighbours(filesystem: pafs.FileSystem, path: str) -> list[str]:
    name, folder = PurePosixPath(path).name, str(PurePosixPath(path).parent)
    if not _is_folder(filesystem, folder):
        return []
    known = [info.base_name for info in filesystem.get_file_info(pafs.FileSelector(folder))]
    return [f"{folder.rstrip('/')}/{near}" for near in nearest(name, known)]


def snapshot_digest(kind: str, location: Location, files: Iterable[SourceFile]) -> str:
    """Digest over each file's path below the source, size and stamp; the files' order does not matter.

    Where the source lies is left out: the same files under another mount or spelling of the URI are the same.
    """
    return files_digest(kind, location.path, files)


def files_digest(kind: str, root: str, files: Iterable[SourceFile]) -> str:
    """As :func:`snapshot_digest`, where only the source's root is at hand."""
    rows = sorted((relative_to(root, file.path), file.size, file.stamp) for file in files)
    return hashlib.sha256(json.dumps([kind, rows]).encode()).hexdigest()
