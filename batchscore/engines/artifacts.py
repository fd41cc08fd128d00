"""The local cache of what engines make of models, with its certificates and measurements.

``$XDG_CACHE_HOME/batchscore/engines/<model digest>/<engine>-<key>/`` holds ``artifact/``, ``entry.json``,
``certificate.json`` and ``measurement.json``. The key is a digest of the engine, its versions, and what the settings
declare about the model's inputs and outputs. An entry gets its place by one rename and is compared with its digest
each time it is used, so that a damaged, half-written or foreign one is made again and never loaded.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.contracts.proof import Artifact, Certificate, Measurement
from batchscore.engines import engine_module
from batchscore.engines.base import Converter
from batchscore.engines.certificates import FORMAT, Record, from_json, to_json
from batchscore.errors import BatchscoreError, ModelError, SetupError
from batchscore.models.digest import digest_folder, model_files

ARTIFACT, ENTRY = "artifact", "entry.json"
CERTIFICATE, MEASUREMENT = "certificate.json", "measurement.json"
KEY_CHARS = 16
# What a folder that cannot be written says; any other error is the converter's.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def needs_artifact(engine: str, model: PinnedModel) -> bool:
    """Whether an engine loads an artifact that it makes of this model, not the model's own files.

    An engine that converts some models and loads others as they are says which in a ``needs_artifact(model)``.

    Raises:
        SettingsError: there is no engine of this name.
    """
    module = engine_module(engine)
    says = getattr(module, "needs_artifact", None)
    return hasattr(module, "convert") and (says is None or bool(says(model)))


def versions_of(engine: str) -> dict[str, str]:
    """Library → version of all that can change the engine's scores, as far as it says."""
    known = getattr(engine_module(engine), "versions", None)
    return dict(known()) if known is not None else {}


def prepared(engine: str, model: PinnedModel, cache_dir: Path | None = None) -> Artifact:
    """The artifact of a model, made at most once for the same model, engine and versions.

    Two processes that ask at once get one artifact: the second waits for the first, and finds it.

    Args:
        engine: name of an engine that converts.
        model: the model, whose files were verified.
        cache_dir: where artifacts go; ``$XDG_CACHE_HOME/batchscore/engines`` by default.

    Raises:
        ModelError: the engine cannot convert the model.
        SetupError: the cache cannot be written, or something that the conversion needs is missing here.
        SettingsError: there is no engine of this name.
    """
    folder = entry_folder(engine, model, cache_dir)
    with writing(folder), locked(folder):
        return intact(folder, engine, model) or settle(engine, model, folder, _converter(engine, model))


def files_for(engine: str, model: PinnedModel, cache_dir: Path | None = None) -> ModelFiles:
    """What workers load for an engine: its artifact in place of the model's folder, or the model's own files.

    Raises:
        ModelError, SetupError, SettingsError: as :func:`prepared`.
    """
    files = ModelFiles.of(model)
    if not needs_artifact(engine, model):
        return files
    artifact = prepared(engine, model, cache_dir)
    return replace(files, path=artifact.path, digest=artifact.digest)


def read_certificate(engine: str, model: PinnedModel, cache_dir: Path | None = None) -> Certificate | None:
    """The stored certificate; None where there is none, or it is damaged. See ``certificates.valid``."""
    return _read(entry_folder(engine, model, cache_dir) / CERTIFICATE, Certificate)


def write_certificate(certificate: Certificate, model: PinnedModel, cache_dir: Path | None = None) -> None:
    """Stores a certificate with the artifact that it is about.

    Raises:
        SetupError: the cache cannot be written.
    """
    _write(entry_folder(certificate.engine, model, cache_dir) / CERTIFICATE, to_json(certificate))


def read_measurement(engine: str, model: PinnedModel, cache_dir: Path | None = None) -> Measurement | None:
    """The last measurement on this machine; None where there is none, or it is damaged."""
    return _read(entry_folder(engine, model, cache_dir) / MEASUREMENT, Measurement)


def write_measurement(measurement: Measurement, model: PinnedModel, cache_dir: Path | None = None) -> None:
    """Stores a measurement beside the artifact.

    Raises:
        SetupError: the cache cannot be written.
    """
    _write(entry_folder(measurement.engine, model, cache_dir) / MEASUREMENT, to_json(measurement))


def entry_folder(engine: str, model: PinnedModel, cache_dir: Path | None = None) -> Path:
    """The folder of a model's artifact, certificate and measurement; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME")
    cache = cache_dir or Path(home or Path.home() / ".cache", "batchscore", "engines")
    return cache / model.digest / f"{engine}-{_key(engine, model)}"


def intact(folder: Path, engine: str, model: PinnedModel) -> Artifact | None:
    """The artifact of a cache entry, compared with its digest; None where it must be made again."""
    try:
        entry = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
        stated = {key: entry[key] for key in _facts(engine, model)}
        digest = digest_folder(folder / ARTIFACT)
    except (OSError, ValueError, TypeError, KeyError, ModelError):
        return None
    if stated != _facts(engine, model) or entry.get("digest") != digest:
        return None
    return _artifact(engine, folder, digest)


def settle(engine: str, model: PinnedModel, folder: Path, make: Callable[[Path], None]) -> Artifact:
    """Makes a cache entry: ``make`` writes the artifact into an empty folder, then one rename puts it in place.

    Raises:
        ModelError: ``make`` wrote nothing.
    """
    incoming = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        artifact = incoming / ARTIFACT
        artifact.mkdir(mode=0o700)
        make(artifact)
        if not any(model_files(artifact)):
            raise ModelError(f"engine {engine} made nothing of model {model.name}")
        digest = digest_folder(artifact)
        entry = {**_facts(engine, model), "digest": digest}
        (incoming / ENTRY).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        found = intact(folder, engine, model)  # where locks do not work, another process may have been first
        if found is not None:
            return found
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or of certificates only: they were for another artifact
        incoming.rename(folder)
    except OSError:
        found = intact(folder, engine, model)  # first by a moment
        if found is None:
            raise
        return found
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return _artifact(engine, folder, digest)


def _converter(engine: str, model: PinnedModel) -> Callable[[Path], None]:
    module = cast(Converter, engine_module(engine))

    def make(target: Path) -> None:
        try:
            module.convert(model, target)
        except BatchscoreError:
            raise
        except OSError as error:
            if error.errno in UNWRITABLE:
                raise
            raise _failed(engine, model, error) from error
        except Exception as error:  # a converter of a library's own: it may raise anything
            raise _failed(engine, model, error) from error

    return make


def _failed(engine: str, model: PinnedModel, error: Exception) -> ModelError:
    return ModelError(
        f"engine {engine} cannot convert model {model.name}",
        found=f"{type(error).__name__}: {error}",
        hint="set scoring.engine to auto or pyfunc",
    )


def _key(engine: str, model: PinnedModel) -> str:
    declared = repr((model.inputs, model.outputs, model.params))
    text = json.dumps([engine, sorted(versions_of(engine).items()), declared])
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_CHARS]


def _facts(engine: str, model: PinnedModel) -> dict[str, object]:
    """What an entry must say of itself to be the one that is looked for."""
    return {
        "format": FORMAT,
        "engine": engine,
        "model_digest": model.digest,
        "key": _key(engine, model),
        "versions": versions_of(engine),
    }


def _artifact(engine: str, folder: Path, digest: str) -> Artifact:
    path = folder / ARTIFACT
    return Artifact(engine, str(path), digest, sum(file.stat().st_size for _, file in model_files(path)))


def _clear(folder: Path) -> None:
    """Removes what processes that died while they made this entry have left; its lock is held."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _read(path: Path, kind: type[Record]) -> Record | None:
    try:
        return from_json(path.read_text(encoding="utf-8"), kind)
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    with writing(path.parent):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes the folder above ``folder``, for the user alone, and turns failures to write into our error."""
    try:
        folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the mode is for the last folder alone
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        yield
    except OSError as error:
        raise SetupError(
            "the cache of converted models cannot be written",
            found=error,
            hint=f"make room in {folder.parent.parent}, or set XDG_CACHE_HOME to a folder that can be written",
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time make this entry. The lock ends with its process, however that ends.

    Where the filesystem has no locks, the rename alone keeps entries whole.
    """
    with (folder.parent / f".{folder.name}.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        else:
            _clear(folder)
        yield
