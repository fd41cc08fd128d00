"""Content that a rollback took back is not published again unless it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from batchscore.contracts import PlannedUnit, TargetState, UnitValues, Withdrawal


def withdrawal_of(target: TargetState, values: UnitValues, key: str) -> Withdrawal | None:
    """The newest rollback that took back what this unit would be scored to; None where none did."""
    known = [item for item in target.withdrawn.get(values, ()) if item.key == key]
    return max(known, key=lambda item: item.at) if known else None


def withdrawal_text(withdrawal: Withdrawal) -> str:
    """Why a unit is not scored."""
    return (
        f"rolled back by {withdrawal.by} on {withdrawal.at[:10]} from run {withdrawal.run_id}; --force scores it again"
    )


def withdrawal_notice(units: Sequence[PlannedUnit]) -> str | None:
    """What the plan says of the units that a rollback took back."""
    count = sum(unit.action == "withdrawn" for unit in units)
    if not count:
        return None
    return (
        f"{count} units were rolled back and are not scored again; a changed input or a new model is, and --force "
        "scores them as they are"
    )
