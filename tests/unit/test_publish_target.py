from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from batchscore import manifests
from batchscore.arrow.snapshot import Snapshot
from batchscore.contracts import Column, OutputColumn, TargetState
from batchscore.errors import InputError, SettingsError
from batchscore.publish import check_target, inspect, prepare
from batchscore.publish.features import ALLOWED_FEATURES, refusal
from tests.factories.delta import actions, commit_by_hand, set_properties
from tests.factories.staging import BY_DAY, COLUMNS, day, look, make_plan, publish_run, stage

D1 = day("2026-01-01")
STATE = TargetState("/t", 0, tuple(Column(c.name, c.type, c.nullable) for c in COLUMNS), BY_DAY)


# --- inspect ------------------------------------------------------------------------------------------------


both_formats = pytest.mark.parametrize("folder", ["delta", "parquet"])


@both_formats
def test_no_table(tmp_path, folder):
    assert look(tmp_path / folder) == TargetState(str(tmp_path / folder))
    (tmp_path / folder).mkdir()
    assert not look(tmp_path / folder).exists


@both_formats
def test_what_planning_needs(tmp_path, folder):
    publish_run(tmp_path / folder, "r1", {D1: "k"})
    state = look(tmp_path / folder)
    assert (state.version, state.partition_by, state.refused) == (0, ("ds",), None)
    assert state.columns == STATE.columns
    assert state.units[D1].runs == (("r1", 2),)
    assert state.manifests["r1"].units[0].key == "k"


@both_formats
def test_a_missing_manifest_is_absent(tmp_path, folder):
    publish_run(tmp_path / folder, "r1", {D1: "k"})
    (tmp_path / folder / manifests.FOLDER / "r1.json").unlink()
    assert look(tmp_path / folder).manifests == {}


@both_formats
def test_what_a_killed_first_run_left_is_no_obstacle(tmp_path, folder):
    prepare(str(tmp_path / folder))
    staged = stage(make_plan(look(tmp_path / folder), "r1", {D1: "k"}), D1, [1])
    assert (tmp_path / folder / staged.path).exists()
    assert not look(tmp_path / folder).exists


def test_a_folder_that_is_no_delta_table(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SettingsError, match="is no Delta table"):
        inspect(str(tmp_path))


def test_a_file(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(SettingsError, match="is a file"):
        inspect(str(tmp_path / "f"))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(SettingsError, match="cannot be written"):
        prepare(str(tmp_path / "f" / "t"))


def test_a_damaged_log(tmp_path):
    publish_run(tmp_path / "t", "r1", {D1: "k"})
    (tmp_path / "t" / "_delta_log" / f"{0:020d}.json").write_text("{broken")
    with pytest.raises(InputError, match="_delta_log"):
        inspect(str(tmp_path / "t"))


@pytest.mark.parametrize("name", ["a%20b", "a[b]"])
def test_paths_that_delta_rs_cannot_open(tmp_path, name):
    with pytest.raises(SettingsError, match="choose a path"):
        inspect(str(tmp_path / name))


def test_a_foreign_table_counts_as_foreign(tmp_path):
    data = pa.table({"id": [1, 2], "ds": ["a", None]})
    write_deltalake(str(tmp_path / "t"), data, partition_by=["ds"])
    state = inspect(str(tmp_path / "t"))
    assert {values: (unit.runs, unit.foreign_files) for values, unit in state.units.items()} == {
        (("ds", "a"),): ((), 1),
        (("ds", None),): ((), 1),
    }


def test_a_table_of_many_run_ids_is_read(tmp_path):
    data = pa.table({"id": [1, 2, 3], "_run_id": ["a", "b", "b"]})
    write_deltalake(str(tmp_path / "t"), data)
    assert inspect(str(tmp_path / "t")).units[()].runs == (("a", 1), ("b", 2))


def test_rows_without_a_run_are_foreign(tmp_path):
    write_deltalake(str(tmp_path / "t"), pa.table({"id": [1, 2], "_run_id": ["a", None]}))
    unit = inspect(str(tmp_path / "t")).units[()]
    assert (unit.runs, unit.foreign_files) == ((), 1)


def test_a_feature_that_delta_rs_cannot_open_is_named(tmp_path):
    publish_run(tmp_path / "t", "r1", {D1: "k"})
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["fromTheFuture"],
        "writerFeatures": ["fromTheFuture"],
    }
    commit_by_hand(tmp_path / "t", [{"protocol": protocol}])
    state = inspect(str(tmp_path / "t"))
    assert state.exists
    with pytest.raises(SettingsError, match="fromTheFuture"):
        check_target(state, COLUMNS, BY_DAY, False)


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("rowTracking", "DROP FEATURE `rowTracking`; ALTER TABLE delta.`/t` DROP FEATURE `domainMetadata`"),
        ("clustering", "copy the table"),
        ("vacuumProtocolCheck", "DROP FEATURE `vacuumProtocolCheck` TRUNCATE HISTORY"),
        ("identityColumns", "copy the table"),
        ("anything", "copy the table"),
    ],
)
def test_features_outside_the_allow_list(name, drop):
    text = refusal(Snapshot(1, (), (), (name, "domainMetadata", "appendOnly"), {}, {}), "/t")
    assert text.startswith("table feature ")
    assert name in text
    assert drop in text


def test_allowed_features():
    assert refusal(Snapshot(1, (), (), tuple(ALLOWED_FEATURES), {}, {}), "/t") is None


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"delta.appendOnly": "true"}, ["delta.appendOnly=true", "UNSET TBLPROPERTIES"]),
        ({"delta.columnMapping.mode": "name"}, ["columnMapping", "'none'"]),
        ({"delta.constraints.positive": "id > 0"}, ["CHECK constraint positive (id > 0)", "DROP CONSTRAINT positive"]),
        ({"delta.nobodyKnows": "1"}, ["delta.nobodyKnows=1", "UNSET"]),
        ({"delta.setTransactionRetentionDuration": "interval 1 day"}, ["setTransaction", "UNSET"]),
    ],
)
def test_properties_outside_the_allow_list(tmp_path, properties, words):
    publish_run(tmp_path / "t", "r1", {D1: "k"})
    set_properties(tmp_path / "t", **properties)
    state = inspect(str(tmp_path / "t"))
    assert state.units == {}
    with pytest.raises(SettingsError) as caught:
        check_target(state, COLUMNS, BY_DAY, True)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "properties", [{"delta.appendOnly": "false"}, {"note": "x"}, {"delta.enableChangeDataFeed": "TRUE"}]
)
def test_allowed_properties(properties):
    assert refusal(Snapshot(1, (), (), (), properties, {}), "/t") is None


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"delta.generationExpression": "id + 1"}, ["generated column, id"]),
        ({"delta.identity.start": 1}, ["identity column, id"]),
        ({"delta.invariants": "{}"}, ["invariant, id"]),
        ({"CURRENT_DEFAULT": "1"}, ["default, id", "ALTER COLUMN id DROP DEFAULT"]),
        ({"__CHAR_VARCHAR_TYPE_STRING": "varchar(2)"}, ["varchar", "TYPE STRING"]),
    ],
)
def test_columns_that_demand_something(tmp_path, metadata, words):
    publish_run(tmp_path / "t", "r1", {D1: "k"})
    entry = next(action for action in actions(tmp_path / "t", 0) if "metaData" in action)
    schema = json.loads(entry["metaData"]["schemaString"])
    schema["fields"][0]["metadata"] = metadata
    entry["metaData"]["schemaString"] = json.dumps(schema)
    commit_by_hand(Path(tmp_path / "t"), [entry])
    text = inspect(str(tmp_path / "t")).refused
    for word in words:
        assert word in text


# --- check_target -------------------------------------------------------------------------------------------


def _refused(columns=COLUMNS, partition_by=BY_DAY, state=STATE, evolve=False):
    with pytest.raises(SettingsError) as caught:
        check_target(state, columns, partition_by, evolve)
    return str(caught.value)


def test_the_same_layout_is_fine():
    check_target(STATE, COLUMNS, BY_DAY, False)
    check_target(STATE, tuple(reversed(COLUMNS)), BY_DAY, False)
    check_target(TargetState("/t"), COLUMNS, BY_DAY, False)


def test_other_partition_columns():
    assert "[ds]" in _refused(partition_by=())
    assert "by other columns" in _refused(partition_by=("id",))


def test_a_new_column_needs_evolve_schema():
    columns = (*COLUMNS, OutputColumn("extra", "string", "source", "extra"))
    assert "extra" in _refused(columns)
    check_target(STATE, columns, BY_DAY, True)


def test_a_missing_column_needs_evolve_schema_and_null():
    columns = COLUMNS[1:]
    assert "does not write" in _refused(columns)
    check_target(STATE, columns, BY_DAY, True)
    strict = replace(STATE, columns=(replace(STATE.columns[0], nullable=False), *STATE.columns[1:]))
    assert "may not be null" in _refused(columns, state=strict, evolve=True)


def test_another_type_is_refused_in_any_case():
    columns = (replace(COLUMNS[0], type="integer"), *COLUMNS[1:])
    assert "long in the table, integer from this run" in _refused(columns, evolve=True)


def test_names_that_differ_by_case():
    assert "only by case" in _refused((replace(COLUMNS[0], name="ID"), *COLUMNS[1:]), evolve=True)
    twice = (*COLUMNS, replace(COLUMNS[0], name="Id"))
    assert "differ only by case" in _refused(twice, state=TargetState("/t"))


@pytest.mark.parametrize("kind", ["double", "float", "binary", "array<long>"])
def test_types_to_partition_by(kind):
    columns = (*COLUMNS, OutputColumn("p", kind, "source", "p"))
    assert "cannot be partitioned by p" in _refused(columns, ("p",), TargetState("/t"))


@pytest.mark.parametrize(
    "kind", ["string", "byte", "long", "boolean", "date", "timestamp", "timestamp_ntz", "decimal(5,2)"]
)
def test_types_that_can_be_partitioned_by(kind):
    check_target(TargetState("/t"), (*COLUMNS, OutputColumn("p", kind, "source", "p")), ("p",), False)


def test_odd_layouts():
    assert "no column day" in _refused(partition_by=("day",), state=TargetState("/t"))
    assert "beside" in _refused(COLUMNS[1:2], BY_DAY, TargetState("/t"))
    unsupported = (*COLUMNS, OutputColumn("m", "unsupported(map)", "source", "m"))
    assert "cannot be written" in _refused(unsupported, state=TargetState("/t"))
