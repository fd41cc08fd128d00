"""The units of a replay: what a run left out of them is scored again and added."""

from __future__ import annotations

from batchscore.contracts import Mode, PlannedUnit, Replay, TargetState, UnitState, UnitValues
from batchscore.plan.units import is_live


def replay_units(replay: Replay, target: TargetState, mode: Mode) -> tuple[PlannedUnit, ...]:
    """One unit for each that the run left rows out of; to be scored only while the table still holds that run's rows.

    Args:
        replay: the run and its units.
        target: the table as it is.
        mode: the output mode.
    """
    return tuple(_planned(replay, values, target, mode) for values in replay.units)


def _planned(replay: Replay, values: UnitValues, target: TargetState, mode: Mode) -> PlannedUnit:
    state = target.units.get(values, UnitState())
    head = target.manifests.get(replay.run_id)
    unit = next((unit for unit in head.units if unit.values == values), None) if head is not None else None
    # Of a unit that holds no row there is nothing in the table that could name the run.
    if head is None or unit is None or (unit.rows and replay.run_id not in {run for run, _ in state.runs}):
        return PlannedUnit(values, "", "live", f"the table no longer holds rows of run {replay.run_id}", -1, 0, state)
    for run, _ in state.runs:
        other = target.manifests.get(run)
        if other is not None and other.replays == replay.run_id:
            return PlannedUnit(values, unit.key, "live", f"replayed already by run {run}", -1, 0, state)
    # Rows that are forgotten since still count as published: what the manifest says beside its own is compared so, too.
    published = target.as_published(values)
    if not is_live(published, unit.key, values, target.manifests, mode) and not target.is_emptied(values, unit.key):
        return PlannedUnit(values, unit.key, "live", f"changed since run {replay.run_id} published it", -1, 0, state)
    reason = f"replay of what run {replay.run_id} left out"
    return PlannedUnit(values, unit.key, "score", reason, -1, 0, state, beside=published.runs)
