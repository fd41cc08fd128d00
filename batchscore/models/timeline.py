"""What a registry can tell of an alias or a stage in the past.

MLflow keeps who carries them now, when each version was made, and when it was last changed; no history of aliases and
stages. What follows from that is decided in :mod:`batchscore.plan.versions`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from batchscore.contracts import KnownVersion, VersionHistory
from batchscore.errors import SettingsError
from batchscore.models import registry
from batchscore.models.reference import Reference

_KINDS: dict[str, Literal["alias", "stage", "latest"]] = {"alias": "alias", "stage": "stage", "latest": "latest"}


def version_history(reference: Reference, *, tracking_uri: str) -> VersionHistory:
    """Who carries an alias or a stage now, and the times of all versions.

    Args:
        reference: an alias, a stage, or the latest version of a registered model.
        tracking_uri: MLflow's tracking URI.

    Raises:
        SettingsError: the reference always means the same version.
        ModelError: the registry does not know the model.
        UnavailableError: the registry does not answer.
    """
    kind = _KINDS.get(reference.kind)
    if kind is None:
        raise SettingsError(
            "--model-as-of is for a model named by an alias or a stage",
            found=f"{reference.kind} {reference.value or reference.name}".strip(),
            allowed=("name@champion", "name/Production", "name/latest"),
            hint="without --model-as-of the version that is named scores every date",
        )
    client = registry.connect(tracking_uri, None)
    model, found = registry.all_versions(client, tracking_uri, reference.name)
    versions = tuple(_known(version) for version in found)
    return VersionHistory(kind, reference.value, _current(reference, model, versions), versions)


def _current(reference: Reference, model: Any, versions: tuple[KnownVersion, ...]) -> str:  # noqa: ANN401  # mlflow publishes no types
    if reference.kind == "alias":
        return str(dict(model.aliases).get(reference.value, ""))
    carrying = [version.version for version in versions if version.stage == reference.value]
    return carrying[-1] if carrying else ""


def _known(version: Any) -> KnownVersion:  # noqa: ANN401  # mlflow publishes no types
    created = int(version.creation_timestamp or 0)
    updated = int(version.last_updated_timestamp or created)
    return KnownVersion(str(version.version), _iso(created), _iso(updated), str(version.current_stage or ""))


def _iso(milliseconds: int) -> str:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).isoformat(timespec="milliseconds")
