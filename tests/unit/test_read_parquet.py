from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

from batchscore.contracts import And, Compare, Constant, IsIn, Restriction
from batchscore.errors import InputError, SettingsError, SetupError
from batchscore.read import pin, restriction
from tests.factories.sources import by_splits, every_type, write


def only(**partitions):
    return Restriction(partitions=tuple((name, tuple(values)) for name, values in partitions.items()))


def ids(source, chosen=None):
    return sorted(by_splits(source, chosen)["id"].to_pylist())


@pytest.fixture
def days(tmp_path):
    """Two days by two hours, one row each, and one day without an hour."""
    root = tmp_path / "days"
    for number, (day, hour) in enumerate(
        [("2026-11-21", "01"), ("2026-11-21", "02"), ("2026-11-22", "01"), ("2026-11-22", "__HIVE_DEFAULT_PARTITION__")]
    ):
        write(pa.table({"id": [number], "amount": [number / 2]}), root / f"ds={day}/hour={hour}/part-0.parquet")
    (root / "_SUCCESS").touch()
    (root / ".part-0.crc").touch()
    write(pa.table({"other": [1]}), root / "_staging/x.parquet")
    return root


def test_a_partition_column_may_begin_with_an_underscore(tmp_path):
    for day in ("2026-11-21", "2026-11-22"):
        write(pa.table({"id": [1]}), tmp_path / f"t/_ds={day}/part-0.parquet")
    write(pa.table({"other": [1]}), tmp_path / "t/_staging/x.parquet")
    source = pin(str(tmp_path / "t"))
    assert source.partition_columns == ("_ds",)
    assert len(source.files) == 2


def test_one_file(tmp_path):
    path = write(every_type(), tmp_path / "one.parquet", row_group_size=2)
    source = pin(str(path))
    assert (source.kind, source.uri, source.version, source.partition_columns) == ("parquet", str(path), None, ())
    (file,) = source.files
    assert (file.rows, file.row_groups, file.size) == (6, (2, 2, 2), path.stat().st_size)
    assert file.stamp.startswith(f"{path.stat().st_mtime_ns}:")
    assert repr(by_splits(source).to_pylist()) == repr(every_type().to_pylist())


def test_a_relative_path_and_a_file_uri(tmp_path, monkeypatch):
    write(pa.table({"id": [1]}), tmp_path / "data dir/one.parquet")
    monkeypatch.chdir(tmp_path)
    source = pin("data dir/one.parquet")
    assert source.uri == str(tmp_path / "data dir/one.parquet")
    assert ids(source) == [1]
    assert ids(pin((tmp_path / "data dir").as_uri())) == [1]


def test_hive_partitions(days):
    source = pin(str(days))
    assert source.partition_columns == ("ds", "hour")
    assert {c.name: c.type for c in source.columns} == {
        "id": "long",
        "amount": "double",
        "ds": "date",
        "hour": "integer",
    }
    assert [file.partition for file in source.files][:2] == [
        (("ds", "2026-11-21"), ("hour", "1")),
        (("ds", "2026-11-21"), ("hour", "2")),
    ]
    table = by_splits(source).sort_by("id")
    assert [str(value) for value in table["ds"]] == ["2026-11-21", "2026-11-21", "2026-11-22", "2026-11-22"]
    assert table["hour"].to_pylist() == [1, 2, 1, None]


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        ({"ds": ["2026-11-22"]}, [2, 3]),
        ({"ds": ["2026-11-22"], "hour": ["1"]}, [2]),
        ({"hour": ["01", "2"]}, [0, 1, 2]),
        ({"hour": [None]}, [3]),
        ({"HOUR": ["__HIVE_DEFAULT_PARTITION__"]}, [3]),
    ],
)
def test_pruning(days, partitions, expected):
    assert ids(pin(str(days), restriction=only(**partitions))) == expected


def test_a_partition_that_does_not_exist_is_named_with_near_ones(days):
    with pytest.raises(InputError, match="ds=2026-11-23 does not exist") as caught:
        pin(str(days), restriction=only(ds=["2026-11-23"]))
    assert set(caught.value.allowed) == {"2026-11-21", "2026-11-22"}
    assert caught.value.near
    with pytest.raises(InputError, match="has all of these values"):
        pin(str(days), restriction=only(ds=["2026-11-22"], hour=["2"]))
    with pytest.raises(SettingsError, match="does not have") as refused:
        pin(str(days), restriction=only(dss=["2026-11-22"]))
    assert refused.value.near == ("ds",)


def test_a_partition_on_a_plain_column_becomes_a_predicate(days):
    source = pin(str(days), restriction=only(id=["1", "3"]))
    assert len(source.files) == 4
    chosen = restriction({"id": ["1", "3"], "ds": ["2026-11-22"]}, "amount > 0.5", source)
    assert chosen.partitions == (("id", ("1", "3")), ("ds", ("2026-11-22",)))
    assert chosen.predicate == And(
        (
            IsIn("id", (Constant(1, "long"), Constant(3, "long"))),
            Compare("amount", ">", Constant("0.5", "decimal(1,1)")),
        )
    )
    assert ids(source, chosen) == [3]
    with pytest.raises(SettingsError, match="cannot select by column amount"):
        restriction({"amount": ["0.5"]}, None, source)


def test_a_where_for_spark_leaves_no_predicate(days):
    chosen = restriction({"id": ["1"]}, "id % 2 = 1", pin(str(days)))
    assert chosen.predicate is None
    assert chosen.where_reason


def test_a_filter_on_a_partition_column_and_its_null(days):
    source = pin(str(days))
    assert ids(source, restriction({}, "ds > '2026-11-21' and hour is null", source)) == [3]


def test_folders_of_partitions_with_odd_names(tmp_path):
    for index, folder in enumerate(["city=New%20York", "city=a%2Fb", "city=50%25"]):
        write(pa.table({"id": [index]}), tmp_path / f"t/{folder}/x.parquet")
    source = pin(str(tmp_path / "t"))
    assert {file.partition[0][1] for file in source.files} == {"New York", "a/b", "50%"}
    assert ids(pin(str(tmp_path / "t"), restriction=only(city=["a/b"]))) == [1]


def test_nested_folders_without_partitions(tmp_path):
    write(pa.table({"id": [1]}), tmp_path / "t/2026/a.parquet")
    write(pa.table({"id": [2]}), tmp_path / "t/2027/b")
    assert ids(pin(str(tmp_path / "t"))) == [1, 2]


def test_files_that_are_older_than_a_column_and_widened_types(tmp_path):
    write(pa.table({"id": pa.array([1], pa.int32()), "x": pa.array([0.5], pa.float32())}), tmp_path / "t/a.parquet")
    write(pa.table({"later": ["v"], "x": [0.1], "id": pa.array([2**40])}), tmp_path / "t/b.parquet")
    source = pin(str(tmp_path / "t"))
    assert {c.name: c.type for c in source.columns} == {"id": "long", "x": "double", "later": "string"}
    assert source.missing_ok == {"later"}
    assert by_splits(source).to_pylist() == [
        {"id": 1, "x": 0.5, "later": None},
        {"id": 2**40, "x": 0.1, "later": "v"},
    ]


@pytest.mark.parametrize(
    ("first", "second", "facts"),
    [
        ({"v": [1]}, {"v": ["x"]}, ("long", "string")),
        ({"v": [1]}, {"v": [0.5]}, ("long", "double")),
        ({"v": [1]}, {"V": [1]}, ("v", "V")),
    ],
)
def test_schemas_that_conflict(tmp_path, first, second, facts):
    write(pa.table(first), tmp_path / "t/a.parquet")
    write(pa.table(second), tmp_path / "t/b.parquet")
    with pytest.raises(InputError, match="is not the same in all files") as caught:
        pin(str(tmp_path / "t"))
    text = str(caught.value)
    assert "a.parquet" in text
    assert "b.parquet" in text
    assert all(fact in text for fact in facts)


@pytest.mark.parametrize("content", [b"", b"id,amount\n1,2\n" * 20, "truncated"], ids=["empty", "csv", "truncated"])
def test_a_bad_file_among_good_ones_is_named(tmp_path, content):
    good = write(pa.table({"id": range(1_000)}), tmp_path / "t/good.parquet")
    bad = tmp_path / "t/part-7.parquet"
    bad.write_bytes(good.read_bytes()[:2_000] if content == "truncated" else content)
    with pytest.raises(InputError, match=r"part-7\.parquet is not a Parquet file, or it is truncated"):
        pin(str(tmp_path / "t"))


def test_folders_of_different_layouts(tmp_path):
    write(pa.table({"id": [1]}), tmp_path / "t/ds=1/a.parquet")
    write(pa.table({"id": [1]}), tmp_path / "t/stray.parquet")
    with pytest.raises(InputError, match="not partitioned by the same columns") as caught:
        pin(str(tmp_path / "t"))
    assert "stray.parquet" in str(caught.value)


def test_nothing_there(tmp_path):
    (tmp_path / "transactions").mkdir()
    with pytest.raises(InputError, match="nothing is at") as caught:
        pin(str(tmp_path / "transaction"))
    assert caught.value.near == (str(tmp_path / "transactions"),)
    (tmp_path / "transactions/_SUCCESS").touch()
    with pytest.raises(InputError, match="holds no data files"):
        pin(str(tmp_path / "transactions"))
    write(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "transactions/a.parquet")
    with pytest.raises(InputError, match="has no rows"):
        pin(str(tmp_path / "transactions"))


def test_a_catalog_name_needs_spark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SetupError, match="needs Spark's catalog"):
        pin("sales.transactions")


@pytest.mark.parametrize("version", ["3", "2026-11-21"])
def test_versions_are_delta_s(days, version):
    with pytest.raises(SettingsError, match="needs a Delta table"):
        pin(str(days), version=version)
    with pytest.raises(InputError, match="is not a Delta table"):
        pin(str(days), format="delta")


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/x", "s3://bucket/x?secret_key=abc", "nope://x/y"])
def test_locations_that_are_refused(uri):
    with pytest.raises(SettingsError) as caught:
        pin(uri)
    assert "secret@" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_the_snapshot_changes_with_the_files_alone(days):
    first = pin(str(days))
    assert pin(str(days)).snapshot == first.snapshot
    assert pin(str(days), restriction=only(ds=["2026-11-21"])).snapshot != first.snapshot
    path = days / "ds=2026-11-22/hour=01/part-0.parquet"
    day = pin(str(days), restriction=only(ds=["2026-11-21"])).snapshot
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert pin(str(days)).snapshot != first.snapshot
    assert pin(str(days), restriction=only(ds=["2026-11-21"])).snapshot == day


def test_the_same_size_and_time_with_another_footer_is_another_snapshot(tmp_path):
    path = write(pa.table({"id": [1, 2]}), tmp_path / "a.parquet")
    stat = path.stat()
    first = pin(str(path))
    write(pa.table({"id": [1, 3]}), path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert pin(str(path)).snapshot != first.snapshot


def test_columns_of_types_without_a_name_may_stay_unread(tmp_path):
    table = pa.table(
        {"id": [1], "payload": [{"a": 1}], "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}
    )
    source = pin(str(write(table, tmp_path / "a.parquet")))
    assert [c.type.partition("(")[0] for c in source.columns] == ["long", "unsupported", "unsupported"]
    assert by_splits(source).to_pylist() == [{"id": 1}]


def test_pinning_a_path_loads_no_spark(tmp_path):
    path = write(pa.table({"id": [1]}), tmp_path / "a.parquet")
    code = (
        "import sys; from batchscore.read import pin; pin(sys.argv[1]);"
        "print([name for name in ('pyspark', 'mlflow', 'pandas', 'py4j') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
