from __future__ import annotations

import functools
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore import heartbeats, manifests, read_predictions, record
from batchscore.clean import clean
from batchscore.contracts import RunRecord
from batchscore.errors import FencedOutError, InputError, SettingsError
from batchscore.heartbeats import Heartbeat, Process, Watch
from batchscore.plan.units import is_live
from batchscore.publish import commit, explain_failure, fence, may_publish
from batchscore.publish.cleanup import FENCE_FOLDER
from batchscore.publish.retained import retained
from batchscore.tables.pointer import VERSIONS_FOLDER
from tests.factories.delta import newest, set_properties
from tests.factories.staging import day, look, make_plan, offer, publish_run, stage

D1, D2 = day("2026-01-01"), day("2026-01-02")
FIRST, DEAD, OTHER = (f"2026010{n}T000000-{n * 8}" for n in "123")
DAY_SECONDS = 86_400


@pytest.fixture
def table(tmp_path):
    path = str(tmp_path / "t")
    publish_run(path, FIRST, {D1: "k"})
    return path


def run(number):
    return f"2026{number // 100 + 1:02d}{number % 28 + 1:02d}T000000-{number:08x}"


def prepared(table, run_id, units=(D2,), *, manifest=True):
    """A run that has staged, and is about to publish."""
    keys = dict.fromkeys(units, "x")
    plan = make_plan(look(table), run_id, keys)
    files = [stage(plan, unit, [1, 2]) for unit in units]
    staged, written = offer(plan, files, keys)
    if not manifest:
        manifests.remove(table, run_id)
    return plan, staged, written


def beating(table, run_id, **process):
    heartbeats.write(table, Heartbeat(run_id, replace(Process.own(), **process), "me", "", None, "m/1", 1))


def killed(table, run_id=DEAD, units=(D2,), **options):
    """What a run leaves that was killed before its commit."""
    left = prepared(table, run_id, units, **options)
    beating(table, run_id, begun="1")
    return left


def data_files(table):
    return {path.name for path in Path(table).rglob("*.parquet") if "_delta_log" not in path.parts}


def metadata(table):
    return sorted(str(path.relative_to(table)) for path in (Path(table) / "_batchscore").rglob("*") if path.is_file())


def test_nothing_is_left_by_a_run_that_published(table):
    before = data_files(table)
    cleaning = clean(table)
    assert (cleaning.removed, cleaning.kept) == ((), ())
    assert data_files(table) == before
    assert newest(table) == 0


def test_a_dead_run_is_fenced_and_all_it_left_is_removed(table):
    before, records = data_files(table), metadata(table)
    plan, *_ = killed(table)
    (Path(table) / manifests.FOLDER / f".{DEAD}.json.4711").write_text("{")
    (Path(table) / heartbeats.FOLDER / heartbeats.temporary_name(DEAD)).write_text("{")
    (left,) = clean(table).removed
    assert (left.run_id, left.state, left.published) == (DEAD, "gone", False)
    assert [file.kind for file in left.files] == ["data", "temporary", "temporary", "manifest", "heartbeat"]
    assert left.size > 0
    assert data_files(table) == before
    assert metadata(table) == records
    with pytest.raises(FencedOutError, match="cleaned up by batchscore clean"):
        explain_failure(table, DEAD)
    with pytest.raises(FencedOutError):  # were its files there, it could not publish them either
        commit(plan, *offer(plan, [stage(plan, D2, [1, 2])], {D2: "x"}), is_live=is_live)


def test_a_dry_run_changes_nothing(table):
    killed(table)
    before, records = data_files(table), metadata(table)
    found = clean(table, dry_run=True)
    assert [len(left.files) for left in found.removed] == [3]
    assert (data_files(table), metadata(table), newest(table)) == (before, records, 0)
    assert clean(table).removed == found.removed


def test_a_live_run_is_left_alone_unless_it_is_named(table):
    plan, staged, manifest = prepared(table, DEAD)
    beating(table, DEAD)
    (kept,) = clean(table).kept
    assert (kept.run_id, kept.kept) == (DEAD, "it is at work")
    assert may_publish(table, DEAD)
    (left,) = clean(table, take_over=[DEAD]).removed
    assert {file.kind for file in left.files} == {"data", "manifest"}  # the heartbeat is the run's own
    with pytest.raises(FencedOutError):  # not that its files are gone
        commit(plan, staged, manifest, is_live=is_live)
    with pytest.raises(FencedOutError):
        commit(plan, *offer(plan, [stage(plan, D2, [1, 2])], {D2: "x"}), is_live=is_live)


def test_a_run_that_left_nothing_cannot_be_taken_over(table):
    killed(table)
    with pytest.raises(SettingsError, match=DEAD):
        clean(table, take_over=[DEAD[:-1] + "0"])


def test_a_run_without_heartbeat_counts_as_dead_after_a_day(table):
    _, staged, _ = prepared(table, DEAD, manifest=False)
    (kept,) = clean(table).kept
    assert "no heartbeat" in kept.kept
    path = Path(table) / staged.files[0].path
    long_ago = path.stat().st_mtime - DAY_SECONDS - 60
    os.utime(path, (long_ago, long_ago))
    assert [left.run_id for left in clean(table).removed] == [DEAD]
    assert not path.exists()


@pytest.mark.parametrize("state", ["failed", "refused", "published"])
def test_what_a_worker_wrote_after_its_run_had_ended_goes_at_once(table, state):
    """The run discarded what it had staged, but a worker that was cancelled closed a file later."""
    plan, staged, _ = prepared(table, DEAD, manifest=False)
    facts = dict.fromkeys(
        ("model_name", "model_version", "model_digest", "source_uri", "source_snapshot", "mode", "engine", "runner"), ""
    )
    numbers = dict.fromkeys(("table_version", "units_published", "units_live", "rows_read", "rows", "exit_code"), 0)
    moments = dict.fromkeys(("started_at", "ended_at"), "2026-01-01T00:00:00+00:00")
    row = RunRecord(
        DEAD, state, source_version=None, table=table, seconds=1.0, message="", **facts, **numbers, **moments
    )
    record.append(table, row)
    cleaning = clean(table)
    path = Path(table) / staged.files[0].path
    if state == "published":  # it says so, but nothing else does: left to the files' age
        assert (cleaning.removed, path.exists()) == ((), True)
        return
    assert [left.run_id for left in cleaning.removed] == [DEAD]
    assert not path.exists()
    with pytest.raises(FencedOutError):  # it might have been unsure of its commit
        commit(plan, *offer(plan, [stage(plan, D2, [1, 2])], {D2: "x"}), is_live=is_live)


def test_a_fenced_run_without_heartbeat_can_go_at_once(table):
    prepared(table, DEAD)
    fence(table, DEAD)
    assert [left.run_id for left in clean(table).removed] == [DEAD]


def test_a_run_that_was_killed_after_its_commit_keeps_what_it_published(table):
    plan, staged, manifest = prepared(table, DEAD)
    commit(plan, staged, manifest, is_live=is_live)
    surplus = stage(plan, D1, [7])  # a unit that another run published first, dropped but not yet deleted
    beating(table, DEAD, begun="1")
    (left,) = clean(table).removed
    assert left.published
    assert [file.path for file in left.files] == [surplus.path, f"{heartbeats.FOLDER}/{DEAD}.json"]
    assert may_publish(table, DEAD)  # no fence was needed
    assert manifests.read(table, DEAD) is not None
    assert staged.files[0].path.rpartition("/")[2] in data_files(table)


def test_what_a_killed_attempt_of_a_published_run_left_can_go_at_once(table):
    plan, staged, manifest = prepared(table, DEAD)
    stage(plan, D2, [7])  # an executor was killed while it wrote this one
    commit(plan, staged, manifest, is_live=is_live)
    beating(table, DEAD)
    (left,) = clean(table).removed
    assert [file.kind for file in left.files] == ["data"]
    assert len(DeltaTable(table).to_pyarrow_table()) == 4
    assert (Path(table) / heartbeats.FOLDER / f"{DEAD}.json").exists()


def test_a_run_that_publishes_between_the_look_and_the_fence_keeps_its_files(table, monkeypatch):
    plan, staged, manifest = killed(table)

    def late(uri, run_id, by):
        commit(plan, staged, manifest, is_live=is_live)
        return fence(uri, run_id, by)

    monkeypatch.setattr("batchscore.publish.leftovers.fence", late)
    (left,) = clean(table).removed
    assert left.published
    assert [file.kind for file in left.files] == ["heartbeat"]
    assert len(DeltaTable(table).to_pyarrow_table()) == 4
    assert manifests.read(table, DEAD) is not None


def test_files_that_were_added_and_removed_in_between_stay(table):
    publish_run(table, OTHER, {D1: "k2"})
    publish_run(table, run(9), {D1: "k3"})
    for run_id in (FIRST, OTHER, run(9)):
        beating(table, run_id, begun="1")
    before = data_files(table)
    assert {file.kind for left in clean(table).removed for file in left.files} == {"heartbeat"}
    assert data_files(table) == before
    for version in range(3):
        assert len(DeltaTable(table, version=version).to_pyarrow_table()) == 2


def test_a_log_without_its_beginning_says_nothing_about_older_runs(table):
    """Their commits are gone, their files' tombstones too, and so is what told these files from staged ones."""
    set_properties(table, delta__deletedFileRetentionDuration="interval 0 seconds")
    old = prepared(table, DEAD)
    commit(*old, is_live=is_live)
    for number in range(3):
        publish_run(table, run(number), {D1: f"k{number}", D2: f"k{number}"})
    DeltaTable(table).create_checkpoint()
    for version in range(newest(table)):
        (Path(table) / "_delta_log" / f"{version:020d}.json").unlink()
    long_ago = Path(table, "_delta_log").stat().st_mtime - 10 * DAY_SECONDS
    for path in [*Path(table).rglob("*.parquet"), *(Path(table) / manifests.FOLDER).iterdir()]:
        os.utime(path, (long_ago, long_ago))
    for path in (Path(table) / "_delta_log").glob("*.json"):
        os.utime(path, (long_ago + DAY_SECONDS,) * 2)
    files, records = data_files(table), metadata(table)
    assert not {FIRST, DEAD} & retained(table).named
    assert clean(table).removed == ()
    assert (data_files(table), metadata(table)) == (files, records)
    killed(table, OTHER)
    assert [left.run_id for left in clean(table).removed] == [OTHER]
    assert (data_files(table), metadata(table)) == (files, records)


def test_files_that_a_checkpoint_alone_mentions_are_mentioned(table):
    publish_run(table, OTHER, {D2: "k"})
    DeltaTable(table).create_checkpoint()
    files = data_files(table)
    for version in range(2):
        (Path(table) / "_delta_log" / f"{version:020d}.json").unlink()
    log = retained(table)
    assert log.names == files
    assert {FIRST, OTHER} <= log.named
    assert log.committed == set()


def test_after_optimize_and_a_cleaned_log_the_manifests_stay(table):
    publish_run(table, DEAD, {D1: "k2"}, mode="append")
    DeltaTable(table).optimize.compact()
    DeltaTable(table).create_checkpoint()
    for version in range(newest(table)):
        (Path(table) / "_delta_log" / f"{version:020d}.json").unlink()
    assert {FIRST, DEAD} <= retained(table).named
    assert clean(table).removed == ()


def test_a_damaged_log_deletes_nothing(table):
    killed(table)
    DeltaTable(table).create_checkpoint()
    (checkpoint,) = (Path(table) / "_delta_log").glob("*.checkpoint.parquet")
    publish_run(table, OTHER, {D2: "k"})
    before = data_files(table)
    checkpoint.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(InputError):
        clean(table)
    assert data_files(table) == before


def test_before_there_is_a_table_only_a_run_that_is_surely_gone_is_cleaned(tmp_path):
    path = str(tmp_path / "new")
    killed(path)
    prepared(path, OTHER)
    beating(path, OTHER, host="elsewhere")
    cleaning = clean(path, watch=Watch(silent_seconds=0.05), sleep=lambda _: None)
    assert [left.run_id for left in cleaning.removed] == [DEAD]
    assert [(left.run_id, left.state) for left in cleaning.kept] == [(OTHER, "silent")]
    assert "no table yet" in cleaning.kept[0].kept
    assert len(data_files(path)) == 1
    assert not may_publish(path, OTHER)


def test_a_marker_from_before_the_table_becomes_a_fence_in_its_log(tmp_path):
    path = str(tmp_path / "t")
    assert not fence(path, DEAD)
    assert metadata(path) == [f"{FENCE_FOLDER}/{DEAD}"]
    publish_run(path, FIRST, {D1: "k"})
    clean(path)
    assert f"{FENCE_FOLDER}/{DEAD}" not in metadata(path)
    assert not may_publish(path, DEAD)


def test_staged_files_beside_the_table_go_with_their_run(table):
    beside = Path(f"{table}__quarantine")
    write_deltalake(beside, DeltaTable(table).to_pyarrow_table())
    kept = f"part-00000-{FIRST}-{'0' * 12}.parquet"
    for name in (kept, f"part-00000-{DEAD}-{'0' * 12}.parquet"):
        (beside / name).write_bytes(b"x")
    killed(table)
    (left,) = clean(table).removed
    assert [file.kind for file in left.files] == ["data", "side", "manifest", "heartbeat"]
    assert kept in {path.name for path in beside.iterdir()}  # of a published run: not ours to judge
    assert not may_publish(str(beside), DEAD)


def test_files_beside_the_table_stay_where_a_run_may_yet_make_a_table_of_them(table):
    """Nothing can fence it there: a table whose files are gone could not be read."""
    beside = Path(f"{table}__quarantine")
    beside.mkdir()
    for run_id in (DEAD, OTHER):
        (beside / f"part-00000-{run_id}-{'0' * 12}.parquet").write_bytes(b"x")
    killed(table)
    prepared(table, OTHER, (D1,))
    beating(table, OTHER, host="elsewhere")
    removed = clean(table, watch=Watch(silent_seconds=0.05), sleep=lambda _: None).removed
    assert [(left.run_id, left.state) for left in removed] == [(DEAD, "gone"), (OTHER, "silent")]
    assert [{file.kind for file in left.files} for left in removed] == [
        {"data", "side", "manifest", "heartbeat"},
        {"data", "manifest", "heartbeat"},
    ]
    assert [path.name for path in beside.iterdir()] == [f"part-00000-{OTHER}-{'0' * 12}.parquet"]
    assert not may_publish(table, OTHER)


def test_other_peoples_files_are_never_touched(table):
    names = ["notes.txt", "part-00000-c000.snappy.parquet", "ds=2026-01-01/part-00000-01234567-0123-c000.parquet",
             "_batchscore/manifests/README", "_other/part-00000-x.parquet"]  # fmt: skip
    for name in names:
        path = Path(table) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (0, 0))
    killed(table)
    clean(table)
    assert all((Path(table) / name).exists() for name in names)


def test_every_version_of_a_parquet_table_can_be_read_after_its_runs_have_grown_old(tmp_path):
    """Of the runs that published their files' age is all that is known; one has died since."""
    path = tmp_path / "parquet"
    for run_id, key in ((FIRST, "k"), (OTHER, "l")):
        publish_run(str(path), run_id, {D1: key})
    killed(str(path))
    stray = path / VERSIONS_FOLDER / f"{2:020d}-{DEAD}-0123abcd.json"  # of a commit that another one beat
    stray.write_text("{}")
    expected = [read_predictions(path, version=version) for version in (0, 1)]
    for file in (file for file in path.rglob("*") if file.is_file()):
        long_ago = file.stat().st_mtime - 2 * DAY_SECONDS
        os.utime(file, (long_ago, long_ago))
    (removed,) = clean(str(path)).removed
    assert removed.run_id == DEAD
    assert not stray.exists()
    assert not list(path.rglob(f"*{DEAD}*.parquet"))
    assert [read_predictions(path, version=version) for version in (0, 1)] == expected


def test_a_place_without_a_table_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no table"):
        clean(str(tmp_path / "none"))


STEPS = st.lists(
    st.sampled_from(["publish", "publish", "kill", "restore", "compact", "checkpoint", "delete", "forget", "clean"]),
    min_size=1,
    max_size=9,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.integers(0, 10_000))
def test_every_version_that_could_be_read_can_be_read(tmp_path, steps, seed):
    """Whatever came before: what a version held is there after ``clean``, and nothing of a dead run is."""
    path = str(tmp_path / f"t{seed}-{len(list(tmp_path.iterdir()))}")
    publish_run(path, run(0), {D1: "k0"})
    for number, step in enumerate(steps, start=1):
        _do(path, step, number, seed)
    before = _versions(path)
    clean(path)
    after = _versions(path)
    assert {version: after[version] for version in before} == before
    log = retained(path)
    if log.oldest is not None:  # within an hour of its oldest commit nobody can tell
        return
    dead = [name for name in data_files(path) if name not in log.names and name.startswith("part-00000-2026")]
    assert dead == []


def _do(path, step, number, seed):
    unit, table = (D1, D2)[(seed + number) % 2], DeltaTable(path)
    steps = {
        "publish": lambda: publish_run(path, run(number), {unit: f"k{number}"}),
        "kill": lambda: killed(path, run(number), (unit,)),
        "restore": functools.partial(_restore, table),
        "compact": table.optimize.compact,
        "checkpoint": table.create_checkpoint,
        "delete": functools.partial(table.delete, "id = 0"),
        "forget": functools.partial(_forget, path),
        "clean": functools.partial(clean, path),
    }
    steps[step]()


def _restore(table):
    if not table.version():
        return
    with suppress(DeltaError, TableNotFoundError):  # a version whose log was forgotten can be restored by nobody
        table.restore(table.version() - 1)


def _forget(path):
    """The log loses its first commit, as retention does it behind a checkpoint."""
    log = Path(path) / "_delta_log"
    checkpoints = sorted(int(entry.name[:20]) for entry in log.glob("*.checkpoint.parquet"))
    first = min(int(entry.stem) for entry in log.glob("*.json"))
    if checkpoints and first < checkpoints[-1]:
        (log / f"{first:020d}.json").unlink()


def _versions(path):
    found = {}
    for entry in (Path(path) / "_delta_log").glob("*.json"):
        version = int(entry.stem)
        try:
            table = DeltaTable(path, version=version)
        except Exception:  # noqa: BLE001, S112  # the log no longer reaches this version
            continue
        found[version] = json.dumps(sorted(map(str, table.to_pyarrow_table().to_pylist())))
    return found
