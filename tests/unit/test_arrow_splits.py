from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from batchscore.arrow.footers import read_footer
from batchscore.arrow.splits import read_split
from batchscore.arrow.types import arrow_schema
from batchscore.contracts import Column, Compare, Constant, SourceFile, Split
from batchscore.errors import InputError
from batchscore.plan.splitting import joined, make_tasks
from tests.factories.sources import BIG, every_type, write


def wall(*parts):
    return dt.datetime(*parts)  # noqa: DTZ001  # wall-clock time has no zone


def whole(path, **facts):
    return Split(str(path), -1, None, facts.pop("partition", ()), 0, **facts)


def read(path, columns, predicate=None, batch_rows=1_000, **facts):
    columns = tuple(Column(name, kind) for name, kind in columns.items())
    batches = list(read_split(whole(path, **facts), str(path.parent), columns, predicate, batch_rows))
    return pa.Table.from_batches(batches, arrow_schema(columns))


def test_every_type_comes_back_as_written(tmp_path):
    table = every_type()
    path = write(table, tmp_path / "a.parquet")
    kinds = {c.name: c.type for c in read_footer_columns(path)}
    found = read(path, kinds)
    assert repr(found.to_pylist()) == repr(table.to_pylist())  # repr: NaN is NaN, -0.0 is not 0.0
    assert found["id"][0].as_py() == BIG


def read_footer_columns(path):
    filesystem = pa.fs.LocalFileSystem()
    return read_footer(filesystem, str(path)).columns


def test_only_the_asked_columns_in_the_asked_order(tmp_path):
    path = write(pa.table({"a": [1], "b": [2], "c": [3]}), tmp_path / "a.parquet")
    assert read(path, {"c": "long", "a": "long"}).to_pylist() == [{"c": 3, "a": 1}]


def test_batches_and_row_groups(tmp_path):
    path = write(pa.table({"a": range(100)}), tmp_path / "a.parquet", row_group_size=10)
    split = Split(str(path), 20, (1, 7), (), 0)
    batches = list(read_split(split, str(tmp_path), (Column("a", "long"),), None, 8))
    assert all(0 < batch.num_rows <= 8 for batch in batches)
    assert [value for batch in batches for value in batch["a"].to_pylist()] == [*range(10, 20), *range(70, 80)]


@pytest.mark.parametrize("group_rows", [1_501, 5_001, 20_003])
def test_which_rows_are_a_batch_does_not_hang_on_how_tasks_are_cut(tmp_path, group_rows):
    """A matrix product rounds the last rows of a batch otherwise: other batches would give other last bits."""
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"x": range(100_000)}), path, row_group_size=group_rows)
    groups = read_footer(pa.fs.LocalFileSystem(), str(path)).row_groups
    file = SourceFile(str(path), path.stat().st_size, "", 100_000, groups)

    def batches(cores, speed):
        tasks = joined(make_tasks([file], cores=cores, rows_per_task=10_000), cores=cores, rows_per_second=speed)
        splits = [replace(split, file_size=-1, stamp="") for task in tasks for split in task]
        read = (read_split(split, str(tmp_path), (Column("x", "long"),), None, 7_000) for split in splits)
        return [(batch.column("x")[0].as_py(), batch.num_rows) for split in read for batch in split]

    expected = batches(1, 1e9)
    assert sum(rows for _, rows in expected) == 100_000
    for cores in (2, 3, 7):
        for speed in (1.0, 1e5):
            assert batches(cores, speed) == expected


def test_partition_values_are_columns(tmp_path):
    path = write(pa.table({"a": [1, 2], "ds": ["lies", "lies"]}), tmp_path / "a.parquet")
    partition = (("ds", "2026-11-21"), ("hour", "7"), ("city", None), ("at", "2026-11-21 06:00:00"))
    found = read(
        path, {"ds": "date", "a": "long", "hour": "integer", "city": "string", "at": "timestamp"}, partition=partition
    )
    moment = dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC)
    expected = {"ds": dt.date(2026, 11, 21), "hour": 7, "city": None, "at": moment}
    assert found.to_pylist() == [{"ds": expected["ds"], "a": n, **expected} for n in (1, 2)]


def test_constants_alone_read_no_data(tmp_path):
    path = write(pa.table({"a": range(10)}), tmp_path / "a.parquet", row_group_size=4)
    found = read(path, {"ds": "string"}, partition=(("ds", "x"),), batch_rows=3)
    assert found["ds"].to_pylist() == ["x"] * 10
    counted = list(read_split(whole(path), str(tmp_path), (), None, 3))
    assert [batch.num_rows for batch in counted] == [3, 3, 3, 1]


def test_a_column_that_the_file_lacks_is_null(tmp_path):
    path = write(pa.table({"a": [1]}), tmp_path / "a.parquet")
    assert read(path, {"a": "long", "later": "array<double>"}).to_pylist() == [{"a": 1, "later": None}]


def test_a_column_that_differs_in_case_is_found_as_spark_does(tmp_path):
    path = write(pa.table({"Amount": [1]}), tmp_path / "a.parquet")
    assert read(path, {"amount": "long"}).to_pylist() == [{"amount": 1}]


@pytest.mark.parametrize(
    ("stored", "kind", "expected"),
    [
        (pa.array([2**31 - 1], pa.int32()), "long", 2**31 - 1),
        (pa.array([127], pa.int8()), "double", 127.0),
        (pa.array([0.1], pa.float32()), "double", 0.10000000149011612),
        (pa.array([5], pa.int32()), "decimal(12,2)", Decimal("5.00")),
        (pa.array([Decimal("1.5")], pa.decimal128(3, 1)), "decimal(8,3)", Decimal("1.500")),
        (pa.array([dt.date(2026, 1, 2)], pa.date32()), "timestamp_ntz", wall(2026, 1, 2)),
        (pa.array([2**64 - 1], pa.uint64()), "decimal(20,0)", Decimal(2**64 - 1)),
        (pa.array([255], pa.uint8()), "short", 255),
        (pa.array([2**32 - 1], pa.uint32()), "long", 2**32 - 1),
        (pa.array(["x"], pa.large_string()), "string", "x"),
        (pa.array(["x"], pa.large_string()).dictionary_encode(), "string", "x"),
        (pa.array([[1, 2]], pa.large_list(pa.int64())), "array<long>", [1, 2]),
        (pa.array([1_000], pa.timestamp("ns")), "timestamp_ntz", wall(1970, 1, 1, 0, 0, 0, 1)),
        (
            pa.array([1_000], pa.timestamp("ns", "Europe/Berlin")),
            "timestamp",
            dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
        ),
    ],
)
def test_widened_and_foreign_types(tmp_path, stored, kind, expected):
    path = write(pa.table({"v": stored}), tmp_path / "a.parquet")
    found = read(path, {"v": kind})
    assert found["v"].to_pylist() == [expected]


def test_spark_s_own_timestamps_are_instants(tmp_path):
    moment = dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"at": pa.array([moment], pa.timestamp("us"))}), path, use_deprecated_int96_timestamps=True)
    assert read_footer_columns(path)[0].type == "timestamp"
    assert read(path, {"at": "timestamp"})["at"].to_pylist() == [moment]


def test_nanoseconds_that_would_be_lost_are_an_error(tmp_path):
    path = write(pa.table({"v": pa.array([1_001], pa.timestamp("ns"))}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet holds a value finer"):
        read(path, {"v": "timestamp_ntz"})


def test_a_type_that_does_not_widen_is_an_error(tmp_path):
    path = write(pa.table({"v": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"column v of .*a\.parquet does not fit") as caught:
        read(path, {"v": "long"})
    assert caught.value.found == "string"


def test_the_predicate_keeps_rows_and_drops_empty_batches(tmp_path):
    path = write(pa.table({"a": range(100)}), tmp_path / "a.parquet")
    keep = Compare("a", ">=", Constant(95, "integer"))
    seen: list[int] = []
    batches = list(read_split(whole(path), str(tmp_path), (Column("a", "long"),), keep, 10, on_rows=seen.append))
    assert [batch.num_rows for batch in batches] == [5]
    assert seen == [10] * 10


def test_a_predicate_on_a_partition_value(tmp_path):
    path = write(pa.table({"a": [1]}), tmp_path / "a.parquet")
    keep = Compare("ds", ">", Constant("2026-11-21", "date"))
    for day, rows in (("2026-11-21", 0), ("2026-11-22", 1)):
        assert read(path, {"a": "long", "ds": "date"}, keep, partition=(("ds", day),)).num_rows == rows


def damaged_page(raw):
    return raw[:4] + bytes(200) + raw[204:]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda _: b"", lambda _: b"id,amount\n1,2\n", damaged_page]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = write(pa.table({"a": [index * 7919 % 10_007 for index in range(5_000)]}), tmp_path / "a.parquet")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"a\.parquet"):
        read(path, {"a": "long"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.parquet is no longer there"):
        read(tmp_path / "a.parquet", {"a": "long"})


def test_a_file_that_changed_since_it_was_pinned_is_an_error(tmp_path):
    path = write(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    footer = read_footer(pa.fs.LocalFileSystem(), str(path))
    facts = {"file_size": footer.size, "stamp": f"{path.stat().st_mtime_ns}:{footer.digest}"}
    assert read(path, {"a": "long"}, **facts).num_rows == 2
    other_time = {**facts, "stamp": f"12345:{footer.digest}"}
    with pytest.raises(InputError, match=r"changed after planning\n  found: another modification time"):
        read(path, {"a": "long"}, **other_time)
    write(pa.table({"a": [1, 3]}), path)
    os.utime(path, ns=(0, int(facts["stamp"].partition(":")[0])))
    assert path.stat().st_size == footer.size
    with pytest.raises(InputError, match="changed after planning"):
        read(path, {"a": "long"}, **facts)
    write(pa.table({"a": [1, 3, 4]}), path)
    with pytest.raises(InputError, match="bytes instead of"):
        read(path, {"a": "long"}, file_size=footer.size)
    split = Split(str(path), 2, None, (), 0)
    with pytest.raises(InputError, match="3 rows instead of 2"):
        list(read_split(split, str(tmp_path), (Column("a", "long"),), None, 10))


PEAK = """
import sys
from batchscore.arrow.splits import read_split
from batchscore.contracts import Column, Split
columns = tuple(Column(f"c{index}", "double") for index in range(5))
for _ in read_split(Split(sys.argv[1], -1, None, (), 0), "/", columns, None, 16_384):
    pass
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_a_row_group(tmp_path):
    peaks = []
    for rows in (100_000, 2_000_000):  # 4 MB and 80 MB in one row group
        values = pa.array(range(rows), pa.float64())
        path = write(
            pa.table({f"c{index}": values for index in range(5)}),
            tmp_path / f"{rows}.parquet",
            row_group_size=rows,
            use_dictionary=False,
            compression="none",
        )
        done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) >> 10)
    assert peaks[1] - peaks[0] < 25, f"peak resident MiB: {peaks}"


LIGHT = """
import sys
from batchscore.arrow.splits import read_split
from batchscore.contracts import Column, Compare, Constant, SourceFile, Split
columns = (Column("a", "long"), Column("x", "double"), Column("ds", "date"), Column("later", "string"))
split = Split(sys.argv[1], -1, None, (("ds", "2026-11-21"),), 0)
keep = Compare("x", ">=", Constant("0.5", "decimal(2,1)"))
print([batch.num_rows for batch in read_split(split, "/", columns, keep, 10)])
print([name for name in ("pandas", "pyspark", "mlflow", "sqlglot", "deltalake") if name in sys.modules])
"""


def test_a_worker_that_reads_loads_nothing_heavy(tmp_path):
    path = write(pa.table({"a": [1, 2], "x": [0.1, 0.9]}), tmp_path / "a.parquet")
    done = subprocess.run([sys.executable, "-c", LIGHT, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[1]", "[]"]


def test_text_stays_a_dictionary_where_the_file_has_one_in_each_row_group(tmp_path):
    text = ["b", None, "a", "b"] * 5
    table = pa.table({"a": text, "b": text, "n": range(20)})
    columns = tuple(Column(name, kind) for name, kind in {"b": "string", "n": "long", "a": "string"}.items())
    coded = write(table, tmp_path / "a.parquet", row_group_size=8, use_dictionary=["a", "b"])
    batches = list(read_split(whole(coded), str(tmp_path), columns, None, 5, coded={"a"}))
    assert all(pa.types.is_dictionary(batch.column("a").type) for batch in batches)
    assert all(batch.schema.names == ["b", "n", "a"] for batch in batches)
    assert [value for batch in batches for value in batch.column("a").to_pylist()] == text
    assert all(batch.column("b").type == pa.string() for batch in batches)
    plain = write(table, tmp_path / "b.parquet", row_group_size=8, use_dictionary=["b"])
    [batch, *_] = read_split(whole(plain), str(tmp_path), columns, None, 5, coded={"a"})
    assert batch.column("a").type == pa.string()


def test_a_partition_column_and_an_absent_one_are_no_dictionaries(tmp_path):
    path = write(pa.table({"n": [1, 2]}), tmp_path / "a.parquet")
    columns = (Column("n", "long"), Column("day", "string"), Column("none", "string"))
    split = whole(path, partition=(("day", "x"),))
    [batch] = read_split(split, str(tmp_path), columns, None, 5, coded={"day", "none"})
    assert batch.to_pylist() == [{"n": 1, "day": "x", "none": None}, {"n": 2, "day": "x", "none": None}]


def test_a_page_that_is_not_what_was_written_is_noticed_where_the_file_has_checksums(tmp_path):
    table, path = pa.table({"a": pa.array(range(1_000, 2_000), pa.int64())}), tmp_path / "a.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    place = data.index((1_500).to_bytes(8, "little"))
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"a\.parquet") as caught:
        read(path, {"a": "long"})
    assert "CRC" in caught.value.text()
