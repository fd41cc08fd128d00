"""The output table as it is: read before planning, and compared with what a run wants to write."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

import pyarrow.fs as pafs

from batchscore import amendments, manifests, s3
from batchscore.arrow.damage import damage_of
from batchscore.arrow.filesystem import make_folder, open_filesystem, storing
from batchscore.arrow.layout import is_canonical
from batchscore.arrow.snapshot import LOG_FOLDER, Snapshot
from batchscore.contracts import (
    METADATA_FOLDER,
    OutputColumn,
    OutputFormat,
    Schema,
    StagedFile,
    TargetState,
    UnitValues,
)
from batchscore.errors import InputError, SettingsError, nearest
from batchscore.publish.emptied import emptied, emptying_heads
from batchscore.publish.features import refusal
from batchscore.schema import is_supported
from batchscore.tables import FORMATS, Table, open_table

_MEND = "restore the files of its _delta_log folder, or write to another path"
MARK = f"{METADATA_FOLDER}/table"


def inspect(uri: str, output_format: OutputFormat = "delta", wanted: Collection[UnitValues] = ()) -> TargetState:
    """What planning needs to know of the output table; reads its log, no data row.

    Args:
        uri: path or URI of the table.
        output_format: what is to be there.
        wanted: the units that planning will ask about, where they are known: of those that have no file here it is
            looked up whether that is what a run published.

    Returns:
        The state; ``TargetState(uri)`` where there is no table. Units are read only from a table that
        batchscore may write: where ``refused`` is set there are none.

    Raises:
        SettingsError: the place holds a table of the other format, or files but no table, or takes none.
        UnavailableError: storage could not be reached.
        InputError: the log cannot be read.
    """
    try:
        table = open_table(uri)
        if table is None:
            _refuse_other_files(uri, output_format)
            FORMATS[output_format].check_place(uri)
            return TargetState(uri)
        refuse_other_format(table, output_format)
        with damage_of(uri, _MEND):
            snapshot = table.snapshot
    except InputError:
        required = _features_in_log(uri)
        why = refusal(Snapshot(0, (), (), required, {}, {}), uri)
        if why is None:
            raise
        return TargetState(uri, version=0, refused=why)
    why = refusal(snapshot, uri)
    if why is not None:
        return TargetState(uri, snapshot.version, snapshot.columns, snapshot.partition_by, refused=why)
    with damage_of(uri, _MEND):
        units = table.units
    forgotten = amendments.Forgotten(amendments.forgettings(uri))
    published = forgotten.changed(units)
    withdrawn = amendments.withdrawals(amendments.rollbacks(uri), units, forgotten)
    runs = {run for state in (*units.values(), *published.values()) for run, _ in state.runs}
    runs |= {item.run_id for items in withdrawn.values() for item in items}
    heads = manifests.heads(uri, runs)
    without_files = frozenset(wanted) - units.keys()
    active = {run for state in units.values() for run, _ in state.runs}
    counting = {run: head for run, head in heads.items() if run in active}
    if without_files:
        counting |= emptying_heads(table, active)
    return TargetState(
        uri,
        version=snapshot.version,
        columns=snapshot.columns,
        partition_by=snapshot.partition_by,
        units=units,
        manifests={**heads, **counting},
        published=published,
        withdrawn=withdrawn,
        emptied=emptied(counting.values(), without_files),
    )


def published_files(uri: str, units: Collection[UnitValues]) -> tuple[StagedFile, ...]:
    """The data files that the table holds of these units, without statistics.

    Raises:
        UnavailableError: storage could not be reached.
    """
    table = open_table(uri)
    if table is None:
        return ()
    return tuple(
        StagedFile(file.path, file.size, -1 if file.rows is None else file.rows, file.unit, ())
        for file in table.files
        if file.unit in units
    )


def prepare(uri: str) -> None:
    """Marks the output folder as batchscore's, before the first file is staged in it.

    Without the mark, what a killed first run leaves could not be told from a Parquet folder of someone else,
    and the next run would refuse the place.

    Raises:
        SettingsError: this place takes no files: a file is in the way, or permission is missing.
        UnavailableError: the storage did not take the file now: no space, no answer.
    """
    filesystem, root = open_filesystem(uri)
    try:
        make_folder(filesystem, f"{root}/{METADATA_FOLDER}")
        with filesystem.open_output_stream(f"{root}/{MARK}") as stream:
            stream.write(b"")
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise SettingsError(
            f"the output at {uri} cannot be written", found=error, hint="choose another path, or mend its permissions"
        ) from error
    except OSError as error:
        raise s3.failure(f"the output at {uri} cannot be written", error) from error


def refuse_other_format(table: Table, output_format: OutputFormat) -> None:
    """Refuses a table of another format than the settings say.

    Raises:
        SettingsError: naming both.
    """
    if table.format != output_format:
        raise SettingsError(
            f"the output at {table.uri} has another format",
            found=f"{table.format} in the table, output.format {output_format} asked",
            hint=f"set output.format to {table.format}, or write to another path",
        )


def _refuse_other_files(uri: str, output_format: OutputFormat) -> None:
    """A folder with data but no log belongs to someone else, but for one that :func:`prepare` marked."""
    filesystem, root = open_filesystem(uri)
    with storing(f"the output at {uri} could not be looked at"):
        kind = filesystem.get_file_info(root).type
        inside = filesystem.get_file_info(pafs.FileSelector(root)) if kind == pafs.FileType.Directory else []
    if kind == pafs.FileType.NotFound:
        return
    if kind == pafs.FileType.File:
        raise SettingsError("the output path is a file", found=uri, hint="name a folder that does not exist yet")
    names = {entry.base_name for entry in inside}
    seen = sorted(name for name in names if not name.startswith("."))
    if seen and METADATA_FOLDER not in names:
        kind = "Delta table" if output_format == "delta" else "prediction table"
        convert = ", or make it a Delta table first: CONVERT TO DELTA parquet.`...`"
        raise SettingsError(
            f"the output folder holds files but is no {kind}",
            found=", ".join(seen[:5]),
            hint=f"name an empty folder{convert if output_format == 'delta' else ''}",
        )


def _features_in_log(uri: str) -> tuple[str, ...]:
    """Feature names of the newest protocol in the JSON commits: for tables that delta-rs cannot even open."""
    filesystem, root = open_filesystem(uri)
    listing = filesystem.get_file_info(pafs.FileSelector(f"{root}/{LOG_FOLDER}", allow_not_found=True))
    for info in sorted(listing, key=lambda entry: entry.base_name, reverse=True):
        if not info.base_name.endswith(".json"):
            continue
        with filesystem.open_input_stream(info.path) as stream:
            features = _protocol_features(stream.read().decode(errors="replace").splitlines())
        if features is not None:
            return features
    return ()


def _protocol_features(lines: Iterable[str]) -> tuple[str, ...] | None:
    for line in lines:
        try:
            protocol = json.loads(line).get("protocol")
            if protocol:
                return tuple(sorted({*protocol.get("readerFeatures", ()), *protocol.get("writerFeatures", ())}))
        except (ValueError, AttributeError, TypeError, RecursionError):
            continue
    return None


def check_target(
    state: TargetState,
    columns: tuple[OutputColumn, ...],
    partition_by: tuple[str, ...],
    evolve_schema: bool,
) -> None:
    """Refuses a run that the table cannot take; a table that does not exist yet takes any sound layout.

    A column that the table lacks needs ``evolve_schema``; so does a nullable column that the run lacks (its new
    rows read as null). A change of type is always refused.

    Raises:
        SettingsError: with the names, what the table has, and the way out.
    """
    _check_layout(columns, partition_by)
    if not state.exists:
        return
    if state.refused is not None:
        what, _, drop = state.refused.partition("; drop it: ")
        raise SettingsError(
            f"batchscore cannot write the table at {state.uri} correctly", found=what, hint=f"drop it: {drop}"
        )
    if state.partition_by != partition_by:
        raise SettingsError(
            "the output table is partitioned by other columns",
            found=f"{', '.join(state.partition_by) or 'none'} in the table, {', '.join(partition_by) or 'none'} asked",
            hint=f"set output.partition_by to [{', '.join(state.partition_by)}], or write to another path",
        )
    table = {column.name: column for column in state.columns}
    _check_case(columns, tuple(table))
    for column in columns:
        known = table.get(column.name)
        if known is not None and known.type != column.type:
            raise SettingsError(
                f"column {column.name} of the output table has another type",
                found=f"{known.type} in the table, {column.type} from this run",
                hint="write to another path, or rename the column",
            )
    _check_new(columns, tuple(table), evolve_schema=evolve_schema)
    _check_missing(columns, state.columns, evolve_schema=evolve_schema)


def _check_layout(columns: tuple[OutputColumn, ...], partition_by: tuple[str, ...]) -> None:
    names = [column.name for column in columns]
    for name in partition_by:
        if name not in names:
            raise SettingsError(
                f"the output has no column {name} to partition by", allowed=names, near=nearest(name, names)
            )
    if len(partition_by) == len(names):
        raise SettingsError("the output needs a column beside those it is partitioned by", found=", ".join(names))
    folded: dict[str, str] = {}
    for column in columns:
        other = folded.setdefault(column.name.casefold(), column.name)
        if other is not column.name:
            raise SettingsError("two output columns differ only by case", found=f"{other}, {column.name}")
        if not is_supported(column.type):
            raise SettingsError(f"column {column.name} has a type that cannot be written", found=column.type)
        if column.name in partition_by and not _partitionable(column.type):
            raise SettingsError(
                f"the output cannot be partitioned by {column.name}",
                found=column.type,
                allowed=("string", "whole number", "date", "timestamp", "boolean", "decimal"),
            )


def _partitionable(type_name: str) -> bool:
    """Whether some value of the type has a canonical spelling; one sample of each kind tells."""
    samples = ("x", "1", "true", "2026-01-31", "2026-01-31 00:00:00.000000", "2026-01-31T00:00:00.000000Z")
    if type_name in ("float", "double", "binary") or type_name.startswith("array<"):
        return False
    return type_name.startswith("decimal") or any(is_canonical(sample, type_name) for sample in samples)


def _check_case(columns: tuple[OutputColumn, ...], known: tuple[str, ...]) -> None:
    by_folded = {name.casefold(): name for name in known}
    for column in columns:
        other = by_folded.get(column.name.casefold())
        if other is not None and other != column.name:
            raise SettingsError(
                f"column {column.name} differs from a column of the output table only by case",
                found=other,
                hint=f"rename it to {other}: most readers do not tell the two apart",
            )


def _check_new(columns: tuple[OutputColumn, ...], known: tuple[str, ...], *, evolve_schema: bool) -> None:
    new = [column.name for column in columns if column.name not in known]
    if new and not evolve_schema:
        raise SettingsError(
            "the output table lacks columns that this run writes",
            found=", ".join(new),
            near=nearest(new[0], known),
            hint="--evolve-schema adds them; older rows read as null",
        )


def _check_missing(columns: tuple[OutputColumn, ...], table: Schema, *, evolve_schema: bool) -> None:
    written = {column.name for column in columns}
    missing = [column for column in table if column.name not in written]
    required = [column.name for column in missing if not column.nullable]
    if required:
        raise SettingsError(
            "the output table has columns that may not be null and that this run does not write",
            found=", ".join(required),
            hint="carry them (output.carry), or write to another path",
        )
    if missing and not evolve_schema:
        raise SettingsError(
            "the output table has columns that this run does not write",
            found=", ".join(column.name for column in missing),
            hint="carry them (output.carry); --evolve-schema leaves them null in the new rows",
        )
