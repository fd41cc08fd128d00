"""Pins Delta tables from their log with delta-rs: version, files, and why workers could not read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from batchscore import s3
from batchscore.arrow.damage import damage_of, is_of_store, panics_as_errors
from batchscore.arrow.footers import TRANSIENT_MARKS, read_footer
from batchscore.arrow.splits import reads_as
from batchscore.arrow.values import table_of
from batchscore.contracts import Column, PinnedSource, Restriction, Schema, SourceFile
from batchscore.errors import InputError, UnavailableError, listed
from batchscore.read.partitions import canonical, pruned, wanted_values
from batchscore.read.storage import Location, snapshot_digest
from batchscore.read.versions import describe_versions, resolve_version
from batchscore.schema import SCALARS, is_decimal

# A file above this is cut at its row groups, which takes its footer; below, one task reads it whole.
CUT_ABOVE_BYTES = 64 * 1024 * 1024
FOOTER_THREADS = 32
# Reader features that the reading of splits takes care of, or that do not concern it.
KNOWN_FEATURES = frozenset(
    {
        "columnMapping",
        "deletionVectors",
        "inCommitTimestamp",
        "timestampNtz",
        "typeWidening",
        "typeWidening-preview",
        "v2Checkpoint",
        "vacuumProtocolCheck",
        "variantType",
        "variantType-preview",
        "variantShredding",
        "variantShredding-preview",
    }
)


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Deletion vectors by file path: deleted rows and a digest; ``unknown`` where delta-rs cannot read them."""

    by_path: Mapping[str, tuple[int, str]]
    unknown: bool = False


def pin_delta(location: Location, restriction: Restriction, version: str, *, present: bool = True) -> PinnedSource:
    """A Delta table at one exact version.

    Args:
        location: the table's folder.
        restriction: only its ``partitions`` are looked at.
        version: ``latest``, a number, or an ISO timestamp (UTC where it has no zone).
        present: whether the files of a named version must still be there.

    Raises:
        InputError: when the version does not exist or lost its files, the log is damaged, a partition value does
            not exist, or there is no row.
        SettingsError: for an unreadable version or an unknown partition column.
    """
    number = resolve_version(location, version)
    with damage_of(location.uri, "read another version, or repair the log"):
        return _pinned(location, restriction, number, present=present)


def _pinned(location: Location, restriction: Restriction, number: int | None, *, present: bool) -> PinnedSource:
    table = open_table(location, number)
    fields = json.loads(table.schema().to_json())["fields"]
    columns = tuple(Column(field["name"], type_name(field["type"]), bool(field["nullable"])) for field in fields)
    partition_columns = tuple(table.metadata().partition_columns)
    vectors = _deletion_vectors(table, location)
    files = _active_files(table, location, columns, partition_columns)
    if not files:
        raise InputError(f"{location.uri} has no rows at version {table.version()}", hint="nothing to score")
    files = pruned(files, partition_columns, wanted_values(restriction.partitions, columns))
    if number is not None and present:
        _check_present(location, files, table.version())
    files = _with_vectors(_with_footers(location, files) if present else files, vectors)
    if sum(file.rows for file in files) == 0:
        raise InputError(f"{location.uri} has no rows at version {table.version()}", hint="nothing to score")
    return PinnedSource(
        kind="delta",
        uri=location.uri,
        version=table.version(),
        snapshot=snapshot_digest("delta", location, files),
        columns=columns,
        partition_columns=partition_columns,
        files=files,
        root=location.path,
        dataframe_reason=_dataframe_reason(table, fields, vectors, files, _foreign(location, files)),
    )


def open_table(location: Location, version: int | None) -> DeltaTable:
    """The table at a version, None being the newest.

    Raises:
        InputError: when the log cannot be read, or no longer reaches the version.
        UnavailableError: when the storage did not answer.
    """
    try:
        with panics_as_errors():
            return DeltaTable(location.uri, version=version, storage_options=s3.delta_options(location.uri))
    except (DeltaError, OSError, ValueError) as error:
        text = s3.said(error)
        if is_of_store(error) and s3.kind_of(error) not in {"unavailable", "expired"}:
            raise InputError(
                f"{location.uri} cannot be opened", found=text, hint=s3.advice(s3.kind_of(error))
            ) from error
        if is_of_store(error) or any(mark in text.casefold() for mark in TRANSIENT_MARKS):
            raise UnavailableError(
                f"{location.uri} could not be opened", found=text, hint="the storage did not answer; try again"
            ) from error
        wanted = "" if version is None else f" at version {version}"
        raise InputError(
            f"the log of Delta table {location.uri} cannot be read{wanted}",
            found=text,
            detail=(describe_versions(location),),
            hint="the log is damaged or uses a feature unknown to this release; read another version, or repair it",
        ) from error


def type_name(delta: object) -> str:
    """A type of Delta's schema JSON in batchscore's vocabulary.

    >>> type_name("long"), type_name({"type": "array", "elementType": "double", "containsNull": True})
    ('long', 'array<double>')
    """
    if isinstance(delta, Mapping):
        element = type_name(delta["elementType"]) if delta["type"] == "array" else None
        usable = element is not None and not element.startswith("unsupported")
        return f"array<{element}>" if usable else f"unsupported({delta['type']})"
    name = str(delta)
    return name if name in SCALARS or is_decimal(name) else f"unsupported({name})"


def _active_files(
    table: DeltaTable, location: Location, columns: Schema, partition_columns: Sequence[str]
) -> tuple[SourceFile, ...]:
    actions = table_of(table.get_add_actions())
    wanted = ["path", "size_bytes", "num_records", *(["partition"] if "partition" in actions.column_names else [])]
    types = {column.name: column.type for column in columns}
    return tuple(
        SourceFile(
            path=_file_path(location, row["path"]),
            size=row["size_bytes"],
            stamp="",
            rows=-1 if row["num_records"] is None else row["num_records"],
            partition=tuple((name, canonical(row["partition"].get(name), types[name])) for name in partition_columns),
        )
        for row in actions.select(wanted).to_pylist()
    )


def _file_path(location: Location, logged: str) -> str:
    """The path on the file system of a path in the log; both the log and delta-rs encode it once.

    Raises:
        InputError: it climbs out of the table. An absolute one, as of a shallow clone, is left to Spark.
    """
    relative = unquote(logged)
    if ".." in relative.split("/"):
        raise InputError(
            f"the log of Delta table {location.uri} names a file outside of the table",
            found=relative,
            hint="who wrote this table? its log is not one that a writer of Delta makes",
        )
    return relative if _is_absolute(relative) else f"{location.path}/{relative}"


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "file:")) or "://" in path


def _deletion_vectors(table: DeltaTable, location: Location) -> _Vectors:
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return _Vectors({})
    try:
        vectors = table_of(table.deletion_vectors())
    except DeltaError:
        # delta-rs opens tables with some features (type widening) whose deletion vectors it refuses to read.
        return _Vectors({}, unknown=True)
    root = _without_scheme(table.table_uri).rstrip("/")
    found = {}
    for file, vector in zip(vectors["filepath"], vectors["selection_vector"], strict=True):
        kept = vector.values.to_numpy(zero_copy_only=False)
        relative = unquote(_without_scheme(file.as_py())[len(root) + 1 :])
        digest = hashlib.sha256(kept.tobytes()).hexdigest()[:16]
        found[f"{location.path}/{relative}"] = (int(len(kept) - kept.sum()), f"dv:{digest}")
    return _Vectors(found)


def _without_scheme(uri: str) -> str:
    return uri.split("://", 1)[1] if "://" in uri else uri


def _with_vectors(files: Iterable[SourceFile], vectors: _Vectors) -> tuple[SourceFile, ...]:
    """The files with their rows less the deleted ones; a deletion vector is the file's stamp."""
    result = []
    for file in files:
        deleted, stamp = vectors.by_path.get(file.path, (0, ""))
        rows = -1 if vectors.unknown else file.rows - deleted
        result.append(replace(file, rows=rows, stamp=stamp))
    return tuple(result)


def _with_footers(location: Location, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files with row groups where they are to be cut, and with rows where the log does not tell."""
    foreign = {file.path for file in _foreign(location, files)}

    def read(file: SourceFile) -> SourceFile:
        if file.path in foreign or (file.rows >= 0 and file.size <= CUT_ABOVE_BYTES):
            return file
        footer = read_footer(location.filesystem, file.path)
        groups = footer.row_groups if file.size > CUT_ABOVE_BYTES else ()
        return replace(file, rows=footer.metadata.num_rows, row_groups=groups)

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return list(pool.map(read, files))


def _foreign(location: Location, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Files outside of the table's folder: a shallow clone reads those of its origin."""
    return [file for file in files if not file.path.startswith(f"{location.path}/")]


def _check_present(location: Location, files: Sequence[SourceFile], version: int) -> None:
    """A named version may have lost its files to VACUUM; the log does not tell.

    Raises:
        InputError: naming the first file that is gone, and the versions that the log has.
    """
    foreign = _foreign(location, files)
    found = location.filesystem.get_file_info([file.path for file in files if file not in foreign])
    gone = [info.path for info in found if info.type == pafs.FileType.NotFound]
    if gone:
        raise InputError(
            f"version {version} of {location.uri} lost {len(gone)} of its {len(files)} files to VACUUM",
            found=gone[0],
            detail=(describe_versions(location),),
            hint="read a newer version; `latest` always has its files",
        )


def _dataframe_reason(
    table: DeltaTable,
    fields: Sequence[Mapping[str, object]],
    vectors: _Vectors,
    files: Sequence[SourceFile],
    foreign: Sequence[SourceFile],
) -> str | None:
    """Why Spark must read the table, or None."""
    protocol = table.protocol()
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    unknown = sorted(set(protocol.reader_features or ()) - KNOWN_FEATURES)
    with_vectors = sum(file.stamp.startswith("dv:") for file in files)
    narrow = [str(field["name"]) for field in fields if not _widening_is_readable(field)]
    padded = [str(field["name"]) for field in fields if _is_char(field)]
    reasons = {
        f"column mapping (mode {mode})": mode not in {"", "none"},
        f"deletion vectors ({with_vectors} of {len(files)} files)": with_vectors > 0,
        "deletion vectors that cannot be listed beside type widening": vectors.unknown,
        f"reader features {listed(unknown)}": bool(unknown),
        f"widened types that only Spark reads: {listed(narrow)}": bool(narrow),
        f"columns of type char(n), which Spark pads: {listed(padded)}": bool(padded),
        "files outside of the table's folder (a shallow clone)": bool(foreign),
    }
    found = [reason for reason, applies in reasons.items() if applies]
    return f"the Delta table has {'; '.join(found)}" if found else None


def _metadata(field: Mapping[str, object]) -> Mapping[str, Any]:
    metadata = field.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _widening_is_readable(field: Mapping[str, object]) -> bool:
    changes: Sequence[Mapping[str, str]] = _metadata(field).get("delta.typeChanges", ())
    pinned = type_name(field["type"])
    return all(reads_as(type_name(change["fromType"]), pinned) for change in changes)


def _is_char(field: Mapping[str, object]) -> bool:
    return str(_metadata(field).get("__CHAR_VARCHAR_TYPE_STRING", "")).startswith("char")
