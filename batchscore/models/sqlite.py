"""Reads a SQLite registry directly where that gives what MLflow's client would.

The client takes 5 s of imports (SQLAlchemy, Alembic, pandas …) to read one row, which is most of a small run. This
module answers only for the database revisions that it knows and for references that resolve; everything else,
and every error, is left to the client. A test compares both for each kind of reference.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from batchscore.models.facts import VersionFacts, moment, number_of
from batchscore.models.reference import Reference
from batchscore.models.registry import LATEST_NOTICE, Location, stage_notice
from batchscore.redaction import redact

# Alembic revisions of MLflow's tables whose columns are read here; a test names MLflow's own when it moves on.
KNOWN_REVISIONS = ("dc11669786a5",)  # MLflow 3.17
WAIT_SECONDS = 5
Answer = TypeVar("Answer")
_FILE = re.compile(r"^sqlite:///([^?]+)$")
_LOGGED = re.compile(r"^models:/(m-[0-9a-f]{32})$")

# MLflow, too, prefers where a version was copied to over where it came from, and hides deleted versions.
_FROM = """
    SELECT v.version, v.run_id, coalesce(nullif(v.storage_location, ''), v.source)
    FROM model_versions v
    LEFT JOIN registered_model_aliases a ON a.name = v.name AND a.version = v.version AND a.workspace = v.workspace
    WHERE v.name = :name AND v.workspace = 'default' AND v.current_stage <> 'Deleted_Internal'
"""
_WANTED = {
    "version": "AND v.version = :value",
    "stage": "AND v.current_stage = :value",
    "alias": "AND a.alias = :value",
    "latest": "",
}
_DESCRIBED = """
    SELECT v.current_stage, v.creation_time, v.user_id, v.description, m.description, v.source, v.run_id,
           r.name, r.user_id, r.start_time, e.name
    FROM model_versions v
    JOIN registered_models m ON m.name = v.name AND m.workspace = v.workspace
    LEFT JOIN runs r ON r.run_uuid = v.run_id
    LEFT JOIN experiments e ON e.experiment_id = r.experiment_id
    WHERE v.name = :name AND v.workspace = 'default' AND v.version = :version
"""
_ALIASES = """
    SELECT alias FROM registered_model_aliases
    WHERE name = :name AND workspace = 'default' AND version = :version ORDER BY alias
"""
DELETED_STAGE, NO_STAGE = "Deleted_Internal", "None"
_NEWEST = "ORDER BY v.version DESC LIMIT 1"


def locate(tracking_uri: str, registry_uri: str | None, reference: Reference) -> Location | None:
    """The exact version that a reference to a registered model means now.

    Args:
        tracking_uri: MLflow's tracking URI.
        registry_uri: the registry's URI where it is another one.
        reference: what the user named.

    Returns:
        None where the client must be asked: another kind of store or of reference, another revision of its tables,
        nothing found, or a file that cannot be read.
    """
    wanted = _WANTED.get(reference.kind)
    if wanted is None:
        return None
    return _asked(tracking_uri, registry_uri, lambda database: _located(database, reference, wanted))


def describe(tracking_uri: str, registry_uri: str | None, name: str, version: str) -> VersionFacts | None:
    """What the registry says of one version of a model.

    Args:
        tracking_uri: MLflow's tracking URI.
        registry_uri: the registry's URI where it is another one.
        name: the registered name.
        version: its number.

    Returns:
        None where the client must be asked: another kind of store, another revision of its tables, or a file that
        cannot be read.
    """
    return _asked(tracking_uri, registry_uri, lambda database: _described(database, name, version))


def _asked(
    tracking_uri: str, registry_uri: str | None, ask: Callable[[sqlite3.Connection], Answer | None]
) -> Answer | None:
    """The answer of a registry's database, None where it is none that this module knows."""
    path = _FILE.match(tracking_uri)
    if path is None or registry_uri not in (None, tracking_uri) or os.environ.get("MLFLOW_WORKSPACE"):
        return None
    file = Path(unquote(path.group(1))).resolve()
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=WAIT_SECONDS)
        with contextlib.closing(connection) as database:
            revisions = [row[0] for row in database.execute("SELECT version_num FROM alembic_version")]
            known = len(revisions) == 1 and revisions[0] in KNOWN_REVISIONS
            return ask(database) if known else None
    except sqlite3.Error:
        return None


def _described(database: sqlite3.Connection, name: str, version: str) -> VersionFacts:
    values = {"name": name, "version": number_of(version)}
    found = database.execute(_DESCRIBED, values).fetchone()
    if found is None:
        return VersionFacts(name, version, "unknown")
    stage, created, user, description, about, source, run_id, run_name, run_user, started, experiment = found
    if stage == DELETED_STAGE:
        return VersionFacts(name, version, "deleted")
    return VersionFacts(
        name=name,
        version=version,
        state="registered",
        created_at=moment(created),
        user=user or "",
        description=description or "",
        model_description=about or "",
        stage="" if stage in (None, NO_STAGE) else stage,
        aliases=tuple(row[0] for row in database.execute(_ALIASES, values)),
        source=redact(source or ""),
        run_id=run_id or "",
        run_name=run_name or "",
        run_user=run_user or "",
        run_started_at=moment(started),
        experiment=experiment or "",
    )


def _located(database: sqlite3.Connection, reference: Reference, wanted: str) -> Location | None:
    values = {"name": reference.name, "value": reference.value}
    found = database.execute(f"{_FROM} {wanted} {_NEWEST}", values).fetchone()
    if found is None:
        return None
    version, run_id, files = found
    logged = _LOGGED.match(files or "")
    if logged:
        row = database.execute(
            "SELECT artifact_location FROM logged_models WHERE model_id = ? AND lifecycle_stage = 'active'",
            [logged.group(1)],
        ).fetchone()
        files = row[0] if row else ""
    if not files or files.startswith(("runs:", "models:")):
        return None
    return Location(
        name=reference.name,
        version=str(version),
        uri=f"models:/{reference.name}/{version}",
        run_id=run_id or "",
        files=files,
        notices=_notices(reference),
    )


def _notices(reference: Reference) -> tuple[str, ...]:
    if reference.kind == "stage":
        return (stage_notice(reference.name, reference.value),)
    return (LATEST_NOTICE,) if reference.kind == "latest" else ()
