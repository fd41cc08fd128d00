"""The Parquet table: its pointer, how it is replaced, and what is left after a crash."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchscore.contracts import OutputColumn
from batchscore.errors import FencedOutError, InputError, SettingsError, SetupError, UnavailableError
from batchscore.forget import forget
from batchscore.plan.units import is_live
from batchscore.predictions import read_predictions
from batchscore.publish import commit, fence, inspect
from batchscore.retain import retain
from batchscore.rollback import rollback
from batchscore.tables import Conflict, open_table, parquet, places, versions
from batchscore.tables.places import LocalPlace
from batchscore.tables.pointer import POINTER, VERSIONS_FOLDER, from_json, to_json
from tests.factories.staging import COLUMNS, day, live_units, look, make_plan, offer, publish_run, stage

D1, D2 = day("2026-01-01"), day("2026-01-02")
BOTH = {D1: "k1", D2: "k2"}


@pytest.fixture
def table(tmp_path):
    return str(tmp_path / "parquet")


def document(table):
    return json.loads((Path(table) / POINTER).read_text())


def prepared(table, run_id, keys):
    plan = make_plan(look(table), run_id, keys)
    staged, manifest = offer(plan, [stage(plan, values, range(2)) for values in keys], keys)
    return plan, staged, manifest


def kept(table):
    """The files of versions, chain or not."""
    return sorted(path.name for path in (Path(table) / VERSIONS_FOLDER).iterdir())


# --- layout and document ------------------------------------------------------------------------------------


def test_the_pointer_names_every_file_and_what_readers_need(table):
    publish_run(table, "r1", BOTH)
    found = document(table)
    assert (found["format"], found["format_version"], found["version"]) == ("batchscore-parquet", 1, 0)
    assert found["spark_schema"] == "`id` long, `ds` date, `prediction` double, `_run_id` string"
    assert found["partition_by"] == ["ds"]
    assert found["properties"] == {"retention_days": "30"}
    assert found["metadata"]["batchscore.run_id"] == "r1"
    assert [file["unit"] for file in found["files"]] == [{"ds": "2026-01-01"}, {"ds": "2026-01-02"}]
    for file in found["files"]:
        path = Path(table) / file["path"]
        assert file["path"].startswith("_runs/r1/ds-2026-01-0")
        assert (file["size"], file["rows"], file["run_id"]) == (path.stat().st_size, 2, "r1")
        assert file["statistics"]["minValues"]["id"] == 0


def test_partition_columns_are_in_the_files_with_their_types(table):
    publish_run(table, "r1", BOTH)
    path = document(table)["files"][0]["path"]
    found = pq.ParquetFile(Path(table) / path).read()
    assert found.schema.field("ds").type == "date32[day]"
    assert {str(value) for value in found["ds"].to_pylist()} == {"2026-01-01"}


def test_the_pointer_and_the_file_of_its_version_are_one_document(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n"})
    pointer = (Path(table) / POINTER).read_bytes()
    found = json.loads(pointer)
    assert (Path(table) / found["path"]).read_bytes() == pointer
    assert json.loads((Path(table) / found["previous"]).read_text())["version"] == 0
    assert to_json(from_json(pointer, "x")).encode() == pointer


def test_versions_and_time_travel(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n"})
    fence(table, "r9")
    found = versions(table)
    assert [(entry.version, entry.run_id, entry.operation) for entry in found] == [
        (2, "", "fence"),
        (1, "r2", "publish"),
        (0, "r1", "publish"),
    ]
    assert all(entry.committed_at.endswith("+00:00") for entry in found)
    assert [entry.version for entry in versions(table, limit=2)] == [2, 1]
    assert set(read_predictions(table, version=0)["_run_id"].to_pylist()) == {"r1"}
    assert set(read_predictions(table, version=1)["_run_id"].to_pylist()) == {"r1", "r2"}


@pytest.mark.parametrize("version", [-1, 2, 99])
def test_a_version_that_never_was(table, version):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n"})
    with pytest.raises(InputError, match=r"no version .*\n.*0 to 1"):
        open_table(table, version)


def test_a_version_whose_file_is_gone_ends_the_history(table):
    for number in range(4):
        publish_run(table, f"r{number}", {D1: f"k{number}"})
    (gone,) = (Path(table) / VERSIONS_FOLDER).glob(f"{1:020d}-*")
    gone.unlink()
    assert [entry.version for entry in versions(table)] == [3, 2]
    with pytest.raises(InputError, match="2 to 3"):
        open_table(table, 0)


def test_nothing_follows_an_older_version(table):
    publish_run(table, "r1", BOTH)
    publish_run(table, "r2", {D1: "n"})
    with pytest.raises(ValueError, match="not the newest"):
        open_table(table, 0).restore(0, {})


# --- restore ------------------------------------------------------------------------------------------------


def test_a_restore_is_a_version_of_its_own_and_can_be_undone(table):
    publish_run(table, "r1", BOTH)
    more = (*COLUMNS, OutputColumn("extra", "string", "source", "extra"))
    publish_run(table, "r2", {D1: "n"}, columns=more, evolve_schema=True)
    open_table(table).restore(0, {"note": "back"})
    assert live_units(table, BOTH) == {D1: True, D2: True}
    assert "extra" not in read_predictions(table).column_names
    open_table(table).restore(1, {"note": "forward"})
    assert live_units(table, {D1: "n", D2: "k2"}) == {D1: True, D2: True}
    assert "extra" in read_predictions(table).column_names
    assert [(entry.version, entry.metadata.get("note")) for entry in versions(table)][:2] == [
        (3, "forward"),
        (2, "back"),
    ]


def test_a_restore_of_a_version_that_lost_files_is_refused(table):
    publish_run(table, "r1", {D1: "k"})
    publish_run(table, "r2", {D1: "n"})
    lost = next((Path(table) / "_runs/r1").rglob("*.parquet"))
    lost.unlink()
    with pytest.raises(InputError, match="lost files"):
        open_table(table).restore(0, {})
    assert open_table(table).version == 1


# --- compare and swap ---------------------------------------------------------------------------------------


def _fence_many(table, gate, results, names):
    gate.wait()
    for name in names:
        try:
            open_table(table).fence(name)
            results.put(name)
        except Conflict:
            results.put(None)


def test_of_many_writers_each_acknowledged_commit_is_there_once(table):
    publish_run(table, "r0", BOTH)
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(4), context.Queue()
    names = [[f"w{writer}-{number}" for number in range(25)] for writer in range(4)]
    workers = [context.Process(target=_fence_many, args=(table, gate, results, own)) for own in names]
    for worker in workers:
        worker.start()
    said = [results.get(timeout=60) for _ in range(100)]
    for worker in workers:
        worker.join(60)
    acknowledged = [name for name in said if name is not None]
    assert acknowledged
    committed = [entry.metadata["batchscore.fenced"] for entry in versions(table) if entry.operation == "fence"]
    assert sorted(committed) == sorted(acknowledged)
    assert sorted(document(table)["fences"]) == sorted(acknowledged)
    assert open_table(table).version == len(acknowledged)
    assert len(kept(table)) == len(acknowledged) + 1  # who came second left nothing


def _read_all_the_time(table, stop, problems):
    while not stop.is_set():
        rows = read_predictions(table)
        runs = set(rows["_run_id"].to_pylist())
        if len(rows) != 4 or len(runs) != 1:
            problems.put((len(rows), sorted(runs)))


def test_a_reader_sees_one_run_or_the_next(table):
    publish_run(table, "r0", BOTH)
    context = multiprocessing.get_context("spawn")
    stop, problems = context.Event(), context.Queue()
    reader = context.Process(target=_read_all_the_time, args=(table, stop, problems))
    reader.start()
    for number in range(1, 30):
        publish_run(table, f"r{number}", dict.fromkeys(BOTH, f"k{number}"))
    stop.set()
    reader.join(60)
    assert reader.exitcode == 0
    assert problems.empty()


def test_a_stale_look_is_refused(table):
    publish_run(table, "r1", BOTH)
    stale = open_table(table)
    publish_run(table, "r2", {D1: "n"})
    before = kept(table)
    with pytest.raises(Conflict):
        stale.restore(0, {})
    assert kept(table) == before
    assert open_table(table).version == 1


def test_two_tables_cannot_be_made_in_one_place(tmp_path):
    place = LocalPlace(str(tmp_path))
    place.swap(b"first", None)
    with pytest.raises(Conflict):
        place.swap(b"second", None)
    assert place.read().data == b"first"


def _publish_and_die(table, point):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    owner = LocalPlace if point == "swap" else places
    setattr(owner, point, die)
    publish_run(table, "r2", {D1: "n"})


@pytest.mark.parametrize("point", ["swap", "write_durably"], ids=["before the lock", "under the lock"])
def test_a_process_killed_between_the_version_and_the_pointer_committed_nothing(table, point):
    publish_run(table, "r1", BOTH)
    process = multiprocessing.get_context("spawn").Process(target=_publish_and_die, args=(table, point))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(kept(table)) == 2
    assert [entry.run_id for entry in versions(table)] == ["r1"]
    assert set(read_predictions(table)["_run_id"].to_pylist()) == {"r1"}
    assert publish_run(table, "r3", {D1: "n"}).version == 1
    assert [entry.run_id for entry in versions(table)] == ["r3", "r1"]
    assert len(kept(table)) == 3


def test_an_exception_after_the_pointer_was_replaced_is_found_out(table, monkeypatch, caplog):
    publish_run(table, "r1", BOTH)
    plan, staged, manifest = prepared(table, "r2", {D1: "n"})
    swap = LocalPlace.swap

    def fails_late(self, data, held):
        swap(self, data, held)
        raise OSError("the connection was reset")

    monkeypatch.setattr(LocalPlace, "swap", fails_late)
    receipt = commit(plan, staged, manifest, is_live=is_live)
    assert (receipt.version, receipt.attempts) == (1, 1)
    assert "landed as version 1 and then failed" in caplog.text


def test_a_conflict_that_was_the_answer_to_ones_own_retry_is_found_out(table, monkeypatch):
    """An object store's client sends again what got no answer; the second answer says that somebody came first."""
    publish_run(table, "r1", BOTH)
    plan, staged, manifest = prepared(table, "r2", {D1: "n"})
    swap = LocalPlace.swap

    def twice(self, data, held):
        swap(self, data, held)
        swap(self, data, held)

    monkeypatch.setattr(LocalPlace, "swap", twice)
    monkeypatch.setattr(LocalPlace, "sure", False)
    assert commit(plan, staged, manifest, is_live=is_live).version == 1
    monkeypatch.undo()
    publish_run(table, "r3", {D1: "o"})
    assert [entry.run_id for entry in versions(table)] == ["r3", "r2", "r1"]


# --- the lock -----------------------------------------------------------------------------------------------

HOLDER = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a table in ``tmp_path``."""
    (tmp_path / places.LOCK).parent.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / places.LOCK], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    LocalPlace(str(tmp_path), lock_seconds=5).swap(b"x", None)


def test_a_stopped_process_is_not_waited_for_without_end(tmp_path, holder):
    os.kill(holder.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="held by another process"):
        LocalPlace(str(tmp_path), lock_seconds=0.3).swap(b"x", None)
    assert time.monotonic() - started < 5
    assert LocalPlace(str(tmp_path)).read() is None


def test_readers_need_no_lock(tmp_path, holder):
    (tmp_path / POINTER).write_bytes(b"x")
    assert LocalPlace(str(tmp_path)).read().data == b"x"


# --- damage -------------------------------------------------------------------------------------------------


def _changed(**changes):
    return lambda facts: json.dumps({**facts, **changes})


def _changed_file(**changes):
    return lambda facts: json.dumps({**facts, "files": [{**facts["files"][0], **changes}]})


@pytest.mark.parametrize(
    "damaged",
    [
        lambda _: "",
        lambda _: "{broken",
        lambda _: "[]",
        lambda _: "null",
        lambda facts: json.dumps(facts)[:-30],
        lambda facts: json.dumps({name: value for name, value in facts.items() if name != "files"}),
        _changed(format="other"),
        _changed(format_version="x"),
        _changed(version=-1),
        _changed(version="1"),
        _changed(files=[1]),
        _changed(files=None),
        _changed(partition_by=["none"]),
        _changed(schema=[{"name": "x", "type": "map", "nullable": True}]),
        _changed(previous="../../etc/passwd"),
        _changed(committed_at="yesterday"),
        _changed(committed_at="2026-11-21T06:00:00"),
        _changed_file(path="../other/x.parquet"),
        _changed_file(path="_runs/../../x.parquet"),
        _changed_file(rows=-1),
        _changed_file(size=True),
        _changed_file(unit={}),
    ],
)
def test_a_damaged_pointer_is_named_and_nothing_is_guessed(table, damaged):
    publish_run(table, "r1", {D1: "k1"})
    (Path(table) / POINTER).write_text(damaged(document(table)))
    for ask in (lambda: inspect(table, "parquet"), lambda: read_predictions(table), lambda: versions(table)):
        with pytest.raises(InputError, match=r"current\.json is damaged") as caught:
            ask()
        assert len(str(caught.value)) < 2_000


def test_a_damaged_older_version_ends_what_looks_back(table):
    publish_run(table, "r1", {D1: "k1"})
    publish_run(table, "r2", {D1: "k2"})
    older = Path(table) / document(table)["previous"]
    older.write_text(json.dumps({**json.loads(older.read_text()), "committed_at": "2026-13-45"}))
    for ask in (lambda: rollback(table, "r1"), lambda: retain(table), lambda: forget(table, [{"id": "1"}])):
        with pytest.raises(InputError, match="is damaged"):
            ask()
    assert publish_run(table, "r3", {D1: "k3"}).version == 2


def test_a_pointer_that_is_no_text(table):
    publish_run(table, "r1", BOTH)
    (Path(table) / POINTER).write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(InputError, match="damaged"):
        open_table(table)


def test_a_pointer_of_a_newer_batchscore(table):
    publish_run(table, "r1", BOTH)
    (Path(table) / POINTER).write_text(json.dumps({**document(table), "format_version": 2, "files": "elsewhere"}))
    with pytest.raises(SetupError, match="newer batchscore"):
        inspect(table, "parquet")


def test_a_damaged_pointer_is_mended_as_its_error_says(table):
    publish_run(table, "r1", BOTH)
    whole = Path(table) / document(table)["path"]
    (Path(table) / POINTER).write_text("{broken")
    (Path(table) / POINTER).write_bytes(whole.read_bytes())
    assert live_units(table, BOTH) == {D1: True, D2: True}


def test_a_place_without_permission_is_unavailable(table, monkeypatch):
    publish_run(table, "r1", BOTH)

    def refuses(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuses)
    with pytest.raises(UnavailableError, match="Permission denied"):
        open_table(table)


# --- the other format, other stores -------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "asked"), [("delta", "parquet"), ("parquet", "delta")])
def test_a_place_that_holds_the_other_format_is_refused(tmp_path, there, asked):
    uri = str(tmp_path / there)
    publish_run(uri, "r1", BOTH)
    with pytest.raises(SettingsError, match=f"{there} in the table, output.format {asked} asked"):
        inspect(uri, asked)


def test_a_table_of_the_other_format_that_came_meanwhile_is_refused(table):
    plan, staged, manifest = prepared(table, "r1", {D1: "k"})
    other = make_plan(look(table), "r2", {D1: "k"})
    task = replace(other.task, output_format="delta")
    other = replace(other, task=task)
    commit(other, *offer(other, [stage(other, D1, [1])], {D1: "k"}), is_live=is_live)
    with pytest.raises(SettingsError, match="another format"):
        commit(plan, staged, manifest, is_live=is_live)


def test_a_folder_of_somebody_elses_files(tmp_path):
    (tmp_path / "a.parquet").touch()
    with pytest.raises(SettingsError, match="is no prediction table"):
        inspect(str(tmp_path), "parquet")


def test_storage_that_cannot_replace_on_a_condition_is_refused_before_scoring(table, monkeypatch):
    monkeypatch.setattr(parquet, "place_of", lambda _: None)
    with pytest.raises(SettingsError, match=r"output\.format to delta"):
        inspect(table, "parquet")
    assert not inspect(table, "delta").exists


def test_a_fence_of_any_name_leaves_a_pointer_that_can_be_read(table):
    publish_run(table, "r1", BOTH)
    assert fence(table, "odd name/../x")
    assert open_table(table).is_fenced("odd name/../x")
    assert publish_run(table, "r2", {D1: "n"}).version == 2


def test_a_fence_names_its_run_alone(table):
    publish_run(table, "r1", BOTH)
    fence(table, "zombie")
    plan, staged, manifest = prepared(table, "zombie", {D1: "n"})
    with pytest.raises(FencedOutError):
        commit(plan, staged, manifest, is_live=is_live)
    assert publish_run(table, "r2", {D1: "n"}).version == 2
