"""The comparison of candidates: its values, its table and chart, and what a failing candidate does."""

from __future__ import annotations

import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.benchmark import CASES, NAMES, Rules, benchmark, report
from batchscore.benchmark.candidates import missing
from batchscore.benchmark.data import make_table
from batchscore.benchmark.process import timed
from batchscore.benchmark.rounds import _Scores
from batchscore.cli.benchmark_table import table_lines
from batchscore.errors import BatchscoreError, SettingsError
from benchmarks.compare import changes
from benchmarks.figures import figures, fitted, growth_lines


def result(**seconds):
    candidates = {
        name: {
            "seconds": list(times),
            "session_seconds": [1.0] * len(times),
            "median_seconds": sorted(times)[len(times) // 2],
            "median_seconds_with_session": sorted(times)[len(times) // 2] + 1,
            "rows_per_second": round(1000 / sorted(times)[len(times) // 2]),
            "peak_bytes": 1 << 20,
            "largest_difference": 0.0,
            "settings": {},
        }
        for name, times in seconds.items()
    }
    case = {"name": "a & b", "rows": 1000, "files": 2}
    return {"case": case, "rounds": 3, "cores": 2, "engine": "compiled", "suite": True, "candidates": candidates}


def test_a_ratio_is_taken_within_rounds():
    """A round in which the machine was slow for all of them does not count for one of them."""
    found = result(**{"batchscore-spark": [1.0, 10.0, 1.0], "spark_udf": [5.0, 50.0, 5.0]})
    assert report.ratio(found, "batchscore-spark", "spark_udf") == 5.0
    assert report.ratio(found, "batchscore-spark", "spark_udf", with_session=True) == 3.0
    assert report.ratio(found, "batchscore-spark", "absent") is None


def test_table_and_chart():
    found = result(**{"spark_udf": [5.0], "batchscore-spark": [1.0]})
    found["candidates"]["daft-onnx"] = {"failure": "the package daft is not installed"}
    lines = table_lines({"machine": report.machine(), "results": [found]})
    [first, second] = [line.strip() for line in lines if line.strip().startswith(("spark_udf", "batchscore-s"))]
    assert first.split()[:2] == ["batchscore-spark", "1,000"], "the fastest comes first"
    assert "5.0" in first
    assert second.startswith("spark_udf")
    assert "daft-onnx: the package daft is not installed" in lines
    drawn = ET.fromstring(report.chart([found, found]))  # noqa: S314  # our own text
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert any("a & b" in text for text in texts)
    widths = [float(bar.get("width")) for bar in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:3]
    assert widths[0] == pytest.approx(5 * widths[1], rel=0.02)


def test_what_changed_since_the_baseline():
    before = {"results": [result(**{"batchscore-spark": [1.0], "spark_udf": [10.0]})]}
    same, worse = changes(before, before)
    assert not worse
    assert len(same) == 2
    now = {"results": [result(**{"batchscore-spark": [2.0], "spark_udf": [10.0]})]}
    lines, worse = changes(before, now)
    assert worse
    assert lines[-1].endswith("worse")


@pytest.mark.parametrize("name", ["lightgbm-50x31", "lightgbm-50x31-float64", "lightgbm-50x31-delta", "pipeline"])
def test_tables_hold_what_the_case_says(name, tmp_path):
    case = CASES[name].of(5_000)
    table = make_table(case, tmp_path)
    files = sorted(table.rglob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == 5_000
    assert (table / "_delta_log").is_dir() == (case.format == "delta")
    if case.model != "pipeline":
        whole = pa.concat_tables(pq.read_table(file) for file in files)
        assert whole.column("id").to_pylist() == list(range(5_000))
        assert whole.schema.field("f0").type == pa.type_for_alias(case.dtype)
        assert whole.num_columns == case.columns + 1
    assert make_table(case, tmp_path) == table, "made once"


def test_cases_differ_in_name_and_share_what_is_equal():
    assert len(CASES) == len({case.name for case in CASES.values()})
    plain, one_file = CASES["lightgbm-50x31"], CASES["lightgbm-50x31-one-file"]
    assert plain.model_name == one_file.model_name
    assert plain.data_name != one_file.data_name
    assert replace(plain, name="x").data_name == plain.data_name


def test_other_rows_are_noticed():
    ids = np.arange(3)
    one = _Scores(ids, np.array([0.1, 0.2, 0.3]))
    assert one.difference(_Scores(ids, np.array([0.1, 0.25, 0.3]))) == pytest.approx(0.05)
    with pytest.raises(BatchscoreError, match="different rows"):
        one.difference(_Scores(ids + 1, one.values))


def test_a_candidate_that_fails_says_why(tmp_path):
    with pytest.raises(BatchscoreError, match="exit code 3") as caught:
        timed([sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"], tmp_path, {}, 60)
    assert "no luck" in caught.value.text()


def test_the_start_of_a_framework_is_told_apart(tmp_path):
    script = (
        "import sys, time; print('session: starts', file=sys.stderr, flush=True); time.sleep(0.6); "
        "print('score: begins', file=sys.stderr, flush=True); "
        "x = bytearray(b'x') * (80 << 20); time.sleep(1.2); print('{\"rows\": 1}')"
    )
    outcome = timed([sys.executable, "-c", script], tmp_path, {}, 60)
    assert 0.5 < outcome.session_seconds < 3
    assert outcome.seconds > 0.6
    assert outcome.answer == {"rows": 1}
    assert outcome.peak_bytes > 60 << 20


def test_unknown_names_are_refused():
    with pytest.raises(SettingsError) as caught:
        benchmark(["lightgbm-50x3"], NAMES, Rules())
    assert "lightgbm-50x31" in caught.value.near
    with pytest.raises(SettingsError) as caught:
        benchmark(["lightgbm-50x31"], ["batchscore-spork@compiled"], Rules())
    assert "batchscore-spark" in caught.value.near


def test_candidates_without_their_package_are_left_out():
    lacking = missing(["daft-onnx", "spark_udf"], None)
    assert set(lacking) <= {"daft-onnx"}


def named(name, rows=8_000_000, suite=True, **seconds):
    found = result(**{key.replace("_on_", "-"): times for key, times in seconds.items()})
    for candidate in found["candidates"].values():
        candidate["worker_peak_bytes"] = 200 << 20
        candidate["median_stage_seconds"] = {"validate": 0.1}
    return {**found, "suite": suite, "case": {"name": name, "rows": rows, "files": 16}}


def test_a_figure_says_whether_it_is_reached():
    fast = named("lightgbm-50x31", batchscore_on_spark=[1.0], batchscore_on_local=[4.0], spark_udf=[20.0], limit=[0.9])
    by_what = {figure.what: figure for figure in figures([fast])}
    assert by_what["batchscore-spark, times as fast as spark_udf"].reached
    assert not by_what["batchscore-local, times as fast as spark_udf"].reached
    assert by_what["batchscore-spark, share of the limit's speed"].found == 0.9
    assert by_what["validation's share of the run, start included"].found == 0.05
    assert "NOT REACHED" in by_what["batchscore-local, share of the limit's speed"].line()
    small = named("lightgbm-50x31", 1_000_000, batchscore_on_spark=[1.0], spark_udf=[2.0])
    assert list(figures([small])) == [], "what is asked over eight million rows says nothing of one million"


def test_shapes_of_one_table_are_compared():
    cases = [
        named("lightgbm-50x31", batchscore_on_spark=[0.8], batchscore_on_local=[1.0]),
        named("lightgbm-50x31-one-file", batchscore_on_spark=[1.0], batchscore_on_local=[1.0]),
        named("lightgbm-50x31-1M", 1_000_000, batchscore_on_spark=[1.0], batchscore_on_local=[1.0]),
        named("lightgbm-50x31-30M", 30_000_000, batchscore_on_spark=[1.0], batchscore_on_local=[1.0]),
    ]
    cases[-1]["candidates"]["batchscore-local"]["worker_peak_bytes"] = 230 << 20
    found = {figure.what: (figure.found, figure.reached) for figure in figures(cases)}
    assert found["batchscore-spark, one file beside 16"] == (0.8, False)
    assert found["batchscore-local, one file beside 16"] == (1.0, True)
    assert found["batchscore-local, worker's memory beside 1M rows"] == (1.15, False)
    assert found["batchscore-spark, worker's memory, MiB"] == (200, True)


def test_times_of_another_machine_are_on_no_line():
    points = [(100_000, 1.1), (1_000_000, 2.0), (30_000_000, 31.0)]
    names = ("lightgbm-50x31-100k", "lightgbm-50x31-1M", "lightgbm-50x31-30M")
    cases = [
        named(name, rows, batchscore_on_spark=[seconds]) | {"machine": {"processor": "one"}}
        for name, (rows, seconds) in zip(names, points, strict=True)
    ]
    other = named("lightgbm-50x31", 8_000_000, batchscore_on_spark=[90.0]) | {"machine": {"processor": "another"}}
    assert growth_lines([other, *cases]) == growth_lines(cases)
    assert "off by at most 0%" in growth_lines([other, *cases])[0]


def test_growth_is_a_line_with_a_named_fixed_part():
    points = [(100_000, 1.1), (1_000_000, 2.0), (8_000_000, 9.0)]
    assert fitted(points) == pytest.approx((1.0, 1e-6))
    cases = [
        named(name, rows, batchscore_on_spark=[seconds])
        for name, (rows, seconds) in zip(
            ("lightgbm-50x31-100k", "lightgbm-50x31-1M", "lightgbm-50x31"), points, strict=True
        )
    ]
    [line] = growth_lines(cases)
    assert line.startswith(
        "batchscore-spark: 1.00 s + 1.000 s a million rows (100,000 to 8,000,000 rows; off by at most 0%"
    )
