"""Taking a run over and removing what it left: fence first, then delete."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress

import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError

from batchscore import faults, s3
from batchscore.arrow.filesystem import make_folder, open_filesystem, remove_file, storing
from batchscore.arrow.layout import is_data_path
from batchscore.contracts import FENCED_BY_KEY, FENCED_KEY, METADATA_FOLDER, StagedFile
from batchscore.errors import BatchscoreError, FencedOutError, InputError, UnavailableError
from batchscore.tables import Conflict, Table, open_table

FENCE_FOLDER = f"{METADATA_FOLDER}/fences"
FENCE_ATTEMPTS = 25
ITSELF = "itself"  # who fenced a run whose own commit failed and might still have landed
FENCE_SECONDS = 20.0  # no further attempt after that: each waits for a failing store's retries itself

_LOG = logging.getLogger(__name__)


def fence(uri: str, run_id: str, by: str = "") -> bool:
    """Commits that this run may no longer publish, and no data.

    A run that is already published stays published. Before the table exists there is nothing to commit to: a
    marker file is left instead, which a creating commit looks for.

    Args:
        uri: root of the table.
        run_id: the run to be kept from publishing.
        by: who takes its place or cleans up after it, for its error message.

    Returns:
        True where the fence is in the table, False where it is only a marker.

    Raises:
        UnavailableError: the table is too busy, or not reachable.
    """
    deadline = time.monotonic() + FENCE_SECONDS
    for attempt in range(FENCE_ATTEMPTS):
        if time.monotonic() > deadline:
            break
        table = open_table(uri)
        if table is None:
            _mark(uri, run_id, by)
            if open_table(uri) is None:
                return False
            continue
        if table.is_fenced(run_id):
            return True
        try:
            table.fence(run_id, by)
        except Conflict as error:
            _LOG.debug("fence of run %s met another commit: %s", run_id, error)
            time.sleep(0.05 * attempt)
    table = open_table(uri)
    if table is not None and table.is_fenced(run_id):
        return True
    raise UnavailableError(f"run {run_id} could not be fenced: other commits came first", hint="try again")


def _mark(uri: str, run_id: str, by: str) -> None:
    filesystem, root = open_filesystem(uri)
    try:
        make_folder(filesystem, f"{root}/{FENCE_FOLDER}")
        with filesystem.open_output_stream(f"{root}/{FENCE_FOLDER}/{run_id}") as stream:
            stream.write(by.encode())
    except OSError as error:
        raise UnavailableError(f"run {run_id} could not be fenced", found=error) from error


def is_fenced(table: Table | None, uri: str, run_id: str) -> bool:
    """Whether this run was fenced: in the table, or by a marker from before the table existed."""
    if table is not None and table.is_fenced(run_id):
        return True
    filesystem, root = open_filesystem(uri)
    with storing(f"whether run {run_id} was fenced could not be read"):
        info = filesystem.get_file_info(f"{root}/{FENCE_FOLDER}/{run_id}")
    return bool(info.type == pafs.FileType.File)


def refuse_fenced(table: Table | None, uri: str, run_id: str) -> None:
    """Ends a run that was fenced.

    Raises:
        FencedOutError: it was; who did it is named.
    """
    if is_fenced(table, uri, run_id):
        raise FencedOutError(
            f"run {run_id} was taken over and may no longer publish",
            found=fenced_by(table, uri, run_id) or None,
            hint="look at `batchscore history`; run again if the units are not there",
        )


def explain_failure(uri: str, run_id: str) -> None:
    """Tells a run that failed where it was fenced: whatever it stumbled over, its files may have been removed.

    Raises:
        FencedOutError: it was fenced.
    """
    with suppress(UnavailableError, InputError):
        table = open_table(uri)
        if fenced_by(table, uri, run_id) != ITSELF:
            refuse_fenced(table, uri, run_id)


def fenced_by(table: Table | None, uri: str, run_id: str) -> str:
    """Who fenced this run, as far as the table or the marker still says; '' where it does not."""
    for entry in () if table is None else table.versions():
        if entry.metadata.get(FENCED_KEY) == run_id:
            return entry.metadata.get(FENCED_BY_KEY, "")
    filesystem, root = open_filesystem(uri)
    try:
        with filesystem.open_input_stream(f"{root}/{FENCE_FOLDER}/{run_id}") as stream:
            return bytes(stream.read()).decode(errors="replace")
    except OSError:
        return ""


def may_publish(uri: str, run_id: str) -> bool:
    """Whether this run was not fenced, as the newest version says."""
    return not is_fenced(open_table(uri), uri, run_id)


def discard(uri: str, files: Iterable[StagedFile]) -> int:
    """Deletes staged files that were not published; never one that a kept version of the table mentions.

    Args:
        uri: root of the table.
        files: files that the calling run staged.

    Returns:
        How many were deleted. A file that is gone already, or cannot be deleted, is left (a warning says so).
    """
    return _discard(uri, {file.path for file in files})


def discard_run(uri: str, run_id: str) -> int:
    """Deletes everything that a failed run staged, also what its killed or cancelled tasks left.

    Staged files carry the run's id in their names. Nothing that a kept version of the table mentions is deleted.

    Args:
        uri: root of the table.
        run_id: the calling run's own id.

    Returns:
        How many were deleted. What storage does not let go is left (a warning says so): this is called while a run
        fails, mostly because of the same storage, and the run's own error is the one to be told.
    """
    try:
        filesystem, root = open_filesystem(uri)
        infos = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=True))
        paths = {info.path[len(root) + 1 :] for info in infos if info.is_file and f"-{run_id}-" in info.base_name}
        return _discard(uri, {path for path in paths if is_data_path(path)})
    except (BatchscoreError, DeltaError, OSError) as error:
        _LOG.warning("what run %s staged could not be removed; no reader sees it: %s", run_id, s3.said(error))
        return 0


def _discard(uri: str, paths: set[str]) -> int:
    if not paths:
        return 0
    table = open_table(uri)
    kept = set() if table is None else table.mentioned(paths)
    deleted = 0
    faults.reached("discard.begin")
    for path in sorted(paths - kept):
        try:
            deleted += remove_file(uri, path)
            faults.reached("discard.deleted")
        except OSError as error:
            _LOG.warning("staged file %s could not be deleted: %s", path, s3.said(error))
    return deleted
