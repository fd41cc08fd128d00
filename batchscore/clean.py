"""``batchscore clean``: removes what runs left that ended without a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow.fs as pafs

from batchscore import heartbeats, publish, record
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.snapshot import open_table
from batchscore.errors import BatchscoreError, InputError, SettingsError, UnavailableError, nearest
from batchscore.heartbeats import Heartbeat, State, Watch
from batchscore.prepare import OnEvent, absolute

POLL_SECONDS = 0.5
ENDED = ("refused", "failed", "fenced", "interrupted", "skipped")  # states of runs that published nothing
BY = "cleaned up by batchscore clean"


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What ``clean`` found under a table, and what it did.

    Attributes:
        table: the table.
        dry_run: whether everything is still there.
        removed: runs whose leftovers were removed, or would be.
        kept: runs that were left alone, with the reason.
    """

    table: str
    dry_run: bool
    removed: tuple[publish.Leftover, ...]
    kept: tuple[publish.Leftover, ...]


def clean(
    table: str,
    *,
    dry_run: bool = False,
    take_over: Sequence[str] = (),
    on_event: OnEvent = lambda _: None,
    watch: Watch | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Cleaning:
    """Removes what dead runs left under a table, each behind a fence; never what a version of the table mentions.

    Args:
        table: path or URI of the prediction table.
        dry_run: only say what would be removed.
        take_over: runs, by id, whose work is to be given up although they may still be alive.
        on_event: receives notices.
        watch: judges whether runs still work.
        sleep: waits while runs of other machines are watched, seconds.

    Raises:
        InputError: there is no such table, or its log cannot be read.
        SettingsError: a run to be taken over has left nothing.
        UnavailableError: storage does not answer, or the table is too busy to be fenced.
    """
    uri = absolute(table)
    _refuse_missing(uri)
    found = publish.find(uri, {**_ended(uri), **_states(uri, watch or Watch(), on_event, sleep)})
    _refuse_unknown(take_over, found)
    found = tuple(_given_up(left) if left.run_id in take_over else left for left in found)
    if not dry_run:
        found = publish.remove(uri, found, by=BY)
    return Cleaning(
        table=uri,
        dry_run=dry_run,
        removed=tuple(left for left in found if not left.kept),
        kept=tuple(left for left in found if left.kept),
    )


def _given_up(left: publish.Leftover) -> publish.Leftover:
    # Without the heartbeat: that of a live run is its own.
    files = tuple(file for file in left.files if file.kind != "heartbeat" or left.state in ("gone", "silent"))
    return publish.Leftover(left.run_id, left.state, left.published, files)


def _refuse_missing(uri: str) -> None:
    filesystem, root = open_filesystem(uri)
    try:
        there = filesystem.get_file_info(root).type == pafs.FileType.Directory
    except OSError as error:
        raise UnavailableError(f"the table at {uri} could not be reached", found=error) from error
    if not there and open_table(uri) is None:
        raise InputError(f"there is no table at {uri}", hint="name the prediction table, or its job by --model")


def _refuse_unknown(run_ids: Sequence[str], found: Sequence[publish.Leftover]) -> None:
    known = [left.run_id for left in found]
    for run_id in run_ids:
        if run_id not in known:
            raise SettingsError(
                f"run {run_id} has left nothing under this table",
                allowed=known,
                near=nearest(run_id, known),
                hint="batchscore clean --dry-run lists what runs left",
            )


def _ended(uri: str) -> dict[str, State]:
    """Runs that say in the ledger that they ended without publishing: a worker may have written a file after that.

    Their commit may yet land where the storage failed during it: they are fenced like any other before a file goes.
    """
    try:
        records = record.history(uri, limit=10**9)
    except BatchscoreError:  # the heartbeats and the files' age still tell
        return {}
    return {entry.run_id: "silent" for entry in records if entry.state in ENDED}


def _states(uri: str, watch: Watch, on_event: OnEvent, sleep: Callable[[float], None]) -> dict[str, State]:
    """Whether each run with a heartbeat still works; those elsewhere are watched for a while."""
    told = False
    while True:
        judged: dict[Heartbeat, State] = {}
        try:
            judged = {beat: watch.judge(beat, data) for beat, data in heartbeats.read_all(uri).items()}
        except OSError as error:
            raise UnavailableError(f"the heartbeats under {uri} could not be read", found=error) from error
        unsure = [beat.run_id for beat, state in judged.items() if state == "unsure"]
        if not unsure:
            return {beat.run_id: state for beat, state in judged.items()}
        if not told:
            told = True
            on_event({"event": "notice", "text": f"watching whether run {unsure[0]} still works"})
        sleep(POLL_SECONDS)
