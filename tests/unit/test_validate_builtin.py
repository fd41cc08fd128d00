from __future__ import annotations

import dataclasses
import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.contracts import Check, ReasonCount, Verdict
from batchscore.errors import UnavailableError
from batchscore.validate import judge
from tests import staged

N = 1000


def table(start: int = 0, rows: int = N, **columns: list[object] | pa.Array) -> pa.Table:
    ids = list(range(start, start + rows))
    return pa.table({"id": ids, "prediction": [0.5] * rows} | columns)


def judged(root, files, *, staged_output=None, **plan_facts) -> Verdict:
    plan = staged.judged_plan(root, files, **plan_facts)
    return judge(plan, staged_output or staged.stage(root, files), suite=None, spark=None)


def only_failed(verdict: Verdict) -> Check:
    assert not verdict.passed
    assert len(verdict.failed) == 1, verdict.failed
    return verdict.failed[0]


def with_last(values: list[object], last: object) -> list[object]:
    return [*values[:-1], last]


def test_good_output_passes_every_check(tmp_path):
    verdict = judged(tmp_path, [("a.parquet", (), table()), ("b.parquet", (), table(N))])
    assert verdict.passed
    assert [check.name for check in verdict.checks] == [
        "row_count_equals_input",
        "keys_not_null(id)",
        "predictions_finite(prediction)",
        "keys_unique(id)",
    ]
    assert verdict.checks[0].observed == "2000 rows"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_a_prediction_that_is_no_number_in_the_last_row_of_the_last_file(tmp_path, value, kind):
    bad = table(N, prediction=pa.array(with_last([0.5] * N, value), kind))
    good = table(prediction=pa.array([0.5] * N, kind))
    check = only_failed(judged(tmp_path, [("a.parquet", (), good), ("b.parquet", (), bad)]))
    assert check.name == "predictions_finite(prediction)"
    assert check.unexpected == 1
    assert check.sample == (f"id=1999: {value}",)


@pytest.mark.parametrize("last", [None, [0.5, float("nan")], [None, 0.5], [[0.1], [float("inf")]]])
def test_arrays_are_looked_into(tmp_path, last):
    nested = isinstance(last, list) and isinstance(last[0], list)
    good = [[0.1], [0.2]] if nested else [0.1, 0.2]
    kind = pa.list_(pa.list_(pa.float64())) if nested else pa.list_(pa.float64())
    values = pa.array(with_last([good] * (N - 1) + [[]], last), kind)
    check = only_failed(judged(tmp_path, [("a.parquet", (), table(prediction=values))]))
    assert check.unexpected == 1
    assert check.sample[0].startswith("id=999: ")


def test_good_arrays_and_empty_ones_pass(tmp_path):
    values = pa.array([[0.1, 0.2], []] * (N // 2), pa.list_(pa.float32()))
    assert judged(tmp_path, [("a.parquet", (), table(prediction=values))]).passed


def test_a_sample_is_bounded_and_the_count_is_not(tmp_path):
    values = [float("nan")] * N
    check = only_failed(judged(tmp_path, [("a.parquet", (), table(prediction=values))]))
    assert check.unexpected == N
    assert len(check.sample) == 10


@pytest.mark.parametrize(
    ("classes", "values"),
    [
        (("0", "1"), pa.array(with_last([0] * N, 2))),
        (("no", "yes"), pa.array(with_last(["no"] * N, "maybe"))),
        (("True",), pa.array(with_last([True] * N, False))),
    ],
)
def test_an_unknown_class(tmp_path, classes, values):
    check = only_failed(judged(tmp_path, [("a.parquet", (), table(prediction=values))], classes=classes))
    assert check.name == "classes_known(prediction)"
    assert check.unexpected == 1


def test_a_probability_is_not_taken_for_a_class(tmp_path):
    assert judged(tmp_path, [("a.parquet", (), table())], classes=("0", "1")).passed


def test_a_null_label_is_one_failure(tmp_path):
    values = pa.array(with_last(["no"] * N, None))
    check = only_failed(judged(tmp_path, [("a.parquet", (), table(prediction=values))], classes=("no",)))
    assert check.name == "predictions_not_null(prediction)"


def test_a_null_key(tmp_path):
    ids = pa.array(with_last(list(range(N)), None), pa.int64())
    check = only_failed(judged(tmp_path, [("a.parquet", (), table(id=ids))]))
    assert check.name == "keys_not_null(id)"


KEYS = {
    "int64": pa.array([2**53, 2**53 + 1, *range(N - 2)]),
    "string": pa.array([f"key-{n}" for n in range(N)]),
    "uuid": pa.array([f"{n:032x}" for n in range(N)]),
    "date": pa.array([dt.date(2000, 1, 1) + dt.timedelta(days=n) for n in range(N)]),
    "decimal": pa.array(range(N)).cast(pa.decimal128(38, 2)),
    "double": pa.array([n / 7 for n in range(N)]),
    "timestamp": pa.array(range(N)).cast(pa.timestamp("us", tz="UTC")),
    "binary": pa.array([str(n).encode() for n in range(N)]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_repeated_key_across_files(tmp_path, kind):
    first = pa.table({"id": KEYS[kind], "prediction": [0.5] * N})
    assert judged(tmp_path / "good", [("a.parquet", (), first)]).passed
    second = first.slice(N - 1)
    check = only_failed(judged(tmp_path / "bad", [("a.parquet", (), first), ("b.parquet", (), second)]))
    assert check.name == "keys_unique(id)"
    assert check.unexpected == 2
    assert check.sample == (f"id={KEYS[kind][N - 1].as_py()}: 2 rows",)


@pytest.mark.parametrize(("kind", "last"), [(pa.date32(), 2**31 - 1), (pa.timestamp("us", tz="UTC"), 2**63 - 1)])
def test_a_key_that_is_a_time_beyond_pythons_is_judged_and_shown(tmp_path, kind, last):
    numbers = pa.array(with_last(list(range(N)), last), pa.int32() if kind == pa.date32() else pa.int64())
    good = pa.table({"id": numbers.cast(kind), "prediction": [0.5] * N})
    assert judged(tmp_path / "good", [("a.parquet", (), good)]).passed
    twice = [("a.parquet", (), good), ("b.parquet", (), good.slice(N - 1))]
    check = only_failed(judged(tmp_path / "twice", twice))
    assert check.sample == (f"id=<value out of range: {last}>: 2 rows",)
    bad = good.set_column(1, "prediction", pa.array(with_last([0.5] * N, None), pa.float64()))
    check = only_failed(judged(tmp_path / "bad", [("a.parquet", (), bad)]))
    assert check.sample == (f"id=<value out of range: {last}>: None",)


def test_two_keys_of_which_one_is_a_partition(tmp_path):
    files = [
        ("ds=2026-11-20/a.parquet", (("ds", "2026-11-20"),), table()),
        ("ds=2026-11-21/b.parquet", (("ds", "2026-11-21"),), table()),
    ]
    facts = {"partitions": (("ds", "date"),), "keys": ("id", "ds")}
    assert judged(tmp_path / "good", files, **facts).passed
    files.append(("ds=2026-11-21/c.parquet", (("ds", "2026-11-21"),), table(7, 1)))
    check = only_failed(judged(tmp_path / "bad", files, **facts))
    assert check.sample == ("id=7, ds=2026-11-21: 2 rows",)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [("string", ("a b", "%/", None)), ("integer", ("1", "2", None)), ("boolean", ("true", "false", None)),
     ("timestamp", ("2026-01-01 00:00:00", "2026-01-01T00:00:01Z", None)), ("decimal(10,2)", ("1.50", "2.00", None))],
)  # fmt: skip
def test_partition_values_of_every_type_are_keys(tmp_path, kind, texts):
    files = [(f"{n}.parquet", (("p", text),), table()) for n, text in enumerate(texts[:2])]
    facts = {"partitions": (("p", kind),), "keys": ("id", "p")}
    assert judged(tmp_path / "two", files, **facts).passed
    files.append(("null.parquet", (("p", None),), table()))
    check = only_failed(judged(tmp_path / "null", files, **facts))
    assert (check.name, check.unexpected) == ("keys_not_null(p)", N)


def test_rows_that_were_lost_or_doubled(tmp_path):
    files = [("a.parquet", (), table()), ("b.parquet", (), table(N))]
    output = staged.stage(tmp_path, files)
    lost = dataclasses.replace(output, rows_read=output.rows_read + 1)
    check = only_failed(judged(tmp_path, files, staged_output=lost))
    assert check.name == "row_count_equals_input"
    assert "not quarantined: 2001" in check.observed


def test_a_file_that_holds_other_rows_than_its_task_said(tmp_path):
    files = [("a.parquet", (), table()), ("b.parquet", (), table(N))]
    output = staged.stage(tmp_path, files)
    staged.stage(tmp_path, [("b.parquet", (), table(N, N - 1))])
    check = only_failed(judged(tmp_path, files, staged_output=output))
    assert check.sample == ("b.parquet: 999 rows instead of 1000",)


def test_rows_that_were_bad_do_not_count_as_lost(tmp_path):
    files = [("a.parquet", (), table())]
    output = dataclasses.replace(
        staged.stage(tmp_path, files), rows_read=N + 8, rows_filtered=5, quarantined=(ReasonCount("cast", "x", 3),)
    )
    assert judged(tmp_path, files, staged_output=output).passed


@pytest.mark.parametrize(("expected", "passed"), [(N + 3, True), (N + 4, False), (-1, True)])
def test_rows_that_spark_passed_over_while_it_read(tmp_path, expected, passed):
    files = [("a.parquet", (), table())]
    output = dataclasses.replace(
        staged.stage(tmp_path, files), rows_read=N + 3, quarantined=(ReasonCount("cast", "x", 3),)
    )
    plan = dataclasses.replace(staged.judged_plan(tmp_path, files), route="dataframe", expected_rows=expected)
    verdict = judge(plan, output, suite=None, spark=None)
    assert verdict.passed == passed
    if not passed:
        assert "planned, not filtered and not quarantined: 1001" in only_failed(verdict).observed


def test_a_file_that_was_damaged_since_it_was_staged(tmp_path):
    files = [("a.parquet", (), table())]
    output = staged.stage(tmp_path, files)
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path, compression="none", use_dictionary=False, write_page_checksum=True)
    (file,) = output.files
    output = dataclasses.replace(output, files=(dataclasses.replace(file, size=path.stat().st_size),))
    assert judged(tmp_path, files, staged_output=output).passed
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 8] ^= 1  # another key, and no repeated one
    path.write_bytes(bytes(data))
    with pytest.raises(UnavailableError, match="cannot be read back"):
        judged(tmp_path, files, staged_output=output)


@pytest.mark.parametrize("fault", ["vanished", "truncated"])
def test_a_file_that_cannot_be_read_back(tmp_path, fault):
    files = [("a.parquet", (), table()), ("b.parquet", (), table(N))]
    output = staged.stage(tmp_path, files)
    path = tmp_path / "b.parquet"
    path.unlink() if fault == "vanished" else path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnavailableError, match="cannot be read back"):
        judged(tmp_path, files, staged_output=output)
