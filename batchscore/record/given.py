"""Which version the runs of a table were given for a model that was asked for: the ledger as a memory of aliases."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batchscore import manifests
from batchscore.contracts import Observation, RunRecord
from batchscore.errors import SetupError
from batchscore.record.ledger import history

ALL = 10**9


def versions_given(table_uri: str, model_name: str, is_same: Callable[[str], bool]) -> tuple[Observation, ...]:
    """The version that each run was given which asked for the same model, refused and failed runs included.

    Rows from before the ledger kept what was asked for are completed by the run's manifest, where it has one.

    Args:
        table_uri: root of the prediction table.
        model_name: the registered name.
        is_same: whether a text that names a model, such as ``fraud@champion``, asks for the same.
    """
    found = []
    for record in history(table_uri, ALL):
        if record.model_name != model_name or not record.model_version:
            continue
        asked = record.model_requested or _asked_in_manifest(table_uri, record)
        if asked and is_same(asked):
            found.append(
                Observation(record.started_at, record.model_version, f"ledger: run {record.run_id} was given it")
            )
    return tuple(found)


def _asked_in_manifest(table_uri: str, record: RunRecord) -> str:
    try:
        manifest = manifests.read(table_uri, record.run_id) if record.state == "published" else None
    except SetupError:  # of a newer batchscore, whose ledger says what was asked for
        return ""
    model = manifest.settings.get("model") if manifest is not None else None
    if not isinstance(model, Mapping):
        return ""
    name, version = str(model.get("name") or ""), str(model.get("version") or "")
    return f"{name}{version}" if version.startswith("@") else f"{name}/{version}" if version else name
