"""What a prediction table is, whatever its format: one version as values, and one commit on top of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from batchscore.arrow.snapshot import ActiveFile, Snapshot, unit_states
from batchscore.contracts import RUN_KEY, Column, OutputFormat, Schema, StagedFile, UnitState, UnitValues


class Conflict(Exception):  # noqa: N818  # not an error: look again, then try again
    """Another commit came first: nothing was written."""


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One commit of a table.

    Attributes:
        version: counted from 0.
        committed_at: ISO 8601 in UTC, by the clock of the machine that committed; '' where that is unknown.
        operation: what kind of commit it was, in the format's own words.
        metadata: the text that it carries.
    """

    version: int
    committed_at: str
    operation: str
    metadata: Mapping[str, str]

    @property
    def run_id(self) -> str:
        """The run that it published, or ''."""
        return self.metadata.get(RUN_KEY, "")


@dataclass(frozen=True, slots=True)
class PastVersion:
    """A version that can still be read, as far as its description goes.

    Attributes:
        commit: what made it.
        files: bytes of each data file that was the table then, by path relative to the table's root.
        document: the version's own file, relative to the table's root; '' where the format keeps none.
    """

    commit: TableVersion
    files: Mapping[str, int]
    document: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit does.

    Attributes:
        columns: of what is written; those that the table lacks are added to it, nullable.
        partition_by: of a table that is yet to be made, like ``retention_days``.
        retention_days: for how long older versions are to stay readable.
        files: staged files, which become active.
        removed: active files, which are no longer.
        units: the units whose active files ``removed`` is, all of them and no other; None where it is not that.
        metadata: text that the commit carries.
        operation: what kind of commit it is, where the format has no words of its own for it.
        moves_data: the rows are those of before, in other files; readers of changes have nothing to read.
    """

    columns: Schema
    partition_by: tuple[str, ...]
    retention_days: int
    files: tuple[StagedFile, ...]
    removed: tuple[ActiveFile, ...]
    units: Collection[UnitValues] | None
    metadata: Mapping[str, str]
    operation: str = "publish"
    moves_data: bool = False


class Table(Protocol):
    """One version of a table that exists.

    Commits are compare-and-swaps: they land on exactly this version or not at all. **An exception from a commit does
    not mean that nothing was committed**, except for :class:`Conflict`: open the table again and look for what the
    commit carries.
    """

    uri: str
    format: OutputFormat

    @classmethod
    def open(cls, uri: str, version: int | None = None) -> Self | None:
        """The newest version or ``version``; None where no table of this format lies.

        Raises:
            InputError: there is no such version, or what describes it is damaged.
            UnavailableError: storage could not be reached.
        """

    @classmethod
    def check_place(cls, uri: str) -> None:
        """Refuses a place where no table of this format can be made.

        Raises:
            SettingsError: with what would do.
        """

    @classmethod
    def create(cls, uri: str, change: Change) -> None:
        """Makes the table with its first files, as version 0.

        Raises:
            Exception: there is a table meanwhile, or storage refused.
        """

    @property
    def snapshot(self) -> Snapshot:
        """Columns, and what the table demands of a writer."""

    @property
    def files(self) -> tuple[ActiveFile, ...]:
        """The active files, with what they prove about runs."""

    @property
    def version(self) -> int:
        """Counted from 0."""
        return self.snapshot.version

    @property
    def columns(self) -> Schema:
        """All columns, partition columns included."""
        return self.snapshot.columns

    @property
    def partition_by(self) -> tuple[str, ...]:
        """The partition columns."""
        return self.snapshot.partition_by

    @property
    def units(self) -> dict[UnitValues, UnitState]:
        """What the active files of each unit say about themselves."""
        return unit_states(self.files)

    def kept_rows(self) -> Mapping[str, bytes]:
        """Files of which some rows are deleted: a byte for each row, 0 where it is; rows behind the last are kept."""

    def write(self, change: Change) -> bool:
        """Commits the change on this version.

        Returns:
            False where only the schema was evolved: look again, then write.

        Raises:
            SettingsError: this format cannot express the change in one commit.
            Exception: another commit came first, or storage refused, before or after the version landed.
        """

    def restore(self, version: int, metadata: Mapping[str, str]) -> None:
        """Commits that the files, columns and properties of an older version are the table's again.

        Nothing is destroyed: the versions between stay, and fences hold.

        Raises:
            Exception: as :meth:`write`; also where a file of that version is gone.
        """

    def fence(self, run_id: str, by: str = "") -> None:
        """Commits that this run may no longer publish, and no data.

        Raises:
            Conflict: another commit came first, or storage refused: ask :meth:`is_fenced` of a fresh table.
        """

    def is_fenced(self, run_id: str) -> bool:
        """Whether a commit up to this version fenced the run."""

    def versions(self, limit: int | None = None) -> tuple[TableVersion, ...]:
        """This version and older ones that are still kept, newest first.

        Args:
            limit: how many at most.
        """

    def past(self) -> Iterator[PastVersion]:
        """This version and each older one that the table still describes, newest first, with its data files.

        Whether those files are still there is for the caller to find out.
        """

    def mentioned(self, paths: Collection[str]) -> set[str]:
        """Those of ``paths``, relative to the table's root, that are active here or that a kept version mentions.

        Versions that are older than the files themselves need not be asked.
        """

    @classmethod
    def checkpoint(cls, uri: str, version: int) -> None:
        """Makes the table quicker to open, where the format has such a thing and wants one after ``version``.

        Raises:
            Exception: whatever goes wrong; the version itself stands.
        """

    def undo(self, version: int) -> str:
        """What a person types to have ``version`` back."""


def file_statistics(file: StagedFile) -> dict[str, object]:
    """The statistics of a staged file in Delta's form, as JSON's values."""
    bounded = [stats for stats in file.stats if stats.minimum is not None]
    return {
        "numRecords": file.rows,
        "minValues": {stats.name: stats.minimum for stats in bounded},
        "maxValues": {stats.name: stats.maximum for stats in bounded},
        "nullCount": {stats.name: stats.null_count for stats in file.stats},
        "tightBounds": True,
    }


def new_columns(change: Change, known: Schema) -> tuple[Column, ...]:
    """The columns that the change adds to a table: nullable, because older rows have no value."""
    names = {column.name for column in known}
    return tuple(Column(column.name, column.type) for column in change.columns if column.name not in names)
