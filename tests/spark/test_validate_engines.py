"""pandas and Spark must say the same of the same staged rows."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from batchscore.contracts import Check
from batchscore.errors import SettingsError
from batchscore.validate import judge, prepare
from tests import staged

pytestmark = pytest.mark.spark

NAN = float("nan")
ROWS = 10


def rows_of(offset: int) -> pa.Table:
    numbers = [offset + n for n in range(ROWS)]
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "big": pa.array([2**53 + 1 if n % 5 == 0 else None for n in numbers], pa.int64()),
            "score": pa.array([NAN if n == 13 else (None if n == 4 else n / 20) for n in numbers], pa.float64()),
            "small": pa.array([0.1 if n % 2 else NAN for n in numbers], pa.float32()),
            "text": pa.array([None if n % 7 == 0 else f"name-{n % 4}" for n in numbers]),
            "day": pa.array([dt.date(2026, 1, 1) + dt.timedelta(days=n) if n != 3 else None for n in numbers]),
            "at": pa.array(
                [dt.datetime(2026, 1, 1, n % 24, tzinfo=dt.UTC) for n in numbers], pa.timestamp("us", "UTC")
            ),
            "amount": pa.array([Decimal(n) / 4 if n != 6 else None for n in numbers], pa.decimal128(10, 2)),
            "huge": pa.array([Decimal(10**30 + n) for n in numbers], pa.decimal128(38, 0)),
            "flag": pa.array([None if n == 5 else n % 2 == 0 for n in numbers]),
            "prediction": pa.array([1.0] * ROWS),
        }
    )


FILES: staged.Files = [
    ("region=a%5B1%5D {x}/one.parquet", (("region", "a[1] {x}"),), rows_of(0)),
    ("region=b/two.parquet", (("region", "b"),), rows_of(10)),
    ("region=__HIVE_DEFAULT_PARTITION__/three.parquet", (("region", None),), rows_of(20)),
]


def between(column: str, low: object, high: object, **more: object) -> dict[str, object]:
    kwargs = {"column": column, "min_value": low, "max_value": high, **more}
    return {"type": "expect_column_values_to_be_between", "kwargs": kwargs}


def expect(kind: str, **kwargs: object) -> dict[str, object]:
    return {"type": f"expect_{kind}", "kwargs": kwargs}


def where(column: str, operator: str, parameter: object) -> dict[str, object]:
    return {"type": "comparison", "column": {"name": column}, "operator": operator, "parameter": parameter}


def greater(a: str, b: str, **more: object) -> dict[str, object]:
    kind = "column_pair_values_a_to_be_greater_than_b"
    return expect(kind, column_A=a, column_B=b, ignore_row_if=EITHER, **more)


EITHER, ANY = "either_value_is_missing", "any_value_is_missing"

# What both engines must say: the expectation, and whether it holds.
CASES = [
    (between("score", 0, 2), True),
    (between("score", 0.5, 2, mostly=0.5), True),
    (between("small", 0, 0.1), False),
    (between("small", 0.1, 1), True),
    (between("big", 2**53 + 2, None), False),
    (between("amount", 0, 7.25), True),
    (between("day", "2026-01-01", "2026-01-30"), True),
    (between("day", "2026-01-02", "2026-01-30"), False),
    (between("at", "2026-01-01 00:00:00", "2026-01-01 23:00:00"), True),
    (between("at", "2026-01-01 01:00:00", "2026-01-01 23:00:00"), False),
    (between("id", 0, 28), False),
    (between("score", 0, 0.45, row_condition=where("region", "==", "a[1] {x}")), True),
    (between("id", 10, 19, row_condition=where("region", "!=", "a[1] {x}")), True),
    (between("id", 0, 9, row_condition=where("region", "NOT_IN", ["b"])), True),
    (expect("column_values_to_not_be_null", column="score"), False),
    (expect("column_values_to_not_be_null", column="small"), False),
    (expect("column_values_to_not_be_null", column="score", mostly=0.9), True),
    (expect("column_values_to_be_null", column="big"), False),
    (expect("column_values_to_be_unique", column="text"), False),
    (expect("column_values_to_be_unique", column="huge"), True),
    (expect("column_values_to_be_unique", column="score"), True),
    (expect("column_values_to_be_in_set", column="text", value_set=[f"name-{n}" for n in range(4)]), True),
    (expect("column_values_to_be_in_set", column="text", value_set=["name-0"]), False),
    (expect("column_values_to_be_in_set", column="region", value_set=["a[1] {x}", "b"]), True),
    (expect("column_values_to_be_in_set", column="big", value_set=[2**53]), False),
    (expect("column_values_to_be_in_set", column="flag", value_set=[True, False]), True),
    (expect("column_values_to_be_in_set", column="flag", value_set=[True]), False),
    (expect("column_values_to_not_be_in_set", column="text", value_set=["name-9"]), True),
    (expect("column_values_to_match_regex", column="text", regex="^name-[0-3]$"), True),
    (expect("column_values_to_match_regex", column="text", regex="^name-[0-2]$"), False),
    (expect("column_value_lengths_to_be_between", column="text", min_value=7), False),
    (expect("column_distinct_values_to_be_in_set", column="text", value_set=[f"name-{n}" for n in range(4)]), True),
    (expect("column_distinct_values_to_contain_set", column="text", value_set=["name-8"]), False),
    (expect("column_distinct_values_to_equal_set", column="text", value_set=[f"name-{n}" for n in range(4)]), True),
    (expect("column_most_common_value_to_be_in_set", column="flag", value_set=[True]), True),
    (expect("column_min_to_be_between", column="score", min_value=0, max_value=0), True),
    (expect("column_max_to_be_between", column="score", min_value=1.45, max_value=1.45), True),
    (expect("column_mean_to_be_between", column="score", min_value=0.7, max_value=0.8), True),
    (expect("column_median_to_be_between", column="score", min_value=0.7, max_value=0.8), True),
    (expect("column_stdev_to_be_between", column="id", min_value=8.8, max_value=8.81), True),
    (expect("column_sum_to_be_between", column="id", min_value=435, max_value=435), True),
    (expect("column_sum_to_be_between", column="score", max_value=20), False),
    (expect("column_unique_value_count_to_be_between", column="score", min_value=28, max_value=28), True),
    (expect("column_proportion_of_unique_values_to_be_between", column="id", min_value=1), True),
    (expect("column_proportion_of_non_null_values_to_be_between", column="small", min_value=0.5, max_value=0.5), True),
    (expect("column_value_z_scores_to_be_less_than", column="id", threshold=3, double_sided=True), True),
    (expect("column_value_z_scores_to_be_less_than", column="score", threshold=1, double_sided=True), False),
    (expect("column_pair_values_to_be_equal", column_A="id", column_B="id", ignore_row_if=EITHER), True),
    (greater("id", "score", or_equal=True), True),
    (greater("score", "id"), False),
    (expect("multicolumn_sum_to_equal", column_list=["score", "small"], sum_total=9, ignore_row_if=ANY), False),
    (expect("column_values_to_be_in_set", column="day", value_set=["2026-01-01", "2026-01-05"]), False),
    (expect("column_values_to_be_in_set", column="day", value_set=[f"2026-01-{n:02}" for n in range(1, 31)]), True),
    (between("at", "2026-01-01", "2026-01-02"), True),
    (expect("compound_columns_to_be_unique", column_list=["id", "region"]), True),
    (expect("compound_columns_to_be_unique", column_list=["text", "flag"]), False),
    (expect("column_to_exist", column="region"), True),
    (expect("column_to_exist", column="nothing"), False),
    (expect("table_row_count_to_equal", value=30), True),
    (expect("table_row_count_to_be_between", min_value=31), False),
    (expect("table_column_count_to_equal", value=12), True),
    (expect("table_columns_to_match_set", column_set=["id", "region"], exact_match=False), True),
]  # fmt: skip


def judged(tmp_path: Path, spark, *, expectations: list[dict[str, object]], engine: str) -> list[Check]:
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({"name": "s", "expectations": expectations}), encoding="utf-8")
    root = tmp_path / "table [1]"
    plan = staged.judged_plan(root, FILES, partitions=(("region", "string"),))
    output = staged.stage(root, FILES)
    # A table that is already there: Spark must not mind that Parquet is read below a Delta log.
    (root / "_delta_log").mkdir(exist_ok=True)
    budget = 1 << 30 if engine == "pandas" else 0
    verdict = judge(plan, output, suite=str(path), spark=lambda: spark, memory_budget_bytes=budget)
    return [check for check in verdict.checks if check.name.startswith(("expect_", "every_", "unexpected_"))]


@pytest.fixture(scope="module")
def both(spark, tmp_path_factory):
    expectations = [case for case, _ in CASES]
    folder = tmp_path_factory.mktemp("judge")
    return {e: judged(folder, spark, expectations=expectations, engine=e) for e in ("pandas", "spark")}


def by_facts(checks: list[Check]) -> list[tuple[str, bool, int]]:
    return sorted((check.name, check.passed, check.unexpected) for check in checks)


def test_the_engines_agree_on_every_verdict_and_count(both):
    assert by_facts(both["pandas"]) == by_facts(both["spark"])


@pytest.mark.parametrize("engine", ["pandas", "spark"])
def test_the_verdicts_are_the_expected_ones(both, engine):
    assert len(both[engine]) == len(CASES)
    expected = sorted((case["type"], passed) for case, passed in CASES)
    found = sorted((check.name.partition("(")[0], check.passed) for check in both[engine])
    assert found == expected
    raised = [check for check in both[engine] if "could not be evaluated" in check.observed]
    assert raised == []


@pytest.mark.parametrize("engine", ["pandas", "spark"])
def test_a_planted_value_in_the_last_row_of_the_last_file_refuses(tmp_path, spark, engine):
    checks = judged(tmp_path, spark, expectations=[between("id", 0, 28)], engine=engine)
    assert [(c.passed, c.unexpected, c.sample) for c in checks] == [(False, 1, ("29",))]
    assert checks[0].name == "expect_column_values_to_be_between(id)"


@pytest.mark.parametrize("engine", ["pandas", "spark"])
def test_what_cannot_be_evaluated_is_a_failed_check(tmp_path, spark, engine):
    broken = expect("column_mean_to_be_between", column="text", min_value=0)
    (check,) = judged(tmp_path, spark, expectations=[broken], engine=engine)
    assert not check.passed
    assert "could not be evaluated" in check.observed


def test_sql_goes_to_spark(tmp_path, spark):
    query = {"unexpected_rows_query": "SELECT * FROM {batch} WHERE id > 28"}
    kind = "unexpected_rows_expectation"
    (check,) = judged(tmp_path, spark, expectations=[{"type": kind, "kwargs": query}], engine="pandas")
    assert not check.passed
    assert "could not" not in check.observed


def test_what_does_not_fit_without_spark_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({"expectations": [between("id", 0, 28)]}), encoding="utf-8")
    plan = staged.judged_plan(tmp_path, FILES, partitions=(("region", "string"),))
    with pytest.raises(SettingsError, match="needs Spark"):
        judge(plan, staged.stage(tmp_path, FILES), suite=str(path), spark=None, memory_budget_bytes=0)


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        (expect("column_values_to_be_beween", column="id"), "did you mean: expect_column_values_to_be_between"),
        (expect("column_values_to_be_between", column="id", min_valu=3), "do not fit"),
        (expect("column_values_to_be_unique"), "do not fit"),
        (between("id", 0, 1, row_condition="id > 3", condition_parser="pandas"), "one engine"),
        (between("id", 0, 1, row_condition="id > 3", condition_parser="spark"), "one engine"),
    ],
)
def test_what_great_expectations_would_drop_is_an_error(tmp_path, expectation, text):
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({"expectations": [between("id", 0, 1), expectation]}), encoding="utf-8")
    with pytest.raises(SettingsError, match=text):
        prepare(str(path))


def test_nothing_is_written_and_no_thread_is_left_to_send(tmp_path, spark, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    judged(tmp_path, spark, expectations=[between("id", 0, 28)], engine="pandas")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "suite.json", "table [1]"])


def test_what_is_left_out_of_great_expectations_judges_nothing():
    """The shortcuts are in place in the installed version, and decimals are still found where there can be any."""
    import decimal
    import importlib

    import numpy as np

    from batchscore.validate.expectations import _import

    _import()
    util = importlib.import_module("great_expectations.util")
    engine = importlib.import_module("great_expectations.execution_engine.pandas_execution_engine")
    assert util.does_ndarray_contain_decimal_dtype(np.array([1, decimal.Decimal("1.5")], dtype=object))
    assert not util.does_ndarray_contain_decimal_dtype(np.array([1.0, 2.0]))
    assert util.does_ndarray_contain_decimal_dtype.searched is not None
    assert engine.hash_pandas_dataframe(None) == ""
