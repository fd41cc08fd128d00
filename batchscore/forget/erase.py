"""Erases rows from one table: the files that hold them are replaced, copy-on-write, in one commit."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from batchscore import amendments, publish, s3, tables
from batchscore.arrow.snapshot import ActiveFile
from batchscore.contracts import Forgetting, ForgottenUnit, StagedFile, UnitValues
from batchscore.errors import BatchscoreError, UnavailableError, listed
from batchscore.forget.files import Hits, Searcher
from batchscore.forget.keys import Keys
from batchscore.tables import Change, PastVersion, Table

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ErasedUnit:
    """Rows that are erased from a unit."""

    values: UnitValues
    rows: int


@dataclass(frozen=True, slots=True)
class Remains:
    """Files of older versions that hold rows which are erased from the newest.

    Attributes:
        files: their paths, relative to the table's root.
        rows: rows in them; a row that several runs scored counts each time.
        versions: those that still mention one of them, oldest first.
        until: from this day on `batchscore retain` removes the last of them, ISO 8601; '' where nothing remains.
    """

    files: tuple[str, ...] = ()
    rows: int = 0
    versions: tuple[int, ...] = ()
    until: str = ""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is erased from one table.

    Attributes:
        table: root of the table.
        rows: rows that readers saw until now.
        units: where these were.
        keys: which keys were found in any version, by position.
        remains: what older versions hold.
        unmentioned: files with such rows that no version mentions: of runs under way, or that were killed.
        version: the commit; -1 where there is none.
    """

    table: str
    rows: int
    units: tuple[ErasedUnit, ...]
    keys: frozenset[int]
    remains: Remains
    unmentioned: tuple[str, ...]
    version: int = -1

    @property
    def found(self) -> bool:
        """Whether the newest version or an older one holds such rows."""
        return bool(self.rows or self.remains.files)


@dataclass(frozen=True, slots=True)
class Order:
    """What to erase, and in whose name: ``forget_id`` is unlike any other, ``created_at`` is ISO 8601 in UTC."""

    keys: Keys
    forget_id: str
    created_at: str
    by: str


@dataclass(frozen=True, slots=True)
class _Look:
    """One version of the table and what was found in files: active ones, those of older versions, any others."""

    table: Table
    past: tuple[PastVersion, ...]
    active: Mapping[str, Hits]
    older: Mapping[str, Hits]
    unmentioned: Mapping[str, Hits]

    @property
    def hit(self) -> tuple[ActiveFile, ...]:
        """The active files that hold such rows."""
        return tuple(file for file in self.table.files if file.path in self.active)


class Eraser:
    """Erases the rows of some keys from one table.

    Args:
        table: the table as it is.
        order: what to erase.
        recorded: whether liveness is judged by the table's units, so that the erasure needs a record.
    """

    def __init__(self, table: Table, order: Order, *, recorded: bool) -> None:
        self._uri, self._order, self._recorded = table.uri, order, recorded
        self._searcher = Searcher(table.uri, table.columns, order.keys)

    def preview(self) -> Erasure:
        """What would be erased; writes nothing."""
        return _erasure(self._look(publish.writable(self._uri)))

    def erase(
        self, *, max_attempts: int = publish.MAX_ATTEMPTS, sleep: Callable[[float], None] = time.sleep
    ) -> Erasure:
        """Commits the table without the rows.

        Raises:
            SettingsError: a file that holds some has a deletion vector.
            UnavailableError: the table stayed busy, or storage failed; then nothing was erased.
        """
        since = publish.writable(self._uri).version
        for attempt in range(1, max_attempts + 1):
            table = publish.writable(self._uri)
            landed = self._landed(table, since)
            look = self._look(table)
            if landed is not None or not (look.active or look.older):
                return _erasure(look, -1 if landed is None else landed)
            version = self._commit(look)
            if version is not None:
                tables.checkpoint(self._uri, version, table.format)
                return _erasure(look, version)
            sleep(publish.backoff(attempt))
        raise UnavailableError(
            f"the rows could not be erased: other commits came first {max_attempts} times", hint="try again"
        )

    def _look(self, table: Table) -> _Look:
        past = tuple(table.past())
        active = {file.path: file.unit for file in table.files}
        present = publish.data_files(self._uri)
        mentioned = {path for version in past for path in version.files}
        older = {path: None for path in mentioned if path not in active and path in present}
        others = {path: None for path in present if path not in mentioned and path not in active}
        return _Look(
            table,
            past,
            self._searcher.search(active),
            self._searcher.search(older),
            self._readable(others),
        )

    def _readable(self, files: Mapping[str, UnitValues | None]) -> dict[str, Hits]:
        """What files hold that a run may be writing just now: those are no whole files yet."""
        found: dict[str, Hits] = {}
        for path, unit in files.items():
            try:
                found.update(self._searcher.search({path: unit}))
            except BatchscoreError as error:
                _LOG.info("%s could not be looked into: %s", path, error.found)
        return found

    def _commit(self, look: _Look) -> int | None:
        """The version that landed; None where another commit came first."""
        written = self._rewritten(look)
        record = _record(look, self._order)
        if self._recorded:
            amendments.write(self._uri, record)
        change = Change(
            columns=look.table.columns,
            partition_by=look.table.partition_by,
            retention_days=publish.retention_days_of(look.table),
            files=written,
            removed=look.hit,
            units=None,
            metadata={
                amendments.FORGOTTEN_KEY: self._order.forget_id,
                "userMetadata": f"batchscore forget {self._order.forget_id} by {self._order.by}",
            },
            operation="forget",
        )
        try:
            look.table.write(change)
        except BatchscoreError:
            self._undo(written, record)
            raise
        except Exception as error:  # stores raise many types, some of them after the version landed
            landed = self._outcome(look, error)
            if landed.version is None:
                self._undo(written, record)
                if not landed.came_first:
                    raise _not_committed(error) from error
                return None
            version = landed.version
        else:
            version = look.table.version + 1
        _read_back(look, written, version)
        return version

    def _rewritten(self, look: _Look) -> tuple[StagedFile, ...]:
        written: list[StagedFile] = []
        try:
            for file in look.hit:
                kept = self._searcher.without(file, self._order.forget_id)
                if kept is not None:
                    written.append(kept)
        except BaseException:
            publish.discard(self._uri, written)
            raise
        return tuple(written)

    def _undo(self, written: Iterable[StagedFile], record: Forgetting) -> None:
        publish.discard(self._uri, written)
        if self._recorded:
            amendments.remove(self._uri, record)

    def _outcome(self, look: _Look, error: Exception) -> publish.Outcome:
        """What an exception from the commit meant."""
        since = look.table.version
        tried = publish.Tried(
            uri=self._uri,
            commit_id=self._order.forget_id,
            what="the erasure",
            since=since,
            landed=lambda table: self._landed(table, since),
        )
        return publish.outcome_of(tried, error)

    def _landed(self, table: Table, since: int) -> int | None:
        newer = table.version - since
        commits = table.versions(newer) if newer > 0 else ()
        mine = self._order.forget_id
        return next((item.version for item in commits if item.metadata.get(amendments.FORGOTTEN_KEY) == mine), None)


def _not_committed(error: Exception) -> UnavailableError:
    return UnavailableError(
        "the erasure could not be committed; the table is as it was",
        found=s3.said(error),
        hint="check space and write permission of the table, then try again",
    )


def _erasure(look: _Look, version: int = -1) -> Erasure:
    units: dict[UnitValues, int] = defaultdict(int)
    for file in look.hit:
        units[file.unit] += look.active[file.path].rows
    everywhere = (*look.active.values(), *look.older.values(), *look.unmentioned.values())
    return Erasure(
        table=look.table.uri,
        rows=sum(units.values()),
        units=tuple(ErasedUnit(values, rows) for values, rows in sorted(units.items(), key=str)),
        keys=frozenset(key for hits in everywhere for key in hits.keys),
        remains=_remains(look),
        unmentioned=tuple(sorted(look.unmentioned)),
        version=version,
    )


def _remains(look: _Look) -> Remains:
    """What is left in files that are, or will be, of older versions alone."""
    files = {**look.older, **look.active}
    if not files:
        return Remains()
    mentioning = [item.commit.version for item in look.past if not item.files.keys().isdisjoint(files)]
    days = dt.timedelta(days=publish.retention_days_of(look.table) + 1)  # on that day at any hour
    return Remains(
        files=tuple(sorted(files)),
        rows=sum(hits.rows for hits in files.values()),
        versions=tuple(sorted(mentioning)),
        until=(_superseded_at(look, files) + days).date().isoformat(),
    )


def _superseded_at(look: _Look, files: Mapping[str, Hits]) -> dt.datetime:
    """When the last version that mentions one of the files is, or was, replaced: now where that is the newest."""
    now = dt.datetime.now(dt.UTC)
    following: PastVersion | None = None
    for version in look.past:  # newest first
        if not version.files.keys().isdisjoint(files):
            if following is None or not following.commit.committed_at:
                return now
            return dt.datetime.fromisoformat(following.commit.committed_at)
        following = version
    return now


def _record(look: _Look, order: Order) -> Forgetting:
    """Counts alone; where a file does not tell the runs of its rows, there is nothing that liveness could go by."""
    erased: dict[tuple[UnitValues, str], int] = defaultdict(int)
    for file in look.hit:
        for run, rows in look.active[file.path].by_run.items():
            erased[file.unit, run] += rows
    before = {values: dict(state.runs) for values, state in look.table.units.items()}
    hit = {values for values, run in erased if run in before[values]}
    return Forgetting(
        forget_id=order.forget_id,
        created_at=order.created_at,
        by=order.by,
        units=tuple(
            ForgottenUnit(values, run, rows, rows - erased.get((values, run), 0))
            for values in sorted(hit, key=str)
            for run, rows in sorted(before[values].items())
        ),
        files=tuple(sorted({*look.active, *look.older})),
        from_version=look.table.version,
    )


def _read_back(look: _Look, written: Iterable[StagedFile], version: int) -> None:
    """The version must hold what was active, less the replaced files, and the new ones."""
    table = tables.open_table(look.table.uri, version)
    found = set() if table is None else {file.path for file in table.files}
    wanted = {file.path for file in look.table.files} - look.active.keys() | {file.path for file in written}
    if found != wanted:
        raise BatchscoreError(
            f"version {version} of the table does not hold what it should after the erasure",
            found=listed(sorted(found ^ wanted)),
            hint=look.table.undo(look.table.version),
        )
