"""Which runs end before their commit, by what they staged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchscore.contracts import (
    IsNull,
    PlannedUnit,
    QuarantineLimits,
    ReasonCount,
    Restriction,
    StagedFile,
    StagedOutput,
    TargetState,
    TaskResult,
    UnitState,
)
from batchscore.errors import BadRowsError, InputError
from batchscore.staging import _collected, refuse_excess, refuse_vanishing
from tests.factories.staging import day, make_plan

D1, D2 = day("2026-01-01"), day("2026-01-02")
THERE = UnitState((("r0", 5),))
LOOSE = QuarantineLimits(1.0)


def planned(*units, exists=True, partitions=(), **changes):
    """A plan of units given as (values, rows, before)."""
    made = make_plan(TargetState("/t", 0 if exists else -1), "r1", {D1: "k"}, **changes)
    found = tuple(PlannedUnit(values, "k", "score", "new", rows, 1, before) for values, rows, before in units)
    condition = Restriction(partitions, "x > 1", IsNull("x"))
    return replace(made, units=found, restriction=condition)


def staged(*units, read=10, quarantined=0):
    files = tuple(StagedFile(f"{number}.parquet", 1, 5, unit, ()) for number, unit in enumerate(units))
    rows = 5 * len(units)
    counts = (ReasonCount("cast", "a", quarantined),) if quarantined else ()
    return StagedOutput(files, read, rows, (), 0.0, 0, read - rows - quarantined, counts)


def test_a_unit_that_a_condition_empties_ends_the_run_where_it_is_published():
    plan = planned((D1, 10, THERE), (D2, 10, THERE))
    with pytest.raises(BadRowsError, match="no row is left of 1 of 2 units that are published") as caught:
        refuse_vanishing(plan, staged(D1))
    assert "ds=2026-01-02" in caught.value.text()
    assert "--partition" in caught.value.text()
    assert "--force" in caught.value.text()
    refuse_vanishing(plan, staged(D1, D2))
    refuse_vanishing(replace(plan, force=True), staged(D1))
    refuse_vanishing(replace(plan, mode="replace"), staged(D1))
    refuse_vanishing(replace(plan, mode="append"), staged(D1))
    refuse_vanishing(planned((D1, 10, THERE), (D2, 10, UnitState())), staged(D1))
    with pytest.raises(BadRowsError):
        refuse_vanishing(planned((D2, -1, UnitState((), 1, "x"))), staged())


def test_a_unit_whose_files_hold_no_row_is_emptied_beside_others_and_not_alone():
    plan = planned((D1, 10, THERE), (D2, 0, THERE))
    refuse_vanishing(plan, staged(D1))
    with pytest.raises(BadRowsError):
        refuse_vanishing(planned((D2, 0, THERE)), staged(read=0))


def collected(plan, read=10):
    return _collected(plan, [TaskResult((), read, 0, (), 0.0, 0.0, 0.0, 0, 0, read)], 0.0)


def test_a_run_without_any_row_is_an_error_where_it_is_the_input_that_is_empty():
    day_two = planned((D2, 10, UnitState()))
    assert collected(day_two).rows_staged == 0
    assert (
        collected(planned((D2, 10, UnitState()), exists=False, partitions=(("ds", ("2026-01-02",)),))).rows_read == 10
    )
    whole = planned(((), 10, THERE))
    for plan in (
        planned((D2, 10, UnitState()), exists=False),  # nothing is published, and no day was named
        whole,
        replace(day_two, mode="replace"),
        replace(day_two, units_known=False),
    ):
        with pytest.raises(InputError, match="no row is left to score"):
            collected(plan)
    assert collected(replace(whole, force=True)).rows_staged == 0


@pytest.mark.parametrize("rows", [10, -1])
def test_a_unit_that_lost_all_its_rows_is_not_published_empty(rows):
    plan = replace(planned((D1, 10, UnitState()), (D2, rows, UnitState())), restriction=Restriction())
    with pytest.raises(BadRowsError, match="no row is left of 1 of 2 units"):
        refuse_excess(plan, staged(D1, quarantined=5), LOOSE)
    refuse_excess(plan, staged(D1, D2, read=15, quarantined=5), LOOSE)


def test_a_unit_whose_files_hold_no_row_has_lost_none():
    plan = replace(planned((D1, 10, UnitState()), (D2, 0, UnitState())), restriction=Restriction())
    refuse_excess(plan, staged(D1, quarantined=5), LOOSE)
