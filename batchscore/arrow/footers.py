"""Parquet footers: schema, row groups and the digest by which a changed file is noticed; no data is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from batchscore import s3
from batchscore.arrow.types import columns_of
from batchscore.contracts import Schema
from batchscore.errors import InputError, UnavailableError

MAGIC = b"PAR1"
ENCRYPTED_MAGIC = b"PARE"
TRAILER_BYTES = 8  # the footer's length and the magic
TAIL_BYTES = 64 * 1024  # one read of the file's end holds the whole footer of most files
DIGEST_CHARS = 16
# What object stores put into the text of an OSError when the network or the service failed, not the file.
TRANSIENT_MARKS = (
    "connection",
    "timeout",
    "timed out",
    "slow_down",
    "service_unavailable",
    "internal_failure",
    "curl",
    "http status 5",
)


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says about itself.

    Attributes:
        size: the file's bytes.
        digest: of the footer's bytes, short hex.
        metadata: parsed once, to open the file without reading the footer again.
        schema: Arrow schema; INT96 columns (Spark's default for timestamps) are instants in UTC.
        etag: what the object store tells this content apart by; '' elsewhere.
    """

    size: int
    digest: str
    metadata: pq.FileMetaData
    schema: pa.Schema
    etag: str = ""

    @property
    def columns(self) -> Schema:
        """The file's columns by their type names."""
        return columns_of(self.schema)

    @property
    def row_groups(self) -> tuple[int, ...]:
        """Rows of each row group."""
        return tuple(self.metadata.row_group(index).num_rows for index in range(self.metadata.num_row_groups))


def unreadable(path: str, error: Exception) -> InputError | UnavailableError:
    """The error for a file that could not be read; names the file.

    A failure of the network or of the storage service is worth a retry, a damaged file is not.
    """
    text = s3.said(error)
    kind = s3.kind_of(error)
    if isinstance(error, OSError) and kind == "expired":
        return UnavailableError(f"{path} could not be read", found=text, hint=s3.advice(kind))
    if isinstance(error, OSError) and kind != "unavailable":
        return InputError(f"{path} cannot be read", found=text, hint=s3.advice(kind))
    if isinstance(error, OSError) and any(mark in str(error).casefold() for mark in TRANSIENT_MARKS):
        return UnavailableError(f"{path} could not be read", found=text, hint="the storage did not answer; try again")
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} is no longer there", hint="it was removed after planning; run again")
    return InputError(
        f"{path} cannot be read", found=text, hint="the file is damaged or not readable; write it again or move it away"
    )


def read_footer(filesystem: pafs.FileSystem, path: str) -> Footer:
    """Reads the footer of one Parquet file.

    Raises:
        InputError: naming the file, when it is missing, truncated or not Parquet.
        UnavailableError: when the storage did not answer.
    """
    try:
        with filesystem.open_input_file(path) as file:
            return footer_of(file, path)
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:  # a name that is no text is a ValueError
        raise unreadable(path, error) from error


def footer_of(file: pa.NativeFile, path: str) -> Footer:
    """Reads the footer of an open file; ``path`` is for error texts.

    Raises:
        InputError: naming the file, when it is truncated or not Parquet.
    """
    size = file.size()
    tail = _tail(file, size, TAIL_BYTES)
    _check_trailer(tail, path, size)
    length = int.from_bytes(tail[-TRAILER_BYTES:-4], "little") + TRAILER_BYTES
    if length > size - len(MAGIC):
        raise _not_parquet(path, f"a footer of {length} bytes in a file of {size} bytes")
    if length > len(tail):
        tail = _tail(file, size, length)
    footer = tail[-length:]
    # The reader wants a file; one that consists of the footer alone is enough to parse it.
    opened = pq.ParquetFile(pa.BufferReader(MAGIC + footer))
    digest = hashlib.sha256(footer).hexdigest()[:DIGEST_CHARS]
    instants = _with_instants(opened.schema_arrow, opened.metadata)
    found = Footer(size, digest, opened.metadata, instants, _etag(file))
    if min(found.row_groups, default=0) < 0 or sum(found.row_groups) != found.metadata.num_rows:
        raise _not_parquet(path, "row groups that do not add up to its rows")
    found.columns  # noqa: B018  # decodes the names, which a damaged footer need not have as text
    return found


def _etag(file: pa.NativeFile) -> str:
    """The ETag, which opening the object has told already."""
    found = {name.casefold(): value for name, value in file.metadata().items()}.get("etag", b"")
    return str(found.decode()).strip('"')


def _tail(file: pa.NativeFile, size: int, length: int) -> bytes:
    start = max(0, size - length)
    file.seek(start)
    tail: bytes = file.read(size - start)
    return tail


def _check_trailer(tail: bytes, path: str, size: int) -> None:
    if tail[-4:] == ENCRYPTED_MAGIC:
        raise InputError(f"{path} is an encrypted Parquet file", hint="decrypt it first")
    if size < TRAILER_BYTES + len(MAGIC) or tail[-4:] != MAGIC:
        raise _not_parquet(path, "an empty file" if size == 0 else f"{size} bytes that do not end as Parquet does")


def _not_parquet(path: str, found: str) -> InputError:
    return InputError(
        f"{path} is not a Parquet file, or it is truncated",
        found=found,
        hint="write the file again, or move it away; names that begin with _ or . are ignored",
    )


def _with_instants(schema: pa.Schema, metadata: pq.FileMetaData) -> pa.Schema:
    leaves = (metadata.schema.column(index) for index in range(metadata.num_columns))
    for name in {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}:
        index = schema.get_field_index(name)
        if index >= 0:  # an INT96 inside an array or struct stays what pyarrow makes of it
            schema = schema.set(index, pa.field(name, pa.timestamp("us", tz="UTC"), schema.field(index).nullable))
    return schema
