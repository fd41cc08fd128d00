"""Units that one commit cannot replace together: only Delta's deletion vectors make such."""

from __future__ import annotations

from batchscore.contracts import ScoringPlan
from batchscore.errors import listed, unit_text
from batchscore.tables.delta import exact_filter, inexpressible


def check_removal(plan: ScoringPlan) -> None:
    """Refuses, before anything is scored, units that one commit could not replace together.

    Raises:
        SettingsError: some of the files to be replaced have deletion vectors, and no filter names their units.
    """
    target, to_score = plan.target, {unit.values for unit in plan.to_score}
    if plan.mode == "append" or plan.task.replay is not None or not to_score:
        return
    removed = to_score & set(target.units)
    if plan.mode == "replace":
        removed = set(target.units) - {unit.values for unit in plan.units if unit.action != "score"}
    vectors = {values for values in removed if target.units[values].vectors}
    if not vectors or removed == set(target.units):
        return
    named = to_score if plan.mode == "partitions" else None
    if exact_filter(named, target.columns, target.partition_by) is None:
        raise inexpressible(target.uri, listed((unit_text(values) for values in sorted(vectors, key=str)), 3))
