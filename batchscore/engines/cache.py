"""Loaded models of this process: verified, then loaded once."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from batchscore.contracts import ModelFiles
from batchscore.engines import ENGINES, engine_module
from batchscore.engines.base import Engine
from batchscore.errors import BatchscoreError, ModelError
from batchscore.models.digest import BYTECODE_FOLDER, digest_folder

_LOADED: dict[tuple[str, str, int, str], Engine] = {}
_LOADING = threading.Lock()


def loaded(name: str, files: ModelFiles, threads: int) -> Engine:
    """The engine ``name`` with the model loaded; once per process for the same digest, threads and declarations.

    An engine whose own process was lost is loaded anew: a task that is tried again must not find the dead one. The
    files are compared with their digest before anything of them is loaded, because a model file is code.

    Args:
        name: a key of :data:`batchscore.engines.ENGINES`.
        files: the model's files on this machine.
        threads: threads that the engine may use.

    Raises:
        ModelError: the files are not those that were resolved, or the model cannot be loaded.
        SettingsError: there is no engine of this name.
    """
    declared = (files.inputs, files.outputs, files.params)
    key = (name, files.digest, threads, repr((*declared, files.environment, files.config, files.variables)))
    engine = _LOADED.get(key)
    if engine is not None and not _is_lost(engine):
        return engine
    with _LOADING:  # a second thread waits and finds the model loaded
        engine = _LOADED.get(key)
        if engine is None or _is_lost(engine):
            _LOADED.pop(key, None)
            engine = _LOADED[key] = _load(name, files, threads)
        return engine


def _is_lost(engine: Engine) -> bool:
    """Whether the engine can score no more: the process that one in another environment lived in is gone."""
    return bool(getattr(engine, "lost", False))


def _load(name: str, files: ModelFiles, threads: int) -> Engine:
    module = engine_module(name)
    verify(files)
    try:
        if files.environment != "local":
            from batchscore.engines.isolated import load  # noqa: PLC0415  # the exception, not the rule

            return load(ENGINES[name], files, threads)
        return module.load(files, threads)
    except BatchscoreError:
        raise
    except Exception as error:  # a model file is code: it may raise anything
        raise ModelError(
            f"model {files.name} {files.version} cannot be loaded by engine {name}".replace("  ", " "),
            found=f"{type(error).__name__}: {error}",
            hint="compare the model's requirements.txt with this environment: batchscore check does",
        ) from error


def verify(files: ModelFiles) -> None:
    """Compares a model's files with their digest before anything of them is loaded, because a model file is code.

    Raises:
        ModelError: they are not those that were resolved.
    """
    found = digest_folder(files.path)
    if found != files.digest:
        raise ModelError(
            f"the files of model {files.name} {files.version} are not those that were resolved",
            found=f"digest {found}",
            allowed=(f"digest {files.digest}",),
            hint="they were changed or damaged after the run was planned: run again",
        )
    # Byte code does not count in the digest, so none that was there before may be run.
    for folder in Path(files.path).rglob(BYTECODE_FOLDER):
        shutil.rmtree(folder)
