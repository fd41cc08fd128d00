"""Units of which a run published no row: no file of the table says so, only the manifest of that run.

A manifest is written before the commit, so that there it is does not mean that its run published. It counts where the
table's files carry the run's id, or where one of the newest commits names the run and says that it emptied units: a
run of which every unit is empty commits just that, and no data. Commits that are older than these do not count: such
a unit is then read once more, and committed as empty again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from batchscore import manifests
from batchscore.contracts import ManifestHead, UnitValues
from batchscore.tables import Table

# In the metadata of a commit: how many of its units hold no row.
EMPTY_KEY = "batchscore.empty_units"
# Commits that are looked at, newest first: each is a request on an object store, and for Parquet a whole list of files.
NEWEST_COMMITS = 32


def emptying_heads(table: Table, known: Collection[str], newest: int = NEWEST_COMMITS) -> dict[str, ManifestHead]:
    """The manifests of runs that emptied units by one of the newest commits.

    Args:
        table: at the version in question.
        known: runs whose manifests are at hand.
        newest: commits that are looked at.
    """
    runs = {entry.run_id for entry in table.versions(newest) if entry.metadata.get(EMPTY_KEY)}
    return manifests.heads(table.uri, runs - set(known) - {""})


def emptied(heads: Iterable[ManifestHead], wanted: Collection[UnitValues]) -> dict[UnitValues, frozenset[str]]:
    """The keys under which these manifests, of runs that published, hold no row of the wanted units."""
    found: dict[UnitValues, set[str]] = defaultdict(set)
    for head in heads if wanted else ():
        for unit in head.units:
            if not unit.rows and not unit.beside and unit.values in wanted:
                found[unit.values].add(unit.key)
    return {values: frozenset(keys) for values, keys in found.items()}


def emptied_since(table: Table | None, version: int, keys: Mapping[UnitValues, str]) -> list[UnitValues]:
    """Those of the units that a commit after ``version`` emptied under the very key that they have here."""
    newer = 0 if table is None else table.version - max(version, -1)
    if table is None or not keys or newer <= 0:
        return []
    found = emptied(emptying_heads(table, (), newer).values(), keys)
    return [values for values, known in found.items() if keys[values] in known]
