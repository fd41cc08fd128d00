"""Where the scores of a reproduction go: a place that no reader looks at, and that is gone afterwards."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
import uuid
from collections.abc import Iterator

import pyarrow.fs as pafs

from batchscore.arrow.filesystem import has_folders, make_folder, open_filesystem, remove_file

SUFFIX = "__reproduce-"
# Nothing was written there for so long: whoever made it was killed.
OLD_SECONDS = 86_400
_NAME = re.compile(rf"{SUFFIX}[0-9a-f]{{12}}")


@contextlib.contextmanager
def scratch_place(table: str, runner: str) -> Iterator[str]:
    """A new place, removed at the end; where Spark's executors write, it lies beside the table.

    What a reproduction of the same table left there when it was killed is removed, too, a day later.

    Args:
        table: path or URI of the prediction table.
        runner: ``local`` or ``spark``.
    """
    if runner == "local":
        with tempfile.TemporaryDirectory(prefix="batchscore-reproduce-") as folder:
            yield f"{folder}/scores"
        return
    table = table.rstrip("/")
    remove_old(table)
    place = f"{table}{SUFFIX}{uuid.uuid4().hex[:12]}"
    make_folder(*open_filesystem(place))
    try:
        yield place
    finally:
        remove(place)


def remove_old(table: str) -> None:
    """Removes what reproductions of a table left that were killed; what cannot be removed stays for the next one."""
    filesystem, root = open_filesystem(table)
    parent, _, name = root.rpartition("/")
    with contextlib.suppress(OSError):
        for info in filesystem.get_file_info(pafs.FileSelector(parent or "/", allow_not_found=True)):
            ending = info.base_name.removeprefix(name)
            if info.type == pafs.FileType.Directory and ending != info.base_name and _NAME.fullmatch(ending):
                times = [entry.mtime_ns for entry in (info, *_below(filesystem, info.path)) if entry.mtime_ns]
                if times and time.time_ns() - max(times) > OLD_SECONDS * 1_000_000_000:
                    remove(f"{table}{ending}")


def remove(place: str) -> None:
    """Removes a place with all that is in it, and leaves no empty object on an object store.

    Raises:
        OSError: storage refused.
    """
    filesystem, root = open_filesystem(place)
    if has_folders(filesystem):
        filesystem.delete_dir(root)
        return
    for info in _below(filesystem, root):
        if info.type == pafs.FileType.File:
            remove_file(place, info.path.removeprefix(root).lstrip("/"))


def _below(filesystem: pafs.FileSystem, root: str) -> list[pafs.FileInfo]:
    found: list[pafs.FileInfo] = filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    return found
