"""What tells that a file changed while it was read: size, modification time, and on object stores the ETag.

A footer that is still the same proves nothing of the pages before it, and a file that is replaced between two reads of
an object store gives half of each. So a file is looked at when it is opened and again when its last row was read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from batchscore.arrow.footers import unreadable
from batchscore.errors import InputError

NS_PER_SECOND = 1_000_000_000
_HINT = "wait until its writer is done, then run again"


@dataclass(frozen=True, slots=True)
class FileState:
    """A file at one moment; ``mtime_ns`` is 0 and ``etag`` is '' where the file system does not say."""

    size: int
    mtime_ns: int
    etag: str = ""


def state_of(filesystem: pafs.FileSystem, path: str) -> FileState:
    """What a file is now: a stat of a local file, two small requests to an object store.

    Raises:
        InputError: it is gone.
        UnavailableError: the storage did not answer.
    """
    try:
        if isinstance(filesystem, pafs.LocalFileSystem):
            info = filesystem.get_file_info(path)
            if info.type != pafs.FileType.File:
                raise FileNotFoundError(path)
            return FileState(info.size, info.mtime_ns or 0)
        with filesystem.open_input_file(path) as opened:
            return opened_state(filesystem, path, opened)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def opened_state(filesystem: pafs.FileSystem, path: str, opened: pa.NativeFile) -> FileState:
    """The state of a file that was just opened; an object store has told its ETag by then."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        return state_of(filesystem, path)
    etag = (opened.metadata() or {}).get(b"ETag", b"")
    info = filesystem.get_file_info(path)
    return FileState(opened.size(), _seconds(info.mtime_ns), etag.decode(errors="replace"))


def check_same(path: str, before: FileState, now: FileState) -> None:
    """Refuses a file that another hand changed between two looks.

    Raises:
        InputError: naming the file and what differs.
    """
    if before == now:
        return
    what = "another size" if before.size != now.size else "another ETag" if before.etag != now.etag else "a later time"
    raise InputError(f"{path} changed while it was read", found=what, hint=_HINT)


def check_time(path: str, stamp: str, filesystem: pafs.FileSystem, mtime_ns: int) -> None:
    """Compares a modification time with the one in a file's stamp, where it has one.

    Object stores list times to the millisecond and tell those of one object to the second, so these are compared.

    Raises:
        InputError: naming the file.
    """
    pinned = stamp.partition(":")[0]
    if not pinned.isdecimal() or int(pinned) == 0 or mtime_ns == 0:
        return
    local = isinstance(filesystem, pafs.LocalFileSystem)
    same = int(pinned) == mtime_ns if local else _seconds(int(pinned)) == _seconds(mtime_ns)
    if not same:
        raise InputError(f"{path} changed after planning", found="another modification time", hint=_HINT)


def check_listed(filesystem: pafs.FileSystem, files: Iterable[tuple[str, int, str]]) -> None:
    """Compares files with what they were when they were pinned, without opening them.

    Args:
        filesystem: where they are.
        files: path, size in bytes and stamp of each.

    Raises:
        InputError: naming the first that changed or vanished.
        UnavailableError: the storage did not answer.
    """
    wanted = {path: (size, stamp) for path, size, stamp in files}
    try:
        found = filesystem.get_file_info(list(wanted))
    except (OSError, pa.ArrowException) as error:
        raise unreadable("the input", error) from error
    for info in found:
        size, stamp = wanted[info.path]
        if info.type != pafs.FileType.File:
            raise InputError(f"{info.path} vanished while it was read", hint=_HINT)
        if info.size != size:
            raise InputError(
                f"{info.path} changed after planning", found=f"{info.size} bytes instead of {size}", hint=_HINT
            )
        check_time(info.path, stamp, filesystem, info.mtime_ns or 0)


def _seconds(mtime_ns: int | None) -> int:
    return (mtime_ns or 0) // NS_PER_SECOND * NS_PER_SECOND
