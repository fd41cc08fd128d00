"""Taking a run over and removing what it left: fence first, then delete."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import DeltaError

from batchscore import faults
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.snapshot import LOG_FOLDER, open_table
from batchscore.arrow.values import table_of
from batchscore.contracts import METADATA_FOLDER, StagedFile
from batchscore.errors import FencedOutError, InputError, UnavailableError

# Ids of transactions that fence a run. delta-rs keeps them through RESTORE and DELETE.
FENCE_PREFIX = "batchscore.fence/"
FENCE_FOLDER = f"{METADATA_FOLDER}/fences"
FENCED_KEY = "batchscore.fenced"  # in the metadata of the commit that fences a run
FENCED_BY_KEY = "batchscore.fenced_by"
FENCE_ATTEMPTS = 25
# Clocks of the machine that wrote a file and of the one that wrote a commit may differ by as much.
CLOCK_SKEW = timedelta(hours=1)

# Checkpoints are a step of their own: a hook that fails raises after the version has landed.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

_LOG = logging.getLogger(__name__)


def fence(uri: str, run_id: str, by: str = "") -> bool:
    """Commits that this run may no longer publish: a transaction action that names it, and no data.

    A run that is already published stays published. Before the table exists there is no log to write to: a
    marker file is left instead, which a creating commit looks for.

    Args:
        uri: root of the table.
        run_id: the run to be kept from publishing.
        by: who takes its place or cleans up after it, for its error message.

    Returns:
        True where the fence is in the table's log, False where it is only a marker.

    Raises:
        UnavailableError: the table is too busy, or not reachable.
    """
    for attempt in range(FENCE_ATTEMPTS):
        table = open_table(uri)
        if table is None:
            _mark(uri, run_id, by)
            if open_table(uri) is None:
                return False
            continue
        if _fenced_in_log(table, run_id):
            return True
        try:
            _commit_fence(table, run_id, by)
        except (DeltaError, OSError) as error:
            _LOG.debug("fence of run %s met another commit: %s", run_id, error)
            time.sleep(0.05 * attempt)
    table = open_table(uri)
    if table is not None and _fenced_in_log(table, run_id):
        return True
    raise UnavailableError(f"run {run_id} could not be fenced: other commits came first", hint="try again")


def _commit_fence(table: DeltaTable, run_id: str, by: str) -> None:
    # Without `last_updated` a retention for transactions would drop the fence.
    action = Transaction(FENCE_PREFIX + run_id, 1, int(time.time() * 1000))
    table.create_write_transaction(
        [],
        "append",
        Schema.from_json(table.schema().to_json()),
        commit_properties=CommitProperties(
            max_commit_retries=0,
            app_transactions=[action],
            custom_metadata={FENCED_KEY: run_id, FENCED_BY_KEY: by},
        ),
        post_commithook_properties=NO_HOOKS,
    )


def _mark(uri: str, run_id: str, by: str) -> None:
    filesystem, root = open_filesystem(uri)
    try:
        filesystem.create_dir(f"{root}/{FENCE_FOLDER}", recursive=True)
        with filesystem.open_output_stream(f"{root}/{FENCE_FOLDER}/{run_id}") as stream:
            stream.write(by.encode())
    except OSError as error:
        raise UnavailableError(f"run {run_id} could not be fenced", found=error) from error


def is_fenced(table: DeltaTable | None, uri: str, run_id: str) -> bool:
    """Whether this run was fenced: in the table's log, or by a marker from before the table existed."""
    if table is not None and _fenced_in_log(table, run_id):
        return True
    filesystem, root = open_filesystem(uri)
    info = filesystem.get_file_info(f"{root}/{FENCE_FOLDER}/{run_id}")
    return bool(info.type == pafs.FileType.File)


def _fenced_in_log(table: DeltaTable, run_id: str) -> bool:
    return table.transaction_version(FENCE_PREFIX + run_id) is not None


def refuse_fenced(table: DeltaTable | None, uri: str, run_id: str) -> None:
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
        refuse_fenced(open_table(uri), uri, run_id)


def fenced_by(table: DeltaTable | None, uri: str, run_id: str) -> str:
    """Who fenced this run, as far as the log or the marker still says; '' where it does not."""
    for entry in [] if table is None else table.history():
        if entry.get(FENCED_KEY) == run_id:
            return str(entry.get(FENCED_BY_KEY) or "")
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
    """Deletes staged files that were not published; never one that the table's log mentions.

    Args:
        uri: root of the table.
        files: files that the calling run staged.

    Returns:
        How many were deleted. A file that is gone already, or cannot be deleted, is left (a warning says so).
    """
    return _discard(uri, {file.path for file in files})


def discard_run(uri: str, run_id: str) -> int:
    """Deletes everything that a failed run staged, also what its killed or cancelled tasks left.

    Staged files carry the run's id in their names. Nothing that the table's log mentions is deleted.

    Args:
        uri: root of the table.
        run_id: the calling run's own id.

    Returns:
        How many were deleted.
    """
    filesystem, root = open_filesystem(uri)
    infos = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=True))
    paths = {info.path[len(root) + 1 :] for info in infos if info.is_file and f"-{run_id}-" in info.base_name}
    return _discard(uri, {path for path in paths if not path.startswith("_")})


def _discard(uri: str, paths: set[str]) -> int:
    if not paths:
        return 0
    filesystem, root = open_filesystem(uri)
    kept = _mentioned(uri, filesystem, root, paths)
    deleted = 0
    faults.reached("discard.begin")
    for path in sorted(paths - kept):
        try:
            filesystem.delete_file(f"{root}/{path}")
            faults.reached("discard.deleted")
            deleted += 1
        except FileNotFoundError:
            continue
        except OSError as error:
            _LOG.warning("staged file %s could not be deleted: %s", path, error)
    return deleted


def _mentioned(uri: str, filesystem: pafs.FileSystem, root: str, paths: set[str]) -> set[str]:
    """Those of ``paths`` that are active, or were added or removed by a commit not older than they are."""
    table = open_table(uri)
    if table is None:
        return set()
    active = {unquote(path) for path in table_of(table.get_add_actions()).column("path").to_pylist()}
    infos = filesystem.get_file_info([f"{root}/{path}" for path in sorted(paths)])
    written = [info.mtime for info in infos if info.mtime is not None]
    if not written:
        return paths & active
    since = min(written).astimezone(UTC) - CLOCK_SKEW
    names = {path.rsplit("/", 1)[-1]: path for path in paths}
    found = paths & active
    for info in filesystem.get_file_info(pafs.FileSelector(f"{root}/{LOG_FOLDER}")):
        if info.base_name.endswith(".json") and _since(info.mtime, since):
            with filesystem.open_input_stream(info.path) as stream:
                text = stream.read().decode(errors="replace")
            found |= {path for name, path in names.items() if name in text}
    return found


def _since(moment: datetime | None, since: datetime) -> bool:
    return moment is None or moment.astimezone(UTC) >= since
