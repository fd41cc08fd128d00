"""A model name becomes an exact version, a digest and local files.

Importing this package loads no MLflow: :func:`pin` does when it must ask a registry.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscore.contracts import PinnedModel
from batchscore.errors import ModelError, SettingsError, SetupError
from batchscore.models import facts, registry, sqlite
from batchscore.models.digest import BYTECODE_FOLDER, digest_folder, model_files
from batchscore.models.facts import VersionFacts
from batchscore.models.mlmodel import (
    Document,
    check_files,
    classes_of,
    flavors_of,
    python_version,
    read_mlmodel,
    requirements_of,
)
from batchscore.models.params import resolve_params
from batchscore.models.reference import Reference, parse_reference
from batchscore.models.registry import Location
from batchscore.models.signature import resolve_inputs, resolve_outputs
from batchscore.models.timeline import version_history
from batchscore.models.trust import Trust
from batchscore.redaction import redact

__all__ = [
    "Trust",
    "VersionFacts",
    "describe",
    "digest_folder",
    "is_local",
    "parse_reference",
    "pin",
    "recorded",
    "version_history",
]

# MLflow writes this file while it downloads by registered name, and leaves it in a local artifact store.
WRITTEN_BY_DOWNLOAD = "registered_model_meta"
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9.\-]*)(?:\+[^:]*)?:")
# What reading a description whose parts are of other kinds than they should be ends with.
DAMAGE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def pin(  # noqa: PLR0913  # the settings' model section, spelled out
    reference: str,
    *,
    tracking_uri: str,
    registry_uri: str | None = None,
    signature: Mapping[str, Any] | None = None,
    params: Mapping[str, object] | None = None,
    version: str | None = None,
    cache_dir: Path | None = None,
    open_inputs: bool = False,
    trust: Trust | None = None,
    digest: str = "",
) -> PinnedModel:
    """Resolves a model reference, once, to exact files.

    The files are copied to ``cache_dir/<digest>`` and never changed there; the digest covers what they are, so
    it is equal however and wherever from the same model was fetched.

    Args:
        reference: ``name/7``, ``name/Production``, ``name@champion``, ``models:/…``, ``runs:/…`` or a folder.
        tracking_uri: MLflow's tracking URI, for example ``sqlite:///mlruns.db``.
        registry_uri: the registry's URI where it is another one.
        signature: inputs and outputs that the model leaves open; see :mod:`batchscore.models.signature`.
        params: inference parameters that differ from the signature's defaults.
        version: version, stage or ``@alias`` where ``reference`` is a bare name.
        cache_dir: where the files go; ``$XDG_CACHE_HOME/batchscore/models`` by default.
        open_inputs: leave inputs that nobody names as they are: unnamed, or none at all. An error otherwise.
        trust: which folders beside the registry a model's code may come from; None: the caller vouches for this one.
        digest: of the files that scored a run, which others must not be taken for; '' where any will do.

    Raises:
        ModelError: the model is unknown or damaged, or its files are others.
        SchemaMismatchError: it has no signature and the settings give none.
        SettingsError: the reference, the signature or a parameter is wrong, or the folder is not an allowed path.
        UnavailableError: the registry does not answer; after about 5 s.
    """
    parsed = parse_reference(reference, version)
    cache = _cache(cache_dir)
    incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=cache))
    try:
        if parsed.kind == "folder":
            location, folder = _from_folder(parsed, incoming)
        else:
            if trust is not None and trust.recorded and not is_local(tracking_uri):
                raise _unnamed(tracking_uri)
            location, folder = _from_registry(parsed, incoming, tracking_uri, registry_uri)
        (folder / WRITTEN_BY_DOWNLOAD).unlink(missing_ok=True)
        document = read_mlmodel(folder)
        found = digest_folder(folder)
        if digest and found != digest:
            raise _others(location, found, digest)
        _check(folder, document, _Origin(location, parsed.kind == "folder", cache / found), trust)
        path = _settle(folder, cache / found, found)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    requested = reference if not version else f"{reference}/{version}"
    declared = _Declared(signature, params, open_inputs)
    try:
        return _described(requested, location, document, path, declared)
    except DAMAGE as error:
        raise _damaged(error) from error


def recorded(  # noqa: PLR0913  # what a manifest says of its model
    digest: str,
    *,
    name: str,
    version: str,
    uri: str,
    signature: Mapping[str, Any] | None = None,
    params: Mapping[str, object] | None = None,
    cache_dir: Path | None = None,
) -> PinnedModel | None:
    """A model that was pinned on this machine before, by its digest alone: no registry is asked.

    Returns:
        None where the cache does not hold these very files.

    Raises:
        SchemaMismatchError, SettingsError: as :func:`pin`.
    """
    path = _cache(cache_dir) / digest
    if not _holds(path, digest):
        return None
    declared = _Declared(signature, params, open_inputs=False)
    try:
        return _described(uri, Location(name, version, uri, "", str(path)), read_mlmodel(path), path, declared)
    except DAMAGE as error:
        raise _damaged(error) from error


def describe(name: str, version: str, *, tracking_uri: str, registry_uri: str | None = None) -> VersionFacts:
    """Who registered a version of a model, when and from what; asks MLflow's client only where it must.

    Raises:
        UnavailableError: the registry does not answer.
        SettingsError: it refuses the credentials.
    """
    found = sqlite.describe(tracking_uri, registry_uri, name, version)
    if found is not None:
        return found
    client = registry.connect(tracking_uri, registry_uri)
    return facts.describe(client, registry_uri or tracking_uri, name, version)


def is_local(uri: str) -> bool:
    """Whether a registry is a file of this machine; any other one is sent this user's credentials when it is asked.

    The address may be none: a record is no settings file.

    >>> is_local("sqlite:///mlruns.db"), is_local("./mlruns"), is_local("https://mlflow.example"), is_local("http://[::1")
    (True, True, False, False)
    """
    scheme = _SCHEME.match(uri)
    return scheme is None or scheme[1].lower() in {"file", "sqlite"}


def _unnamed(uri: str) -> SettingsError:
    return SettingsError(
        "the model's registry is named by the run's record alone, and lies elsewhere",
        found=redact(uri),
        hint="it would get this user's credentials: name it with --tracking-uri, or the job's settings with --config",
    )


@dataclass(frozen=True, slots=True)
class _Declared:
    """What the settings say of a model."""

    signature: Mapping[str, Any] | None
    params: Mapping[str, object] | None
    open_inputs: bool


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where files were fetched from, and where this user's cache has them, if they were fetched before."""

    location: Location
    is_folder: bool
    cached: Path

    def ask(self, trust: Trust, document: Document) -> None:
        if self.is_folder:
            trust.check(Path(self.location.files), document)
        elif trust.recorded and (trust.installs or not _holds(self.cached, self.cached.name)):
            # What the cache holds was allowed when it was fetched, its requirements perhaps not.
            local = registry.local_folder(self.location)
            trust.check_registered(self.location.uri, None if local is None else local.resolve(), document)


def _check(folder: Path, document: Document, origin: _Origin, trust: Trust | None) -> None:
    """Refuses a damaged description, and code that nobody allowed."""
    try:
        check_files(folder, document)
        if trust is not None:
            origin.ask(trust, document)
    except DAMAGE as error:
        raise _damaged(error) from error


def _others(location: Location, found: str, wanted: str) -> ModelError:
    return ModelError(
        f"the files of {location.uri} are not those that scored the run",
        found=f"digest {found}",
        allowed=(f"digest {wanted}",),
        hint="they were changed after they were registered: restore them from a copy",
    )


def _damaged(error: Exception) -> ModelError:
    return ModelError(
        "the MLmodel file is damaged", found=f"{type(error).__name__}: {error}", hint="log the model again"
    )


def _described(requested: str, location: Location, document: Document, path: Path, declared: _Declared) -> PinnedModel:
    return PinnedModel(
        requested=requested,
        name=location.name,
        version=location.version,
        uri=location.uri,
        digest=path.name,
        path=str(path),
        size_bytes=sum(file.stat().st_size for _, file in model_files(path)),
        flavors=flavors_of(document),
        inputs=resolve_inputs(document, declared.signature, may_be_open=declared.open_inputs),
        outputs=resolve_outputs(document, declared.signature),
        params=resolve_params(document, declared.params),
        run_id=location.run_id or str(document.get("run_id") or ""),
        python_version=python_version(document),
        requirements=requirements_of(path),
        classes=classes_of(document),
        notices=location.notices,
    )


def _cache(cache_dir: Path | None) -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    cache = cache_dir or Path(home or Path.home() / ".cache", "batchscore", "models")
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError("the folder for model files cannot be made", found=error, hint="set XDG_CACHE_HOME") from error
    return cache


def _from_folder(reference: Reference, incoming: Path) -> tuple[Location, Path]:
    source = Path(reference.name).expanduser().resolve()
    if not source.is_dir():
        raise ModelError(
            "there is no such model folder", found=reference.name, hint="registered models are named name/7"
        )
    folder = _copied(source, incoming)
    notices: tuple[str, ...] = ()
    if reference.shadows_registry:
        notices = (f"{reference.name} is taken as a folder; write models:/{reference.name} for the registry",)
    return Location(source.name, "", str(source), "", str(source), notices), folder


def _copied(source: Path, incoming: Path) -> Path:
    read_mlmodel(source)  # before copying, which may take long: is this a model at all?
    digest_folder(source)  # refuses links that leave the folder before they are followed
    folder = incoming / "model"
    try:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(BYTECODE_FOLDER))
    except (OSError, shutil.Error) as error:
        raise ModelError("the model folder cannot be copied", found=error) from error
    return folder


def _from_registry(
    reference: Reference, incoming: Path, tracking_uri: str, registry_uri: str | None
) -> tuple[Location, Path]:
    location = sqlite.locate(tracking_uri, registry_uri, reference)
    if location is None:
        client = registry.connect(tracking_uri, registry_uri)
        location = registry.locate(client, registry_uri or tracking_uri, reference)
    local = registry.local_folder(location)
    if local is not None and local.is_dir():
        return location, _copied(local, incoming)
    folder = registry.download(location, incoming, tracking_uri)
    if not folder.is_dir():
        raise ModelError(f"the files of {location.uri} are not where the registry says", found=folder.name)
    return location, folder


def _holds(path: Path, digest: str) -> bool:
    """Whether the cache has these very files."""
    return path.is_dir() and digest_folder(path) == digest


def _settle(folder: Path, target: Path, digest: str) -> Path:
    """Moves a fetched folder to its place in the cache; an intact older copy stays, a damaged one goes."""
    if target.is_dir():
        if digest_folder(target) == digest:
            return target
        shutil.rmtree(target)
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir() or digest_folder(target) != digest:  # else another process was first
            raise
    return target
