"""Prediction tables, Delta and Parquet behind one interface; the format is told by what lies at the place."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from batchscore.contracts import OutputFormat
from batchscore.tables.base import Change, Conflict, PastVersion, Table, TableVersion
from batchscore.tables.delta import DeltaOutput
from batchscore.tables.parquet import ParquetOutput

__all__ = [
    "FORMATS",
    "Change",
    "Conflict",
    "PastVersion",
    "Table",
    "TableVersion",
    "checkpoint",
    "open_table",
    "versions",
    "write",
]

# In the order in which a place is asked for them.
FORMATS: Mapping[OutputFormat, type[Table]] = {"delta": DeltaOutput, "parquet": ParquetOutput}

_LOG = logging.getLogger(__name__)


def open_table(uri: str, version: int | None = None) -> Table | None:
    """A fresh look at the newest version, or at ``version``; None where there is no table.

    Raises:
        InputError: there is no such version, or what describes the table is damaged.
        SetupError: the table was written by a newer batchscore.
        UnavailableError: storage could not be reached.
    """
    for kind in FORMATS.values():
        table = kind.open(uri, version)
        if table is not None:
            return table
    return None


def versions(uri: str, limit: int | None = None) -> tuple[TableVersion, ...]:
    """The commits that a table still knows, newest first; () where there is no table.

    Args:
        uri: root of the table.
        limit: how many at most.
    """
    table = open_table(uri)
    return () if table is None else table.versions(limit)


def write(change: Change, table: Table | None, uri: str, output_format: OutputFormat) -> bool:
    """Commits the change on exactly the version of ``table``, creating the table where there is none.

    Returns:
        False where only the schema was evolved: look again, then write.

    Raises:
        SettingsError: the format cannot express the change in one commit.
        Exception: another commit came first, or storage refused, before or after the version landed.
    """
    if table is not None:
        return table.write(change)
    FORMATS[output_format].create(uri, change)
    return True


def checkpoint(uri: str, version: int, output_format: OutputFormat) -> None:
    """Writes a checkpoint where it is time for one; a failure is a warning.

    It is no part of the commit: a commit whose checkpoint hook fails raises although it has landed.
    """
    try:
        FORMATS[output_format].checkpoint(uri, version)
    except Exception as error:  # noqa: BLE001  # the run is published: nothing here may fail it
        _LOG.warning("the checkpoint of version %d failed; the run is published: %s", version, error)
