"""What a run does, decided from what was pinned: no clock, no file, no Spark."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchscore.contracts import (
    Column,
    Compare,
    Constant,
    IsNull,
    ManifestHead,
    ManifestUnit,
    ModelInput,
    ModelOutput,
    Restriction,
    Rule,
    SourceFile,
    TargetState,
    UnitState,
)
from batchscore.errors import SchemaMismatchError, SettingsError
from batchscore.plan import make
from tests.factories import values

DAYS = ((("ds", "2026-11-20"),), (("ds", "2026-11-21"),))


def published(plan, *, model_digest=None, run_id="run1", rows=(100, 200), drop=()):
    """The target as a run of ``plan`` would have left it."""
    units = tuple(ManifestUnit(unit.values, unit.key, count) for unit, count in zip(plan.to_score, rows, strict=True))
    head = ManifestHead(run_id, "fraud", "7", model_digest or plan.model.digest, plan.source_key, units)
    states = {unit.values: UnitState(((run_id, unit.rows),)) for unit in units if unit.values not in drop}
    return TargetState("/data/predictions", 3, (), plan.task.partition_by, states, {run_id: head})


def actions(plan):
    return [unit.action for unit in plan.units]


def test_a_first_run_scores_every_unit_once():
    plan = make(values.plan_inputs())
    assert [unit.values for unit in plan.to_score] == list(DAYS)
    assert plan.expected_rows == 300
    assert plan.route == "splits"
    assert sorted(split.path for task in plan.tasks for split in task) == [file.path for file in plan.source.files]
    assert [column.name for column in plan.task.columns][:3] == ["id", "ds", "prediction"]


def test_a_published_run_leaves_nothing_to_do():
    target = published(make(values.plan_inputs()))
    plan = make(values.plan_inputs(target=target))
    assert plan.nothing_to_do
    assert plan.tasks == ()
    assert plan.units[0].reason == "already published by run run1"


def test_force_scores_live_units_again():
    target = published(make(values.plan_inputs()))
    assert actions(make(values.plan_inputs(target=target, force=True))) == ["score", "score"]


def test_only_the_changed_unit_is_scored_again():
    target = published(make(values.plan_inputs()))
    first, second = values.source().files
    changed = values.source(files=(first, replace(second, stamp="t3")))
    plan = make(values.plan_inputs(target=target, source=changed))
    assert actions(plan) == ["live", "score"]
    assert [split.path for task in plan.tasks for split in task] == [second.path]
    assert plan.expected_rows == 200


def test_a_new_model_leaves_published_units_unless_told_otherwise():
    target = published(make(values.plan_inputs()), drop=(DAYS[1],))
    newer = values.model(version="8", digest="e" * 64)
    plan = make(values.plan_inputs(target=target, model=newer))
    assert actions(plan) == ["older_model", "score"]
    assert any("1 units stay published by an older model version" in notice for notice in plan.notices)
    everything = values.config(scoring={"on_new_model": "all"})
    assert actions(make(values.plan_inputs(target=target, model=newer, config=everything))) == ["score", "score"]


def test_a_new_model_scores_partitions_that_the_command_names():
    target = published(make(values.plan_inputs()))
    newer = values.model(version="8", digest="e" * 64)
    named = Restriction(partitions=(("ds", ("2026-11-20", "2026-11-21")),))
    assert actions(make(values.plan_inputs(target=target, model=newer, restriction=named))) == ["score", "score"]


def test_a_new_model_scores_a_table_without_partitions():
    config = values.config(output={"partition_by": []})
    target = published(make(values.plan_inputs(config=config)), rows=(300,))
    newer = values.model(digest="e" * 64)
    assert actions(make(values.plan_inputs(config=config, target=target, model=newer))) == ["score"]
    assert actions(make(values.plan_inputs(config=config, target=target))) == ["live"]


def test_units_that_the_layout_does_not_tell_are_found_while_scoring():
    config = values.config(output={"partition_by": ["country"]})
    source = values.source(columns=(*values.source().columns, Column("country", "string")))
    first = make(values.plan_inputs(config=config, source=source))
    assert not first.units_known
    assert not first.nothing_to_do
    assert first.expected_rows == 300
    from batchscore.plan.units import derived_unit_key

    units = tuple(
        ManifestUnit((("country", code),), derived_unit_key(first.source_key, (("country", code),)), 150)
        for code in ("DE", "FR")
    )
    head = ManifestHead("run1", "fraud", "7", first.model.digest, first.source_key, units)
    states = {unit.values: UnitState((("run1", 150),)) for unit in units}
    target = TargetState("/data/predictions", 0, (), ("country",), states, {"run1": head})
    assert make(values.plan_inputs(config=config, source=source, target=target)).nothing_to_do
    del states[units[0].values]
    assert not make(values.plan_inputs(config=config, source=source, target=target)).nothing_to_do


def test_replace_scores_everything_unless_the_table_is_exactly_this():
    config = values.config(output={"mode": "replace"})
    target = published(make(values.plan_inputs(config=config)))
    assert make(values.plan_inputs(config=config, target=target)).nothing_to_do
    other = {**target.units, (("ds", "2020-01-01"),): UnitState((("run0", 1),))}
    plan = make(values.plan_inputs(config=config, target=replace(target, units=other)))
    assert actions(plan) == ["score", "score"]


def test_a_filter_on_another_column_may_not_replace_whole_units():
    named = Restriction(partitions=(("country", ("DE",)),))
    target = TargetState("/data/predictions", 3, (), ("ds",))
    with pytest.raises(SettingsError, match="--partition country"):
        make(values.plan_inputs(restriction=named, target=target))


def test_foreign_rows_in_a_table_without_partitions_are_not_replaced_silently():
    config = values.config(output={"partition_by": []})
    target = TargetState("/data/predictions", 3, (), (), {(): UnitState((), 2, "x")})
    with pytest.raises(SettingsError, match="did not write"):
        make(values.plan_inputs(config=config, target=target))
    replacing = values.config(output={"partition_by": [], "mode": "replace"})
    assert actions(make(values.plan_inputs(config=replacing, target=target))) == ["score"]


def test_a_view_is_never_taken_for_published():
    view = values.source(kind="catalog", files=(), partition_columns=(), dataframe_reason="a view has no files")
    first = make(values.plan_inputs(source=view))
    second = make(values.plan_inputs(source=view, run_id="20261121T031500-ffffffff"))
    assert first.route == "dataframe"
    assert first.units[0].key != second.units[0].key


def test_the_local_runner_says_why_it_cannot_read_a_view():
    view = values.source(kind="catalog", files=(), dataframe_reason="a view has no files")
    config = values.config(scoring={"runner": "local"})
    with pytest.raises(SettingsError, match="a view has no files"):
        make(values.plan_inputs(source=view, config=config))


@pytest.mark.parametrize(
    "changes",
    [
        {"config": values.config(output={"carry": ["amount"]})},
        {"config": values.config(output={"keys": ["id", "amount"]})},
        {"config": values.config(scoring={"engine": "pyfunc"})},
        {"restriction": Restriction(where="amount > 1")},
        {"model": values.model(digest="e" * 64)},
        {"model": values.model(outputs=(ModelOutput("", "float"),))},
    ],
)
def test_whatever_changes_a_score_or_the_table_changes_the_key(changes):
    before, after = make(values.plan_inputs()), make(values.plan_inputs(**changes))
    assert {unit.key for unit in before.units}.isdisjoint(unit.key for unit in after.units)


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "another", "created_at": "2027-01-01T00:00:00Z", "scored_at": 1},
        {"config": values.config(scoring={"batch_rows": 17, "runner": "local"})},
        {"cores": 16},
    ],
)
def test_what_cannot_change_a_score_does_not_change_the_key(changes):
    before, after = make(values.plan_inputs()), make(values.plan_inputs(**changes))
    assert [unit.key for unit in before.units] == [unit.key for unit in after.units]


# --- columns -----------------------------------------------------------------------------------------------


def test_all_misfits_are_named_at_once():
    model = values.model(
        inputs=(ModelInput("Amount", "double"), ModelInput("ammount", "double"), ModelInput("id", "string"))
    )
    with pytest.raises(SchemaMismatchError) as caught:
        make(values.plan_inputs(model=model))
    text = str(caught.value)
    assert "differs by case only" in text
    assert "did you mean 'amount'?" in text
    assert "the table has long, the model takes string" in text


def test_an_optional_input_that_the_table_lacks_is_null():
    model = values.model(inputs=(ModelInput("amount", "double"), ModelInput("bonus", "double", required=False)))
    assert [binding.cast for binding in make(values.plan_inputs(model=model)).task.bindings] == ["same", "absent"]


@pytest.mark.parametrize("name", ["prediction", "Prediction", "_run_id", "_SCORED_AT"])
def test_columns_named_like_ours_are_refused(name):
    source = values.source(columns=(*values.source().columns, Column(name, "double")))
    with pytest.raises(SettingsError, match="named like") as caught:
        make(values.plan_inputs(source=source))
    assert name in str(caught.value)


def test_without_keys_every_column_is_carried_and_a_notice_says_so():
    plan = make(values.plan_inputs(config=values.config(output={"keys": []})))
    assert [column.name for column in plan.task.columns][:4] == ["ds", "id", "amount", "prediction"]
    assert any("output.keys" in notice for notice in plan.notices)


def test_several_outputs_get_a_column_each():
    model = values.model(outputs=(ModelOutput("score", "double"), ModelOutput("label", "string")))
    names = [column.name for column in make(values.plan_inputs(model=model)).task.columns]
    assert names[2:4] == ["prediction_score", "prediction_label"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"keys": ["ID"]}, "output.keys names the column 'ID'"),
        ({"carry": ["nope"]}, "output.carry names the column 'nope'"),
        ({"partition_by": ["nope"]}, "output.partition_by names the column 'nope'"),
        ({"partition_by": ["amount"]}, "no canonical text"),
    ],
)
def test_columns_that_are_not_there_are_named(output, message):
    with pytest.raises(SettingsError, match=message):
        make(values.plan_inputs(config=values.config(output=output)))


def test_only_needed_columns_are_read():
    source = values.source(columns=(*values.source().columns, Column("payload", "unsupported(struct)")))
    plan = make(values.plan_inputs(source=source))
    assert [column.name for column in plan.task.source_columns] == ["id", "amount", "ds"]


def test_fewer_splits_than_cores_are_noticed():
    plan = make(values.plan_inputs(cores=64))
    assert any("2 splits for 64 cores" in notice for notice in plan.notices)


def test_an_empty_text_and_null_are_one_unit():
    files = tuple(SourceFile(f"/f{i}", 1, "", 1, (1,), (("ds", value),)) for i, value in enumerate(["", None]))
    plan = make(values.plan_inputs(source=values.source(files=files)))
    assert [unit.values for unit in plan.units] == [(("ds", None),)]


def test_a_source_that_moved_is_the_same_input():
    moved = tuple(replace(file, path=file.path.replace("/data/", "/mnt/elsewhere/")) for file in values.source().files)
    before = make(values.plan_inputs(source=values.source(root="/data/transactions")))
    after = make(values.plan_inputs(source=values.source(root="/mnt/elsewhere/transactions", files=moved)))
    assert [unit.key for unit in before.units] == [unit.key for unit in after.units]


def test_wide_rows_make_small_batches():
    image = values.model(inputs=(ModelInput("image", "float", True, (-1, 3, 224, 224)),))
    source = values.source(columns=(Column("id", "long"), Column("image", "array<array<array<float>>>")))
    source = replace(source, partition_columns=(), files=(SourceFile("/f", 1, "", 5, (5,)),))
    narrow, wide = make(values.plan_inputs()), make(values.plan_inputs(model=image, source=source))
    assert narrow.task.batch_rows == 65_536
    assert wide.task.batch_rows < 100
    asked = values.config(scoring={"batch_rows": 7})
    assert make(values.plan_inputs(config=asked)).task.batch_rows == 7


def test_a_predicates_columns_are_read_too():
    source = values.source(columns=(*values.source().columns, Column("note", "string")))
    restriction = Restriction(where="note IS NULL", predicate=IsNull("note"))
    plan = make(values.plan_inputs(source=source, restriction=restriction))
    assert [column.name for column in plan.task.source_columns] == ["id", "amount", "ds", "note"]
    assert plan.expected_rows == -1


def test_a_unit_that_a_published_run_found_empty_is_live_under_that_key_alone():
    plan = make(values.plan_inputs())
    target = replace(published(plan, rows=(100, 0), drop=(DAYS[1],)), emptied={DAYS[1]: frozenset({plan.units[1].key})})
    again = make(values.plan_inputs(target=target))
    assert again.nothing_to_do
    assert again.units[1].reason == "already published: it has no row"
    assert actions(make(values.plan_inputs(target=target, force=True))) == ["score", "score"]
    first, second = values.source().files
    changed = values.source(files=(first, replace(second, stamp="t3")))
    assert actions(make(values.plan_inputs(target=target, source=changed))) == ["live", "score"]
    refilled = replace(target, units={**target.units, DAYS[1]: UnitState((("run2", 5),))})
    assert actions(make(values.plan_inputs(target=refilled))) == ["live", "score"]
    unproved = replace(target, emptied={})
    assert actions(make(values.plan_inputs(target=unproved))) == ["live", "score"]


@pytest.mark.parametrize("name", ["_reason", "_column", "_Detail", "_values"])
def test_columns_named_like_the_quarantines_are_refused_where_they_would_stand_there(name):
    source = values.source(columns=(*values.source().columns, Column(name, "string")))
    with pytest.raises(SettingsError, match="named like those of the quarantine") as caught:
        make(values.plan_inputs(source=source, config=values.config(output={"keys": []})))
    assert name in caught.value.text()
    assert "output.keys" in caught.value.text()
    assert make(values.plan_inputs(source=source, config=values.config(output={"carry": [name]}))).to_score
    with pytest.raises(SettingsError, match="named like those of the quarantine"):
        make(values.plan_inputs(source=source, config=values.config(output={"keys": ["id", name]})))


def test_what_spark_computes_a_rule_from_is_read_and_changes_no_key():
    source = values.source(
        columns=(*values.source().columns, Column("city", "string"), Column("odd", "unsupported(map)"))
    )
    settings = values.config(output={"partition_by": ["ds"]}, scoring={"runner": "spark"})
    rule = Rule(
        "r",
        "rule",
        ("__batchscore_rule_0",),
        Compare("__batchscore_rule_0", "=", Constant(True, "boolean")),
        sql="upper(city) = 'X'",
    )
    plans = [
        make(values.plan_inputs(source=source, config=settings, rules=(found,)))
        for found in (rule, replace(rule, named=("city", "odd")))
    ]
    assert [unit.key for unit in plans[0].units] == [unit.key for unit in plans[1].units]
    assert "city" in [column.name for column in plans[1].task.source_columns]
    assert "odd" not in [column.name for column in plans[1].task.source_columns]
