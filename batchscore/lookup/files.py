"""The data files of one version of a table or of one input, and which of them may hold a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from batchscore.contracts import Schema, UnitValues
from batchscore.errors import InputError
from batchscore.schema import INTEGERS

if TYPE_CHECKING:
    import numpy as np

    from batchscore.lookup.keys import Key

# Bounds of other types are not what a reader may compare with: floats have NaN, Spark cuts times to milliseconds,
# decimals may have passed through doubles.
BOUNDED_TYPES = (*INTEGERS, "string", "date")
Bounds: TypeAlias = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file.

    Attributes:
        path: as pyarrow's file system for the table opens it.
        partition: partition values, canonical.
        rows: rows by the statistics, deleted ones included; -1 where unknown.
        size: bytes that the file must have, -1 for any: a file that was changed by hand is read, and compared.
        stamp: as of :class:`batchscore.contracts.SourceFile`: its end is compared with the file's footer, if any.
        bounds: lowest and highest value of columns of :data:`BOUNDED_TYPES`, as far as the statistics tell.
        kept: for each row whether it is not deleted; None where all are. Rows beyond its end are kept.
    """

    path: str
    partition: UnitValues
    rows: int = -1
    size: int = -1
    stamp: str = ""
    bounds: Bounds = field(default_factory=dict)
    kept: np.ndarray[Any, Any] | None = field(default=None, compare=False)

    def keeps(self, position: int) -> bool:
        """Whether the row at this position of the file is not deleted."""
        return self.kept is None or position >= len(self.kept) or bool(self.kept[position])

    def may_hold(self, keys: Sequence[Key]) -> bool:
        """Whether a row with these keys can be in the file, by its partition values and statistics."""
        partition = dict(self.partition)
        for key in keys:
            if key.name in partition:
                if partition[key.name] != key.canonical:
                    return False
            elif not within(self.bounds.get(key.name), key.value):
                return False
        return True


@dataclass(frozen=True, slots=True)
class FileSet:
    """The files of one version.

    Attributes:
        what: the table and its version, for messages.
        uri: root of the table; selects the file system.
        columns: all columns, partition columns included.
        partition_by: partition columns.
        files: the active files.
        version: of a Delta table, else None.
        obstacle: why its files cannot be read without Spark, or ''.
    """

    what: str
    uri: str
    columns: Schema
    partition_by: tuple[str, ...]
    files: tuple[DataFile, ...]
    version: int | None = None
    obstacle: str = ""

    def require_readable(self) -> None:
        """Refuses files that cannot be read without Spark.

        Raises:
            InputError: saying why not.
        """
        if self.obstacle:
            raise InputError(f"{self.what} cannot be read without Spark: {self.obstacle}")

    @property
    def readable(self) -> Schema:
        """The columns of a type that batchscore reads."""
        return tuple(column for column in self.columns if not column.type.startswith("unsupported"))


def within(bounds: tuple[Any, Any] | None, value: Any) -> bool:  # noqa: ANN401  # of any ordered type
    """Whether a value can lie within bounds; unknown bounds, or those of another type, exclude nothing.

    >>> within((1, 5), 6), within((1, 5), 5), within(None, 6), within(("a", "b"), 6)
    (False, True, True, True)
    """
    if bounds is None:
        return True
    low, high = bounds
    if not (isinstance(low, type(value)) and isinstance(high, type(value))):
        return True
    return bool(low <= value <= high)


def ranges(files: Sequence[DataFile], name: str) -> tuple[Any, Any] | None:
    """The lowest and highest value of a column over all files; None where some file does not tell."""
    bounds = [file.bounds.get(name) for file in files]
    known = [pair for pair in bounds if pair is not None]
    if not known or len(known) < len(bounds):
        return None
    return min(low for low, _ in known), max(high for _, high in known)
