"""What the pointer of a Parquet table says of one version: its files with statistics, and its commit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any

from batchscore.arrow.filesystem import open_filesystem
from batchscore.lookup.delta import Commit
from batchscore.lookup.files import BOUNDED_TYPES, Bounds, DataFile, FileSet
from batchscore.tables.parquet import ParquetOutput


def files_of(output: ParquetOutput, bounds: Collection[str]) -> FileSet:
    """The files of a version; see :func:`batchscore.lookup.files_at`."""
    root = open_filesystem(output.uri)[1].rstrip("/")
    wanted = {column.name: column.type for column in output.columns if column.name in bounds}
    files = tuple(
        DataFile(f"{root}/{file.path}", file.unit, file.rows, bounds=_bounds(file.statistics, wanted))
        for file in output.pointer.files
    )
    return FileSet(
        what=f"{output.uri} at version {output.version}",
        uri=output.uri,
        columns=output.columns,
        partition_by=output.partition_by,
        files=files,
        version=output.version,
    )


def commit_of(output: ParquetOutput) -> Commit:
    """When and by which run the version was committed."""
    pointer = output.pointer
    return Commit(pointer.version, pointer.committed_at, pointer.operation, output.versions(1)[0].run_id)


def _bounds(statistics: Mapping[str, Any], types: Mapping[str, str]) -> Bounds:
    lows, highs = statistics.get("minValues", {}), statistics.get("maxValues", {})
    return {
        name: (_typed(lows[name], kind), _typed(highs[name], kind))
        for name, kind in types.items()
        if kind in BOUNDED_TYPES and lows.get(name) is not None and highs.get(name) is not None
    }


def _typed(value: object, kind: str) -> object:
    return dt.date.fromisoformat(value) if kind == "date" and isinstance(value, str) else value
