"""Artifacts and certificates beside the model version in the registry, for machines that would convert it too.

They go into the run that logged the model, below ``batchscore/engines``, never into the model's own folder: its
digest says which model it is. What comes from there is compared with its digest like the local cache. Neither
direction can fail a run: who may not write, or finds nothing, converts for himself.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.contracts import PinnedModel
from batchscore.contracts.proof import Artifact
from batchscore.engines.artifacts import (
    ARTIFACT,
    CERTIFICATE,
    ENTRY,
    entry_folder,
    intact,
    locked,
    settle,
    writing,
)
from batchscore.errors import bounded
from batchscore.models.reference import MODEL_FILE
from batchscore.models.registry import connect, reach

if TYPE_CHECKING:
    from mlflow import MlflowClient

PLACE = "batchscore/engines"
NOTICE_CHARS = 300


def publish_artifact(
    engine: str,
    model: PinnedModel,
    *,
    tracking_uri: str,
    registry_uri: str | None = None,
    cache_dir: Path | None = None,
) -> str | None:
    """Copies the local artifact and its certificate to the run that logged the model; call it after a conversion.

    Args:
        engine: name of an engine that converts.
        model: the model.
        tracking_uri: MLflow's tracking URI.
        registry_uri: the registry's URI where it is another one.
        cache_dir: the local cache.

    Returns:
        Why nothing was written, or None where it was. Never raises.
    """
    folder = entry_folder(engine, model, cache_dir)
    if intact(folder, engine, model) is None:
        return f"engine {engine} has no artifact for model {model.name}"
    if not model.run_id:
        return f"model {model.name} has no run in the registry to keep its converted form"
    try:
        client = connect(tracking_uri, registry_uri)
        with reach(tracking_uri):
            if MODEL_FILE in _names(client, model.run_id, ""):
                return "the run's own folder is the model, whose files must not change"
            place = _place(folder, model)
            client.log_artifacts(model.run_id, str(folder / ARTIFACT), f"{place}/{ARTIFACT}")
            if (folder / CERTIFICATE).is_file():
                client.log_artifact(model.run_id, str(folder / CERTIFICATE), place)
            client.log_artifact(model.run_id, str(folder / ENTRY), place)  # last: without it the rest does not count
    except Exception as error:  # noqa: BLE001  # artifact stores raise errors of their own; none may fail the run
        return bounded(f"the converted model is not kept in the registry: {error}", NOTICE_CHARS)
    return None


def fetch_artifact(
    engine: str,
    model: PinnedModel,
    *,
    tracking_uri: str,
    registry_uri: str | None = None,
    cache_dir: Path | None = None,
) -> Artifact | None:
    """The artifact, from the local cache or else from the run that logged the model, with its certificate.

    Returns:
        None where there is none, it is damaged or for other versions, or the registry does not answer. Never raises.
    """
    folder = entry_folder(engine, model, cache_dir)
    try:
        with writing(folder), locked(folder):
            found = intact(folder, engine, model)
            if found is not None or not model.run_id:
                return found
            client = connect(tracking_uri, registry_uri)
            with reach(tracking_uri), tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetched-") as target:
                place = _place(folder, model)
                if ENTRY not in _names(client, model.run_id, place):
                    return None
                return _settled(_download(model.run_id, place, target, tracking_uri), folder, engine, model)
    except Exception:  # noqa: BLE001  # see above
        return None


def _settled(fetched: Path, folder: Path, engine: str, model: PinnedModel) -> Artifact | None:
    artifact = intact(fetched, engine, model)
    if artifact is None:
        return None

    def copy(target: Path) -> None:
        shutil.copytree(artifact.path, target, dirs_exist_ok=True)

    settled = settle(engine, model, folder, copy)
    if settled.digest == artifact.digest and (fetched / CERTIFICATE).is_file():
        shutil.copyfile(fetched / CERTIFICATE, folder / CERTIFICATE)
    return settled


def _place(folder: Path, model: PinnedModel) -> str:
    return f"{PLACE}/{model.digest}/{folder.name}"


def _names(client: MlflowClient, run_id: str, path: str) -> list[str]:
    return [str(item.path).rpartition("/")[2] for item in client.list_artifacts(run_id, path or None)]


def _download(run_id: str, place: str, target: str, tracking_uri: str) -> Path:
    import mlflow.artifacts  # noqa: PLC0415  # loaded by the client

    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=place, dst_path=target, tracking_uri=tracking_uri
        )
    )
