"""An input is the recorded one when the digests say so: in whole, or unit by unit."""

from __future__ import annotations

import dataclasses

import pytest

from batchscore.contracts import (
    Column,
    ManifestHead,
    ManifestUnit,
    Replay,
    Restriction,
    TargetState,
    UnitState,
    Verdict,
)
from batchscore.errors import InputError
from batchscore.explain.recompute import with_outputs
from batchscore.manifests import from_json, to_json
from batchscore.offer import manifest_of
from batchscore.plan import make
from batchscore.recorded import changed, recorded_files, recorded_restriction, settings_list
from tests.factories.staging import make_manifest, make_plan, staged_output
from tests.factories.values import model, plan_inputs, source

D1, D2 = (("ds", "2026-11-20"),), (("ds", "2026-11-21"),)


@pytest.fixture
def manifest():
    """Of a run over both days, with the keys that planning gives them."""
    inputs = plan_inputs(source=source(root="/data/transactions"))
    plan = make(inputs)
    made = make_manifest(make_plan(TargetState("/out"), "r1", {}), ())
    return dataclasses.replace(
        made,
        model_digest=inputs.model.digest,
        source_snapshot="s1",
        settings_digest=plan.settings_digest,
        units=tuple(ManifestUnit(unit.values, unit.key, unit.rows) for unit in plan.units),
    )


def with_second(known, **changes):
    """The source whose second day's file differs; its snapshot differs with it."""
    first, second = known.files
    return dataclasses.replace(known, snapshot="s2", files=(first, dataclasses.replace(second, **changes)))


def test_the_same_snapshot_is_the_recorded_one(manifest):
    today = source(root="/data/transactions")
    assert recorded_files(manifest, today, [D1, D2]) == {D1: today.files[:1], D2: today.files[1:]}


@pytest.mark.parametrize(
    "change", [{"size": 11}, {"stamp": "t3"}, {"path": "/data/transactions/ds=2026-11-21/b.parquet"}]
)
def test_what_changed_is_told_by_unit(manifest, change):
    today = with_second(source(root="/data/transactions"), **change)
    assert recorded_files(manifest, today, [D1, D2]) == {D1: today.files[:1], D2: None}
    assert changed(manifest, today, D2).startswith("the files of ds=2026-11-21 changed since the run (1 now)")


def test_a_day_that_is_gone(manifest):
    today = dataclasses.replace(source(root="/data/transactions"), snapshot="s2")
    today = dataclasses.replace(today, files=today.files[:1])
    assert recorded_files(manifest, today, [D2]) == {D2: None}
    assert changed(manifest, today, D2) == "the files of ds=2026-11-21 are gone"


def replayed(**changes):
    """The manifest of a replay of the second day, as a run offers it: the unit's key is that of another run."""
    head = ManifestHead("r0", "fraud", "7", "d" * 64, "k", (ManifestUnit(D2, "its key", 90),))
    target = TargetState("/out", 3, units={D2: UnitState((("r0", 90),))}, manifests={"r0": head})
    inputs = plan_inputs(
        source=source(root="/data/transactions", **changes),
        replay=Replay("r0", (Column("id", "long"),), ("a.parquet",), "/out__quarantine", (D2,)),
        target=target,
    )
    made = manifest_of(inputs.config, make(inputs), staged_output(()), Verdict(()), None)
    return from_json(to_json(made))


def test_a_replays_input_is_what_it_read_itself():
    found = replayed()
    (unit,) = found.units
    assert (unit.values, unit.key, unit.beside) == (D2, "its key", (("r0", 90),))
    today = source(root="/data/transactions")
    later = dataclasses.replace(
        today, snapshot="s2", files=(dataclasses.replace(today.files[0], size=11), today.files[1])
    )
    assert recorded_files(found, later, [D2]) == {D2: today.files[1:]}
    assert recorded_files(found, with_second(today, size=11), [D2]) == {D2: None}


def test_a_replay_of_an_older_release_does_not_say_what_it_read():
    (unit,) = replayed().units
    old = dataclasses.replace(replayed(), units=(dataclasses.replace(unit, read=""),))
    today = source(root="/data/transactions")
    assert recorded_files(old, today, [D2]) == {D2: today.files[1:]}
    assert recorded_files(old, dataclasses.replace(today, snapshot="s2"), [D2]) == {D2: None}


def test_only_replays_say_so_twice():
    inputs = plan_inputs()
    found = manifest_of(inputs.config, make(inputs), staged_output(()), Verdict(()), None)
    assert {unit.read for unit in found.units} == {""}


def test_another_place_is_the_same_input(manifest):
    today = source(root="/elsewhere", snapshot="s2")
    files = tuple(
        dataclasses.replace(file, path=file.path.replace("/data/transactions", "/elsewhere")) for file in today.files
    )
    today = dataclasses.replace(today, files=files)
    assert recorded_files(manifest, today, [D1])[D1] == files[:1]


def test_units_that_the_layout_does_not_tell(manifest):
    whole = (("country", "DE"),)
    today = source(root="/data/transactions")
    assert recorded_files(manifest, today, [whole])[whole] == today.files
    other = dataclasses.replace(today, snapshot="s2")
    assert recorded_files(manifest, other, [whole])[whole] is None
    assert "changed since the run" in changed(manifest, other, whole)


def test_a_delta_table_made_anew(manifest):
    today = source(kind="delta", snapshot="s2")
    assert "was made anew" in changed(dataclasses.replace(manifest, source_version=3), today, D1)


def test_the_restriction_of_the_run(manifest):
    settings = {"input": {"partitions": {"ds": ["2026-11-20", "__HIVE_DEFAULT_PARTITION__"]}}}
    found = recorded_restriction(dataclasses.replace(manifest, settings=settings))
    assert found == Restriction(partitions=(("ds", ("2026-11-20", None)),))
    assert recorded_restriction(dataclasses.replace(manifest, settings={})) == Restriction()
    masked = {"input": {"partitions": {"ds": ["***"]}}}
    with pytest.raises(InputError, match="masks"):
        recorded_restriction(dataclasses.replace(manifest, settings=masked))


@pytest.mark.parametrize("partitions", [7, ["ds"], "ds", {"ds": 7}, {"ds": "2026-11-20"}, {"ds": [1]}])
def test_a_restriction_of_another_kind_is_damage(manifest, partitions):
    with pytest.raises(InputError, match="the settings in the manifest are damaged"):
        recorded_restriction(dataclasses.replace(manifest, settings={"input": {"partitions": partitions}}))


def test_lists_of_the_settings(manifest):
    def outputs(value):
        return settings_list(
            dataclasses.replace(manifest, settings={"scoring": {"outputs": value}}), "scoring", "outputs"
        )

    assert outputs(["prediction", "probability"]) == ("prediction", "probability")
    assert outputs(None) == settings_list(manifest, "none", "outputs") == ()
    for damaged in (7, 0, "prediction", {"prediction": 1}, [1]):
        with pytest.raises(InputError, match="damaged") as caught:
            outputs(damaged)
        assert "scoring.outputs" in str(caught.value.found)
    with pytest.raises(InputError, match="damaged"):
        with_outputs(model(), dataclasses.replace(manifest, settings={"scoring": {"outputs": 7}}))
