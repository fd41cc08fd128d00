"""What runs left behind that is no part of the table and never will be: found, and removed behind a fence."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import pyarrow.fs as pafs

from batchscore import faults, heartbeats, manifests
from batchscore.arrow.filesystem import open_filesystem, remove_file
from batchscore.arrow.snapshot import LOG_FOLDER
from batchscore.contracts import RUNS_FOLDER
from batchscore.publish.cleanup import FENCE_FOLDER, fence
from batchscore.publish.retained import RUN_ID, Retained, retained
from batchscore.tables import open_table
from batchscore.tables.delta import CLOCK_SKEW
from batchscore.tables.pointer import VERSIONS_FOLDER

# Beside the table; staged files there that no log mentions were meant for the same run.
SIDE_TABLES = ("__quarantine",)
# A run whose heartbeat could not be written is not taken for a dead one before its files are as old.
QUIET = timedelta(hours=24)

Kind: TypeAlias = Literal["data", "side", "temporary", "version", "manifest", "marker", "heartbeat"]
# What says that there is something to remove goes last, so that a removal which is cut short is taken up again.
_ORDER: tuple[Kind, ...] = ("data", "side", "temporary", "version", "manifest", "marker", "heartbeat")

_RUN = RUN_ID.pattern
_DATA = re.compile(rf"part-\d+-(?P<run>{_RUN})-[0-9a-f]{{12}}\..*parquet")
_METADATA: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("manifest", re.compile(rf"{manifests.FOLDER}/(?P<run>{_RUN})\.json")),
    ("temporary", re.compile(rf"{manifests.FOLDER}/\.(?P<run>{_RUN})\.json\.\d+")),
    ("heartbeat", re.compile(rf"{heartbeats.FOLDER}/(?P<run>{_RUN})\.json")),
    ("temporary", re.compile(rf"{heartbeats.FOLDER}/\.(?P<run>{_RUN})\.json\.tmp")),
    ("marker", re.compile(rf"{FENCE_FOLDER}/(?P<run>{_RUN})")),
    ("version", re.compile(rf"{VERSIONS_FOLDER}/\d{{20}}-(?P<run>{_RUN})-[0-9a-f]{{8}}\.json")),
)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeftFile:
    """A file under the table, or under a table beside it; ``root`` is which of them, ``size`` is in bytes."""

    kind: Kind
    run_id: str
    root: str
    path: str
    size: int
    written: datetime | None


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one run left.

    Attributes:
        run_id: the run.
        state: whether it still works, as far as can be told.
        published: whether the table holds what it published; its manifest then stays.
        files: what may be removed, in the order in which it is.
        kept: why nothing of it is removed; '' where nothing stands in the way.
    """

    run_id: str
    state: heartbeats.State
    published: bool
    files: tuple[LeftFile, ...]
    kept: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def needs_fence(self) -> bool:
        """Whether the run must be kept from publishing before its files go; a heartbeat alone is no reason."""
        return not self.published and any(file.kind != "heartbeat" for file in self.files)

    def said(self) -> str:
        """What becomes of it, in a few words."""
        count = "1 file" if len(self.files) == 1 else f"{len(self.files):,} files"
        return self.kept or f"{count} of {self.size:,} bytes removed"


def clear(uri: str, dead: Mapping[str, heartbeats.State], *, by: str) -> tuple[Leftover, ...]:
    """Removes what these dead runs left under the table.

    Args:
        uri: root of the table.
        dead: run ids, each ``gone`` or ``silent``.
        by: who does it, for the error message of a run that is not as dead as it seemed.

    Returns:
        What was found; ``kept`` says what was not removed.

    Raises:
        InputError: a part of the log cannot be read.
        UnavailableError: the table is too busy to be fenced, or storage does not answer.
    """
    return remove(uri, find(uri, dead, only=dead.keys()), by=by)


def find(uri: str, states: Mapping[str, heartbeats.State], only: Collection[str] | None = None) -> tuple[Leftover, ...]:
    """What runs left under a table and the tables beside it; reads the whole log, deletes nothing.

    Args:
        uri: root of the table.
        states: what is known of the runs that have a heartbeat.
        only: run ids to look for; None for all.

    Raises:
        InputError: a part of the log cannot be read.
        UnavailableError: storage does not answer.
    """
    # The log is read last: what is published between the two is then known to be.
    found: dict[str, list[LeftFile]] = {}
    for file in [*_files(uri), *_side_files(uri)]:
        if only is None or file.run_id in only:
            found.setdefault(file.run_id, []).append(file)
    log = retained(uri)
    sides = {side: retained(side) for side in _sides(uri)}
    lefts = (_leftover(run, files, log, sides, states.get(run)) for run, files in sorted(found.items()))
    return tuple(left for left in lefts if left is not None)


def remove(uri: str, lefts: Sequence[Leftover], *, by: str) -> tuple[Leftover, ...]:
    """Fences each run, looks at the log again, and deletes what still may go.

    Returns:
        The same runs with what was deleted, and why others were kept.

    Raises:
        InputError, UnavailableError: as of :func:`clear`; what was not deleted by then is found the next time.
    """
    fenced = [_fenced(uri, left, by) for left in lefts]
    log = retained(uri)
    sides = {side: retained(side) for side in _sides(uri)}
    return tuple(_removed(left, log, sides) for left in fenced)


def _fenced(uri: str, left: Leftover, by: str) -> Leftover:
    if left.kept or not left.needs_fence:
        return left
    if left.state == "gone" and open_table(uri) is None:
        return left  # nobody is there to be fenced, and there is no log to do it in
    in_logs = fence(uri, left.run_id, by)
    for root in {file.root for file in left.files if file.kind == "side"}:
        if open_table(root) is not None:
            in_logs = fence(root, left.run_id, by) and in_logs
        elif left.state != "gone":  # it might still make that table, of these very files
            left = replace(left, files=tuple(file for file in left.files if file.root != root))
    faults.reached("clean.fenced")
    if not in_logs and left.state != "gone":
        return replace(left, kept="there is no table yet whose log could keep this run from publishing")
    return left


def _removed(left: Leftover, log: Retained, sides: Mapping[str, Retained]) -> Leftover:
    if left.kept:
        return left
    published = left.published or left.run_id in log.named
    deletable = _deletable(left.files, log, sides, published=published)
    deleted = tuple(file for file in deletable if _delete(file))
    return replace(left, published=published, files=deleted)


def _delete(file: LeftFile) -> bool:
    try:
        if not remove_file(file.root, file.path):
            return False
    except OSError as error:
        _LOG.warning("%s could not be deleted: %s", file.path, error)
        return False
    faults.reached("clean.deleted")
    return True


def _leftover(
    run: str,
    files: Sequence[LeftFile],
    log: Retained,
    sides: Mapping[str, Retained],
    state: heartbeats.State | None,
) -> Leftover | None:
    """What of a run's files is left over; None where nothing is."""
    published = run in log.named
    forgotten = run not in log.committed if published else _may_be_forgotten(files, log)
    if forgotten:
        # Its commit is older than the log: nobody can tell any more what else it published. VACUUM's business.
        files = [file for file in files if file.kind == "heartbeat"]
    files = _deletable(files, log, sides, published=published)
    judged = state or ("silent" if run in log.fenced else _judged_by_age(files))
    if published and judged not in ("gone", "silent"):
        # A run commits once: what its commit does not name is nobody's by now. The rest is still its own.
        files = [file for file in files if file.kind == "data"]
    if not files:
        return None
    return Leftover(run, judged, published, tuple(files), "" if published else _why_kept(judged))


def _deletable(
    files: Iterable[LeftFile], log: Retained, sides: Mapping[str, Retained], *, published: bool
) -> list[LeftFile]:
    """Files that no version mentions, in the order of removal; of a published run neither manifest nor side files."""
    found = []
    for file in files:
        mentioned = sides[file.root].names if file.kind == "side" else log.names
        if file.path.rpartition("/")[2] not in mentioned and not (published and file.kind in ("manifest", "side")):
            found.append(file)
    return sorted(found, key=lambda file: (_ORDER.index(file.kind), file.path))


def _may_be_forgotten(files: Iterable[LeftFile], log: Retained) -> bool:
    """Whether the run might have been published by a commit that the log has lost since."""
    if log.oldest is None:
        return False
    written = [file.written for file in files if file.written is not None and file.kind != "heartbeat"]
    return not written or min(written) <= log.oldest + CLOCK_SKEW


def _judged_by_age(files: Iterable[LeftFile]) -> heartbeats.State:
    """A run without a heartbeat; one of which only a fence's marker is left works no more."""
    written = [file.written for file in files if file.written is not None and file.kind != "marker"]
    return "silent" if not written or max(written) < datetime.now(UTC) - QUIET else "unsure"


def _why_kept(state: heartbeats.State) -> str:
    if state == "live":
        return "it is at work"
    if state == "unsure":
        return f"it has no heartbeat, and wrote within the last {QUIET.total_seconds() / 3600:.0f} hours"
    return ""


# --- listing -----------------------------------------------------------------------------------------------


def _files(uri: str) -> Iterator[LeftFile]:
    for path, info in _listed(uri):
        if path.startswith(("_", ".")) and not path.startswith(f"{RUNS_FOLDER}/"):
            for kind, pattern in _METADATA:
                if match := pattern.fullmatch(path):
                    yield _left(kind, match, uri, path, info)
        elif match := _DATA.fullmatch(info.base_name):
            yield _left("data", match, uri, path, info)


def _side_files(uri: str) -> Iterator[LeftFile]:
    for side in _sides(uri):
        for path, info in _listed(side):
            if not path.startswith(("_", ".")) and (match := _DATA.fullmatch(info.base_name)):
                yield _left("side", match, side, path, info)


def _sides(uri: str) -> tuple[str, ...]:
    return tuple(uri.rstrip("/") + suffix for suffix in SIDE_TABLES)


def _listed(uri: str) -> Iterator[tuple[str, pafs.FileInfo]]:
    """Files by their path below the table; those of its log are not in it."""
    filesystem, root = open_filesystem(uri)
    root = root.rstrip("/")
    for info in filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True)):
        path = info.path[len(root) + 1 :]
        if info.is_file and not path.startswith(f"{LOG_FOLDER}/"):
            yield path, info


def _left(kind: Kind, match: re.Match[str], root: str, path: str, info: pafs.FileInfo) -> LeftFile:
    written = None if info.mtime is None else info.mtime.astimezone(UTC)
    return LeftFile(kind, match["run"], root, path, int(info.size or 0), written)
