"""Scores for comparing leave nothing behind, not even an empty object, and killed reproductions are tidied up."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from batchscore.arrow.filesystem import open_filesystem
from batchscore.reproduce import scratch

DAY = 86_400


def write(place, name="ds=2026-11-21/part-0.parquet"):
    filesystem, root = open_filesystem(place)
    path = f"{root}/{name}"
    if filesystem.type_name == "local":
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"scores")


def test_the_local_runner_writes_to_a_temporary_folder(tmp_path):
    with scratch.scratch_place(str(tmp_path / "scores"), "local") as place:
        write(place)
    assert not Path(place).exists()
    assert not list(tmp_path.iterdir())


def test_sparks_place_lies_beside_the_table_and_is_removed(tmp_path):
    table = str(tmp_path / "scores")

    def fails():
        with scratch.scratch_place(f"{table}/", "spark") as place:
            assert place.startswith(f"{table}__reproduce-")
            write(place)
            raise ValueError("in between")

    with pytest.raises(ValueError, match="in between"):
        fails()
    assert not list(tmp_path.iterdir())


def test_no_object_stays_in_a_bucket(bucket, store):
    table = f"s3://{bucket}/lake/scores"
    with scratch.scratch_place(table, "spark") as place:
        write(place)
        write(place, "quarantine/part-1.parquet")
    assert store.keys(bucket) == []


def test_what_a_killed_one_left_is_removed_a_day_later(tmp_path):
    table, names = str(tmp_path / "scores"), ("0" * 12, "1" * 12)
    others = ("scores__reproduce-mine", "scores__runs", f"scores2__reproduce-{'2' * 12}")
    for name in (*(f"scores__reproduce-{name}" for name in names), *others):
        write(str(tmp_path / name))
    long_ago = time.time() - DAY - 10
    for path in tmp_path.rglob("*"):
        if names[1] not in str(path):
            os.utime(path, (long_ago, long_ago))
    with scratch.scratch_place(table, "spark"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*others, f"scores__reproduce-{names[1]}"}


def test_the_same_in_a_bucket(bucket, store, monkeypatch):
    table = f"s3://{bucket}/scores"
    left = f"{table}__reproduce-{'0' * 12}"
    write(left)
    scratch.remove_old(table)
    assert len(store.keys(bucket)) == 1
    monkeypatch.setattr(scratch, "OLD_SECONDS", -1)
    scratch.remove_old(table)
    assert store.keys(bucket) == []
