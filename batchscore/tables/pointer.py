"""The pointer of a Parquet table: one JSON document that says all there is to know of one version.

``_batchscore/current.json`` is the newest one. Each version's document is also kept as a file of its own, and names the
file of the version before it, so that the chain from the pointer is the table's history.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batchscore.arrow.snapshot import ActiveFile
from batchscore.contracts import METADATA_FOLDER, RUNS_FOLDER, Column, Schema, UnitValues
from batchscore.errors import InputError, SetupError
from batchscore.schema import is_supported

POINTER = f"{METADATA_FOLDER}/current.json"
VERSIONS_FOLDER = f"{METADATA_FOLDER}/versions"
FORMAT = "batchscore-parquet"
FORMAT_VERSION = 1

_VERSION_PATH = re.compile(rf"{VERSIONS_FOLDER}/\d{{20}}-[A-Za-z0-9_.-]+\.json")


@dataclass(frozen=True, slots=True)
class PointedFile:
    """A data file that counts.

    Attributes:
        path: relative to the table's root.
        size: bytes.
        rows: rows.
        run_id: the run that wrote it; all its rows carry that id.
        unit: partition values, canonical.
        statistics: null counts and bounds of its columns, in Delta's form.
    """

    path: str
    size: int
    rows: int
    run_id: str
    unit: UnitValues
    statistics: Mapping[str, Any]

    def active(self) -> ActiveFile:
        """The file as every format tells of it."""
        return ActiveFile(self.path, self.size, self.unit, self.rows, ((self.run_id, self.rows),), "")


@dataclass(frozen=True, slots=True)
class Pointer:
    """One version of the table.

    Attributes:
        version: counted from 0.
        path: of this version's own file, relative to the table's root.
        previous: of the version before; None for the first.
        committed_at: ISO 8601 in UTC.
        operation: ``publish``, ``restore``, ``fence``, ``retain`` or ``forget``.
        metadata: the text that the commit carries.
        columns: all columns, partition columns included.
        partition_by: partition columns; they are in the files, too.
        properties: what the table was made with: ``retention_days``.
        fences: runs that may no longer publish, each with the time of its fence.
        files: the files that count.
    """

    version: int
    path: str
    previous: str | None
    committed_at: str
    operation: str
    metadata: Mapping[str, str]
    columns: Schema
    partition_by: tuple[str, ...]
    properties: Mapping[str, str]
    fences: Mapping[str, str]
    files: tuple[PointedFile, ...]


def version_path(version: int, suffix: str) -> str:
    """Where a version's own file lies; ``suffix`` makes it one that no other writer chooses.

    >>> version_path(7, "r1-0a1b")
    '_batchscore/versions/00000000000000000007-r1-0a1b.json'
    """
    return f"{VERSIONS_FOLDER}/{version:020d}-{suffix}.json"


def spark_schema(columns: Schema) -> str:
    """The columns as Spark's DDL.

    >>> spark_schema((Column("id", "long"), Column("a`b", "array<double>")))
    '`id` long, `a``b` array<double>'
    """
    return ", ".join(f"`{column.name.replace('`', '``')}` {column.type}" for column in columns)


def to_json(pointer: Pointer) -> str:
    """The document: its head readable, and a line for each file."""
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": pointer.version,
        "path": pointer.path,
        "previous": pointer.previous,
        "committed_at": pointer.committed_at,
        "operation": pointer.operation,
        "metadata": dict(pointer.metadata),
        "schema": [
            {"name": column.name, "type": column.type, "nullable": column.nullable} for column in pointer.columns
        ],
        "spark_schema": spark_schema(pointer.columns),
        "partition_by": list(pointer.partition_by),
        "properties": dict(pointer.properties),
        "fences": dict(pointer.fences),
    }
    lines = ",\n".join(_line(file) for file in pointer.files)
    return json.dumps(head, indent=1).removesuffix("\n}") + f',\n "files": [\n{lines}\n ]\n}}\n'


def _line(file: PointedFile) -> str:
    facts = {
        "path": file.path,
        "size": file.size,
        "rows": file.rows,
        "run_id": file.run_id,
        "unit": dict(file.unit),
        "statistics": file.statistics,
    }
    return json.dumps(facts, separators=(",", ":"), allow_nan=False)


def from_json(data: bytes, where: str) -> Pointer:
    """The document of a version.

    Args:
        data: the file's content.
        where: the file, for messages.

    Raises:
        SetupError: a newer batchscore wrote it.
        InputError: it is damaged, or no document of a table.
    """
    try:
        facts = json.loads(data.decode())
        newer = facts["format"] == FORMAT and int(facts["format_version"]) > FORMAT_VERSION
        if not newer:
            return _parsed(facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{where} is damaged: it does not say which files are the table's",
            found=f"{type(error).__name__}: {error}",
            hint=f"copy the newest file of {VERSIONS_FOLDER} that is whole to {POINTER}, or write to another path",
        ) from error
    raise SetupError(
        f"{where} was written by a newer batchscore",
        found=f"format version {facts['format_version']}",
        allowed=(f"format version {FORMAT_VERSION} or older",),
        hint="upgrade batchscore on this machine",
    )


def _parsed(facts: dict[str, Any]) -> Pointer:
    if facts["format"] != FORMAT:
        raise ValueError(f"format {facts['format']!r} instead of {FORMAT!r}")
    partition_by = tuple(str(name) for name in facts["partition_by"])
    pointer = Pointer(
        version=_whole(facts["version"]),
        path=_version_file(facts["path"]),
        previous=None if facts["previous"] is None else _version_file(facts["previous"]),
        committed_at=_moment(facts["committed_at"]),
        operation=str(facts["operation"]),
        metadata=_texts(facts["metadata"]),
        columns=tuple(_column(column) for column in facts["schema"]),
        partition_by=partition_by,
        properties=_texts(facts["properties"]),
        fences=_texts(facts["fences"]),
        files=tuple(_file(file, partition_by) for file in facts["files"]),
    )
    if not set(partition_by) <= {column.name for column in pointer.columns}:
        raise ValueError("a partition column is none of the table's")
    return pointer


def _column(facts: dict[str, Any]) -> Column:
    if not is_supported(facts["type"]):
        raise ValueError(f"column {facts['name']} has type {facts['type']}")
    return Column(str(facts["name"]), facts["type"], bool(facts["nullable"]))


def _file(facts: dict[str, Any], partition_by: tuple[str, ...]) -> PointedFile:
    path = str(facts["path"])
    if not path.startswith(f"{RUNS_FOLDER}/") or ".." in path.split("/"):
        raise ValueError(f"file {path} is none of the table's")
    values = facts["unit"]
    return PointedFile(
        path=path,
        size=_whole(facts["size"]),
        rows=_whole(facts["rows"]),
        run_id=str(facts["run_id"]),
        unit=tuple((name, None if values[name] is None else str(values[name])) for name in partition_by),
        statistics=dict(facts["statistics"]),
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _moment(value: object) -> str:
    text = str(value)
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"{text} is a time without a zone")
    return text


def _version_file(value: object) -> str:
    if not isinstance(value, str) or _VERSION_PATH.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no file of a version")
    return value


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in values.items()}
