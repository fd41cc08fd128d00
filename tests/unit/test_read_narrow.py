"""A part of a pinned source is what pinning the part alone gives; damaged files are left out only where asked."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from batchscore.contracts import Restriction
from batchscore.errors import InputError, SettingsError
from batchscore.read import met, narrowed, only_dates, pin, restriction
from tests.factories.sources import write

DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")


@pytest.fixture
def parquet(tmp_path):
    root = tmp_path / "parquet"
    for number, day in enumerate(DAYS):
        for country in ("NO", "SE"):
            write(pa.table({"id": [number]}), root / f"ds={day}/country={country}/part-0.parquet")
    return root


@pytest.fixture
def delta(tmp_path):
    root = tmp_path / "delta"
    rows = {"id": [0, 1, 2], "ds": list(DAYS), "country": ["NO", "SE", "NO"]}
    write_deltalake(root, pa.table(rows), partition_by=["ds", "country"])
    return root


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_a_part_is_what_pinning_it_alone_gives(kind, request):
    root = request.getfixturevalue(kind)
    named = {"ds": (DAYS[0], DAYS[2]), "country": ("NO",)}
    alone = pin(str(root), restriction=Restriction(tuple(named.items())))
    part = narrowed(pin(str(root)), named)
    assert len(part.files) == 2
    assert part == alone
    assert narrowed(pin(str(root)), {}).snapshot == pin(str(root)).snapshot


def test_a_part_that_there_is_not(parquet):
    source = pin(str(parquet))
    with pytest.raises(InputError, match="2026-11-23 does not exist"):
        narrowed(source, {"ds": ("2026-11-23",)})
    with pytest.raises(SettingsError, match="no date"):
        narrowed(source, {"ds": ("soon",)})


def test_dates_of_which_there_are_none_leave_no_file(parquet):
    source = pin(str(parquet))
    assert [dict(file.partition)["ds"] for file in only_dates(source, "ds", [DAYS[1]]).files] == [DAYS[1]] * 2
    assert only_dates(source, "ds", ["2026-11-23"]).files == ()


def test_a_damaged_file_is_named_beside_the_others_where_that_is_asked_for(parquet):
    whole = pin(str(parquet))
    path = parquet / f"ds={DAYS[1]}/country=NO/part-0.parquet"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="part-0"):
        pin(str(parquet))
    source = pin(str(parquet), without_unreadable=True)
    (damaged,) = source.unreadable
    assert damaged.partition == (("ds", DAYS[1]), ("country", "NO"))
    assert damaged.path == str(path)
    assert str(path) in damaged.reason
    assert "bytes that do not end as Parquet does" in damaged.reason
    assert source.columns == whole.columns
    assert len(source.files) == len(whole.files) - 1
    others = {"ds": (DAYS[0], DAYS[2])}
    assert replace(narrowed(source, others), unreadable=()) == narrowed(whole, others)


def test_the_types_do_not_depend_on_who_is_damaged(tmp_path):
    for value in ("1", "2", "x"):
        path = write(pa.table({"id": [1]}), tmp_path / f"part={value}/a.parquet")
    path.write_bytes(b"PAR1")
    source = pin(str(tmp_path), without_unreadable=True)
    assert {column.name: column.type for column in source.columns}["part"] == "string"


def test_where_every_file_is_damaged_the_first_says_so(parquet):
    for path in parquet.rglob("*.parquet"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="an empty file"):
        pin(str(parquet), without_unreadable=True)


def left_by(root, where):
    """(day, country) of the files that a condition leaves."""
    source = pin(str(root))
    left = met(source, restriction({}, where, source))
    assert left.snapshot == source.snapshot
    return [tuple(dict(file.partition).values()) for file in left.files]


EVERY = [(day, country) for day in DAYS for country in ("NO", "SE")]


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("ds = '2026-11-21'", [(DAYS[1], "NO"), (DAYS[1], "SE")]),
        ("ds = '2026-11-21' AND id > 5", [(DAYS[1], "NO"), (DAYS[1], "SE")]),
        ("ds >= date '2026-11-21' AND country IN ('SE', 'DK')", [(DAYS[1], "SE"), (DAYS[2], "SE")]),
        ("NOT (ds = '2026-11-21' OR country = 'NO')", [(DAYS[0], "SE"), (DAYS[2], "SE")]),
        ("ds = '2026-11-20' AND id > 1 OR country = 'SE' AND ds > '2026-11-21'", [*EVERY[:2], EVERY[5]]),
        # Spark alone knows what the second part means; the first one is plain all the same.
        ("ds = '2026-11-22' AND upper(country) = 'NO'", EVERY[4:]),
        # What is not about the partition columns alone may be true of some row.
        ("ds = '2026-11-21' OR id > 5", EVERY),
        ("NOT (ds = '2026-11-21' AND id > 5)", EVERY),
        ("upper(country) = 'NO'", EVERY),
        ("id > 5", EVERY),
    ],
)
def test_a_condition_leaves_the_files_of_which_a_row_may_meet_it(parquet, where, left):
    assert left_by(parquet, where) == left


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("country <> 'NO'", ["SE"]),  # unknown of null
        ("NOT (country = 'NO')", ["SE"]),
        ("country IS NULL", [None]),
        ("country <=> null", [None]),
        ("country = 'NO' OR country IS NULL", [None, "NO"]),
    ],
)
def test_a_condition_that_is_unknown_of_null_leaves_no_file_of_it(tmp_path, where, left):
    for country in ("NO", "SE", "__HIVE_DEFAULT_PARTITION__"):
        write(pa.table({"id": [1]}), tmp_path / f"country={country}/part-0.parquet")
    assert sorted((found for (found,) in left_by(tmp_path, where)), key=str) == sorted(left, key=str)


def test_a_condition_is_compared_as_the_partition_columns_type_says(tmp_path):
    for hour in ("2", "10"):
        write(pa.table({"id": [1]}), tmp_path / f"hour={hour}/part-0.parquet")
    assert left_by(tmp_path, "hour > 9") == [("10",)]


def test_a_condition_on_a_table_without_partitions_leaves_all(tmp_path):
    path = write(pa.table({"id": [1]}), tmp_path / "a.parquet")
    assert left_by(path, "id > 5") == [()]


def test_a_condition_that_no_partition_meets_is_an_error_before_anything_is_read(parquet):
    source = pin(str(parquet))
    with pytest.raises(InputError, match="no row is left to score: --where leaves no partition"):
        met(source, restriction({}, "ds > '2026-12-01'", source))


def test_damaged_files_of_partitions_that_a_condition_leaves_out_do_not_count(parquet):
    for day in DAYS[:2]:
        (parquet / f"ds={day}/country=NO/part-0.parquet").write_bytes(b"")
    source = pin(str(parquet), without_unreadable=True)
    left = met(source, restriction({}, "ds = '2026-11-21'", source))
    assert [dict(file.partition)["ds"] for file in left.unreadable] == [DAYS[1]]
