"""Heartbeats: a file for each run under way, rewritten every few seconds, so that nobody does its work twice.

They decide nothing: what is published is decided by the commit. So a heartbeat that is lost, forged or late costs
work, never a row; and no clock is compared with another. A run on this machine is judged by its process, at once; a
run elsewhere by whether its file changes while this process watches.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.fs as pafs

from batchscore.arrow.filesystem import make_folder, open_filesystem, remove_file
from batchscore.contracts import METADATA_FOLDER, UnitValues

FOLDER = f"{METADATA_FOLDER}/runs"
BEAT_SECONDS = 2.0
# A beat is late where storage is slow or a library holds the interpreter; five in a row are not.
SILENT_SECONDS = 5 * BEAT_SECONDS
MAX_UNITS = 2_000  # a file that is rewritten every two seconds stays small; beyond that a run claims the whole table
END_SECONDS = 5.0
MAX_PID = 2**31

# Heartbeats, without their count, of the runs that ended in this process: where storage kept one, that the process
# lives says nothing.
_ENDED: set[Heartbeat] = set()

# ``gone`` is proved: the process was on this machine and ended, or the run ended within this very process.
# ``silent``: it did not beat while it was watched.
State: TypeAlias = Literal["live", "gone", "silent", "unsure"]


@dataclass(frozen=True, slots=True)
class Process:
    """A process, so that no other one can be taken for it: a process id alone is used again.

    Attributes:
        host: the machine's name.
        pid: process id.
        begun: when it began, in the kernel's own ticks since the boot; '' where that cannot be told.
        boot: id of the boot; '' where that cannot be told.
        space: the namespace that the process id belongs to, as of a container.
    """

    host: str = ""
    pid: int = 0
    begun: str = ""
    boot: str = ""
    space: str = ""

    @classmethod
    def own(cls) -> Process:
        """This process."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            pid=pid,
            begun=_status(pid)[1],
            boot=_text("/proc/sys/kernel/random/boot_id"),
            space=_link("/proc/self/ns/pid"),
        )

    def state(self, here: Process) -> State:
        """``live`` or ``gone`` where ``here`` is a process of the same machine and namespace, else ``unsure``."""
        known = bool(self.pid and self.begun and self.boot and self.space)
        if not known or (self.host, self.boot, self.space) != (here.host, here.boot, here.space):
            return "unsure"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "gone"
        except PermissionError:  # somebody else's process
            pass
        status, begun = _status(self.pid)
        if not begun:
            return "unsure"
        return "live" if begun == self.begun and status not in "ZX" else "gone"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a run under way says of itself.

    Attributes:
        run_id: its id.
        process: who works.
        user: on whose behalf.
        started_at: when the run began by its own clock; shown, never compared.
        units: what it scores; None for the whole table, or where that is not known before reading.
        model: name and version.
        beat: how many times the file was written.
        backfill: the backfill that the run is part of; '' for none. Its runs have dates of their own each.
    """

    run_id: str
    process: Process = field(default_factory=Process)
    user: str = ""
    started_at: str = ""
    units: tuple[UnitValues, ...] | None = None
    model: str = ""
    beat: int = 0
    backfill: str = ""

    @classmethod
    def of_this_process(
        cls, run_id: str, *, started_at: str, units: Sequence[UnitValues] | None, model: str, backfill: str = ""
    ) -> Heartbeat:
        """The first beat of a run of this process."""
        claimed = None if units is None or len(units) > MAX_UNITS else tuple(units)
        return cls(run_id, Process.own(), user(), started_at, claimed, model, backfill=backfill)

    def overlaps(self, units: Sequence[UnitValues] | None) -> bool:
        """Whether both mean some same unit; None stands for all of them."""
        return self.units is None or units is None or not set(self.units).isdisjoint(units)

    def to_json(self) -> str:
        """The file's content."""
        return json.dumps({"format_version": 1, **asdict(self)})


def from_json(text: str, run_id: str) -> Heartbeat:
    """A heartbeat from its file; a damaged one is that of a run of which nothing is known but its id."""
    try:
        facts: dict[str, Any] = json.loads(text)
        units = facts["units"]
        return Heartbeat(
            run_id=run_id,
            process=_process(facts["process"]),
            user=str(facts["user"]),
            started_at=str(facts["started_at"]),
            units=None if units is None else tuple(_unit(unit) for unit in units),
            model=str(facts["model"]),
            beat=int(facts["beat"]),
            backfill=str(facts.get("backfill", "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return Heartbeat(run_id)


def _process(facts: dict[str, Any]) -> Process:
    pid = int(facts["pid"])
    if not 0 < pid < MAX_PID:
        raise ValueError(f"no process id: {pid}")
    return Process(str(facts["host"]), pid, str(facts["begun"]), str(facts["boot"]), str(facts["space"]))


def _unit(values: list[list[str | None]]) -> UnitValues:
    return tuple((str(name), None if value is None else str(value)) for name, value in values)


def read_all(table_uri: str) -> dict[Heartbeat, bytes]:
    """The heartbeats under a table, each with the very bytes of its file.

    Raises:
        OSError: storage does not answer.
    """
    filesystem, root = open_filesystem(table_uri)
    found: dict[Heartbeat, bytes] = {}
    for info in filesystem.get_file_info(pafs.FileSelector(f"{root}/{FOLDER}", allow_not_found=True)):
        run_id = info.base_name.removesuffix(".json")
        if info.base_name == run_id or run_id.startswith("."):
            continue
        with suppress(FileNotFoundError), filesystem.open_input_stream(info.path) as stream:
            data = stream.read()
            found[from_json(data.decode(errors="replace"), run_id)] = data
    return found


def remove(table_uri: str, run_id: str) -> None:
    """Deletes a run's heartbeat if it is there.

    Raises:
        OSError: storage refused.
    """
    remove_file(table_uri, f"{FOLDER}/{run_id}.json")


def write(table_uri: str, heartbeat: Heartbeat) -> None:
    """Writes a heartbeat; a reader sees the file before or after, whole.

    Raises:
        OSError: storage refused.
    """
    filesystem, root = open_filesystem(table_uri)
    folder, data = f"{root}/{FOLDER}", heartbeat.to_json().encode()
    make_folder(filesystem, folder)
    if not isinstance(filesystem, pafs.LocalFileSystem):
        with filesystem.open_output_stream(f"{folder}/{heartbeat.run_id}.json") as stream:
            stream.write(data)
        return
    temporary = Path(folder) / temporary_name(heartbeat.run_id)
    temporary.write_bytes(data)  # not synced: it need not outlive this machine
    temporary.replace(Path(folder) / f"{heartbeat.run_id}.json")


def temporary_name(run_id: str) -> str:
    """The name under which a heartbeat is written before it is put in place."""
    return f".{run_id}.json.tmp"


class Pulse:
    """Keeps a run's heartbeat beating, from a thread of its own.

    Args:
        table_uri: root of the table.
        first: the run's first beat.
        on_trouble: is told once, with the reason, when the file cannot be written.
        seconds: between two beats.
    """

    def __init__(
        self,
        table_uri: str,
        first: Heartbeat,
        on_trouble: Callable[[str], None],
        seconds: float = BEAT_SECONDS,
    ) -> None:
        self._uri, self._beat, self._on_trouble, self._seconds = table_uri, first, on_trouble, seconds
        self._troubled = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batchscore-heartbeat", daemon=True)

    def start(self) -> None:
        """Writes the first beat, and goes on from the thread."""
        self._write()
        self._thread.start()

    def end(self) -> None:
        """Ends the beating and removes the file."""
        self._end.set()
        self._thread.join(END_SECONDS)
        _ENDED.add(replace(self._beat, beat=0))
        with suppress(OSError, pa.ArrowException):  # what is left is a dead run's: it blocks nobody
            remove(self._uri, self._beat.run_id)

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._write()

    def _write(self) -> None:
        self._beat = replace(self._beat, beat=self._beat.beat + 1)
        try:
            write(self._uri, self._beat)
        except (OSError, pa.ArrowException) as error:
            if not self._troubled:
                self._troubled = True
                self._on_trouble(str(error))


class Watch:
    """Judges whether runs still work; remembers when it saw each file change, by this process's own clock.

    Args:
        here: this process.
        silent_seconds: without a beat, after which a run elsewhere counts as ended.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        here: Process | None = None,
        silent_seconds: float = SILENT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._here = here or Process.own()
        self._silent_seconds = silent_seconds
        self._clock = clock
        self._seen: dict[str, tuple[bytes, float, bool]] = {}

    def judge(self, heartbeat: Heartbeat, data: bytes) -> State:
        """What is known of the run by now; ``unsure`` means: look again in a moment."""
        if replace(heartbeat, beat=0) in _ENDED:
            return "gone"
        state = heartbeat.process.state(self._here)
        if state != "unsure":
            return state
        now = self._clock()
        before, since, beats = self._seen.get(heartbeat.run_id, (data, now, False))
        if data != before:
            since, beats = now, True
        self._seen[heartbeat.run_id] = (data, since, beats)
        if now - since >= self._silent_seconds:
            return "silent"
        return "live" if beats else "unsure"


def _status(pid: int) -> tuple[str, str]:
    """State and beginning of a process, by the kernel; empty where it does not tell."""
    parts = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (parts[0], parts[19]) if len(parts) > 19 else ("", "")  # noqa: PLR2004  # fields 3 and 22 of proc(5)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def user() -> str:
    """On whose behalf this process works."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return str(os.getuid()) if hasattr(os, "getuid") else ""
