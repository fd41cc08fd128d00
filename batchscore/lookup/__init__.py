"""Finds single rows: the files of a table's version, pruned by statistics, then key columns, then the row.

Three functions are all that is asked of a table's format: its newest version, the files of a version, and its commit.
"""

from __future__ import annotations

from collections.abc import Collection

from batchscore.lookup import delta, pointed
from batchscore.lookup.delta import Commit
from batchscore.lookup.files import DataFile, FileSet, ranges
from batchscore.lookup.keys import Key, is_comparable, key_of, typed_keys
from batchscore.lookup.rows import FoundRow, Place, Value, as_values, one_row, values_at
from batchscore.tables.parquet import ParquetOutput

__all__ = [
    "Commit",
    "DataFile",
    "FileSet",
    "FoundRow",
    "Key",
    "Place",
    "Value",
    "as_values",
    "commit_of",
    "files_at",
    "is_comparable",
    "key_of",
    "newest_version",
    "one_row",
    "ranges",
    "typed_keys",
    "values_at",
]


def newest_version(uri: str) -> int:
    """The table's newest version.

    Raises:
        InputError: there is no table.
        UnavailableError: storage could not be reached.
    """
    output = ParquetOutput.open(uri)
    return delta.newest_version(uri) if output is None else output.version


def files_at(uri: str, version: int | None = None, *, bounds: Collection[str] = ()) -> FileSet:
    """The files of a table at a version; reads no data file.

    Args:
        uri: path or URI of the table.
        version: None is the newest.
        bounds: columns whose statistics are wanted; names that the table lacks are passed over.

    Raises:
        InputError: there is no such table, or no such version; those that exist are named.
        UnavailableError: storage could not be reached.
    """
    output = ParquetOutput.open(uri, version)
    return delta.files_at(uri, version, bounds=bounds) if output is None else pointed.files_of(output, bounds)


def commit_of(uri: str, version: int) -> Commit | None:
    """When and by which run a version was committed; None where the log no longer holds that commit.

    Raises:
        UnavailableError: storage could not be reached.
    """
    output = ParquetOutput.open(uri, version)
    return delta.commit_of(uri, version) if output is None else pointed.commit_of(output)
