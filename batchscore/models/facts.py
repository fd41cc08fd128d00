"""Who registered a version of a model, when, and from what: asked of MLflow's client."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from batchscore.errors import ModelError, SettingsError, UnavailableError
from batchscore.models.registry import reach
from batchscore.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_VERSION_DIGITS = 18  # databases keep the number in 64 bits
VersionState: TypeAlias = Literal["registered", "deleted", "unknown"]


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What a registry says of one version of a model; '' and () where it says nothing.

    Attributes:
        state: ``deleted`` and ``unknown`` versions have no other facts.
        created_at: when it was registered, ISO 8601 in UTC.
        user: who registered it.
        run_user: who ran the run that logged it.
        source: where its files came from, without credentials.
        run_id: the run that logged it; ``run_name`` and ``experiment`` are its names, ``run_started_at`` its beginning.
    """

    name: str
    version: str
    state: VersionState
    created_at: str = ""
    user: str = ""
    description: str = ""
    model_description: str = ""
    stage: str = ""
    aliases: tuple[str, ...] = ()
    source: str = ""
    run_id: str = ""
    run_name: str = ""
    run_user: str = ""
    run_started_at: str = ""
    experiment: str = ""


def moment(milliseconds: int | None) -> str:
    """A time of MLflow's as ISO 8601 in UTC, '' for none, or for a number that is no time.

    >>> moment(0), moment(None), moment(2**62)
    ('1970-01-01T00:00:00Z', '', '')
    """
    if milliseconds is None:
        return ""
    try:
        time = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def number_of(version: str) -> int:
    """A version's number, -1 where it is none that a registry could hold.

    >>> number_of("7"), number_of("x"), number_of("9" * 30)
    (7, -1, -1)
    """
    return int(version) if version.isdecimal() and len(version) <= MAX_VERSION_DIGITS else -1


def describe(client: MlflowClient, uri: str, name: str, version: str) -> VersionFacts:
    """What the registry at ``uri`` says of one version of a model.

    Raises:
        UnavailableError: it does not answer.
        SettingsError: it refuses the credentials.
    """
    if number_of(version) < 0:
        return VersionFacts(name, version, "unknown")
    try:
        with reach(uri):
            found, model = client.get_model_version(name, version), client.get_registered_model(name)
    except ModelError:
        return VersionFacts(name, version, "unknown")
    facts = VersionFacts(
        name=name,
        version=version,
        state="registered",
        created_at=moment(found.creation_timestamp),
        user=found.user_id or "",
        description=found.description or "",
        model_description=model.description or "",
        stage="" if found.current_stage in (None, "None") else str(found.current_stage),
        aliases=tuple(sorted(found.aliases)),
        source=redact(found.source or ""),
        run_id=found.run_id or "",
    )
    return _with_run(client, uri, facts) if facts.run_id else facts


def _with_run(client: MlflowClient, uri: str, facts: VersionFacts) -> VersionFacts:
    """The facts with those of the run that logged the version; it may be gone, or in another tracking server."""
    try:
        with reach(uri):
            info = client.get_run(facts.run_id).info
            experiment = client.get_experiment(info.experiment_id)
    except (ModelError, SettingsError, UnavailableError):
        return facts
    return replace(
        facts,
        run_name=info.run_name or "",
        run_user=info.user_id or "",
        run_started_at=moment(info.start_time),
        experiment=experiment.name,
    )
