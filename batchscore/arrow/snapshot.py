"""One version of a Delta table as values: its columns, protocol and active files, and what they say of units."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from batchscore import s3
from batchscore.arrow.damage import is_of_store, panics_as_errors
from batchscore.arrow.filesystem import open_filesystem, refuse_credentials, storing
from batchscore.arrow.layout import partition_value
from batchscore.arrow.values import table_of
from batchscore.contracts import RUN_COLUMN, Column, Schema, UnitState, UnitValues
from batchscore.errors import InputError, SettingsError

LOG_FOLDER = "_delta_log"
UNUSABLE = "%[]"
READ_BYTES = 8 << 20  # held at a time


@dataclass(frozen=True, slots=True)
class ActiveFile:
    """A data file that a table's log lists.

    Attributes:
        path: relative to the table's root, as the file system knows it; an absolute URI in a shallow clone.
        size: bytes.
        unit: partition values, canonical.
        rows: rows by the statistics, None where they do not say.
        runs: (run id, rows) that the file is proved to hold, () where nothing is proved.
        deleted: digest of its deletion vector, '' without one.
    """

    path: str
    size: int
    unit: UnitValues
    rows: int | None
    runs: tuple[tuple[str, int], ...]
    deleted: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a Delta table.

    ``features`` are the names that its protocol requires (empty for the numbered protocols), ``properties`` its
    configuration, ``field_metadata`` the metadata of each column that has any.
    """

    version: int
    columns: Schema
    partition_by: tuple[str, ...]
    features: tuple[str, ...]
    properties: Mapping[str, str]
    field_metadata: Mapping[str, Mapping[str, Any]]


def location(uri: str) -> str:
    """How delta-rs is given a place: a local path becomes a URI, so that a space or ``#`` in it is no matter.

    Raises:
        SettingsError: a local path with a character that delta-rs 1.6 fails on: it aborts on a bracket and
            decodes a percent sign twice; credentials in a URI.
    """
    if "://" in uri or uri.startswith("file:"):
        refuse_credentials(uri)
        return uri
    path = Path(uri).absolute()
    if any(character in str(path) for character in UNUSABLE):
        raise SettingsError(
            "the path of a table cannot hold a percent sign or a square bracket",
            found=uri,
            hint="choose a path without them",
        )
    return path.as_uri()


def open_table(uri: str, version: int | None = None) -> DeltaTable | None:
    """A fresh handle at the newest version or at ``version``; None where there is no table.

    Raises:
        UnavailableError: storage could not be reached.
        InputError: the log cannot be read.
    """
    try:
        with panics_as_errors():
            return DeltaTable(location(uri), version=version, storage_options=s3.delta_options(uri))
    except TableNotFoundError:
        return None
    except OSError as error:
        raise s3.failure(f"the table at {uri} could not be reached", error) from error
    except DeltaError as error:
        if not _has_log(uri):
            return None
        if s3.is_s3(uri) and is_of_store(error):
            raise s3.failure(f"the table at {uri} could not be reached", error) from error
        raise InputError(
            f"the log of the table at {uri} cannot be read",
            found=str(error).splitlines()[0],
            hint="restore the files of its _delta_log folder, or write to another path",
        ) from error


def _has_log(uri: str) -> bool:
    filesystem, root = open_filesystem(uri)
    with storing(f"the table at {uri} could not be reached"):
        return bool(filesystem.get_file_info(f"{root}/{LOG_FOLDER}").type != pafs.FileType.NotFound)


def snapshot_of(table: DeltaTable) -> Snapshot:
    """The columns and the protocol of an open table."""
    protocol = table.protocol()
    facts = json.loads(table.schema().to_json())
    features = {*(protocol.writer_features or ()), *(protocol.reader_features or ())}
    return Snapshot(
        version=table.version(),
        columns=tuple(
            Column(entry["name"], type_name(entry["type"]), bool(entry["nullable"])) for entry in facts["fields"]
        ),
        partition_by=tuple(table.metadata().partition_columns),
        features=tuple(sorted(features)),
        properties=dict(table.metadata().configuration),
        field_metadata={entry["name"]: entry["metadata"] for entry in facts["fields"] if entry["metadata"]},
    )


def type_name(delta_type: Any) -> str:  # noqa: ANN401  # a type in Delta's schema JSON: a string or an object
    """A type of Delta's schema JSON in batchscore's vocabulary.

    >>> type_name({"type": "array", "elementType": "long", "containsNull": True})
    'array<long>'
    """
    if isinstance(delta_type, str):
        return delta_type
    if delta_type.get("type") == "array":
        element = type_name(delta_type["elementType"])
        return f"unsupported({element})" if element.startswith("unsupported") else f"array<{element}>"
    return f"unsupported({delta_type.get('type')})"


def active_files(table: DeltaTable, uri: str, snapshot: Snapshot) -> tuple[ActiveFile, ...]:
    """The files of an open table with what their statistics prove about run ids.

    Files whose statistics prove nothing (an OPTIMIZE that merged several runs, more columns than statistics
    reach) have their run id column read; files with a deletion vector never prove anything.
    """
    actions = table_of(table.get_add_actions())
    deleted = _deletions(table) if "deletionVectors" in snapshot.features else {}
    has_runs = any(column.name == RUN_COLUMN for column in snapshot.columns)
    units = _units(actions, snapshot.partition_by)
    lows, highs, nulls = (_run_statistics(actions, name) for name in ("min", "max", "null_count"))
    found = []
    for index, row in enumerate(actions.select(["path", "size_bytes", "num_records"]).to_pylist()):
        path = unquote(row["path"])
        rows, low = row["num_records"], lows[index]
        vector = deleted.get(path, "")
        runs: tuple[tuple[str, int], ...] = ()
        if has_runs and not vector:
            proved = low is not None and low == highs[index] and nulls[index] == 0 and rows is not None
            runs = ((str(low), int(rows)),) if proved else _counted_runs(uri, path)
        found.append(ActiveFile(path, row["size_bytes"], units[index], rows, runs, vector))
    return tuple(found)


def _units(actions: pa.Table, partition_by: tuple[str, ...]) -> list[UnitValues]:
    if not partition_by:
        return [()] * actions.num_rows
    partition = actions.column("partition").combine_chunks()
    columns = [[partition_value(value) for value in pc.struct_field(partition, name)] for name in partition_by]
    return [tuple(zip(partition_by, values, strict=True)) for values in zip(*columns, strict=True)]


def _run_statistics(actions: pa.Table, name: str) -> list[str | int | None]:
    """One statistic of the run id column for each file, None where a file has none."""
    statistics = actions.column(name).combine_chunks() if name in actions.column_names else None
    known = statistics is not None and pa.types.is_struct(statistics.type)
    if statistics is None or not known or statistics.type.get_field_index(RUN_COLUMN) < 0:
        return [None] * actions.num_rows
    found: list[str | int | None] = pc.struct_field(statistics, RUN_COLUMN).to_pylist()
    return found


def _counted_runs(uri: str, path: str) -> tuple[tuple[str, int], ...]:
    """Rows of each run in one file; () when a row has none, or the file is damaged, gone or not of the table."""
    if ".." in path.split("/"):
        return ()
    filesystem, root = open_filesystem(uri)
    column: pa.ChunkedArray | None = None
    try:
        column = _run_column(filesystem, f"{root}/{path}")
    except OSError:  # Arrow's for some damage, too: of a damaged file the bytes can be read
        with storing(f"{path} of the table at {uri} could not be read"):
            _read_through(filesystem, f"{root}/{path}")
        with suppress(OSError):
            column = _run_column(filesystem, f"{root}/{path}")
    counted = [] if column is None else pc.value_counts(column.combine_chunks()).to_pylist()
    if any(entry["values"] is None for entry in counted):
        return ()
    return tuple(sorted((str(entry["values"]), int(entry["counts"])) for entry in counted))


def _run_column(filesystem: pafs.FileSystem, path: str) -> pa.ChunkedArray | None:
    """The column of run ids; None where there is none: a clone's absolute path, an older file, damage.

    Raises:
        OSError: storage does not answer, or the file is damaged.
    """
    try:
        with filesystem.open_input_file(path) as file:
            return pq.ParquetFile(file).read(columns=[RUN_COLUMN]).column(RUN_COLUMN)
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowException):
        return None


def _read_through(filesystem: pafs.FileSystem, path: str) -> None:
    with filesystem.open_input_stream(path) as stream:
        while stream.read(READ_BYTES):
            pass


def kept_rows(table: DeltaTable) -> dict[str, bytes]:
    """For each file with a deletion vector, by relative path: a byte for each row, 0 where it is deleted.

    Rows behind the last byte are kept.
    """
    root = table.table_uri
    found: dict[str, bytes] = {}
    for entry in table_of(table.deletion_vectors()).to_pylist():
        uri = entry["filepath"]
        path = uri[len(root) :].lstrip("/") if uri.startswith(root) else uri
        found[unquote(path)] = bytes(bool(keep) for keep in entry["selection_vector"])
    return found


def _deletions(table: DeltaTable) -> dict[str, str]:
    """Digest of each deletion vector by relative path."""
    return {path: hashlib.sha256(kept).hexdigest() for path, kept in kept_rows(table).items()}


def unit_states(files: Iterable[ActiveFile]) -> dict[UnitValues, UnitState]:
    """What the active files of each unit say about themselves."""
    grouped: dict[UnitValues, list[ActiveFile]] = defaultdict(list)
    for file in files:
        grouped[file.unit].append(file)
    return {values: _state(group) for values, group in grouped.items()}


def _state(files: list[ActiveFile]) -> UnitState:
    totals: dict[str, int] = defaultdict(int)
    foreign: list[str] = []
    for file in files:
        for run, rows in file.runs:
            totals[run] += rows
        if not file.runs:
            foreign.append(f"{file.path}\n{file.size}\n{file.deleted}")
    stamp = hashlib.sha256("\n".join(sorted(foreign)).encode()).hexdigest() if foreign else ""
    return UnitState(tuple(sorted(totals.items())), len(foreign), stamp, sum(bool(file.deleted) for file in files))
