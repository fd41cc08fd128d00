"""Whatever is done to a table, in whatever order, it equals a model of it in memory."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.torture.invariants import TableMachine, make_template

WHAT = "random sequences of change, promotion, run, backfill, kill and replay"
STEPS = 12


def test_sequences(tmp_path_factory, tally, rounds):
    folder = tmp_path_factory.mktemp("invariants") / "template"
    TableMachine.oracles = make_template(folder)
    TableMachine.template = folder
    examples = max(1, rounds // 5)
    run_state_machine_as_test(
        TableMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # to shrink one would take hours
            database=None,
        ),
    )
    tally.tried[WHAT] += examples
    tally.held[WHAT] += examples
