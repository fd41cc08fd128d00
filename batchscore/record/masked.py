"""The ledger's texts without the keys of rows that are to be forgotten; its rows stay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from batchscore import s3
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.snapshot import location
from batchscore.arrow.values import array_of
from batchscore.errors import UnavailableError
from batchscore.record.ledger import ledger_uri

TEXTS = ("message", "detail")
ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class MaskedLedger:
    """What was masked, or would be.

    Attributes:
        rows: rows of the ledger whose text changed.
        files: files of older versions, relative to the ledger's root, that still hold the text.
    """

    rows: int = 0
    files: tuple[str, ...] = ()


def mask(table_uri: str, masked: Callable[[str], str], *, dry_run: bool) -> MaskedLedger:
    """Rewrites the ledger's messages, as one commit.

    Args:
        table_uri: root of the prediction table.
        masked: a text without what is to be forgotten.
        dry_run: only count.

    Raises:
        UnavailableError: the ledger could not be read or written.
    """
    uri = ledger_uri(table_uri)
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        try:
            table = DeltaTable(location(uri), storage_options=s3.delta_options(uri))
            files = _changed_files(uri, masked)
            active = {path.rsplit("/", 1)[-1] for path in table.file_uris()}
            rows = sum(count for name, count in files.items() if name in active)
            if rows and not dry_run:
                _overwrite(table, uri, sorted(active), masked)
            return MaskedLedger(rows, tuple(sorted(files)))
        except TableNotFoundError:
            return MaskedLedger()
        except (DeltaError, OSError, pa.ArrowException) as error:  # another run may have added its row meanwhile
            failure = error
            time.sleep(0.05 * (attempt + 1))
    raise UnavailableError(f"the texts of the ledger {uri} could not be masked", found=failure) from failure


def _changed_files(uri: str, masked: Callable[[str], str]) -> dict[str, int]:
    """How many rows of each data file hold such text, older versions' files included."""
    filesystem, root = open_filesystem(uri)
    found = {}
    for info in filesystem.get_file_info(pafs.FileSelector(root)):
        if info.is_file and info.base_name.endswith(".parquet"):
            table = _read(filesystem, info.path)
            rows = zip(*(table.column(name).to_pylist() for name in _texts_of(table)), strict=True)
            count = sum(any(text and masked(text) != text for text in row) for row in rows)
            if count:
                found[info.base_name] = count
    return found


def _texts_of(table: pa.Table) -> list[str]:
    """A ledger of an earlier release lacks the later columns."""
    return [name for name in TEXTS if name in table.column_names]


def _read(filesystem: pafs.FileSystem, path: str) -> pa.Table:
    with filesystem.open_input_file(path) as file:
        return pq.ParquetFile(file).read()


def _overwrite(table: DeltaTable, uri: str, names: list[str], masked: Callable[[str], str]) -> None:
    filesystem, root = open_filesystem(uri)
    rows = pa.concat_tables((_read(filesystem, f"{root}/{name}") for name in names), promote_options="default")
    for name in _texts_of(rows):
        texts = array_of([masked(text or "") for text in rows.column(name).to_pylist()], pa.string())
        rows = rows.set_column(rows.schema.get_field_index(name), name, texts)
    write_deltalake(
        table,
        rows,
        mode="overwrite",
        schema_mode="merge",
        commit_properties=CommitProperties(max_commit_retries=0),
        post_commithook_properties=PostCommitHookProperties(create_checkpoint=False),
    )
