"""One row by its keys: typed, pruned, found whole; or a message that says where it was looked for."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from batchscore import lookup
from batchscore.contracts import Column
from batchscore.errors import InputError, SettingsError
from batchscore.lookup import DataFile, FileSet
from tests.factories.delta import active_adds, delete_rows, set_properties
from tests.factories.sources import every_type
from tests.unit.golden_files import assert_golden

COLUMNS = (
    Column("id", "long"),
    Column("name", "string"),
    Column("ds", "date"),
    Column("at", "timestamp"),
    Column("price", "decimal(7,2)"),
    Column("flag", "boolean"),
    Column("x", "double"),
    Column("tags", "array<string>"),
)


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("id=42", 42),
        ("id=-9007199254740993", -9007199254740993),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("ds=2026-11-21", dt.date(2026, 11, 21)),
        ("at=2026-11-21T06:30:00Z", dt.datetime(2026, 11, 21, 6, 30, tzinfo=dt.UTC)),
        ("at=2026-11-21 06:30:00", dt.datetime(2026, 11, 21, 6, 30, tzinfo=dt.UTC)),
        ("flag=true", True),
        ("x=0.1", 0.1),
    ],
)
def test_keys_have_the_types_of_the_table(text, value):
    (key,) = lookup.typed_keys([text], COLUMNS)
    assert key.value == value
    assert type(key.value) is type(value)


@pytest.mark.parametrize(
    "text", ["id=4x", "id=", "id=1.5", "ds=21.11.2026", "flag=maybe", "price=abc", "x=one", "at=noon", "at=0000-01-01"]
)
def test_what_is_no_value_of_the_type_is_said(text):
    with pytest.raises(SettingsError, match="this is no value of type") as caught:
        lookup.typed_keys([text], COLUMNS)
    assert caught.value.found == (text.partition("=")[2] or "an empty text")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no key is named"),
        (["id"], "--key takes COLUMN=VALUE"),
        (["=4"], "--key takes COLUMN=VALUE"),
        (["nmae=a"], "the table has no column nmae"),
        (["id=1", "id=2"], "--key names id twice"),
        (["tags=a"], "column tags cannot be a key"),
    ],
)
def test_wrong_keys(texts, message):
    with pytest.raises(SettingsError, match=message):
        lookup.typed_keys(texts, COLUMNS)


def test_an_unknown_column_is_answered_with_near_ones():
    with pytest.raises(SettingsError) as caught:
        lookup.typed_keys(["nmae=a"], COLUMNS)
    assert caught.value.near == ("name",)


# --- a Delta table ------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """Three days of a file each, ids ascending, names that repeat."""
    uri = str(tmp_path / "scores")
    for day in range(3):
        ids = range(day * 100, day * 100 + 100)
        rows = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "name": [f"n{number % 10}" for number in ids],
                "ds": [dt.date(2026, 11, day + 1)] * 100,
                "prediction": [number / 7 for number in ids],
            }
        )
        write_deltalake(uri, rows, mode="append", partition_by=["ds"])
    return uri


def find(uri, *texts, version=None):
    files = lookup.files_at(uri, version, bounds=[text.partition("=")[0] for text in texts])
    return files, lookup.one_row(files, lookup.typed_keys(texts, files.columns))


def values(files, found):
    return {value.name: value.value for value in lookup.as_values(found.batch, files.readable)}


@pytest.mark.parametrize("number", [0, 99, 100, 157, 299])
def test_the_row_is_found_in_the_one_file_that_can_hold_it(table, number):
    files, found = find(table, f"id={number}")
    day = dt.date(2026, 11, number // 100 + 1)
    assert values(files, found) == {"id": number, "name": f"n{number % 10}", "ds": day, "prediction": number / 7}
    assert (found.searched, found.place.position) == (1, number % 100)


def test_partition_values_prune_and_identify(table):
    files, found = find(table, "ds=2026-11-02", "id=157")
    assert (values(files, found)["id"], found.searched) == (157, 1)
    with pytest.raises(SettingsError) as caught:
        find(table, "ds=2026-11-01", "id=157")
    assert caught.value.found == "looked into 0 of 3 files; partitions ds=2026-11-01"


def test_a_partition_that_does_not_exist_is_answered_with_those_that_do(table):
    with pytest.raises(SettingsError) as caught:
        find(table, "id=1", "ds=2027-01-01")
    assert "there is no partition ds=2027-01-01" in str(caught.value)
    assert "2026-11-01" in str(caught.value)


def test_no_such_row(table):
    with pytest.raises(SettingsError) as caught:
        find(table, "id=1000")
    assert_golden("lookup_none", str(caught.value).replace(table, "TABLE"))


def test_near_keys_of_those_that_were_read(tmp_path):
    uri = str(tmp_path / "gaps")
    write_deltalake(uri, pa.table({"id": [10, 20, 40, 50], "name": ["anna", "berta", "carla", "dora"]}))
    with pytest.raises(SettingsError) as caught:
        find(uri, "id=30")
    assert caught.value.near == ("id=20", "id=40")
    with pytest.raises(SettingsError) as caught:
        find(uri, "name=berte")
    assert caught.value.near == ("name=berta",)


def test_several_rows(table):
    with pytest.raises(SettingsError) as caught:
        find(table, "name=n3", "ds=2026-11-01")
    assert_golden("lookup_several", str(caught.value).replace(table, "TABLE"))
    files, found = find(table, "name=n3", "prediction=" + repr(23 / 7))
    assert values(files, found)["id"] == 23


def test_an_older_version(table):
    write_deltalake(table, pa.table({"id": [157], "name": ["new"], "ds": [dt.date(2026, 11, 2)], "prediction": [9.0]}),
                    mode="overwrite", predicate="ds = '2026-11-02'")  # fmt: skip
    newest, _ = find(table, "id=157")
    assert newest.version == 3
    files, found = find(table, "id=157", version=2)
    assert values(files, found)["name"] == "n7"
    with pytest.raises(InputError) as caught:
        find(table, "id=157", version=9)
    assert caught.value.allowed == ("versions 0 to 3",)
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(InputError, match="lost a file that may hold the row"):
        find(table, "id=157", version=2)
    assert values(*find(table, "id=7", version=2))["name"] == "n7"


def test_deleted_rows_are_not_found(table):
    set_properties(table, ("deletionVectors",), delta__enableDeletionVectors="true")
    path = next(path for path in active_adds(table) if "11-02" in path)
    delete_rows(table, path, [57])
    with pytest.raises(SettingsError, match="no row of"):
        find(table, "id=157")
    files, found = find(table, "id=158")
    assert (values(files, found)["id"], found.place.position) == (158, 58)


def test_no_table(tmp_path):
    (tmp_path / "scores").mkdir()
    with pytest.raises(InputError, match="there is no Delta table") as caught:
        lookup.files_at(str(tmp_path / "scroes"))
    assert caught.value.near == (str(tmp_path / "scores"),)


def test_a_commit_and_its_run(table):
    commit = lookup.commit_of(table, 1)
    assert (commit.version, commit.run_id) == (1, "")
    assert commit.at.startswith("20")
    Path(table, "_delta_log", f"{1:020d}.json").unlink()
    assert lookup.commit_of(table, 1) is None


@pytest.mark.parametrize("stamp", ["100000000000000000000", "1e400", "NaN", "-9e18"])
def test_a_commit_at_no_time_is_damage(table, stamp):
    path = Path(table, "_delta_log", f"{1:020d}.json")
    text, count = re.subn(r'"timestamp":\d+', f'"timestamp":{stamp}', path.read_text())
    assert count
    path.write_text(text)
    with pytest.raises(InputError, match="is damaged") as caught:
        lookup.commit_of(table, 1)
    assert "which is no time" in str(caught.value.found)


# --- files --------------------------------------------------------------------------------------------------


def plain(path, table):
    columns = tuple(Column(name, kind) for name, kind in table)
    return FileSet(str(path), str(path), columns, (), (DataFile(str(path), ()),))


def test_other_row_groups_are_not_read(tmp_path):
    path = tmp_path / "groups.parquet"
    pq.write_table(pa.table({"id": list(range(100)), "x": [float(i) for i in range(100)]}), path, row_group_size=10)
    meta = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in (0, 1, 2, 4, 9):  # their pages are damaged: whoever reads them fails
        column = meta.row_group(group).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(data))
    files = plain(path, [("id", "long"), ("x", "double")])
    found = lookup.one_row(files, lookup.typed_keys(["id=35"], files.columns))
    assert (found.place.row_group, found.place.index, found.place.position) == (3, 5, 35)
    assert values(files, found) == {"id": 35, "x": 35.0}
    with pytest.raises(InputError):
        lookup.one_row(files, lookup.typed_keys(["id=45"], files.columns))


KINDS = {
    "tiny": "byte",
    "small": "short",
    "n": "integer",
    "x": "double",
    "name": "string",
    "ds": "date",
    "at": "timestamp",
    "wall": "timestamp_ntz",
    "price": "decimal(7,2)",
}


@pytest.mark.parametrize("name", KINDS)
def test_each_type_is_a_key(tmp_path, name):
    path, table = tmp_path / "types.parquet", every_type()
    pq.write_table(table, path)
    files = plain(path, [("id", "long"), *KINDS.items()])
    value, number = table[name][4].as_py(), table["id"][4].as_py()
    found = lookup.one_row(files, lookup.typed_keys([f"{name}={value}", f"id={number}"], files.columns))
    assert found.place.position == 4
    with pytest.raises(SettingsError, match="no row of"):
        lookup.one_row(files, lookup.typed_keys([f"{name}={value}", f"id={number + 1}"], files.columns))


def test_many_matches_are_not_counted_to_the_end(tmp_path):
    path = tmp_path / "same.parquet"
    pq.write_table(pa.table({"id": [7] * 1000}), path)
    files = plain(path, [("id", "long")])
    with pytest.raises(SettingsError, match="more than 10 rows"):
        lookup.one_row(files, lookup.typed_keys(["id=7"], files.columns))
