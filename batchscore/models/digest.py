"""The digest that says which model files these are.

Executors check it before they load a model, so this file needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import ModelError

CHUNK_BYTES = 1 << 20
# Python writes byte code beside a model's own modules while it loads them; whoever loads deletes it first.
BYTECODE_FOLDER = "__pycache__"


def model_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a model folder as (relative POSIX path, path), sorted by relative path.

    Raises:
        ModelError: for a link that leaves the folder, and for anything that is neither file nor folder.
    """
    root = folder.resolve()
    found: list[tuple[str, Path]] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != BYTECODE_FOLDER]
        for name in (*folders, *names):
            path = Path(parent, name)
            _refuse_escape(path, root, folder)
            if path.is_symlink() and path.is_dir():
                raise ModelError("a model folder must not link to folders", found=path.relative_to(folder))
            if path.is_dir():
                continue
            if not path.is_file():
                raise ModelError("a model folder holds files only", found=path.relative_to(folder))
            found.append((path.relative_to(folder).as_posix(), path))
    yield from sorted(found, key=lambda item: item[0].encode("utf-8", "surrogateescape"))


def digest_folder(path: str | Path) -> str:
    """SHA-256 over a folder's sorted relative paths and contents, 64 hex digits.

    Each path and each content is hashed on its own first, so that no two different folders can spell the same
    bytes. Empty folders, modes and times do not count.

    Raises:
        ModelError: the folder is missing or unreadable, or a link leaves it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError("the model's folder is missing", found=folder, hint="run again: the model is fetched anew")
    total = hashlib.sha256()
    try:
        for relative, file in model_files(folder):
            total.update(hashlib.sha256(relative.encode("utf-8", "surrogateescape")).digest())
            total.update(_file_digest(file))
    except OSError as error:
        raise ModelError("a file of the model cannot be read", found=error) from error
    return total.hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()


def _refuse_escape(path: Path, root: Path, folder: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        raise ModelError(
            "a link in the model folder leaves the folder",
            found=f"{path.relative_to(folder)} -> {path.readlink()}",
            hint="replace the link by the file it points to and log the model again",
        )
