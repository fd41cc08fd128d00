"""Finds single rows: the files of a table's version, pruned by statistics, then key columns, then the row.

The functions of ``delta.py`` are all that is asked of a table's format.
"""

from __future__ import annotations

from batchscore.lookup.delta import Commit, commit_of, files_at, newest_version
from batchscore.lookup.files import DataFile, FileSet, ranges
from batchscore.lookup.keys import Key, is_comparable, key_of, typed_keys
from batchscore.lookup.rows import FoundRow, Place, Value, as_values, one_row, values_at

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
