from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, PostCommitHookProperties, write_deltalake

from batchscore.arrow.layout import partition_value
from batchscore.arrow.types import to_arrow
from batchscore.contracts import OutputColumn, PlannedUnit, Replay
from batchscore.errors import BatchscoreError, FencedOutError, SettingsError, UnavailableError
from batchscore.plan.units import is_live
from batchscore.predictions import read_predictions
from batchscore.publish import check_removal, commit, fence, inspect, prepare, swap
from batchscore.publish.emptied import NEWEST_COMMITS
from batchscore.record import published_records
from batchscore.tables import delta, open_table
from tests.factories.delta import actions, active_adds, delete_rows, set_properties
from tests.factories.staging import (
    COLUMNS,
    day,
    format_of,
    live_units,
    look,
    make_plan,
    offer,
    publish_run,
    stage,
)

SECONDS = 60  # of processes that start beside other tests
D1, D2, D3 = day("2026-01-01"), day("2026-01-02"), day(None)
BOTH = {D1: "k1", D2: "k2"}


FORMATS = ["delta", "parquet"]
only_delta = pytest.mark.parametrize("table", ["delta"], indirect=True)


@pytest.fixture(params=FORMATS)
def table(request, tmp_path):
    return str(tmp_path / request.param)


def rows_of(table):
    found = read_predictions(table)
    return sorted((str(row["_run_id"]), str(row.get("ds")), row["id"]) for row in found.to_pylist())


def newest(table):
    """The newest version; -1 where there is no table."""
    found = open_table(table)
    return -1 if found is None else found.version


def runs_by_unit(table):
    return {values: dict(state.runs) for values, state in look(table).units.items()}


def prepared(table, run_id, keys, **options):
    """A plan with its staged output and manifest, ready to commit."""
    plan = make_plan(look(table), run_id, keys, **options)
    prepare(table)  # as a run does: others that begin then do not take what it stages for someone else's files
    staged, manifest = offer(plan, [stage(plan, values, range(2)) for values in keys], keys)
    return plan, staged, manifest


class Meanwhile:
    """A liveness rule that lets something else happen once, between the look at the table and the commit."""

    def __init__(self, action):
        self.action = action

    def __call__(self, *args):
        action, self.action = self.action, None
        if action is not None:
            action()
        return is_live(*args)


# --- creation -----------------------------------------------------------------------------------------------


def test_first_run_creates_the_table_with_its_files_in_one_commit(table):
    receipt = publish_run(table, "r1", BOTH)
    assert receipt.version == 0
    assert newest(table) == 0
    assert {unit.values for unit in receipt.published} == set(BOTH)
    assert len(rows_of(table)) == 4


@only_delta
def test_a_new_delta_table_carries_its_retention(table):
    publish_run(table, "r1", BOTH)
    settings = DeltaTable(table).metadata().configuration
    assert settings["delta.logRetentionDuration"] == "interval 30 days"
    assert settings["delta.deletedFileRetentionDuration"] == "interval 30 days"


def test_the_commit_names_its_manifest(table):
    publish_run(table, "r1", BOTH)
    (version,) = open_table(table).versions()
    info = version.metadata
    assert (version.run_id, info["batchscore.run_id"]) == ("r1", "r1")
    assert (Path(table) / info["batchscore.manifest"]).is_file()
    assert info["batchscore.units"] == "2"
    assert info["batchscore.rows"] == "4"


@only_delta
def test_wide_tables_keep_statistics_of_the_run_id(table):
    wide = (*COLUMNS[:-1], *(OutputColumn(f"c{i}", "long", "source", f"c{i}") for i in range(40)), COLUMNS[-1])
    publish_run(table, "r1", {D1: "k"}, columns=wide)
    assert DeltaTable(table).metadata().configuration["delta.dataSkippingNumIndexedCols"] == str(len(wide))


def test_nothing_offered_is_nothing_committed(table):
    plan, staged, manifest = prepared(table, "r1", {})
    assert commit(plan, staged, manifest, is_live=is_live).version == -1
    assert newest(table) == -1


def _publish_same(table, gate, results, run_id, keys):
    try:
        plan, staged, manifest = prepared(table, run_id, keys)
        gate.wait(SECONDS)
        receipt = commit(plan, staged, manifest, is_live=is_live, max_attempts=60)
        results.put((run_id, receipt.version, len(receipt.published), len(receipt.dropped)))
    except FencedOutError as error:
        results.put((run_id, "fenced", str(error), 0))
    except Exception as error:  # whatever it is, the test says it, and nobody waits for this one
        results.put((run_id, "failed", repr(error), -1))
        gate.abort()
        raise


def _in_processes(table, offers):
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(len(offers)), context.Queue()
    workers = [
        # Daemons: the tests' process ends without them where one never comes to its end.
        context.Process(target=_publish_same, args=(table, gate, results, run_id, keys), daemon=True)
        for run_id, keys in offers.items()
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=SECONDS) for _ in workers]
    for worker in workers:
        worker.join(SECONDS)
    assert [entry for entry in found if entry[1] == "failed"] == []
    return found


def test_two_processes_create_one_table_and_one_publishes(table):
    found = _in_processes(table, {"r1": BOTH, "r2": BOTH})
    assert sorted((published, dropped) for _, _, published, dropped in found) == [(0, 2), (2, 0)]
    assert all(live_units(table, BOTH).values())
    data = list(Path(table).rglob("*.parquet"))
    assert len(data) == 2  # the loser's staged files are gone


def test_two_processes_with_other_content_publish_one(table):
    found = _in_processes(table, {"r1": {D1: "k1"}, "r2": {D1: "other"}})
    assert sum(entry[1] == "fenced" for entry in found) == 1
    assert len(rows_of(table)) == 2


def test_disjoint_units_are_published_by_all(table):
    offers = {f"r{i}": {day(f"2026-01-{i + 1:02d}"): "k"} for i in range(4)}
    found = _in_processes(table, offers)
    assert sorted(entry[2] for entry in found) == [1, 1, 1, 1]
    assert len(look(table).units) == 4


# --- units --------------------------------------------------------------------------------------------------


def test_a_live_unit_is_dropped_and_its_files_are_deleted(table):
    publish_run(table, "r1", BOTH)
    receipt = publish_run(table, "r2", BOTH)
    assert (receipt.version, len(receipt.dropped)) == (-1, 2)
    assert newest(table) == 0
    assert not list(Path(table).rglob("*r2*.parquet"))


def test_force_replaces_a_live_unit(table):
    publish_run(table, "r1", BOTH)
    receipt = publish_run(table, "r2", {D1: "k1"}, force=True)
    assert (receipt.version, receipt.dropped) == (1, ())
    assert runs_by_unit(table) == {D1: {"r2": 2}, D2: {"r1": 2}}


def test_exactly_the_offered_units_are_replaced(table):
    publish_run(table, "r1", {**BOTH, D3: "k3"})
    publish_run(table, "r2", {D1: "n1", D3: "n3"})
    assert runs_by_unit(table) == {D1: {"r2": 2}, D2: {"r1": 2}, D3: {"r2": 2}}


def test_models_v1_v2_v1(table):
    publish_run(table, "r1", {D1: "v1"})
    publish_run(table, "r2", {D1: "v2"})
    assert live_units(table, {D1: "v1"}) == {D1: False}
    receipt = publish_run(table, "r3", {D1: "v1"})
    assert receipt.version == 2
    assert live_units(table, {D1: "v1"}) == {D1: True}
    assert runs_by_unit(table) == {D1: {"r3": 2}}


def test_restore_makes_the_older_key_live_again(table):
    publish_run(table, "r1", {D1: "v1"})
    publish_run(table, "r2", {D1: "v2"})
    open_table(table).restore(0, {})
    assert newest(table) == 2
    assert live_units(table, {D1: "v1"}) == {D1: True}
    assert live_units(table, {D1: "v2"}) == {D1: False}


def test_a_unit_without_rows_is_emptied(table):
    publish_run(table, "r1", BOTH)
    plan = make_plan(look(table), "r2", {D1: "n"})
    staged, manifest = offer(plan, [], {D1: "n"})
    assert commit(plan, staged, manifest, is_live=is_live).version == 1
    assert runs_by_unit(table) == {D2: {"r1": 2}}


def publish_empty(table, run_id, unit_keys, plan=None):
    plan = plan or make_plan(look(table), run_id, unit_keys)
    staged, manifest = offer(plan, [], unit_keys)
    return commit(plan, staged, manifest, is_live=is_live)


def emptied(table, *units):
    return inspect(table, format_of(table), units).emptied


def test_a_unit_without_rows_in_an_empty_place_is_a_commit_without_data(table):
    publish_run(table, "r1", BOTH)
    assert emptied(table, D1, D3) == {}
    receipt = publish_empty(table, "r2", {D3: "n"})
    assert (receipt.version, [unit.values for unit in receipt.published]) == (1, [D3])
    assert runs_by_unit(table) == {D1: {"r1": 2}, D2: {"r1": 2}}
    assert emptied(table, D1, D3) == {D3: {"n"}}
    assert [record.run_id for record in published_records(table, {"r1", "r2"})] == ["r1", "r2"]


def test_units_without_rows_are_all_that_a_first_run_publishes(table):
    assert publish_empty(table, "r1", {D1: "n", D3: "m"}).version == 0
    assert look(table).units == {}
    assert emptied(table, D1, D2, D3) == {D1: {"n"}, D3: {"m"}}
    assert publish_run(table, "r2", {D2: "k"}).version == 1
    assert rows_of(table) == [("r2", "2026-01-02", 0), ("r2", "2026-01-02", 1)]


def test_a_unit_without_rows_is_told_by_the_manifest_of_a_run_whose_other_rows_are_there(table):
    plan = make_plan(look(table), "r1", {D1: "k1", D3: "n"})
    staged, manifest = offer(plan, [stage(plan, D1, range(2))], {D1: "k1", D3: "n"})
    commit(plan, staged, manifest, is_live=is_live)
    for number in range(NEWEST_COMMITS + 2):
        publish_run(table, f"s{number}", {D2: f"k{number}"})
    assert emptied(table, D3) == {D3: {"n"}}


def test_a_commit_without_data_counts_while_it_is_among_the_newest(table):
    publish_empty(table, "r1", {D3: "n"})
    for number in range(NEWEST_COMMITS):
        assert emptied(table, D3) == {D3: {"n"}}
        publish_run(table, f"s{number}", {D2: f"k{number}"})
    assert emptied(table, D3) == {}


def test_a_manifest_whose_run_published_nothing_proves_no_unit_empty(table):
    publish_run(table, "r1", BOTH)
    plan = make_plan(look(table), "r2", {D3: "n"})
    offer(plan, [], {D3: "n"})  # killed before its commit
    assert emptied(table, D3) == {}


def test_a_unit_that_another_run_emptied_meanwhile_is_not_emptied_again(table):
    publish_run(table, "r1", BOTH)
    plans = {run: make_plan(look(table), run, {D3: "n"}) for run in ("r2", "r3")}
    other = make_plan(look(table), "r4", {D3: "other"})
    assert publish_empty(table, "r2", {D3: "n"}, plans["r2"]).version == 1
    receipt = publish_empty(table, "r3", {D3: "n"}, plans["r3"])
    assert (receipt.version, [unit.values for unit in receipt.dropped]) == (-1, [D3])
    assert publish_empty(table, "r4", {D3: "other"}, other).version == 2


def test_a_replay_that_adds_nothing_is_no_commit(table):
    publish_run(table, "r1", BOTH)
    plan = make_plan(look(table), "r2", {D1: "k1"})
    replay = Replay("r1", (), (), "/q", (D1,))
    plan = replace(plan, task=replace(plan.task, replay=replay))
    assert publish_empty(table, "r2", {D1: "k1"}, plan).version == -1
    assert newest(table) == 0


def test_units_found_while_scoring(table):
    publish_run(table, "r1", BOTH)
    plan = make_plan(look(table), "r2")
    keys = {D1: "n1"}
    staged, manifest = offer(plan, [stage(plan, D1, range(3))], keys)
    assert commit(plan, staged, manifest, is_live=is_live).version == 1
    assert runs_by_unit(table) == {D1: {"r2": 3}, D2: {"r1": 2}}


def test_several_files_of_one_unit(table):
    plan = make_plan(look(table), "r1", {D1: "k"})
    staged, manifest = offer(plan, [stage(plan, D1, range(i, i + 2)) for i in range(3)], {D1: "k"})
    commit(plan, staged, manifest, is_live=is_live)
    assert live_units(table, {D1: "k"}) == {D1: True}


def test_a_table_without_partitions(table):
    flat = {"partition_by": ()}
    assert publish_run(table, "r1", {(): "k1"}, **flat).version == 0
    assert publish_run(table, "r2", {(): "k1"}, **flat).version == -1
    assert publish_run(table, "r3", {(): "k2"}, **flat).version == 1
    assert runs_by_unit(table) == {(): {"r3": 2}}


# --- partition values ---------------------------------------------------------------------------------------

ODD = ["a b", "50%", "a/b", "ünï", "x=y:z", "%20", "../up", "__HIVE_DEFAULT_PARTITION__", "'", 'q"\\', "\n", "."]


def _by(*types):
    columns = [
        COLUMNS[0],
        *(OutputColumn(f"p{i}", kind, "source", f"p{i}") for i, kind in enumerate(types)),
        *COLUMNS[2:],
    ]
    return {"columns": tuple(columns), "partition_by": tuple(f"p{i}" for i in range(len(types)))}


@pytest.mark.parametrize("value", [*ODD, None])
def test_one_unit_with_an_odd_value_is_replaced_alone(table, value):
    keys = {(("p0", text),): "k" for text in (value, "other")}
    publish_run(table, "r1", keys, **_by("string"))
    publish_run(table, "r2", {(("p0", value),): "k2"}, **_by("string"))
    assert runs_by_unit(table) == {(("p0", value),): {"r2": 2}, (("p0", "other"),): {"r1": 2}}
    found = read_predictions(table).to_pylist()
    assert {row["p0"] for row in found if row["_run_id"] == "r2"} == {value}
    assert len(found) == 4


def test_several_odd_values_at_once(table):
    keys = {(("p0", text),): "k" for text in [*ODD, None]}
    publish_run(table, "r1", keys, **_by("string"))
    part = dict.fromkeys(list(keys)[::2], "k2")
    publish_run(table, "r2", part, **_by("string"))
    assert {values for values, runs in runs_by_unit(table).items() if runs == {"r2": 2}} == set(part)
    assert len(runs_by_unit(table)) == len(keys)


def test_two_columns_are_no_cross_product(table):
    units = [(("p0", a), ("p1", b)) for a in ("x y", "z", None) for b in ("1", "2", None)]
    publish_run(table, "r1", dict.fromkeys(units, "k"), **_by("string", "integer"))
    chosen = [units[0], units[4], units[8]]
    publish_run(table, "r2", dict.fromkeys(chosen, "k2"), **_by("string", "integer"))
    assert {values for values, runs in runs_by_unit(table).items() if runs == {"r2": 2}} == set(chosen)
    assert len(runs_by_unit(table)) == 9
    publish_run(table, "r3", {units[5]: "k3"}, **_by("string", "integer"))
    assert [values for values, runs in runs_by_unit(table).items() if runs == {"r3": 2}] == [units[5]]


def test_two_columns_without_null_are_no_cross_product(table):
    units = [(("p0", a), ("p1", b)) for a in ("x", "y") for b in ("1", "2")]
    publish_run(table, "r1", dict.fromkeys(units, "k"), **_by("string", "integer"))
    publish_run(table, "r2", {units[0]: "n", units[3]: "n"}, **_by("string", "integer"))
    assert {values for values, runs in runs_by_unit(table).items() if runs == {"r2": 2}} == {units[0], units[3]}
    assert len(runs_by_unit(table)) == 4


@only_delta
def test_a_removal_that_went_too_far_is_an_error(table, monkeypatch):
    """An overwrite with an empty filter removes everything; the read-back must see it."""
    publish_run(table, "r1", BOTH)
    monkeypatch.setattr(delta, "exact_filter", lambda *_: [])
    with pytest.raises(BatchscoreError, match="RESTORE TABLE"):
        publish_run(table, "r2", {D1: "n"})


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("byte", ["-1", "7", None]),
        ("long", ["9223372036854775807", "0", None]),
        ("boolean", ["true", "false", None]),
        ("date", ["2026-01-01", "1969-12-31", None]),
        ("decimal(10,2)", ["1.20", "-3.00", None]),
        ("timestamp", ["2026-01-01T10:00:00.000001Z", "1969-12-31T23:59:59.999999Z", None]),
        ("timestamp_ntz", ["2026-01-01 10:00:00.000001", "2026-01-01 10:00:00.000002", None]),
    ],
)
def test_every_partition_type(table, kind, texts):
    units = {(("p0", text),): "k" for text in texts}
    publish_run(table, "r1", units, **_by(kind))
    assert set(look(table).units) == set(units)
    for number, values in enumerate(units):
        run = f"s{number}"
        publish_run(table, run, {values: run}, **_by(kind))
        assert [key for key, runs in runs_by_unit(table).items() if run in runs] == [values]
    publish_run(table, "all", dict.fromkeys(units, "last"), **_by(kind))
    assert all(runs == {"all": 2} for runs in runs_by_unit(table).values())
    found = read_predictions(table, columns=["p0"]).column("p0")
    assert {partition_value(value) for value in found.cast(to_arrow(kind))} == set(texts)


# --- concurrency --------------------------------------------------------------------------------------------


def test_a_stale_handle_looks_again(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"})
    waits = []
    rule = Meanwhile(lambda: publish_run(table, "r2", {D2: "n2"}))
    receipt = commit(plan, staged, manifest, is_live=rule, sleep=waits.append)
    assert (receipt.version, receipt.attempts, len(waits)) == (2, 2, 1)
    assert runs_by_unit(table) == {D1: {"r1": 2}, D2: {"r2": 2}}


def test_the_same_unit_by_another_run_meanwhile_is_dropped(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1", D2: "n2"})
    rule = Meanwhile(lambda: publish_run(table, "r2", {D2: "n2"}))
    receipt = commit(plan, staged, manifest, is_live=rule, sleep=lambda _: None)
    assert [unit.values for unit in receipt.published] == [D1]
    assert [unit.values for unit in receipt.dropped] == [D2]
    assert runs_by_unit(table) == {D1: {"r1": 2}, D2: {"r2": 2}}
    info = open_table(table).versions()[0].metadata
    assert (info["batchscore.run_id"], info["batchscore.units"], info["batchscore.rows"]) == ("r1", "1", "2")
    (found,) = published_records(table, {"r1"})  # what a lost ledger is made of
    assert (found.units_published, found.rows, found.table_version) == (1, 2, receipt.version)


def test_dropped_files_that_cannot_be_deleted_fail_no_run_that_is_published(table, monkeypatch, caplog):
    publish_run(table, "r0", {D3: "k3"})
    plan = make_plan(look(table), "r2", BOTH)
    staged, manifest = offer(plan, [stage(plan, unit, range(2)) for unit in BOTH], BOTH)
    publish_run(table, "r1", {D2: "k2"})

    def refuse(*_):
        raise UnavailableError("the storage has gone away")

    monkeypatch.setattr(swap, "discard", refuse)
    receipt = commit(plan, staged, manifest, is_live=is_live)
    assert (receipt.version, [unit.values for unit in receipt.dropped]) == (2, [D2])
    assert "the storage has gone away" in caplog.text


def test_other_content_meanwhile_fences_out_and_says_who(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1", D2: "n2"})
    rule = Meanwhile(lambda: publish_run(table, "r2", {D2: "else"}))
    with pytest.raises(FencedOutError, match="run r2"):
        commit(plan, staged, manifest, is_live=rule, sleep=lambda _: None)
    assert runs_by_unit(table) == {D1: {"r0": 2}, D2: {"r2": 2}}


def test_force_does_not_override_a_change_since_the_plan(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"}, force=True)
    publish_run(table, "r2", {D1: "n1"})
    with pytest.raises(FencedOutError):
        commit(plan, staged, manifest, is_live=is_live)


@only_delta
def test_an_optimize_meanwhile_changes_nothing(table):
    plan = make_plan(look(table), "r0", {D1: "k"})
    staged, manifest = offer(plan, [stage(plan, D1, [i]) for i in range(3)], {D1: "k"})
    commit(plan, staged, manifest, is_live=is_live)
    plan, staged, manifest = prepared(table, "r1", {D1: "n"})
    DeltaTable(table).optimize.compact()
    assert live_units(table, {D1: "k"}) == {D1: True}
    assert commit(plan, staged, manifest, is_live=is_live).version == 2
    assert runs_by_unit(table) == {D1: {"r1": 2}}


@only_delta
def test_a_delete_and_an_insert_make_a_unit_not_live(table):
    publish_run(table, "r1", BOTH)
    DeltaTable(table).delete("id = 1 and ds = '2026-01-01'")
    assert live_units(table, BOTH) == {D1: False, D2: True}
    foreign = pa.table(
        {"id": [9], "ds": pa.array(["2026-01-02"]).cast(pa.date32()), "prediction": [0.1], "_run_id": [None]}
    )
    write_deltalake(table, foreign.cast(pa.schema(DeltaTable(table).schema().to_arrow())), mode="append")
    assert live_units(table, BOTH) == {D1: False, D2: False}


def test_a_busy_table_is_worth_a_retry(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"})
    numbers = iter(range(100))

    def always_late(*args):
        publish_run(table, f"x{next(numbers)}", {D2: "k"}, force=True)
        return is_live(*args)

    with pytest.raises(UnavailableError, match="3 times"):
        commit(plan, staged, manifest, is_live=always_late, max_attempts=3, sleep=lambda _: None)
    assert runs_by_unit(table)[D1] == {"r0": 2}


def test_a_fenced_run_cannot_publish(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "zombie", {D1: "n1"})
    assert fence(table, "zombie")
    with pytest.raises(FencedOutError, match="taken over"):
        commit(plan, staged, manifest, is_live=is_live)
    assert runs_by_unit(table)[D1] == {"r0": 2}


def test_a_fence_between_look_and_commit_holds(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "zombie", {D1: "n1"})
    with pytest.raises(FencedOutError, match="taken over"):
        commit(plan, staged, manifest, is_live=Meanwhile(lambda: fence(table, "zombie")), sleep=lambda _: None)
    assert runs_by_unit(table)[D1] == {"r0": 2}


def test_a_fence_before_there_is_a_table(table):
    plan, staged, manifest = prepared(table, "zombie", {D1: "n1"})
    assert not fence(table, "zombie")
    with pytest.raises(FencedOutError, match="taken over"):
        commit(plan, staged, manifest, is_live=is_live)


# --- what an exception means --------------------------------------------------------------------------------


def _block_checkpoint(table, version):
    (Path(table) / "_delta_log" / f"{version:020d}.checkpoint.parquet").mkdir()


@only_delta
def test_a_failing_checkpoint_is_a_warning(table, caplog):
    publish_run(table, "r0", BOTH)
    set_properties(table, delta__checkpointInterval="1")
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"})
    _block_checkpoint(table, 2)
    assert commit(plan, staged, manifest, is_live=is_live).version == 2
    assert "checkpoint of version 2 failed" in caplog.text
    assert live_units(table, {D1: "n1"}) == {D1: True}


@only_delta
def test_a_checkpoint_is_written_at_the_interval(table):
    publish_run(table, "r0", BOTH)
    set_properties(table, delta__checkpointInterval="2")
    publish_run(table, "r1", {D1: "n1"})
    assert (Path(table) / "_delta_log" / f"{2:020d}.checkpoint.parquet").is_file()


@only_delta
def test_an_exception_after_the_version_landed_is_found_out(table, monkeypatch, caplog):
    """The hook that batchscore turns off is turned on and fails: delta-rs raises after its commit."""
    publish_run(table, "r0", BOTH)
    set_properties(table, delta__checkpointInterval="1")
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"})
    _block_checkpoint(table, 2)
    monkeypatch.setattr(delta, "NO_HOOKS", PostCommitHookProperties(create_checkpoint=True))
    receipt = commit(plan, staged, manifest, is_live=is_live)
    assert (receipt.version, receipt.attempts) == (2, 1)
    assert "landed as version 2 and then failed" in caplog.text
    assert runs_by_unit(table)[D1] == {"r1": 2}


def test_a_second_commit_of_the_same_run_is_its_first(table):
    plan, staged, manifest = prepared(table, "r1", BOTH)
    first = commit(plan, staged, manifest, is_live=is_live)
    second = commit(plan, staged, manifest, is_live=is_live)
    assert second == first
    assert all(live_units(table, BOTH).values())


@only_delta
def test_a_second_commit_when_the_log_forgot_the_first(table):
    plan, staged, manifest = prepared(table, "r1", BOTH)
    commit(plan, staged, manifest, is_live=is_live)
    publish_run(table, "r2", {D3: "k"})
    DeltaTable(table).create_checkpoint()
    for version in (0, 1):
        (Path(table) / "_delta_log" / f"{version:020d}.json").unlink()
    again = commit(plan, staged, manifest, is_live=is_live)
    assert {unit.values for unit in again.published} == set(BOTH)
    assert all(path.exists() for path in (Path(table) / file.path for file in staged.files))
    assert DeltaTable(table).version() == 1


@only_delta
def test_liveness_outlives_the_log(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n1"})
    DeltaTable(table).create_checkpoint()
    (Path(table) / "_delta_log" / f"{0:020d}.json").unlink()
    assert live_units(table, {D1: "n1", D2: "k2"}) == {D1: True, D2: True}


def test_storage_that_fails_before_the_commit_is_unavailable(table, monkeypatch):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"})

    def failing(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("batchscore.tables.write", failing)
    with pytest.raises(UnavailableError, match="No space left"):
        commit(plan, staged, manifest, is_live=is_live)
    assert newest(table) == 0


# --- deletion vectors ---------------------------------------------------------------------------------------


def _with_vector(table, unit_keys, path_part, **options):
    publish_run(table, "r0", unit_keys, **options)
    set_properties(table, ("deletionVectors",), delta__enableDeletionVectors="true")
    path = next(path for path in active_adds(table) if path_part in path)
    delete_rows(table, path, [0])
    return path


@only_delta
def test_a_unit_with_a_deletion_vector_is_not_live(table):
    _with_vector(table, BOTH, "ds=2026-01-01")
    assert live_units(table, BOTH) == {D1: False, D2: True}
    state = look(table).units[D1]
    assert (state.runs, state.foreign_files) == ((), 1)
    assert len(rows_of(table)) == 3


@only_delta
def test_another_deletion_changes_the_unit(table):
    path = _with_vector(table, BOTH, "ds=2026-01-01")
    before = look(table).units[D1]
    delete_rows(table, path, [0, 1])
    assert look(table).units[D1] != before


@pytest.mark.parametrize("keys", [{D1: "n"}, {D1: "n", D2: "n"}, {D1: "n", D2: "n", D3: "n"}])
@only_delta
def test_units_with_deletion_vectors_are_replaced(table, keys):
    _with_vector(table, {**BOTH, D3: "k3"}, "ds=2026-01-01")
    publish_run(table, "r1", keys)
    assert {values for values, runs in runs_by_unit(table).items() if runs == {"r1": 2}} == set(keys)
    assert len(rows_of(table)) == 6


@only_delta
def test_a_null_unit_with_a_deletion_vector_is_replaced(table):
    _with_vector(table, {**BOTH, D3: "k3"}, "__HIVE_DEFAULT")
    publish_run(table, "r1", {D3: "n"})
    assert runs_by_unit(table) == {D1: {"r0": 2}, D2: {"r0": 2}, D3: {"r1": 2}}
    assert len(rows_of(table)) == 6


TWO_COLUMNS = [(("p0", first), ("p1", second)) for first in "xy" for second in "12"]


@pytest.mark.parametrize(
    ("layout", "units", "mode"),
    [
        ({}, [D1, D3], "partitions"),
        (_by("string", "integer"), TWO_COLUMNS[:2], "partitions"),
        (_by("string", "integer"), TWO_COLUMNS[:3], "partitions"),
    ],
    ids=["null", "two", "three of four"],
)
@only_delta
def test_units_that_delta_rs_cannot_replace_together_are_refused_before_scoring(table, layout, units, mode):
    _with_vector(table, dict.fromkeys(TWO_COLUMNS if layout else {**BOTH, D3: "k3"}, "k"), "=", **layout)
    plan, staged, manifest = prepared(table, "r1", dict.fromkeys(units, "n"), mode=mode, **layout)
    with pytest.raises(SettingsError, match="REORG TABLE"):
        check_removal(plan)
    with pytest.raises(SettingsError, match="REORG TABLE"):  # the vector may have come since the plan
        commit(plan, staged, manifest, is_live=is_live)
    assert newest(table) == 2


@pytest.mark.parametrize("mode", ["partitions", "replace", "append"])
@only_delta
def test_units_that_can_be_replaced_together_are_not_refused(table, mode):
    """All of the table, whatever its values; and units beside one whose file has a vector."""
    layout = _by("string", "integer")
    path = _with_vector(table, dict.fromkeys(TWO_COLUMNS, "k"), "=", **layout)
    marked = next(values for values in TWO_COLUMNS if f"p0={values[0][1]}/p1={values[1][1]}" in path)
    for run_id, units in (("r1", [values for values in TWO_COLUMNS if values != marked]), ("r2", TWO_COLUMNS)):
        plan, staged, manifest = prepared(table, run_id, dict.fromkeys(units, f"n{run_id}"), mode=mode, **layout)
        if mode == "replace" and run_id == "r1":
            plan = replace(
                plan, units=(*plan.units, PlannedUnit(marked, "k", "live", "", 1, 1, look(table).units[marked]))
            )
        check_removal(plan)
        commit(plan, staged, manifest, is_live=is_live)


@only_delta
def test_a_deletion_vector_in_an_odd_folder(table):
    unit = (("p0", "a b/50%"),)
    _with_vector(table, {unit: "k", (("p0", "z"),): "k"}, "50", **_by("string"))
    assert look(table).units[unit].foreign_files == 1
    publish_run(table, "r1", {unit: "n"}, **_by("string"))
    assert runs_by_unit(table)[unit] == {"r1": 2}


# --- modes --------------------------------------------------------------------------------------------------


def test_append_replaces_nothing(table):
    publish_run(table, "r1", {D1: "k1"}, mode="append")
    assert publish_run(table, "r2", {D1: "k2"}, mode="append").version == 1
    assert runs_by_unit(table) == {D1: {"r1": 2, "r2": 2}}
    assert publish_run(table, "r3", {D1: "k1"}, mode="append").version == -1
    assert live_units(table, {D1: "k1"}, "append") == {D1: True}


@only_delta
def test_an_optimize_after_appends_keeps_them_live(table):
    publish_run(table, "r1", {D1: "k1"}, mode="append")
    publish_run(table, "r2", {D1: "k2"}, mode="append")
    DeltaTable(table).optimize.compact()
    assert len(active_adds(table)) == 1
    assert runs_by_unit(table) == {D1: {"r1": 2, "r2": 2}}
    assert live_units(table, {D1: "k2"}, "append") == {D1: True}


@only_delta
def test_a_damaged_file_that_statistics_do_not_prove_is_foreign(table):
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D1: "k2"}, mode="append")
    DeltaTable(table).optimize.compact()
    (path,) = [file.path for file in open_table(table).files]
    data = (Path(table) / path).read_bytes()
    assert look(table).units[D1].runs == (("r1", 2), ("r2", 2))
    for damaged in (b"", b"PAR1", data[: len(data) // 2], data[:4] + bytes(len(data) - 12) + data[-8:]):
        (Path(table) / path).write_bytes(damaged)
        assert (look(table).units[D1].runs, look(table).units[D1].foreign_files) == ((), 1)


def test_replace_replaces_the_whole_table(table):
    publish_run(table, "r1", {**BOTH, D3: "k3"})
    publish_run(table, "r2", {D1: "n1"}, mode="replace")
    assert runs_by_unit(table) == {D1: {"r2": 2}}


def test_replace_spares_units_that_are_live(table):
    publish_run(table, "r1", {**BOTH, D3: "k3"})
    receipt = publish_run(table, "r2", {D1: "n1", D2: "k2"}, mode="replace")
    assert [unit.values for unit in receipt.dropped] == [D2]
    assert runs_by_unit(table) == {D1: {"r2": 2}, D2: {"r1": 2}}


def test_replace_removes_the_other_units_where_all_that_it_offers_is_live(table):
    publish_run(table, "r1", {**BOTH, D3: "k3"})
    receipt = publish_run(table, "r2", BOTH, mode="replace")
    assert (receipt.version, receipt.published) == (1, ())
    assert runs_by_unit(table) == {D1: {"r1": 2}, D2: {"r1": 2}}
    assert publish_run(table, "r3", BOTH, mode="replace").version == -1


def test_replace_spares_units_that_the_plan_leaves(table):
    publish_run(table, "r1", BOTH)
    plan = make_plan(look(table), "r2", {D1: "n1", D2: "k2"}, mode="replace")
    plan = replace(plan, units=(plan.units[0], replace(plan.units[1], action="live")))
    staged, manifest = offer(plan, [stage(plan, D1, range(2))], {D1: "n1"})
    commit(plan, staged, manifest, is_live=is_live)
    assert runs_by_unit(table) == {D1: {"r2": 2}, D2: {"r1": 2}}


def test_replace_is_fenced_out_by_a_change_anywhere(table):
    publish_run(table, "r1", BOTH)
    plan, staged, manifest = prepared(table, "r2", {D1: "n1"}, mode="replace")
    publish_run(table, "r3", {D3: "k"})
    with pytest.raises(FencedOutError, match="r3"):
        commit(plan, staged, manifest, is_live=is_live)


# --- schema -------------------------------------------------------------------------------------------------

MORE = (*COLUMNS, OutputColumn("extra", "array<double>", "source", "extra"))


@pytest.mark.parametrize("keys", [{D1: "n"}, {D1: "n", D3: "n"}, {day("2026-05-05"): "n"}])
def test_a_new_column_is_added_with_its_rows(table, keys):
    publish_run(table, "r1", BOTH)
    with pytest.raises(SettingsError, match="--evolve-schema"):
        publish_run(table, "r2", keys, columns=MORE)
    publish_run(table, "r3", keys, columns=MORE, evolve_schema=True)
    assert look(table).columns[-1].type == "array<double>"
    assert {run for runs in runs_by_unit(table).values() for run in runs} == {"r1", "r3"}


@only_delta
def test_one_unit_evolves_the_schema_in_its_own_commit(table):
    publish_run(table, "r1", BOTH)
    assert publish_run(table, "r3", {D1: "n"}, columns=MORE, evolve_schema=True).version == 1
    assert any("metaData" in action for action in actions(table, 1))


def test_a_not_null_column_stays_so(table):
    strict = (replace(COLUMNS[0], nullable=False), *COLUMNS[1:])
    publish_run(table, "r1", BOTH, columns=strict)
    publish_run(table, "r3", {D1: "n"}, columns=(*strict, MORE[-1]), evolve_schema=True)
    assert [column.nullable for column in look(table).columns] == [False, True, True, True, True]


@only_delta
def test_a_table_that_changed_its_layout_meanwhile(table):
    publish_run(table, "r1", BOTH)
    plan, staged, manifest = prepared(table, "r2", {D1: "n"})
    set_properties(table, delta__appendOnly="true")
    with pytest.raises(SettingsError, match="appendOnly"):
        commit(plan, staged, manifest, is_live=is_live)


def test_a_staged_file_that_vanished_between_two_looks(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"})
    gone = Path(table) / staged.files[0].path
    with pytest.raises(UnavailableError, match="nothing was published"):
        commit(plan, staged, manifest, is_live=Meanwhile(gone.unlink))
    assert newest(table) == 0


def test_a_relative_path_and_a_file_uri_are_one_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    publish_run("scores x", "r1", BOTH)
    uri = (tmp_path / "scores x").as_uri()
    assert live_units(uri, BOTH) == {D1: True, D2: True}
    assert [path.name for path in tmp_path.iterdir()] == ["scores x"]


@only_delta
def test_unrelated_commits_meanwhile_do_not_matter(table):
    publish_run(table, "r0", BOTH)
    plan, staged, manifest = prepared(table, "r1", {D1: "n1"})
    set_properties(table, note="x")
    assert commit(plan, staged, manifest, is_live=is_live).version == 2
