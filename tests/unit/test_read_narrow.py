"""A part of a pinned source is what pinning the part alone gives; damaged files are left out only where asked."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from batchscore.contracts import Restriction
from batchscore.errors import InputError, SettingsError
from batchscore.read import narrowed, only_dates, pin
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
