"""Whatever is done to a table, in whatever order, it equals a model of it in memory."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.torture.invariants import TableMachine, make_template

WHAT = "random sequences of change, promotion, run, backfill, kill, replay and rollback"
STEPS = 14


@pytest.mark.parametrize("output_format", ["delta", "parquet"])
def test_sequences(tmp_path_factory, tally, rounds, output_format):
    folder = tmp_path_factory.mktemp("invariants") / "template"
    TableMachine.oracles = make_template(folder, output_format)
    TableMachine.template = folder
    examples = max(1, rounds // 10)
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
    what = f"{WHAT}, {output_format}"
    tally.tried[what] += examples
    tally.held[what] += examples
