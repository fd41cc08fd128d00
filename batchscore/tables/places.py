"""Where the pointer of a Parquet table lies, and how it is replaced: from exactly what was read, or not at all."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow.fs as pafs

from batchscore import s3
from batchscore.arrow.filesystem import open_filesystem, write_durably
from batchscore.errors import UnavailableError
from batchscore.tables.base import Conflict
from batchscore.tables.pointer import POINTER

if TYPE_CHECKING:
    from obstore import UpdateVersion

LOCK = f"{POINTER.removesuffix('.json')}.lock"
# The lock is held for one read, one write and two syncs: whoever holds it this long is stopped or its disk is.
LOCK_SECONDS = 20.0
LOCK_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Held:
    """The pointer as it was read; ``token`` is what the store tells it apart by."""

    data: bytes
    token: Mapping[str, str]


class Place(Protocol):
    """A store that replaces the pointer atomically and on a condition."""

    @property
    def sure(self) -> bool:
        """Whether a conflict proves that nothing was written; over a network it may answer one's own retry."""

    def read(self) -> Held | None:
        """The pointer now; None where there is none.

        Raises:
            UnavailableError: the store did not answer.
        """

    def swap(self, data: bytes, held: Held | None) -> None:
        """Makes ``data`` the pointer where it still is what ``held`` says; None: where there is none.

        Raises:
            Conflict: it is something else by now.
            UnavailableError: nobody could write: the lock is held too long.
            Exception: the store refused, before or after the pointer was replaced.
        """


class LocalPlace:
    """A folder of a file system of this machine, or one that it mounts.

    The kernel releases the lock of a process that dies. What decides is the comparison under the lock, and the rename.

    Args:
        root: the table's folder.
        lock_seconds: how long to wait for the lock.
    """

    sure = True

    def __init__(self, root: str, lock_seconds: float = LOCK_SECONDS) -> None:
        self._pointer, self._lock = Path(root) / POINTER, Path(root) / LOCK
        self._lock_seconds = lock_seconds

    def read(self) -> Held | None:
        """The pointer's content."""
        try:
            return Held(self._pointer.read_bytes(), {})
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnavailableError(f"{self._pointer} could not be read", found=error) from error

    def swap(self, data: bytes, held: Held | None) -> None:
        """Compares under the lock, then renames a whole, synced file over the pointer."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            now = self.read()
            if (None if now is None else now.data) != (None if held is None else held.data):
                raise Conflict("the pointer changed since it was read")
            write_durably(self._pointer, data)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._take(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._lock_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise UnavailableError(
                        f"{self._lock} was held by another process for {self._lock_seconds:g} s; nothing was published",
                        hint="a stopped process may hold it: `lsof` on that file names it; then run again",
                    ) from error
                time.sleep(LOCK_POLL_SECONDS * (0.5 + random.random()))  # noqa: S311  # jitter, no secret
            else:
                return


class ObjectPlace:
    """An object store: the pointer is put on condition of the ETag that was read, the first one of there being none.

    S3 is reached as :mod:`batchscore.s3` says; other stores by the environment variables of delta-rs, which uses the
    same Rust library.

    Args:
        uri: root of the table.
    """

    sure = False

    def __init__(self, uri: str) -> None:
        import obstore  # noqa: PLC0415  # for object stores alone
        from obstore import exceptions, store  # noqa: PLC0415

        self._uri = uri
        self._get, self._put = obstore.get, obstore.put
        self._error = exceptions.BaseError
        self._conflicts = (exceptions.AlreadyExistsError, exceptions.PreconditionError)
        try:
            self._store: Any = store.from_url(uri, **s3.obstore_options(uri))
        except (exceptions.BaseError, ValueError) as error:
            raise UnavailableError(f"the storage of {uri} could not be opened", found=s3.said(error)) from error

    def read(self) -> Held | None:
        """The pointer's content and its ETag."""
        try:
            found = self._get(self._store, POINTER)
            data = bytes(found.bytes())
        except FileNotFoundError:
            return None
        except (self._error, OSError) as error:
            raise s3.failure(f"the pointer of the table at {self._uri} could not be read", error) from error
        token = {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}
        return Held(data, {name: value for name, value in token.items() if value is not None})

    def swap(self, data: bytes, held: Held | None) -> None:
        """One conditional put."""
        mode: UpdateVersion = {} if held is None else {**held.token}  # type: ignore[typeddict-item]  # both are text
        try:
            self._put(self._store, POINTER, data, mode=mode or "create", use_multipart=False)
        except self._conflicts as error:
            raise Conflict("the pointer changed since it was read") from error
        except self._error as error:  # the put may have landed
            raise OSError(s3.said(error)) from error


# By pyarrow's name of the file system.
PLACES: Mapping[str, Callable[[str, str], Place]] = {
    "local": lambda _, root: LocalPlace(root),
    "s3": lambda uri, _: ObjectPlace(uri),
    "gcs": lambda uri, _: ObjectPlace(uri),
    "abfs": lambda uri, _: ObjectPlace(uri),
}


def place_of(uri: str) -> Place | None:
    """The place of a table; None where its storage cannot replace a file on a condition."""
    filesystem, root = open_filesystem(uri)
    kind = "local" if isinstance(filesystem, pafs.LocalFileSystem) else filesystem.type_name
    made = PLACES.get(kind)
    return None if made is None else made(uri.rstrip("/"), root.rstrip("/"))
