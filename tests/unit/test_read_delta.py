from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from batchscore.contracts import Restriction
from batchscore.errors import InputError, SettingsError
from batchscore.read import delta, pin, restriction
from tests.factories.sources import by_splits, every_type


def only(**partitions):
    return Restriction(partitions=tuple((name, tuple(values)) for name, values in partitions.items()))


def ids(source, chosen=None):
    return sorted(by_splits(source, chosen)["id"].to_pylist())


@pytest.fixture
def table(tmp_path):
    """Three versions of one row each, committed at 06:00, 07:00 and 08:00 on 21 November 2025."""
    uri = str(tmp_path / "t")
    for number in range(3):
        write_deltalake(uri, pa.table({"id": [number]}), mode="append")
        moment = dt.datetime(2025, 11, 21, 6 + number, tzinfo=dt.UTC).timestamp()
        os.utime(tmp_path / f"t/_delta_log/{number:020}.json", (moment, moment))
    return uri


def test_every_type(tmp_path):
    uri = str(tmp_path / "t")
    write_deltalake(uri, every_type())
    source = pin(uri)
    assert (source.kind, source.uri, source.version, source.dataframe_reason) == ("delta", uri, 0, None)
    assert repr(by_splits(source).to_pylist()) == repr(every_type().to_pylist())
    assert sum(file.rows for file in source.files) == 6


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("latest", [0, 1, 2]),
        ("0", [0]),
        ("1", [0, 1]),
        ("2025-11-21T06:00:00Z", [0]),
        ("2025-11-21 07:59:59", [0, 1]),
        ("2025-11-21T09:00:00+01:00", [0, 1, 2]),
        ("2025-11-22", [0, 1, 2]),
    ],
)
def test_versions_and_times(table, version, expected):
    source = pin(table, version=version)
    assert ids(source) == expected
    assert source.version == len(expected) - 1


@pytest.mark.parametrize("version", ["7", "2025-11-21T05:59:59Z"])
def test_a_version_that_does_not_exist(table, version):
    with pytest.raises(InputError, match="has no version") as caught:
        pin(table, version=version)
    assert "versions 0 to 2 exist, committed 2025-11-21 06:00:00+00:00 to" in str(caught.value)


@pytest.mark.parametrize("version", ["newest", "-1", "2125-01-01"])
def test_a_version_that_is_none(table, version):
    with pytest.raises(SettingsError, match="--input-version"):
        pin(table, version=version)


def test_a_time_before_log_clean_up(table):
    DeltaTable(table).create_checkpoint()
    (Path(table) / "_delta_log" / f"{0:020}.json").unlink()
    assert ids(pin(table, version="2")) == [0, 1, 2]
    with pytest.raises(InputError, match="versions 2 to 2 exist"):
        pin(table, version="1")


def test_in_commit_timestamps_win_over_modification_times(table):
    for number in range(3):
        path = Path(table) / "_delta_log" / f"{number:020}.json"
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        info = next(action for action in actions if "commitInfo" in action)
        actions.remove(info)
        info["commitInfo"]["inCommitTimestamp"] = 1_000_000_000_000 + number * 1000
        path.write_text("\n".join(map(json.dumps, [info, *actions])))
    assert ids(pin(table, version="2001-09-09T01:46:41Z")) == [0, 1]


def test_a_vacuumed_version_is_found_at_plan_time(table):
    DeltaTable(table).optimize.compact()
    DeltaTable(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert ids(pin(table)) == [0, 1, 2]
    with pytest.raises(InputError, match="lost 2 of its 2 files to VACUUM") as caught:
        pin(table, version="1")
    assert "versions 0 to" in str(caught.value)


def test_a_damaged_log(table):
    (Path(table) / "_delta_log" / f"{1:020}.json").write_text('{"add": {"path": 7')
    with pytest.raises(InputError, match=r"log of Delta table .* cannot be read"):
        pin(table)


def test_an_empty_log(table):
    shutil.rmtree(Path(table) / "_delta_log")
    (Path(table) / "_delta_log").mkdir()
    with pytest.raises(InputError, match="log of Delta table"):
        pin(table)


def test_no_rows(table):
    DeltaTable(table).delete()
    with pytest.raises(InputError, match="has no rows at version 3"):
        pin(table)


def test_a_truncated_data_file_is_named_when_it_is_read(table):
    source = pin(table)
    path = Path(source.files[0].path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=path.name):
        ids(source)


def test_rows_come_from_the_footer_where_the_log_has_none(table):
    path = Path(table) / "_delta_log" / f"{1:020}.json"
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        action.get("add", {}).pop("stats", None)
    path.write_text("\n".join(map(json.dumps, actions)))
    assert [file.rows for file in pin(table).files] == [1, 1, 1]


def test_large_files_are_cut_at_their_row_groups(table, monkeypatch):
    assert [file.row_groups for file in pin(table).files] == [(), (), ()]
    monkeypatch.setattr(delta, "CUT_ABOVE_BYTES", 10)
    assert [file.row_groups for file in pin(table).files] == [(1,), (1,), (1,)]


def test_not_as_parquet(table):
    for path in (table, pin(table).files[0].path):
        with pytest.raises(SettingsError, match="is a Delta table"):
            pin(path, format="parquet" if path == table else "auto")


def test_an_added_column_is_null_in_older_files(table):
    write_deltalake(table, pa.table({"id": [9], "later": ["v"]}), mode="append", schema_mode="merge")
    source = pin(table)
    assert by_splits(source).sort_by("id")["later"].to_pylist() == [None, None, None, "v"]


def test_every_partition_type(tmp_path):
    uri = str(tmp_path / "t")
    moment = dt.datetime(2026, 11, 21, 6, 30, 0, 500000, tzinfo=dt.UTC)
    rows = pa.table(
        {
            "id": [1, 2],
            "s": ["a/ b%=ü", None],
            "n": pa.array([7, None], pa.int32()),
            "b": [True, None],
            "d": pa.array([dt.date(2026, 11, 21), None]),
            "t": pa.array([moment, None], pa.timestamp("us", "UTC")),
            "c": pa.array([Decimal("1.50"), None], pa.decimal128(5, 2)),
        }
    )
    write_deltalake(uri, rows, partition_by=["s", "n", "b", "d", "t", "c"])
    source = pin(uri)
    assert (
        sorted(by_splits(source).select(rows.column_names).to_pylist(), key=lambda row: row["id"]) == rows.to_pylist()
    )
    values = {
        "s": "a/ b%=ü",
        "n": "7",
        "b": "true",
        "d": "2026-11-21",
        "t": "2026-11-21T06:30:00.500000Z",
        "c": "1.50",
    }
    assert tuple(values.items()) in {file.partition for file in source.files}
    values["t"] = "2026-11-21 06:30:00.5"  # as a user may spell it
    for name, value in values.items():
        assert ids(pin(uri, restriction=only(**{name: [value]}))) == [1]
        assert ids(pin(uri, restriction=only(**{name: [None]}))) == [2]


def test_the_snapshot_is_the_file_set_not_the_version(tmp_path):
    uri = str(tmp_path / "t")
    write_deltalake(uri, pa.table({"id": [1, 2], "ds": ["a", "b"]}), partition_by=["ds"])
    first, day = pin(uri), pin(uri, restriction=only(ds=["a"]))
    write_deltalake(uri, pa.table({"id": [3], "ds": ["b"]}), mode="append")
    assert pin(uri).snapshot != first.snapshot
    assert pin(uri, restriction=only(ds=["a"])).snapshot == day.snapshot
    assert pin(uri, version="0").snapshot == first.snapshot


def test_a_filter_on_a_partition_column(tmp_path):
    uri = str(tmp_path / "t")
    write_deltalake(uri, pa.table({"id": [1, 2], "ds": ["a", "b"]}), partition_by=["ds"])
    source = pin(uri)
    assert ids(source, restriction({}, "ds = 'b'", source)) == [2]


def rewrite_metadata(table, change):
    path = Path(table) / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        change(action)
    path.write_text("\n".join(map(json.dumps, actions)))


def test_columns_of_char_go_through_spark(table):
    def make_char(action):
        if "metaData" in action:
            schema = json.loads(action["metaData"]["schemaString"])
            schema["fields"][0]["metadata"]["__CHAR_VARCHAR_TYPE_STRING"] = "char(5)"
            action["metaData"]["schemaString"] = json.dumps(schema)

    rewrite_metadata(table, make_char)
    assert "char(n)" in pin(table).dataframe_reason


def test_a_table_that_delta_rs_cannot_open(table):
    def need_feature(action):
        if "protocol" in action:
            action["protocol"] = {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": ["holograms"],
                "writerFeatures": ["holograms"],
            }

    rewrite_metadata(table, need_feature)
    with pytest.raises(InputError, match="holograms"):
        pin(table)
