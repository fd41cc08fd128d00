from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pyarrow as pa
import pytest

from batchscore.errors import SettingsError
from batchscore.validate import check_columns, load_suite, may_need_spark
from batchscore.validate.suite import needs_all_columns, suite_columns
from tests import staged

BETWEEN = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "prediction", "min_value": 0}}


def written(tmp_path, content: object) -> str:
    path = tmp_path / "suite.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_suite_is_read_without_importing_great_expectations(tmp_path):
    path = written(tmp_path, {"name": "s", "expectations": [BETWEEN]})
    code = (
        "import sys; from batchscore.validate import load_suite, check_columns; "
        f"check_columns(load_suite({path!r}), ['prediction']); "
        "print([m for m in ('great_expectations', 'pandas', 'pyspark') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is not JSON"),
        ([], "has no list 'expectations'"),
        ({"expectations": {}}, "has no list 'expectations'"),
        ({"expectations": []}, "is empty"),
        ({"expectations": ["x"]}, "expectation 1 of"),
        ({"expectations": [BETWEEN, {"kwargs": {}}]}, "expectation 2 of"),
        ({"expectations": [{"type": "expect_column_to_exist", "kwargs": []}]}, "no object"),
        ({"expectations": [{"type": "expect_column_values_to_be_of_type", "kwargs": {}}]}, "engine's own type names"),
        ({"expectations": [{"type": "expect_multicolumn_sum_to_equal", "kwargs": {}}]}, "missing value means"),
    ],
)
def test_a_damaged_suite_is_refused(tmp_path, content, text):
    with pytest.raises(SettingsError, match=text):
        load_suite(written(tmp_path, content))


def test_a_missing_suite_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_suite(str(tmp_path / "none.json"))


def test_columns_of_conditions_and_lists_are_found():
    suite = {
        "expectations": [
            BETWEEN,
            {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["id", "ds"]}},
            {"type": "t", "kwargs": {"column_A": "a", "column_B": "b", "row_condition": 'col("c") == 1'}},
            {
                "expectation_type": "t",
                "kwargs": {
                    "row_condition": {
                        "type": "and",
                        "conditions": [{"type": "nullity", "column": {"name": "d"}, "is_null": True}],
                    }
                },
            },
        ]
    }
    assert suite_columns(suite) == ("prediction", "id", "ds", "a", "b", "c", "d")
    assert not needs_all_columns(suite)


def test_an_unknown_column_is_named_with_its_neighbour():
    with pytest.raises(SettingsError, match="did you mean: prediction"):
        check_columns({"expectations": [BETWEEN]}, ["id", "prediction2"])
    with pytest.raises(SettingsError, match="prediction"):
        check_columns({"expectations": [BETWEEN]}, ["id"])
    check_columns({"expectations": [BETWEEN]}, ["id", "prediction"])


def test_great_expectations_is_there_for_an_interpreter_without_a_main_file():
    """Its import of Spark Connect would end the process with exit code 0."""
    code = (
        "import sys; from batchscore.validate import expectations; main = sys.modules['__main__']; "
        "assert not hasattr(main, '__file__') and main.__spec__ is None; "
        "print(expectations._import().__name__); assert not hasattr(main, '__file__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "great_expectations\n"), done.stderr


@pytest.mark.parametrize(
    ("rows", "kind", "expected"),
    [
        (1_000, "expect_column_values_to_not_be_null", False),
        (100_000_000, "expect_column_values_to_not_be_null", True),
        (-1, "expect_column_values_to_not_be_null", True),
        (1_000, "unexpected_rows_expectation", True),
    ],
)
def test_whether_spark_may_have_to_judge_is_told_before(tmp_path, rows, kind, expected):
    path = tmp_path / "suite.json"
    kwargs = {"unexpected_rows_query": "SELECT 1"} if kind.startswith("unexpected") else {"column": "prediction"}
    path.write_text(json.dumps({"expectations": [{"type": kind, "kwargs": kwargs}]}))
    files = [("a.parquet", (), pa.table({"id": [1], "prediction": [0.5]}))]
    plan = dataclasses.replace(staged.judged_plan(tmp_path, files), most_rows=rows)
    assert may_need_spark(plan, str(path)) is expected
    assert not may_need_spark(plan, None)


LEAN = """
import json, sys
import pandas as pd
from batchscore.validate import expectations
if sys.argv[1] == "lean":
    expectations.leave_out(spark=True)
weights = {"values": ["a", "b"], "weights": [0.5, 0.5]}
suite = {"expectations": [
    {"type": "expect_column_kl_divergence_to_be_less_than",
     "kwargs": {"column": "c", "partition_object": weights, "threshold": 0.1}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0, "max_value": 2}},
    {"type": "expect_column_stdev_to_be_between", "kwargs": {"column": "x", "max_value": 9}},
]}
thread = expectations.warm()
thread.join()
unused = [name for name in ("sqlalchemy", "pyspark", "altair.vegalite", "scipy.stats._stats_py") if name in sys.modules]
frame = pd.DataFrame({"c": ["a", "b", "b"], "x": [1.0, 2.0, 3.0]})
checks = expectations.evaluate_pandas(suite, (), frame)
import sqlalchemy, scipy.stats, threading  # nothing stays hidden or half loaded
print(json.dumps([unused, [[check.name, check.passed, check.observed] for check in checks],
                  scipy.stats.norm.cdf(0.0), threading.current_thread().name]))
"""


def test_what_is_left_out_of_the_import_changes_no_verdict(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LEAN, encoding="utf-8")
    found = {}
    for kind in ("lean", "whole"):
        done = subprocess.run([sys.executable, script, kind], capture_output=True, text=True, check=True, timeout=120)
        found[kind] = json.loads(done.stdout)
    assert found["lean"][0] == []
    assert found["whole"][0][:2] == ["sqlalchemy", "pyspark"]
    assert found["lean"][1:] == found["whole"][1:]
    assert [passed for _, passed, _ in found["lean"][1]] == [True, False, True]
