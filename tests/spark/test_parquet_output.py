"""A Parquet output made through Spark, and read as docs/reading.md says."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

import batchscore
from batchscore import pipeline
from batchscore.config import JobConfig
from batchscore.contracts import OutputColumn, RunOptions
from tests.conftest import ROOT
from tests.factories.staging import COLUMNS, day, publish_run

pytestmark = pytest.mark.spark
DAYS = ("2026-11-01", "2026-11-02", "2026-11-03")
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/reading.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear") / "model"
    frame = pd.DataFrame({"amount": np.arange(20.0)})
    fitted = LinearRegression().fit(frame, frame["amount"] * 0.01)
    mlflow.sklearn.save_model(
        fitted,
        folder,
        signature=infer_signature(frame, fitted.predict(frame)),
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
    return str(folder)


def write_input(folder, days=DAYS, factor=1.0):
    for number, value in enumerate(days):
        path = Path(folder) / f"ds={value}"
        path.mkdir(parents=True, exist_ok=True)
        ids = np.arange(50) + 100 * number
        pq.write_table(pa.table({"transaction_id": ids, "amount": ids * factor}), path / "part-0.parquet")


def run(model, folder, runner="spark", output_format="parquet", **changes):
    settings = {
        "model": {"name": model},
        "registry": {"allowed_paths": [model]},
        "input": {"path": str(folder / "transactions"), **changes.pop("input", {})},
        "output": {
            "path": str(folder / "predictions" / "fraud_detection"),
            "format": output_format,
            "keys": ["transaction_id"],
            **changes.pop("output", {}),
        },
        "scoring": {"runner": runner, "engine": "pyfunc"},
        "spark": {"master": "local[2]"},
    }
    return pipeline.run(JobConfig.model_validate(settings), RunOptions(**changes))


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    """A job of which one day was scored twice."""
    folder = tmp_path_factory.mktemp("published")
    write_input(folder / "transactions")
    first = run(model, folder)
    write_input(folder / "transactions", DAYS[:1], factor=2.0)
    second = run(model, folder)
    return folder, first, second


def test_a_run_a_rerun_and_a_changed_day_through_spark(spark, model, published):
    folder, first, second = published
    assert (first.state, first.rows, first.units_published) == ("published", 150, 3)
    assert (second.state, second.rows, second.units_published, second.units_live) == ("published", 50, 1, 2)
    again = run(model, folder)
    assert (again.state, again.rows, again.table_version) == ("skipped", 0, -1)
    local = run(model, folder, runner="local")
    assert local.state == "skipped"


def test_both_formats_hold_the_same_rows(spark, model, published, tmp_path):
    folder, _, _ = published
    delta = run(model, folder, output_format="delta", output={"path": str(tmp_path / "delta")})
    rows = [
        batchscore.read_predictions(str(path), columns=["transaction_id", "ds", "prediction"]).sort_by("transaction_id")
        for path in (tmp_path / "delta", folder / "predictions" / "fraud_detection")
    ]
    assert delta.rows == len(rows[0]) == 150
    assert rows[0].equals(rows[1])


def test_the_dataframe_route(spark, model, published, tmp_path):
    """A condition that only Spark evaluates: rows come through mapInArrow."""
    folder, _, _ = published
    done = run(
        model,
        folder,
        input={"where": "cast(amount as string) like '1%'"},
        output={"path": str(tmp_path / "like")},
    )
    found = batchscore.read_predictions(str(tmp_path / "like"))
    assert done.rows == len(found) > 0
    assert set(map(str, found["ds"].to_pylist())) <= set(DAYS)


def expected(folder):
    found = batchscore.read_predictions(str(folder / "predictions" / "fraud_detection"))
    return sorted(
        (row["transaction_id"], str(row["ds"]), row["prediction"], row["_run_id"]) for row in found.to_pylist()
    )


def as_rows(scores):
    """The rows of any library's frame, in one form."""
    if hasattr(scores, "fetchall"):
        scores = scores.df()
    if hasattr(scores, "toPandas"):
        scores = scores.toPandas()
    if isinstance(scores, pa.Table):
        scores = scores.to_pandas()
    names = ["transaction_id", "ds", "prediction", "_run_id"]
    return sorted((a, str(b)[:10], c, d) for a, b, c, d in scores[names].itertuples(index=False))


def test_docs_reading_says_how(spark, published):
    folder, first, _ = published
    table = str(folder / "predictions" / "fraud_detection")  # the session's JVM keeps the folder it was started in
    names = {"spark": spark}
    seen = 0
    for block in BLOCKS:
        if "duckdb" in block and not _there("duckdb"):
            continue
        exec(block.replace("predictions/fraud_detection", table), names)  # noqa: S102  # the project's own documentation
        if "version=0" in block:
            found = names["scores"]
            assert found.column_names == ["transaction_id", "prediction"]
            assert len(found) == sum(row > 0.5 for row in found["prediction"].to_pylist()) > 0
        elif "scores =" in block:
            assert as_rows(names["scores"]) == expected(folder), block
            seen += 1
    assert seen >= 3
    assert len(names["november"]) == len(names["files"]) == 3
    assert first.run_id in names["files"][0] or first.run_id in names["files"][1]


def _there(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def test_spark_reads_types_nulls_and_odd_values_from_the_files(spark, tmp_path):
    import json

    types = {
        "a": ("byte", "-1"),
        "b": ("boolean", "true"),
        "c": ("decimal(10,2)", "1.20"),
        "d": ("timestamp_ntz", "2026-01-01 10:00:00.000001"),
        "e": ("string", "a b/50%=" + "x" * 300),
        "f": ("timestamp", "2026-01-01T10:00:00.000001Z"),
    }
    columns = (
        COLUMNS[0],
        *(OutputColumn(name, kind, "source", name) for name, (kind, _) in types.items()),
        *COLUMNS[2:],
    )
    units = {
        tuple((name, value) for name, (_, value) in types.items()): "k",
        tuple((name, None) for name in types): "k",
    }
    table = tmp_path / "parquet"
    publish_run(table, "r1", units, columns=columns, partition_by=tuple(types))
    pointer = json.loads((table / "_batchscore/current.json").read_text())
    files = [str(table / file["path"]) for file in pointer["files"]]
    frame = spark.read.schema(pointer["spark_schema"]).parquet(*files)
    condition = (
        "a = -1 AND b AND c = 1.20 AND d = TIMESTAMP_NTZ'2026-01-01 10:00:00.000001' "
        f"AND e = '{types['e'][1]}' AND f = TIMESTAMP'2026-01-01 10:00:00.000001'"
    )
    assert frame.where(condition).count() == 2
    assert frame.where("a IS NULL AND b IS NULL AND e IS NULL AND f IS NULL").count() == 2
    assert [(name, kind) for name, kind in frame.dtypes if name in types] == [
        ("a", "tinyint"), ("b", "boolean"), ("c", "decimal(10,2)"), ("d", "timestamp_ntz"), ("e", "string"),
        ("f", "timestamp"),
    ]  # fmt: skip


def test_a_folder_read_finds_nothing_rather_than_a_mix(spark, published, tmp_path):
    folder, _, _ = published
    with pytest.raises(Exception, match="UNABLE_TO_INFER_SCHEMA"):
        spark.read.parquet(str(folder / "predictions" / "fraud_detection"))


def test_an_evolved_table_in_spark(spark, tmp_path):
    import json

    table = tmp_path / "parquet"
    publish_run(table, "r1", {day("2026-01-01"): "k", day("2026-01-02"): "k"})
    more = (*COLUMNS, OutputColumn("extra", "array<double>", "source", "extra"))
    publish_run(table, "r2", {day("2026-01-01"): "n"}, columns=more, evolve_schema=True)
    pointer = json.loads((table / "_batchscore/current.json").read_text())
    frame = spark.read.schema(pointer["spark_schema"]).parquet(*(str(table / f["path"]) for f in pointer["files"]))
    assert frame.count() == 4
    assert frame.where("extra IS NULL").count() == 4
    assert frame.columns == ["id", "ds", "prediction", "_run_id", "extra"]
