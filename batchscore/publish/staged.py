"""What a staged file must be before the table names it: nobody else checks any of this."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore import s3
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.footers import unreadable
from batchscore.arrow.layout import misspelled
from batchscore.arrow.types import from_arrow
from batchscore.contracts import (
    RUN_COLUMN,
    RUNS_FOLDER,
    ColumnStats,
    ManifestUnit,
    OutputColumn,
    OutputFormat,
    ScoringPlan,
    StagedFile,
    UnitValues,
)
from batchscore.errors import BatchscoreError, UnavailableError, listed

READERS = 8  # footers read at a time; each is one or two requests on an object store


@dataclass(frozen=True, slots=True)
class Expected:
    """What the staged files of a run are held against."""

    uri: str
    run_id: str
    columns: tuple[OutputColumn, ...]
    partition_by: tuple[str, ...]
    units: tuple[ManifestUnit, ...]
    required: frozenset[str] = frozenset()  # columns that the table declares NOT NULL
    output_format: OutputFormat = "delta"

    @property
    def in_file(self) -> dict[str, str]:
        """Name and type of the columns that a data file holds."""
        left_out = self.partition_by if self.output_format == "delta" else ()
        return {column.name: column.type for column in self.columns if column.name not in left_out}

    @property
    def folder(self) -> str:
        """What the path of a data file begins with."""
        return "" if self.output_format == "delta" else f"{RUNS_FOLDER}/{self.run_id}/"


def expected_of(plan: ScoringPlan, units: Iterable[ManifestUnit]) -> Expected:
    """What this plan's files are held against."""
    return Expected(
        uri=plan.target.uri,
        run_id=plan.run_id,
        columns=plan.task.columns,
        partition_by=plan.task.partition_by,
        units=tuple(units),
        required=frozenset(column.name for column in plan.target.columns if not column.nullable),
        output_format=plan.task.output_format,
    )


def check(files: Sequence[StagedFile], expected: Expected) -> None:
    """Checks every staged file, its footer included; all faults are named together.

    Raises:
        BatchscoreError: a file is not what its task said: a bug or a foreign hand, never published.
        UnavailableError: a file is not where the driver can see it, or storage fails.
    """
    spellings = _spelling_faults(files, expected)
    in_file = {name: kind for name, kind in expected.in_file.items() if name not in expected.partition_by}
    faults = [f"{file.path}: {fault}" for file in files for fault in _faults(file, expected, in_file, spellings)]
    faults.extend(_count_faults(files, expected.units))
    if not faults:
        check_present(files, expected.uri)
        faults = _footer_faults(files, expected)
    if faults:
        raise BatchscoreError(
            f"{len(faults)} faults in the staged files of run {expected.run_id}; nothing was published",
            detail=faults[:10],
        )


def check_present(files: Sequence[StagedFile], uri: str) -> None:
    """Stats every file from the driver: a cleaned one, or one on an executor's own disk, would break the table.

    Raises:
        UnavailableError: naming the files.
    """
    filesystem, root = open_filesystem(uri)
    try:
        infos = filesystem.get_file_info([f"{root}/{file.path}" for file in files])
    except OSError as error:
        raise s3.failure("the staged files could not be examined", error) from error
    gone = [file.path for file, info in zip(files, infos, strict=True) if info.type != pafs.FileType.File]
    if gone:
        raise UnavailableError(
            "staged files are not where the driver looks for them; nothing was published",
            found=listed(gone),
            hint="on a cluster the output must be on storage that all machines share; then run again",
        )
    other = [file.path for file, info in zip(files, infos, strict=True) if info.size != file.size]
    if other:
        raise UnavailableError(
            "staged files have another size than when they were written; nothing was published",
            found=listed(other),
            hint="run again",
        )


def _faults(
    file: StagedFile, expected: Expected, in_file: Mapping[str, str], spellings: Mapping[tuple[str, str | None], str]
) -> list[str]:
    return [
        *_path_faults(file.path, expected.folder),
        *_unit_faults(file.unit, expected, spellings),
        *_stats_faults(file, expected, in_file),
    ]


def _path_faults(path: str, folder: str) -> list[str]:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or "://" in path or "\\" in path or str(pure) != path:
        return ["its path is not relative to the table"]
    if ".." in pure.parts:
        return ["its path leaves the table"]
    if not path.startswith(folder):
        return [f"its path is not in the run's own folder {folder}"]
    if any(part.startswith(("_", ".")) for part in path.removeprefix(folder).split("/")):
        return ["a part of its path begins with _ or ., which readers and VACUUM overlook"]
    return []


def _spelling_faults(files: Sequence[StagedFile], expected: Expected) -> dict[tuple[str, str | None], str]:
    """What is wrong with partition values, by column and value; each value is looked at once."""
    types = {column.name: column.type for column in expected.columns}
    found: dict[tuple[str, str | None], str] = {}
    for column in expected.partition_by:
        values = {value for file in files for name, value in file.unit if name == column and value is not None}
        for value in misspelled(values, types[column]):
            found[column, value] = f"{column}={value!r} is not how a {types[column]} is spelled"
        if column in expected.required:
            found[column, None] = f"{column} is null, which the table declares NOT NULL"
    return found


def _unit_faults(unit: UnitValues, expected: Expected, spellings: Mapping[tuple[str, str | None], str]) -> list[str]:
    if tuple(name for name, _ in unit) != expected.partition_by:
        return [f"its partition columns are {[name for name, _ in unit]}"]
    return [spellings[item] for item in unit if item in spellings]


def _stats_faults(file: StagedFile, expected: Expected, types: Mapping[str, str]) -> list[str]:
    """Faults of a file's statistics; ``types`` are those of its columns that the table is not partitioned by."""
    faults = []
    for stats in file.stats:
        if stats.name not in types:
            faults.append(f"statistics of {stats.name}, which is no column of the file")
        elif not 0 <= stats.null_count <= file.rows:
            faults.append(f"{stats.null_count} nulls in {file.rows} rows of {stats.name}")
        elif stats.null_count and stats.name in expected.required:
            faults.append(f"{stats.null_count} nulls in {stats.name}, which the table declares NOT NULL")
        elif not _sound_bounds(stats, types[stats.name]):
            faults.append(f"bounds {stats.minimum!r} and {stats.maximum!r} of {stats.name}")
    run = next((stats for stats in file.stats if stats.name == RUN_COLUMN), None)
    if run is None or (run.minimum, run.maximum, run.null_count) != (expected.run_id, expected.run_id, 0):
        faults.append(f"its statistics do not prove that all rows are of run {expected.run_id}")
    return faults


def _sound_bounds(stats: ColumnStats, type_name: str) -> bool:
    low, high = stats.minimum, stats.maximum
    if (low is None) != (high is None):
        return False
    if any(isinstance(bound, float) and not math.isfinite(bound) for bound in (low, high)):
        return False
    if low is None or high is None or type_name.startswith("decimal"):
        return True
    if isinstance(low, str) != isinstance(high, str):
        return False
    return bool(low <= high)  # type: ignore[operator]  # both are strings or both are numbers here


def _count_faults(files: Sequence[StagedFile], units: Sequence[ManifestUnit]) -> list[str]:
    rows: dict[UnitValues, int] = defaultdict(int)
    for file in files:
        rows[file.unit] += file.rows
    offered = {unit.values for unit in units}
    faults = [f"unit {dict(values)} is none of the run's" for values in rows if values not in offered]
    faults += [
        f"unit {dict(unit.values)}: the manifest states {unit.rows} rows, its files hold {rows.get(unit.values, 0)}"
        for unit in units
        if rows.get(unit.values, 0) != unit.rows
    ]
    names = [file.path for file in files]
    if len(set(names)) != len(names):
        faults.append("a file is listed twice")
    return faults


def _footer_faults(files: Sequence[StagedFile], expected: Expected) -> list[str]:
    filesystem, root = open_filesystem(expected.uri)
    in_file = expected.in_file
    sound: list[pq.ParquetSchema] = []  # a schema that is as it should be: those of a run's files are mostly equal

    def faults_of(file: StagedFile) -> list[str]:
        try:
            footer = pq.read_metadata(f"{root}/{file.path}", filesystem=filesystem)
        except (OSError, pa.ArrowInvalid) as error:
            if isinstance(unreadable(file.path, error), UnavailableError):
                raise s3.failure(f"the footer of {file.path} could not be read", error) from error
            return [f"{file.path}: not readable as Parquet: {s3.said(error)}"]
        schema, found = footer.schema, []
        if not (sound and schema.equals(sound[0])):
            found = [f"{file.path}: {fault}" for fault in _schema_faults(schema.to_arrow_schema(), in_file)]
            if not found:
                sound[:] = [schema]
        if footer.num_rows != file.rows:
            found.append(f"{file.path}: {footer.num_rows} rows in the file, {file.rows} stated")
        return found

    if isinstance(filesystem, pafs.LocalFileSystem):  # threads would mostly wait for each other: three times the time
        return [fault for file in files for fault in faults_of(file)]
    with ThreadPoolExecutor(READERS) as pool:
        return [fault for faults in pool.map(faults_of, files) for fault in faults]


def _schema_faults(schema: pa.Schema, wanted: dict[str, str]) -> list[str]:
    found = {field.name: _stored_type(field.type) for field in schema}
    if len(found) != len(schema):
        return ["a column appears twice"]
    faults = [
        f"column {name} is {found.get(name, 'missing')}, not {kind}"
        for name, kind in wanted.items()
        if found.get(name) != kind
    ]
    faults.extend(f"column {name} is not of the table" for name in found if name not in wanted)
    return faults


def _stored_type(arrow: pa.DataType) -> str:
    """The type as Spark will read it: nanoseconds and unsigned integers make files that it cannot."""
    if pa.types.is_timestamp(arrow) and arrow.unit != "us":
        return f"unsupported({arrow})"
    if pa.types.is_unsigned_integer(arrow) or pa.types.is_float16(arrow):
        return f"unsupported({arrow})"
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return f"array<{_stored_type(arrow.value_type)}>"
    return from_arrow(arrow)
