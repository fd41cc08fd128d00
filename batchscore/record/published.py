"""What the prediction table itself says of a run: the source from which a lost ledger is rebuilt."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from batchscore import manifests
from batchscore.arrow.damage import damage_of
from batchscore.contracts import Manifest, RunRecord
from batchscore.errors import SetupError
from batchscore.tables import Table, TableVersion, open_table

RECOVERED = "recovered from the manifest and the table's own files"
FIRST_COMMITS = 64  # looked at first; then four times as many, and so on, back to the runs that are asked for
# Clocks of those that commit to one table may differ by as much.
CLOCK_SKEW = timedelta(days=1)


def published_records(table_uri: str, run_ids: Collection[str]) -> list[RunRecord]:
    """Records of those runs that the table's commits or its active files name; others were never published.

    Args:
        table_uri: root of the prediction table.
        run_ids: runs with a manifest.
    """
    table = open_table(table_uri)
    if table is None or not run_ids:
        return []
    offered = {run_id: _manifest(table_uri, run_id) for run_id in sorted(set(run_ids))}
    found = [manifest for manifest in offered.values() if manifest is not None]
    if not found:
        return []
    with damage_of(table_uri, "restore the files of its _delta_log folder"):
        commits = _commits(table, _since(found))
        rows = _active_rows(table)
    return [
        _record(table_uri, manifest, commits.get(manifest.run_id))
        for manifest in found
        if manifest.run_id in commits or manifest.run_id in rows
    ]


def _manifest(table_uri: str, run_id: str) -> Manifest | None:
    try:
        return manifests.read(table_uri, run_id)
    except SetupError:  # of a newer batchscore: that one recovers it
        return None


def _since(found: Iterable[Manifest]) -> datetime | None:
    """No commit of these runs is older: each wrote its manifest before; None where one does not say when."""
    try:
        return min(datetime.fromisoformat(manifest.created_at).astimezone(UTC) for manifest in found) - CLOCK_SKEW
    except ValueError:
        return None


def _commits(table: Table, since: datetime | None) -> dict[str, TableVersion]:
    """Each run's commit, as far back as ``since``, or as the table still lists them."""
    limit = FIRST_COMMITS
    while True:
        commits = table.versions(limit)
        if limit > table.version or (since is not None and commits and _is_older(commits[-1], since)):
            return {entry.run_id: entry for entry in commits if entry.run_id}
        limit *= 4


def _is_older(commit: TableVersion, since: datetime) -> bool:
    return bool(commit.committed_at) and datetime.fromisoformat(commit.committed_at) < since


def _active_rows(table: Table) -> dict[str, int]:
    totals: dict[str, int] = {}
    for file in table.files:
        for run_id, rows in file.runs:
            totals[run_id] = totals.get(run_id, 0) + rows
    return totals


def _record(table_uri: str, manifest: Manifest, commit: TableVersion | None) -> RunRecord:
    published = {} if commit is None else commit.metadata
    return RunRecord(
        run_id=manifest.run_id,
        state="published",
        started_at=manifest.created_at,
        ended_at=manifest.created_at if commit is None else commit.committed_at,
        model_name=manifest.model_name,
        model_version=manifest.model_version,
        model_digest=manifest.model_digest,
        source_uri=manifest.source_uri,
        source_version=manifest.source_version,
        source_snapshot=manifest.source_snapshot,
        table=table_uri,
        table_version=-1 if commit is None else commit.version,
        mode=manifest.mode,
        units_published=_count(published, "batchscore.units", len(manifest.units)),
        units_live=0,
        rows_read=manifest.rows_read,
        rows=_count(published, "batchscore.rows", sum(unit.rows for unit in manifest.units)),
        engine=manifest.engine,
        runner=manifest.runner,
        seconds=0.0,
        exit_code=0,
        message=RECOVERED,
        rows_quarantined=sum(count.rows for count in manifest.quarantined),
        rows_filtered=manifest.rows_filtered,
    )


def _count(facts: Mapping[str, str], name: str, offered: int) -> int:
    """What a commit says that it published; what the manifest offers where it does not say."""
    text = facts.get(name, "")
    return int(text) if text.isdecimal() else offered
