"""The ledger ``<table>__runs``: a Delta table with one row a run, refused and failed ones too.

It decides nothing: the prediction table's own commits and the manifests do. So it may be lost, and is rebuilt
from those.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, replace
from itertools import chain
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from batchscore import manifests, s3
from batchscore.arrow.damage import is_of_store, panics_as_errors
from batchscore.arrow.filesystem import make_folder, open_filesystem, storing
from batchscore.arrow.snapshot import LOG_FOLDER, location
from batchscore.arrow.values import scalar_of
from batchscore.contracts import Manifest, RunRecord
from batchscore.errors import SettingsError, UnavailableError, bounded, nearest
from batchscore.record.published import published_records

SUFFIX = "__runs"
APPEND_ATTEMPTS = 10
APPEND_SECONDS = 30.0  # no further attempt after that: each waits for a dead store's retries itself
LOOKS = 2  # at the log, where it names a file that is not there
NO_TEXT = "recovered from an older file of the ledger, without its text"
MAX_SMALL_FILES = 50  # each run adds a file of one row; more than these are merged

_INTEGERS = {
    "table_version",
    "units_published",
    "units_live",
    "rows_read",
    "rows",
    "exit_code",
    "source_version",
    "peak_worker_bytes",
    "rows_quarantined",
    "rows_filtered",
}
_FLOATS = {"seconds"}
_LOG = logging.getLogger(__name__)


def _arrow_type(name: str) -> pa.DataType:
    if name in _INTEGERS:
        return pa.int64()
    return pa.float64() if name in _FLOATS else pa.string()


_LATER = {entry.name for entry in fields(RunRecord) if entry.default is not MISSING}
SCHEMA = pa.schema([pa.field(entry.name, _arrow_type(entry.name)) for entry in fields(RunRecord)])


def ledger_uri(table_uri: str) -> str:
    """Where the ledger of a table is.

    >>> ledger_uri("/data/scores/")
    '/data/scores__runs'
    """
    return table_uri.rstrip("/") + SUFFIX


def append(table_uri: str, record: RunRecord) -> None:
    """Adds a run to the ledger, creating it where there is none; a damaged one is rebuilt first.

    Raises:
        UnavailableError: storage refused; the run itself is not undone by that.
    """
    try:
        _append(table_uri, [record])
    except UnavailableError as error:
        if not _damaged(table_uri):
            raise
        _LOG.warning("the ledger %s is damaged and is rebuilt: %s", ledger_uri(table_uri), error.found)
        rebuild(table_uri)
        _append(table_uri, [record])


def _append(table_uri: str, records: Sequence[RunRecord]) -> None:
    rows = _table(records)
    failure: Exception | None = None
    deadline = time.monotonic() + APPEND_SECONDS
    for attempt in range(APPEND_ATTEMPTS):
        try:
            with panics_as_errors():
                write_deltalake(
                    location(ledger_uri(table_uri)),
                    rows,
                    mode="append",
                    schema_mode="merge",
                    storage_options=s3.delta_options(table_uri),
                    commit_properties=CommitProperties(max_commit_retries=15),
                    post_commithook_properties=PostCommitHookProperties(create_checkpoint=False),
                )
        except (
            DeltaError,
            OSError,
            ValueError,
            pa.ArrowException,
        ) as error:  # two runs may both create it: the second one then appends
            failure = error
            if time.monotonic() > deadline:
                break
            time.sleep(0.05 * (attempt + 1))
        else:
            _merge_small_files(table_uri)
            return
    raise UnavailableError(
        f"the ledger {ledger_uri(table_uri)} could not be written",
        found=None if failure is None else s3.said(failure),
        hint="check space and write permission; the ledger can be rebuilt from the manifests",
    ) from failure


def _table(records: Sequence[RunRecord]) -> pa.Table:
    """One row a run; ``pa.Table.from_pylist`` would import pandas for it."""
    rows = [asdict(record) for record in records]
    columns = [
        pa.concat_arrays([pa.repeat(scalar_of(row[field.name], field.type), 1) for row in rows]) for field in SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _merge_small_files(table_uri: str) -> None:
    try:
        table = _opened(table_uri)
        if len(table.file_uris()) > MAX_SMALL_FILES:
            table.optimize.compact(post_commithook_properties=PostCommitHookProperties(create_checkpoint=False))
            table.create_checkpoint()
    except (DeltaError, OSError) as error:
        _LOG.debug("the ledger was not merged this time: %s", error)


def _opened(table_uri: str) -> DeltaTable:
    with panics_as_errors():
        return DeltaTable(location(ledger_uri(table_uri)), storage_options=s3.delta_options(table_uri))


def _damaged(table_uri: str) -> bool:
    try:
        _opened(table_uri)
    except TableNotFoundError:
        return False
    except (DeltaError, ValueError) as error:
        return not is_of_store(error)
    except OSError:
        return False
    return False


def _read(table_uri: str) -> list[RunRecord] | None:
    """All rows, newest first and one for each run; None where the ledger is damaged.

    Raises:
        UnavailableError: storage does not answer; that says nothing of the ledger.
    """
    gone = ""
    for _ in range(LOOKS):  # a retention may delete old files between the look at the log and the one at them
        names = _active_names(table_uri)
        if names is None:
            return None
        try:
            found = [_rows_of_file(table_uri, name) for name in names]
        except FileNotFoundError as error:
            gone = str(error)
            continue
        rows = [rows for rows in found if rows is not None]
        return _newest_first(chain.from_iterable(rows)) if len(rows) == len(found) else None
    _LOG.warning("the ledger %s has lost a file: %s", ledger_uri(table_uri), gone)
    return None


def _active_names(table_uri: str) -> list[str] | None:
    """The data files that the log names; None where it is damaged."""
    problem = f"the ledger {ledger_uri(table_uri)} could not be reached"
    try:
        with panics_as_errors():
            paths = _opened(table_uri).file_uris()
    except TableNotFoundError:
        return []
    except (DeltaError, ValueError) as error:
        if is_of_store(error):
            raise s3.failure(problem, error) from error
        _LOG.warning("the ledger %s cannot be read: %s", ledger_uri(table_uri), bounded(error).splitlines()[0])
        return None
    except OSError as error:
        raise s3.failure(problem, error) from error
    return [path.rsplit("/", 1)[-1] for path in paths]  # not partitioned: all files lie in its folder


def _rows_of_file(table_uri: str, name: str) -> list[RunRecord] | None:
    """The rows of one data file; None where it is damaged.

    Raises:
        FileNotFoundError: it is not there.
        UnavailableError: storage does not answer.
    """
    filesystem, root = open_filesystem(ledger_uri(table_uri))
    try:
        with filesystem.open_input_stream(f"{root}/{name}") as stream:
            data = stream.read()  # as a whole: what raises behind this is damage, whatever its type
    except FileNotFoundError:
        raise
    except OSError as error:
        raise s3.failure(f"file {name} of the ledger {ledger_uri(table_uri)} could not be read", error) from error
    try:
        return [_record(row) for row in pq.ParquetFile(pa.BufferReader(data)).read().to_pylist()]
    except (OSError, pa.ArrowException, *manifests.DAMAGE) as error:
        _LOG.warning("file %s of the ledger %s is unreadable: %s", name, ledger_uri(table_uri), error)
        return None


def _record(row: dict[str, object]) -> RunRecord:
    """A row as a record.

    A row from before a column was there is null in it once it is merged with newer ones.
    """
    known = {entry.name for entry in fields(RunRecord)}
    kept = {name: value for name, value in row.items() if name in known and (value is not None or name not in _LATER)}
    manifests.check_kinds(kept, RunRecord)
    return RunRecord(**kept)  # type: ignore[arg-type]


def _newest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    """One record for each run: the one that says it is published, else the one that ended last.

    A run whose commit landed unheard is noted as failed first, and nothing makes a published run unpublished.
    """
    latest: dict[str, RunRecord] = {}
    for record in sorted(records, key=lambda entry: (entry.state == "published", entry.ended_at, entry.started_at)):
        latest[record.run_id] = record
    return sorted(latest.values(), key=lambda entry: (entry.ended_at, entry.started_at, entry.run_id), reverse=True)


def history(table_uri: str, limit: int = 20) -> list[RunRecord]:
    """The newest runs of a table.

    Published runs that the ledger lacks (a crash between commit and record, a lost ledger), or that it has as failed
    (the commit landed after all), are added to it first. That costs one listing of the manifests, and a look at the
    table's log only where there is one of another run: a run that published nothing has none.

    Args:
        table_uri: root of the prediction table.
        limit: how many, newest first.
    """
    records = _read(table_uri)
    if records is None:
        return rebuild(table_uri)[:limit]
    found = _unnoted(table_uri, records)
    if found:
        _append_or_warn(table_uri, found)
        records = _newest_first([*records, *found])
    return records[:limit]


def _unnoted(table_uri: str, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Published runs that the records lack, or have as something else."""
    known = {record.run_id: record for record in records}
    published = {run_id for run_id, record in known.items() if record.state == "published"}
    asked = set(manifests.all_ids(table_uri)) - published
    found = published_records(table_uri, asked) if asked else []
    return [_with_facts(record, known.get(record.run_id)) for record in found]


def _with_facts(found: RunRecord, noted: RunRecord | None) -> RunRecord:
    """A recovered record with what neither manifest nor commit says."""
    if noted is None:
        return found
    return replace(found, seconds=noted.seconds, model_requested=noted.model_requested, backfill=noted.backfill)


def _append_or_warn(table_uri: str, records: Sequence[RunRecord]) -> None:
    """Reading the history must work where the ledger cannot be written."""
    try:
        _append(table_uri, records)
    except UnavailableError as error:
        _LOG.warning("recovered runs could not be added to the ledger: %s", error.problem)


def show(table_uri: str, run_id: str) -> tuple[RunRecord, Manifest | None]:
    """One run in full.

    Args:
        table_uri: root of the prediction table.
        run_id: a run id, or the beginning of exactly one.

    Raises:
        SettingsError: no run, or several, begin like that; near ones are named.
    """
    records = {record.run_id: record for record in history(table_uri, limit=10**9)}
    matches = [run_id] if run_id in records else [known for known in records if run_id and known.startswith(run_id)]
    if len(matches) > 1:
        raise SettingsError(f"several runs begin with {run_id}", allowed=matches, hint="give more characters")
    if not matches:
        raise SettingsError(
            f"{table_uri} has no run {run_id}",
            allowed=list(records)[:5],
            near=nearest(run_id, records),
            hint="`batchscore history` lists the runs",
        )
    record = records[matches[0]]
    return record, manifests.read(table_uri, record.run_id)


def rebuild(table_uri: str) -> list[RunRecord]:
    """Makes the ledger anew where it is missing or damaged, and adds the published runs that it lacks.

    From what its own data files still hold (an append-only table's files are all its rows, so refused and
    failed runs survive a lost log), and from the manifests of the runs that the table's commits or files name.

    Returns:
        All records, newest first.
    """
    kept = _read(table_uri)
    lost = kept is None
    if kept is None:
        kept = _salvaged(table_uri)
        _set_log_aside(table_uri)
    found = _unnoted(table_uri, kept)
    to_write = [*kept, *found] if lost else found
    if to_write:
        _append(table_uri, to_write)
    return _newest_first([*kept, *found])


def _salvaged(table_uri: str) -> list[RunRecord]:
    """What the data files still hold, each run as its newest file has it.

    Of files that the log replaced no text is taken: they may be replaced because of keys in it that were forgotten.
    """
    filesystem, root = open_filesystem(ledger_uri(table_uri))
    with storing(f"the ledger {ledger_uri(table_uri)} could not be listed"):
        infos = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))
    files = [info for info in infos if info.base_name.endswith(".parquet")]
    replaced = _replaced(table_uri, {info.base_name for info in files})
    records: list[RunRecord] = []
    for info in sorted(files, key=lambda info: (info.base_name not in replaced, info.mtime_ns or 0)):
        with suppress(FileNotFoundError):
            rows = _rows_of_file(table_uri, info.base_name) or []
            without = info.base_name in replaced
            records.extend(replace(row, message=NO_TEXT, detail="") if without else row for row in rows)
    return _newest_first(records)


def _replaced(table_uri: str, names: Collection[str]) -> set[str]:
    """Those files that are no longer the ledger's, as far as its log still says."""
    active = _active_names(table_uri)
    if active:
        return set(names) - set(active)
    filesystem, root = open_filesystem(ledger_uri(table_uri))
    selector = pafs.FileSelector(f"{root}/{LOG_FOLDER}", allow_not_found=True)
    removed: set[str] = set()
    with storing(f"the log of the ledger {ledger_uri(table_uri)} could not be read"):
        for info in filesystem.get_file_info(selector):
            if info.base_name.endswith(".json"):
                with filesystem.open_input_stream(info.path) as stream:
                    removed.update(_removed_by(bytes(stream.read())))
    return removed


def _removed_by(commit: bytes) -> Iterator[str]:
    """The files that a commit removed, by those of its lines that are whole."""
    for line in commit.splitlines():
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            yield unquote(json.loads(line)["remove"]["path"]).rpartition("/")[2]


def _set_log_aside(table_uri: str) -> None:
    """Moves a damaged log's files out of the way; nothing is deleted."""
    filesystem, root = open_filesystem(ledger_uri(table_uri))
    aside = f"{root}/_damaged_{time.time_ns()}"
    make_folder(filesystem, aside)
    selector = pafs.FileSelector(f"{root}/{LOG_FOLDER}", allow_not_found=True)
    for info in filesystem.get_file_info(selector):
        if info.type == pafs.FileType.File:
            filesystem.move(info.path, f"{aside}/{info.base_name}")
