"""Staging, commit, fences, discard and ledger on a real S3 server, and what a failing one does to them."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import get_type_hints

import pytest
from deltalake import DeltaTable

from batchscore import amendments, manifests, record
from batchscore.arrow.filesystem import make_folder, open_filesystem
from batchscore.arrow.reach import require_reachable, storage_failure
from batchscore.contracts import RunRecord
from batchscore.errors import (
    BatchscoreError,
    FencedOutError,
    InputError,
    SettingsError,
    UnavailableError,
    UnsureError,
)
from batchscore.forget import forget
from batchscore.plan.units import is_live
from batchscore.predictions import read_predictions
from batchscore.publish import commit, discard_run, fence, prepare
from batchscore.record import ledger_uri
from batchscore.retain.merging import merge
from batchscore.rollback import rollback
from batchscore.s3 import delta_options
from batchscore.tables import open_table
from tests.factories.staging import day, live_units, look, make_plan, offer, publish_run, stage
from tests.object_store import LATE_SECONDS

D1, D2 = day("2026-01-01"), day("2026-01-02")
BOTH = {D1: "k1", D2: "k2"}
COMMIT = {"delta": r"PUT \S+/delta/_delta_log/\d{20}\.json", "parquet": r"PUT \S+/_batchscore/current\.json"}
DEAD_SECONDS = 60  # an operation against a dead store ends within


@pytest.fixture(params=["delta", "parquet"])
def table(request, bucket):
    return f"s3://{bucket}/predictions/{request.param}"


def format_of(table):
    return table.rsplit("/", 1)[-1]


def rows_of(table):
    return sorted((str(row["_run_id"]), str(row["ds"]), row["id"]) for row in read_predictions(table).to_pylist())


def prepared(table, run_id, keys, **options):
    plan = make_plan(look(table), run_id, keys, **options)
    staged, manifest = offer(plan, [stage(plan, values, range(2)) for values in keys], keys)
    return plan, staged, manifest


def runs_of(table):
    return {row[0] for row in rows_of(table)}


# --- publishing --------------------------------------------------------------------------------------------


def test_what_is_published_is_read_and_live(table, bucket, store):
    receipt = publish_run(table, "r1", BOTH)
    assert receipt.version == 0
    assert len(rows_of(table)) == 4
    assert live_units(table, BOTH) == {D1: True, D2: True}
    assert publish_run(table, "r2", {D1: "other"}).version == 1
    assert {row[:2] for row in rows_of(table)} == {("r2", "2026-01-01"), ("r1", "2026-01-02")}
    assert open_table(table).versions()[0].run_id == "r2"
    assert read_predictions(table, version=0).num_rows == 4
    assert all(not key.endswith("/") for key in store.keys(bucket))  # no objects that stand for folders


def test_the_same_unit_is_published_once(table):
    first, second = prepared(table, "r1", {D1: "k"}), prepared(table, "r2", {D1: "k"})
    assert commit(*first, is_live=is_live).version == 0
    assert commit(*second, is_live=is_live).version == -1
    assert runs_of(table) == {"r1"}


def test_who_planned_on_what_changed_is_fenced_out(table):
    publish_run(table, "r0", {D1: "k0"})
    first, second = prepared(table, "r1", {D1: "k1"}), prepared(table, "r2", {D1: "k2"})
    commit(*first, is_live=is_live)
    with pytest.raises(FencedOutError):
        commit(*second, is_live=is_live)
    assert runs_of(table) == {"r1"}


def test_many_writers_at_once_lose_nothing(table):
    publish_run(table, "r0", {day("2026-02-01"): "k"})
    offers = {f"w{n}": prepared(table, f"w{n}", {day(f"2026-03-{n + 1:02}"): "k"}) for n in range(8)}
    receipts, failures = {}, {}

    def publish(name):
        try:
            receipts[name] = commit(*offers[name], is_live=is_live)
        except BatchscoreError as error:
            failures[name] = error

    threads = [threading.Thread(target=publish, args=(name,)) for name in offers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert set(receipts) | set(failures) == set(offers)
    # Exactly those that were told so are there, each as a version of its own.
    assert runs_of(table) == {"r0", *receipts}
    assert sorted(receipt.version for receipt in receipts.values()) == list(range(1, len(receipts) + 1))
    assert len(receipts) >= 6


def test_a_stale_conditional_put_is_refused_by_the_store(table):
    publish_run(table, "r0", {D1: "k0"})
    stale = open_table(table)
    publish_run(table, "r1", {D2: "k1"})
    plan, staged, _ = prepared(table, "r2", {day("2026-01-03"): "k2"})
    from batchscore.publish import swap

    offered = swap._offer(plan, staged, offer(plan, staged.files, {day("2026-01-03"): "k2"})[1])
    change = swap._change(offered, offered.units, staged.files, ())
    with pytest.raises(Exception):  # noqa: B017, PT011  # each format says it in its own way
        stale.write(change)
    assert runs_of(table) == {"r0", "r1"}


# --- fences and leftovers ----------------------------------------------------------------------------------


def test_a_fenced_run_cannot_publish_and_its_files_go(table, bucket, store):
    publish_run(table, "r0", {D1: "k0"})
    zombie = prepared(table, "zombie", {D2: "k"})
    assert fence(table, "zombie") is True
    with pytest.raises(FencedOutError):
        commit(*zombie, is_live=is_live)
    assert any("zombie" in key and key.endswith(".parquet") for key in store.keys(bucket))
    assert discard_run(table, "zombie") == 1
    assert not any("zombie" in key and key.endswith(".parquet") for key in store.keys(bucket))
    assert runs_of(table) == {"r0"}


def test_a_fence_from_before_the_table_holds(table):
    prepare(table)
    zombie = prepared(table, "zombie", {D1: "k"})
    assert fence(table, "zombie") is False
    with pytest.raises(FencedOutError):
        commit(*zombie, is_live=is_live)
    assert open_table(table) is None


def test_what_is_published_is_never_discarded(table):
    publish_run(table, "r1", BOTH)
    assert discard_run(table, "r1") == 0
    publish_run(table, "r2", BOTH | {D1: "new"})
    assert discard_run(table, "r1") == 0  # an older version still names them
    assert read_predictions(table, version=0).num_rows == 4


def test_a_foreign_folder_is_refused_and_a_prepared_one_is_not(table):
    filesystem, root = open_filesystem(table)
    with filesystem.open_output_stream(f"{root}/someone.parquet") as stream:
        stream.write(b"x")
    with pytest.raises(SettingsError, match="holds files but is no"):
        look(table)
    prepare(table)
    assert look(table).version == -1


# --- a store that fails ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["landed", "error", "reset"])
def test_a_commit_that_was_answered_with_an_error_is_found_again(table, store, kind):
    """Once: the library's own retry meets what it wrote itself, or succeeds."""
    publish_run(table, "r0", {D1: "k0"})
    offered = prepared(table, "r1", {D2: "k1"})
    with store.failing(kind, COMMIT[format_of(table)], times=1) as fault:
        receipt = commit(*offered, is_live=is_live)
    assert fault.hits == 1
    assert (receipt.version, runs_of(table)) == (1, {"r0", "r1"})


def test_a_commit_that_landed_unheard_is_published(table, store):
    publish_run(table, "r0", {D1: "k0"})
    offered = prepared(table, "r1", {D2: "k1"})
    with store.failing("landed", COMMIT[format_of(table)]):
        receipt = commit(*offered, is_live=is_live)
    assert (receipt.version, runs_of(table)) == (1, {"r0", "r1"})
    assert open_table(table).version == 1


@pytest.mark.parametrize("kind", ["error", "slow_down"])
def test_a_commit_that_never_lands_is_worth_a_retry(table, store, kind):
    publish_run(table, "r0", {D1: "k0"})
    offered = prepared(table, "r1", {D2: "k1"})
    started = time.monotonic()
    with store.failing(kind, COMMIT[format_of(table)]), pytest.raises(UnsureError, match="is not known"):
        commit(*offered, is_live=is_live)
    assert time.monotonic() - started < DEAD_SECONDS
    assert runs_of(table) == {"r0"}
    assert commit(*offered, is_live=is_live).version == 1


def test_a_put_that_comes_late_finds_its_place_taken(table, store):
    """Answered with an error, done seconds later: by then the run's files are gone."""
    publish_run(table, "r0", {D1: "k0"})
    offered = prepared(table, "r1", {D2: "k1"})
    late = store.failing("late", COMMIT[format_of(table)], times=5)  # as often as a request is tried
    with late as fault, pytest.raises(UnavailableError, match="nothing was published"):
        commit(*offered, is_live=is_live)
    assert fault.hits == 5
    assert discard_run(table, "r1") == 1
    time.sleep(LATE_SECONDS + 3)
    assert runs_of(table) == {"r0"}
    with pytest.raises(FencedOutError):
        commit(*offered, is_live=is_live)


def many_small_files(table):
    publish_run(table, "r0", {D1: "k0"})
    plan = make_plan(look(table), "r1", {D2: "k1"})
    staged, manifest = offer(plan, [stage(plan, D2, [number]) for number in range(3)], {D2: "k1"})
    commit(plan, staged, manifest, is_live=is_live)


# What changes a table of two versions, and the records that it writes before its commit.
COMMANDS = {
    "merge": (lambda table: merge(table, "m1"), None),
    "forget": (lambda table: forget(table, [{"id": "1"}]), amendments.forgettings),
    "rollback": (lambda table: rollback(table, "r0"), amendments.rollbacks),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_late_put_of_what_changes_a_table_finds_its_place_taken(table, store, command):
    """Answered with an error, done seconds later: by then its files and its record are gone."""
    many_small_files(table)
    act, records = COMMANDS[command]
    before = rows_of(table)
    late = store.failing("late", COMMIT[format_of(table)], times=5)  # as often as a request is tried
    with late as fault, pytest.raises(UnavailableError, match="the table is as it was"):
        act(table)
    assert fault.hits == 5
    time.sleep(LATE_SECONDS + 3)
    assert rows_of(table) == before
    assert open_table(table).version == 2  # the fence
    assert records is None or records(table) == ()
    act(table)
    assert open_table(table).version == 3
    assert rows_of(table) == before if command == "merge" else len(rows_of(table)) < len(before)


def test_what_may_still_land_keeps_its_files_and_its_record(table, store, bucket):
    many_small_files(table)
    act, records = COMMANDS["forget"]
    before = rows_of(table)
    with store.failing("error", COMMIT[format_of(table)]), pytest.raises(UnsureError, match="is not known"):
        act(table)
    assert rows_of(table) == before
    assert len(records(table)) == 1
    written = records(table)[0].forget_id
    assert any(written in key and key.endswith(".parquet") for key in store.keys(bucket))
    act(table)
    assert open_table(table).version == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_what_landed_unheard_is_done(table, store, command):
    many_small_files(table)
    act, records = COMMANDS[command]
    with store.failing("landed", COMMIT[format_of(table)]):
        act(table)
    assert open_table(table).version == 2
    assert records is None or len(records(table)) == 1
    assert len(rows_of(table)) > 0


def test_a_first_commit_that_never_lands_leaves_its_files(table, store):
    offered = prepared(table, "r1", BOTH)
    failing = store.failing("error", COMMIT[format_of(table)], times=5)
    with failing, pytest.raises(UnsureError):
        commit(*offered, is_live=is_live)
    assert open_table(table) is None


def test_a_first_commit_that_landed_unheard_made_the_table(table, store):
    offered = prepared(table, "r1", BOTH)
    with store.failing("landed", COMMIT[format_of(table)]):
        assert commit(*offered, is_live=is_live).version == 0
    assert len(rows_of(table)) == 4


def test_a_first_commit_that_lands_late_is_noted_as_published(table, store):
    offered = prepared(table, "r1", BOTH)
    with store.failing("late", COMMIT[format_of(table)], times=5), pytest.raises(UnsureError):
        commit(*offered, is_live=is_live)
    record.append(table, replace(entry(table), state="failed", exit_code=7))
    assert [row.state for row in record.history(table)] == ["failed"]
    time.sleep(LATE_SECONDS + 3)
    assert runs_of(table) == {"r1"}
    assert [(row.state, row.table_version) for row in record.history(table)] == [("published", 0)]


def test_a_store_that_fails_now_and_then_is_no_matter(table, store):
    with store.failing("slow_down", "", share=0.08), store.failing("reset", "", share=0.04) as fault:
        publish_run(table, "r1", BOTH)
        publish_run(table, "r2", {D1: "new"})
    assert fault.hits
    assert len(rows_of(table)) == 4


def test_slow_answers_are_waited_for(table, store):
    publish_run(table, "r1", BOTH)
    with store.failing("slow", "GET"):
        assert len(rows_of(table)) == 4


def test_half_a_file_is_not_published(table, store):
    publish_run(table, "r0", {D1: "k0"})
    plan = make_plan(look(table), "r1", {D2: "k1"})
    whole = stage(plan, D2, range(2000))
    filesystem, root = open_filesystem(table)
    with filesystem.open_input_file(f"{root}/{whole.path}") as stream:
        data = stream.read()
    half = store.failing("truncated", r"PUT \S+r1\S+\.parquet")
    with half as fault, filesystem.open_output_stream(f"{root}/{whole.path}") as stream:
        stream.write(data)
    assert fault.hits == 1
    staged, manifest = offer(plan, [whole], {D2: "k1"})
    with pytest.raises(UnavailableError, match="another size"):
        commit(plan, staged, manifest, is_live=is_live)
    assert runs_of(table) == {"r0"}


def test_an_upload_cut_off_is_tried_again(bucket, store):
    filesystem, root = open_filesystem(f"s3://{bucket}/part")
    with store.failing("cut", "PUT", times=1) as fault, filesystem.open_output_stream(f"{root}/x") as stream:
        stream.write(b"x" * 100_000)
    assert fault.hits == 1
    assert filesystem.get_file_info(f"{root}/x").size == 100_000


def test_discarding_on_a_dead_store_does_not_hide_the_runs_own_error(table, store, caplog):
    prepared(table, "r1", BOTH)
    started = time.monotonic()
    with store.failing("error", ""):
        assert discard_run(table, "r1") == 0
    assert time.monotonic() - started < DEAD_SECONDS
    assert "could not be removed" in caplog.text
    assert discard_run(table, "r1") == 2


def test_reading_and_looking_at_a_dead_store_is_unavailable(table, store):
    publish_run(table, "r1", BOTH)
    with store.failing("error", ""):
        for act in (
            lambda: look(table),
            lambda: read_predictions(table),
            lambda: manifests.read(table, "r1"),
            lambda: prepare(table),
        ):
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                act()
            assert time.monotonic() - started < DEAD_SECONDS


@pytest.mark.parametrize("kind", ["error", "slow_down"])
def test_a_file_of_several_runs_that_is_not_given_is_no_foreign_one(bucket, store, kind):
    """No statistics tell whose rows it holds: an OPTIMIZE has merged them."""
    table = f"s3://{bucket}/predictions/delta"
    for run in ("r1", "r2"):
        publish_run(table, run, {D1: run}, mode="append")
    DeltaTable(table, storage_options=delta_options(table)).optimize.compact()
    assert look(table).units[D1].runs == (("r1", 2), ("r2", 2))
    with store.failing(kind, r"GET \S+\.parquet"), pytest.raises(UnavailableError):
        look(table)
    with store.failing(kind, r"GET \S+\.parquet", times=1):
        assert look(table).units[D1].foreign_files == 0


def test_permission_taken_away_is_no_matter_of_trying_again(table, store):
    publish_run(table, "r1", BOTH)
    with store.failing("denied", "PUT"), pytest.raises(SettingsError, match="cannot be written"):
        prepare(table)
    with store.failing("denied", ""), pytest.raises(BatchscoreError) as caught:
        look(table)
    assert caught.value.exit_code == 2


# --- the ledger --------------------------------------------------------------------------------------------


def entry(table, run_id="r1"):
    kinds = get_type_hints(RunRecord)
    facts = {name: kind() if kind in {str, int, float} else None for name, kind in kinds.items()}
    return RunRecord(**facts | {"run_id": run_id, "table": table, "state": "published"})


def test_the_ledger_is_written_and_read(table):
    record.append(table, entry(table))
    record.append(table, entry(table, "r2"))
    assert {row.run_id for row in record.history(table)} == {"r1", "r2"}


def test_a_ledger_that_cannot_be_written_ends_in_time(table, store):
    record.append(table, entry(table))
    started = time.monotonic()
    with store.failing("error", "__runs"), pytest.raises(UnavailableError):
        record.append(table, entry(table, "r2"))
    assert time.monotonic() - started < DEAD_SECONDS
    record.append(table, entry(table, "r3"))
    assert {row.run_id for row in record.history(table)} == {"r1", "r3"}


def test_a_ledger_that_cannot_be_read_for_a_moment_is_left_as_it_is(table, store, bucket):
    record.append(table, entry(table))
    record.append(table, replace(entry(table, "bad"), state="refused"))
    before = set(store.keys(bucket))
    with store.failing("slow_down", r"GET \S+__runs/part\S+\.parquet") as fault, pytest.raises(UnavailableError):
        record.history(table)
    assert fault.hits
    assert set(store.keys(bucket)) == before
    assert {row.run_id: row.state for row in record.history(table)} == {"r1": "published", "bad": "refused"}


def test_a_damaged_ledger_is_rebuilt(table):
    publish_run(table, "r1", BOTH)
    record.append(table, entry(table))
    filesystem, root = open_filesystem(ledger_uri(table))
    with filesystem.open_output_stream(f"{root}/_delta_log/{0:020d}.json") as stream:
        stream.write(b"{broken")
    assert [row.run_id for row in record.history(table)] == ["r1"]


# --- being let in ------------------------------------------------------------------------------------------


def test_a_bucket_that_is_there_is_reached(bucket):
    require_reachable(f"s3://{bucket}/t", "input")


@pytest.mark.parametrize(("role", "raised"), [("input", InputError), ("output", SettingsError)])
def test_a_missing_bucket_and_wrong_keys_are_told_apart(bucket, role, raised, monkeypatch):
    with pytest.raises(raised, match="there is no bucket nowhere"):
        require_reachable("s3://nowhere/t", role)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    with pytest.raises(raised, match="does not let this process in") as caught:
        require_reachable(f"s3://{bucket}/t", role)
    assert "AWS_ACCESS_KEY_ID of the environment" in str(caught.value)


def test_a_service_that_is_not_there_is_named_at_once(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9 does not answer"):
        require_reachable(f"s3://{bucket}/t", "output")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["error", "slow_down", "stall"])
def test_a_service_that_does_not_answer_as_it_should_is_worth_a_retry(bucket, store, kind):
    started = time.monotonic()
    with store.failing(kind, "HEAD"), pytest.raises(UnavailableError, match="does not answer as it should"):
        require_reachable(f"s3://{bucket}/t", "output")
    assert time.monotonic() - started < 90


def test_wrong_keys_later_on_print_no_token(table, monkeypatch):
    publish_run(table, "r1", BOTH)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-CANARY-77aa")
    told = []
    for act in (lambda: look(table), lambda: read_predictions(table), lambda: record.history(table)):
        with pytest.raises(BatchscoreError) as caught:
            act()
        told.append(str(caught.value) + str(caught.value.as_dict()))
        assert caught.value.exit_code in {2, 5}
    assert "CANARY" not in "".join(told)


# --- file systems ------------------------------------------------------------------------------------------


def test_a_folder_is_made_where_there_are_folders_alone(bucket, store, tmp_path):
    filesystem, root = open_filesystem(f"s3://{bucket}/t")
    make_folder(filesystem, f"{root}/a/b")
    assert store.keys(bucket) == []
    filesystem, root = open_filesystem(str(tmp_path))
    make_folder(filesystem, f"{root}/a/b")
    assert (tmp_path / "a/b").is_dir()


def test_what_nobody_was_ready_for_is_a_failure_of_storage_or_a_bug():
    assert isinstance(storage_failure(OSError(28, "No space left on device")), UnavailableError)
    assert storage_failure(FileNotFoundError("x")) is None
    assert storage_failure(ZeroDivisionError()) is None
