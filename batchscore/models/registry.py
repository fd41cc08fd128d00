"""The MLflow registry: a reference becomes an exact version, and its files are fetched.

Waiting is bounded here, because MLflow retries an HTTP server for minutes, and a SQLite file that is not there is
reported here, because MLflow would make an empty one.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import ParseResult, quote, unquote, urlparse

from batchscore.errors import ModelError, SettingsError, SetupError, UnavailableError, nearest
from batchscore.models.reference import STAGES, Reference, local_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE_WAIT_SECONDS = 5
CONNECT_WAIT_SECONDS = 5
# An unreachable HTTP registry is reported after about 5 s (3 tries); MLflow's defaults take minutes.
BOUNDED = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
PAGE_VERSIONS = 1_000
PAGE_MODELS = 50
MAX_VERSIONS_LISTED = 10_000
LATEST_NOTICE = "latest is the newest version of today: name a version or an alias to keep it"
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
FORBIDDEN = ("PERMISSION_DENIED", "UNAUTHENTICATED")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model's files are; ``files`` is the artifact URI, the others are what PinnedModel takes over."""

    name: str
    version: str
    uri: str
    run_id: str
    files: str
    notices: tuple[str, ...] = ()


@contextlib.contextmanager
def reach(uri: str) -> Iterator[None]:
    """Bounds MLflow's waiting inside the block and turns its failures to reach ``uri`` into our errors.

    Raises:
        UnavailableError: the server, database or storage did not answer.
        ModelError: it answered that there is no such thing.
        SettingsError: it refused the credentials.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # 4 s to import; planning without a model needs none
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # comes with mlflow

    before = {name: os.environ.get(name) for name in BOUNDED}
    for name, value in BOUNDED.items():
        os.environ.setdefault(name, value)
    try:
        yield
    except MlflowException as error:
        raise _translated(error.error_code, uri, error) from error
    except FileNotFoundError as error:
        raise ModelError("the model's files are not where the registry says", found=error) from error
    except (OSError, SQLAlchemyError) as error:
        raise unreachable(uri, error) from error
    finally:
        for name, earlier in before.items():
            if earlier is None:
                os.environ.pop(name, None)


def unreachable(uri: str, reason: object) -> UnavailableError:
    """The error for a registry that does not answer."""
    return UnavailableError(
        f"the model registry or its files are not reachable: {uri}",
        found=reason,
        hint="check registry.tracking_uri in the settings, and that the server is up; then run again",
    )


def check_store(uri: str) -> None:
    """Checks, without MLflow and without making anything, that a local or database registry can answer.

    Raises:
        SettingsError: the address is none.
        UnavailableError: the file is missing, unreadable, locked or no registry; or the database's port is shut.
    """
    parts = address_of(uri)
    scheme = parts.scheme.split("+")[0]
    if scheme == "sqlite":
        _check_sqlite(uri)
    elif scheme in DATABASE_PORTS:
        if parts.hostname is None:
            return  # a socket file or a service name: MLflow's driver knows where
        try:
            socket.create_connection(
                (parts.hostname, parts.port or DATABASE_PORTS[scheme]), CONNECT_WAIT_SECONDS
            ).close()
        except OSError as error:
            raise unreachable(uri, error) from error
    elif scheme in ("", "file"):
        folder = Path(unquote(parts.path) if scheme else uri)
        if not folder.is_dir():
            raise unreachable(uri, "there is no such folder")


def address_of(uri: str) -> ParseResult:
    """A registry's address, taken apart.

    Raises:
        SettingsError: a bracket that is not closed, a port that is no number, a name that no host can have.
    """
    try:
        parts = urlparse(uri)
        if parts.scheme.split("+")[0] in {"http", "https", *DATABASE_PORTS}:
            (parts.hostname or "").encode("idna")
            _ = parts.port  # reading it is what checks it
    except ValueError:
        raise SettingsError(
            "the address of the model registry is none",
            found=uri,
            allowed=("https://host:5000", "postgresql://user:password@host:5432/database", "sqlite:///mlruns.db"),
            hint="check host and port in registry.tracking_uri; in a password, / # ? @ and : are percent-encoded",
        ) from None  # it may quote a part of a password
    return parts


def _check_sqlite(uri: str) -> None:
    path = Path(unquote(re.sub(r"^sqlite(\+\w+)?:///", "", uri).split("?")[0]))
    if not path.is_file():
        raise unreachable(uri, "there is no such file")
    try:
        database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=SQLITE_WAIT_SECONDS)
        with contextlib.closing(database):
            known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'registered_models'").fetchone()
    except sqlite3.Error as error:
        raise unreachable(uri, error) from error
    if known is None:
        raise unreachable(uri, "the file is a SQLite database, but not an MLflow registry")


def connect(tracking_uri: str, registry_uri: str | None) -> MlflowClient:
    """A client for the registry, checked to be there.

    Raises:
        UnavailableError: it is not reachable.
    """
    for uri in {tracking_uri, registry_uri or tracking_uri}:
        check_store(uri)
    from mlflow import MlflowClient  # noqa: PLC0415  # 4 s to import

    with reach(registry_uri or tracking_uri):
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri)


def locate(client: MlflowClient, uri: str, reference: Reference) -> Location:
    """The exact version that a reference means now.

    Raises:
        ModelError: no such model, version, alias or stage.
        UnavailableError: the registry at ``uri`` does not answer.
    """
    with reach(uri):
        if reference.kind == "logged":
            model = client.get_logged_model(reference.value)
            source = str(model.source_run_id or "")
            return Location(str(model.name), "", f"models:/{reference.value}", source, str(model.artifact_location))
        if reference.kind == "run":
            run_id = reference.value.split("/")[0]
            return Location(
                reference.name, "", f"runs:/{reference.value}", run_id, _files(client, f"runs:/{reference.value}")
            )
        model = _registered_model(client, reference.name)
        found, notices = _version(client, model, reference)
        return Location(
            name=str(model.name),
            version=str(found.version),
            uri=f"models:/{model.name}/{found.version}",
            run_id=str(found.run_id or ""),
            files=_files(client, client.get_model_version_download_uri(model.name, found.version)),
            notices=notices,
        )


def all_versions(client: MlflowClient, uri: str, name: str) -> tuple[Any, list[Any]]:
    """MLflow's own description of a registered model, and of all its versions, oldest first.

    Raises:
        ModelError: no model has this name; near names are given.
        UnavailableError: the registry at ``uri`` does not answer.
    """
    with reach(uri):
        return _registered_model(client, name), _versions(client, name)


def _files(client: MlflowClient, uri: str) -> str:
    """The storage URI behind a ``models:/m-…`` or ``runs:/…`` URI.

    MLflow resolves these against its global tracking URI whatever it is given, and makes a ``mlflow.db`` in the
    working directory where there is none; so they are resolved here.
    """
    scheme, _, rest = uri.partition(":/")
    if scheme == "models":
        return str(client.get_logged_model(rest).artifact_location)
    if scheme != "runs":
        return uri
    run_id, _, path = rest.partition("/")
    run = client.get_run(run_id)
    logged = client.search_logged_models(
        experiment_ids=[run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'", max_results=PAGE_MODELS
    )
    for model in logged:  # newest first; MLflow, too, prefers a logged model to a run's file of the same name
        if model.name == path:
            return str(model.artifact_location)
    return f"{run.info.artifact_uri}/{path}"


def local_folder(location: Location) -> Path | None:
    """The folder of the model's files, where they lie on this machine.

    >>> local_folder(Location("m", "1", "models:/m/1", "", "file:///data/m%201"))
    PosixPath('/data/m 1')
    """
    if location.files.startswith("file:///"):
        return Path(local_path(location.files))
    return Path(location.files) if location.files.startswith("/") else None


def download(location: Location, target: Path, tracking_uri: str) -> Path:
    """Fetches the model's files below ``target`` and returns their folder.

    Raises:
        ModelError: the files are gone.
        UnavailableError: the registry or the artifact storage does not answer.
    """
    import mlflow.artifacts  # noqa: PLC0415  # 4 s to import

    with reach(location.files):
        found = mlflow.artifacts.download_artifacts(
            artifact_uri=location.files, dst_path=str(target), tracking_uri=tracking_uri
        )
    return Path(found)


def _translated(code: str, uri: str, error: Exception) -> ModelError | UnavailableError | SettingsError | SetupError:
    text = str(error)
    if "out-of-date database schema" in text:
        return SetupError(
            "the registry's database is of another MLflow version", found=text, hint="run mlflow db upgrade"
        )
    if code in FORBIDDEN:
        return SettingsError(f"the model registry refused access: {uri}", found=text, hint="check its credentials")
    if code in UNKNOWN or "No such file" in text or "No such artifact" in text:
        return ModelError("the registry does not know this model", found=text)
    return unreachable(uri, text)


def _registered_model(client: MlflowClient, name: str) -> Any:  # noqa: ANN401  # mlflow publishes no types
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # loaded by the client

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        known = sorted(str(model.name) for model in client.search_registered_models(max_results=PAGE_VERSIONS))
        raise ModelError(
            f"no registered model is named {name}",
            near=nearest(name, known),
            allowed=known,
            hint="register the model, or check registry.tracking_uri in the settings" if not known else None,
        ) from error


def _version(client: MlflowClient, model: Any, reference: Reference) -> tuple[Any, tuple[str, ...]]:  # noqa: ANN401  # mlflow publishes no types
    if reference.kind == "alias":
        number = dict(model.aliases).get(reference.value)
        if number is None:
            raise _no_such(client, model, "alias", reference.value, list(model.aliases))
        return client.get_model_version(model.name, str(number)), ()
    versions = _versions(client, model.name)
    known: list[str] = []
    if reference.kind == "version":
        known = [str(version.version) for version in versions]
        found = [version for version in versions if str(version.version) == reference.value]
        notices: tuple[str, ...] = ()
    elif reference.kind == "stage":
        known = _stages(versions)
        found = [version for version in versions if version.current_stage == reference.value]
        notices = (stage_notice(model.name, reference.value),)
    else:
        found = versions if reference.kind == "latest" else []
        notices = (LATEST_NOTICE,)
    if not found:
        raise _no_such(client, model, reference.kind if known or reference.value else "", reference.value, known)
    return found[-1], notices


def stage_notice(name: str, stage: str) -> str:
    """What a user of a stage should know."""
    return f"MLflow deprecates stages: use an alias, for example {name}@{stage.lower()}, instead of a stage"


def _stages(versions: list[Any]) -> list[str]:
    return sorted({str(version.current_stage) for version in versions} & {*STAGES})


def _versions(client: MlflowClient, name: str) -> list[Any]:
    """All versions of a model, oldest first."""
    found: list[Any] = []
    token = None
    while len(found) < MAX_VERSIONS_LISTED:
        quoted = f"'{name}'" if "'" not in name else f'"{name}"'  # MLflow knows no escapes, but both quotes
        page = client.search_model_versions(f"name={quoted}", max_results=PAGE_VERSIONS, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    return sorted(found, key=lambda version: int(version.version))


def _no_such(client: MlflowClient, model: Any, kind: str, value: str, known: list[str]) -> ModelError:  # noqa: ANN401  # mlflow publishes no types
    """The error for a reference to a known model: names what could be meant instead."""
    versions = _versions(client, model.name)
    references = [f"{model.name}@{alias}" for alias in sorted(model.aliases)]
    references += [f"{model.name}/{stage}" for stage in _stages(versions)]
    references += [f"{model.name}/{version.version}" for version in reversed(versions)]
    near = [
        reference
        for reference in references
        if value and re.split("[@/]", reference)[-1].casefold() == value.casefold()
    ]
    near += [f"{model.name}{'@' if kind == 'alias' else '/'}{name}" for name in nearest(value, known)]
    problem = f"model {model.name} has no {kind} {value}" if kind else f"model {model.name} is named without a version"
    hint = None if references else "the model has no versions: register one"
    return ModelError(problem, near=list(dict.fromkeys(near)), allowed=references, hint=hint)
