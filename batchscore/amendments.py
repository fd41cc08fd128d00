"""What rollbacks and erasures changed of a table, as files under it: ``_batchscore/rollbacks`` and ``forgotten``.

Each is written before the commit that it belongs to. Nobody has to know whether that commit landed: a record counts
only while the table's own files say what it says. A rollback's notes afterwards that it did, for what undoes it.
"""

from __future__ import annotations

import getpass
import json
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem, remove_file, write_durably
from batchscore.contracts import (
    METADATA_FOLDER,
    Forgetting,
    ForgottenUnit,
    Rollback,
    UnitState,
    UnitValues,
    Withdrawal,
    WithdrawnContent,
    WithdrawnUnit,
)
from batchscore.errors import SetupError, UnavailableError

ROLLBACKS = f"{METADATA_FOLDER}/rollbacks"
FORGOTTEN = f"{METADATA_FOLDER}/forgotten"
# In the metadata of commits: the id of the rollback or the erasure, and the oldest version that was not given up.
ROLLBACK_KEY = "batchscore.rollback"
FORGOTTEN_KEY = "batchscore.forgotten"
HORIZON_KEY = "batchscore.horizon"
FORMAT_VERSION = 1

_Erasure: TypeAlias = dict[str, tuple[int, int]]  # by run: the unit's rows before, and those left

_LOG = logging.getLogger(__name__)


def operator_name() -> str:
    """Who works here: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def write(table_uri: str, record: Rollback | Forgetting) -> None:
    """Makes a record durable before the commit that names it.

    Raises:
        UnavailableError: storage refused.
    """
    filesystem, root = open_filesystem(table_uri)
    relative = _path(record)
    data = json.dumps({"format_version": FORMAT_VERSION, **asdict(record)}, indent=1).encode()
    try:
        if isinstance(filesystem, pafs.LocalFileSystem):
            write_durably(Path(root) / relative, data)
            return
        with filesystem.open_output_stream(f"{root}/{relative}") as stream:
            stream.write(data)
    except OSError as error:
        raise UnavailableError(
            f"{relative} could not be written; nothing was changed", found=error, hint="check space and permission"
        ) from error


def remove(table_uri: str, record: Rollback | Forgetting) -> None:
    """Removes the record of a commit that did not land; one that stays does no harm."""
    try:
        remove_file(table_uri, _path(record))
    except OSError as error:
        _LOG.warning("%s could not be removed: %s", _path(record), error)


def _path(record: Rollback | Forgetting) -> str:
    if isinstance(record, Rollback):
        return f"{ROLLBACKS}/{record.rollback_id}.json"
    return f"{FORGOTTEN}/{record.forget_id}.json"


def rollbacks(table_uri: str) -> tuple[Rollback, ...]:
    """All rollbacks of a table, oldest first; a damaged record counts as missing, and a warning says so.

    Raises:
        SetupError: a newer batchscore wrote one.
        UnavailableError: storage could not be read.
    """
    return tuple(_rollback(facts) for facts in _read_all(table_uri, ROLLBACKS))


def forgettings(table_uri: str) -> tuple[Forgetting, ...]:
    """All erasures of a table, oldest first; the rest is as for :func:`rollbacks`."""
    return tuple(_forgetting(facts) for facts in _read_all(table_uri, FORGOTTEN))


def _read_all(table_uri: str, folder: str) -> list[dict[str, Any]]:
    filesystem, root = open_filesystem(table_uri)
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(f"{root}/{folder}", allow_not_found=True))
        names = sorted(info.base_name for info in infos if _is_record(info.base_name))
        found = []
        for name in names:
            try:
                with filesystem.open_input_stream(f"{root}/{folder}/{name}") as stream:
                    data = stream.read()
            except FileNotFoundError:  # its commit did not land, and it was removed since the listing
                continue
            facts = _parsed(data, f"{folder}/{name}")
            if facts is not None:
                found.append(facts)
    except OSError as error:
        raise UnavailableError(f"{folder} of the table at {table_uri} could not be read", found=error) from error
    return found


def _is_record(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _parsed(data: bytes, where: str) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(data)
        version = int(facts["format_version"])
        if version <= FORMAT_VERSION:
            (_rollback if where.startswith(ROLLBACKS) else _forgetting)(facts)
            return facts
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        _LOG.warning("%s is damaged and counts as missing: %s", where, error)
        return None
    raise SetupError(
        f"{where} was written by a newer batchscore",
        found=f"format version {version}",
        allowed=(f"format version {FORMAT_VERSION} or older",),
        hint="upgrade batchscore on this machine",
    )


def _rollback(facts: Mapping[str, Any]) -> Rollback:
    return Rollback(
        rollback_id=str(facts["rollback_id"]),
        created_at=str(facts["created_at"]),
        by=str(facts["by"]),
        to_run=str(facts["to_run"]),
        to_version=int(facts["to_version"]),
        from_version=int(facts["from_version"]),
        units=tuple(
            WithdrawnUnit(
                _values(unit["values"]),
                _state(unit["after"]),
                tuple(WithdrawnContent(**content) for content in unit["contents"]),
            )
            for unit in facts["units"]
        ),
        version=int(facts.get("version", -1)),
    )


def _forgetting(facts: Mapping[str, Any]) -> Forgetting:
    return Forgetting(
        forget_id=str(facts["forget_id"]),
        created_at=str(facts["created_at"]),
        by=str(facts["by"]),
        units=tuple(
            ForgottenUnit(
                _values(unit["values"]), str(unit["run_id"]), int(unit["rows_before"]), int(unit["rows_left"])
            )
            for unit in facts["units"]
        ),
        files=tuple(str(path) for path in facts["files"]),
        from_version=int(facts.get("from_version", -1)),
    )


def _values(pairs: Sequence[Sequence[str | None]]) -> UnitValues:
    return tuple((str(name), None if value is None else str(value)) for name, value in pairs)


def _state(facts: Mapping[str, Any]) -> UnitState:
    runs = tuple((str(run), int(rows)) for run, rows in facts["runs"])
    return UnitState(runs, int(facts["foreign_files"]), str(facts["foreign_stamp"]), int(facts["vectors"]))


# --- what planning asks ------------------------------------------------------------------------------------


class Forgotten:
    """What erasures took from units, to tell a unit that lost forgotten rows from one that was changed.

    Args:
        records: erasures, landed or not: one that did not land leaves rows that no unit has.
    """

    def __init__(self, records: Iterable[Forgetting]) -> None:
        self._erasures: dict[UnitValues, list[_Erasure]] = {}  # newest first
        for record in sorted(records, key=lambda record: (record.from_version, record.created_at), reverse=True):
            found: dict[UnitValues, _Erasure] = {}
            for unit in record.units:
                found.setdefault(unit.values, {})[unit.run_id] = (unit.rows_before, unit.rows_left)
            for values, erasure in found.items():
                self._erasures.setdefault(values, []).append(erasure)

    def as_published(self, values: UnitValues, state: UnitState) -> UnitState:
        """The unit's state as if nothing had been forgotten: each erasure that led to it is undone, newest first."""
        rows, left = dict(state.runs), list(self._erasures.get(values, ()))
        while left:
            undone = ((place, _undone(erasure, rows, state)) for place, erasure in enumerate(left))
            place, before = next(((place, before) for place, before in undone if before), (-1, {}))
            if not before:
                break
            rows |= before
            del left[place]
        return UnitState(tuple(sorted(rows.items())), state.foreign_files, state.foreign_stamp, state.vectors)

    def changed(self, units: Mapping[UnitValues, UnitState]) -> dict[UnitValues, UnitState]:
        """Those units that lost forgotten rows, as they were published; emptied ones are among them."""
        nothing = UnitState()
        states = {values: units.get(values, nothing) for values in self._erasures}
        found = {values: self.as_published(values, state) for values, state in states.items()}
        return {values: state for values, state in found.items() if state != states[values]}


def _undone(erasure: _Erasure, rows: Mapping[str, int], state: UnitState) -> dict[str, int]:
    """Rows of the runs that lost some by this erasure, as before it; {} where it did not lead to ``rows``.

    A run of which nothing is left is told by what the erasure left beside it, or by nothing else being there.
    """
    kept = {run: left for run, (_, left) in erasure.items() if left}
    same = {run for run, left in kept.items() if rows.get(run) == left}
    whole = same == set(kept) and (bool(kept) or not (rows or state.foreign_files))
    return {
        run: before
        for run, (before, left) in erasure.items()
        if before != left and (run in same or (not left and whole and run not in rows))
    }


def withdrawals(
    records: Iterable[Rollback], units: Mapping[UnitValues, UnitState], forgotten: Forgotten
) -> dict[UnitValues, tuple[Withdrawal, ...]]:
    """What rollbacks took back of units that still are as the rollback made them; one that was undone took nothing.

    Args:
        records: rollbacks, landed or not.
        units: states of the units that have active files.
        forgotten: rows that are missing on purpose change no unit.
    """
    named: dict[UnitValues, list[tuple[Rollback, WithdrawnUnit]]] = {}
    for record in records:
        for unit in record.units:
            named.setdefault(unit.values, []).append((record, unit))
    found: dict[UnitValues, tuple[Withdrawal, ...]] = {}
    for values, rolled_back in named.items():
        now = forgotten.as_published(values, units.get(values, UnitState()))
        taken = [
            Withdrawal(
                run_id=content.run_id,
                key=content.key,
                source_key=content.source_key,
                rollback_id=record.rollback_id,
                to_run=record.to_run,
                at=record.created_at,
                by=record.by,
            )
            for record, unit in _standing(rolled_back)
            if forgotten.as_published(values, unit.after) == now
            for content in unit.contents
        ]
        if taken:
            found[values] = tuple(taken)
    return found


def _standing(rolled_back: Iterable[tuple[Rollback, WithdrawnUnit]]) -> Iterator[tuple[Rollback, WithdrawnUnit]]:
    """Of the rollbacks that changed a unit those that no later one undid, by going back to a version from before them.

    One that is not known to have landed undoes nothing, and stands: the unit's state tells whether it counts.
    """
    back_to: int | None = None
    for record, unit in sorted(rolled_back, key=lambda item: item[0].version, reverse=True):
        if record.version < 0:
            yield record, unit
        elif back_to is None or record.version <= back_to:
            back_to = record.to_version
            yield record, unit
