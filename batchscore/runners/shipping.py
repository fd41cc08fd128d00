"""What executors on other machines need from the driver: this package, and the model's files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.contracts import ModelFiles, ScoringTask

if TYPE_CHECKING:
    from pyspark import SparkContext

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def package_zip() -> bytes:
    """The package's own Python files as a zip: the same bytes for the same files.

    >>> package_zip() == package_zip()
    True
    """
    sources = sorted(_sources(files("batchscore"), "batchscore"))
    return _zipped([(name, source.read_bytes()) for name, source in sources])


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _sources(entry, path)
        elif entry.name.endswith(".py"):
            yield path, entry


def _zipped(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def ship_package(context: SparkContext) -> None:
    """Puts the package on the executors' path, once for each application and content."""
    content = package_zip()
    name = f"batchscore-{hashlib.sha256(content).hexdigest()[:16]}.zip"
    if not any(path.endswith(f"/{name}") for path in context.listFiles):
        path = _outbox() / name
        path.write_bytes(content)
        context.addPyFile(str(path))


def give_environment(context: SparkContext, variables: Mapping[str, str]) -> None:
    """Has Python workers elsewhere start with these variables; those on this machine have them already.

    They travel with each task and stand in no setting of Spark, so that neither its page nor its event log shows them.
    """
    master = str(context.master)
    if not (master == "local" or master.startswith("local[")):
        context.environment.update(variables)


def ship_model(context: SparkContext, folder: str, digest: str) -> str:
    """Sends the model's files to every executor, once for each application and digest; returns their name.

    Spark unpacks an archive once for each executor, before the executor's first task.
    """
    name = f"model-{digest}"
    if not any(f"/{name}.zip" in path for path in context.listArchives):
        path = _outbox() / f"{name}.zip"
        _zip_folder(Path(folder), path)
        context.addArchive(f"{path}#{name}")
    return name


def _outbox() -> Path:
    """A folder that lives as long as the application: executors that join late fetch from it."""
    from pyspark import SparkFiles  # noqa: PLC0415  # only reached with a session

    folder = Path(SparkFiles.getRootDirectory()) / "batchscore-outbox"
    folder.mkdir(exist_ok=True)
    return folder


def _zip_folder(folder: Path, target: Path) -> None:
    # Model files are compressed already, or small; storing them costs no time on the driver.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())


def with_shipped_model(task: ScoringTask, archive: str | None) -> ScoringTask:
    """The task as an executor sees it; the engine checks the digest of what it finds there."""
    return dataclasses.replace(task, model=with_shipped_files(task.model, archive))


def with_shipped_files(model: ModelFiles, archive: str | None) -> ModelFiles:
    """The model's files where an executor finds them; ``archive`` is None where it shares the driver's disk."""
    if archive is None:
        return model
    from pyspark import SparkFiles  # noqa: PLC0415  # runs in an executor

    return dataclasses.replace(model, path=SparkFiles.get(archive))
