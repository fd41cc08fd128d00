"""Settings files become DAGs: which, when, and what a broken file does."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.airflow.conftest import DAGS, ROOT

pytestmark = pytest.mark.airflow

PROBLEMS = "batchscore_problems.py"
HEAVY = ("batchscore", "pydantic_settings", "pyspark", "mlflow", "pandas", "numpy", "pyarrow", "deltalake")


def utc(year, month, day, hour=0):
    return dt.datetime(year, month, day, hour, tzinfo=dt.UTC)


def only_error(bag):
    """The one import error, which must be of the file that has no DAGs."""
    assert [Path(name).name for name in bag.import_errors] == [PROBLEMS]
    return next(iter(bag.import_errors.values()))


def test_each_file_with_a_schedule_is_a_dag(load_dags, write_settings):
    write_settings("nightly", start_date=dt.date(2026, 11, 1), max_active_runs=4, retries=5, retry_delay_minutes=2.5)
    write_settings("by-hand", schedule=None)
    bag = load_dags(write_settings("plain").parent)
    assert bag.import_errors == {}
    assert sorted(bag.dags) == ["nightly", "plain"]
    nightly, plain = bag.dags["nightly"], bag.dags["plain"]
    assert (nightly.start_date, nightly.catchup, nightly.max_active_runs) == (utc(2026, 11, 1), True, 4)
    assert (nightly.task_dict["score"].retries, nightly.task_dict["score"].retry_delay) == (
        5,
        dt.timedelta(seconds=150),
    )
    assert (plain.start_date, plain.catchup, plain.max_active_runs) == (None, False, 1)
    assert plain.task_dict["score"].retries == 3


def test_the_shipped_settings_are_dags_without_errors(load_dags):
    bag = load_dags(ROOT / "conf")
    assert bag.import_errors == {}
    assert "fraud_detection" in bag.dags


@pytest.mark.parametrize(
    ("schedule", "dates"),
    [
        ("@daily", [(utc(2026, 11, 1), utc(2026, 11, 2)), (utc(2026, 11, 2), utc(2026, 11, 3))]),
        ("0 6 * * *", [(utc(2026, 11, 1, 6), utc(2026, 11, 2, 6)), (utc(2026, 11, 2, 6), utc(2026, 11, 3, 6))]),
    ],
)
def test_catch_up_runs_each_day_after_it_has_ended(load_dags, write_settings, schedule, dates):
    """What the scheduler asks the timetable: intervals from the start date on, each run once it is over."""
    from airflow.serialization.serialized_objects import DagSerialization

    path = write_settings(schedule=schedule, start_date=dt.date(2026, 11, 1))
    dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(load_dags(path.parent).dags["job"]))
    infos = list(dag.iter_dagrun_infos_between(utc(2026, 11, 1), utc(2026, 11, 2, 12)))
    assert [(info.data_interval.start, info.run_after) for info in infos] == dates
    assert [info.logical_date for info in infos] == [start for start, _ in dates]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("broken", "schedule: '@daily'\noutput: [", "cannot be read"),
        ("latin", "schedule: '@daily' # \xff", "cannot be read"),
        ("no day", "schedule: '@daily'\nstart_date: 2026-02-30", "cannot be read"),
        ("deep", "a: " + "[" * 3_000, "cannot be read"),
        ("list", "- schedule", "holds a list"),
        ("never", "schedule: '@fortnightly'\noutput: {partition_by: [ds]}", "schedule is '@fortnightly'"),
        ("seconds", "schedule: '0 0 0 * * *'\noutput: {partition_by: [ds]}", "five fields"),
        ("cron", "schedule: '99 0 * * *'\noutput: {partition_by: [ds]}", "schedule is '99 0 * * *'"),
        ("open", "schedule: '@daily'\noutput: {path: out}", "set output.partition_by"),
        ("a b", "schedule: '@daily'\noutput: {partition_by: [ds]}", "name becomes the DAG's"),
        ("when", "schedule: '@daily'\nstart_date: soon\noutput: {partition_by: [ds]}", "start_date is 'soon'"),
        ("many", "schedule: '@daily'\nmax_active_runs: 0\noutput: {partition_by: [ds]}", "max_active_runs is 0"),
        ("yes", "schedule: '@daily'\nretries: yes\noutput: {partition_by: [ds]}", "retries is True"),
        ("nan", "schedule: '@daily'\nretry_delay_minutes: .nan\noutput: {partition_by: [ds]}", "retry_delay_minutes"),
        ("huge", "schedule: '@daily' #" + "x" * 1_000_000, "too many"),
    ],
    ids=lambda value: value if value.isalpha() else "-",
)
def test_a_broken_file_is_an_import_error_and_hides_no_other(load_dags, write_settings, conf, name, text, says):
    """Airflow stops all DAGs of a file with an import error: it is reported under another file than theirs."""
    write_settings("good")
    (conf / f"{name}.yaml").write_bytes(text.encode("latin-1"))
    bag = load_dags(conf)
    assert list(bag.dags) == ["good"]
    error = only_error(bag)
    assert f"{name}.yaml: " in error
    assert says in error
    assert {Path(dag.fileloc).name for dag in bag.dags.values()} == {"batchscore_dags.py"}


def test_all_broken_files_are_named(load_dags, write_settings, conf):
    for name in ("one", "two"):
        (conf / f"{name}.yaml").write_text("- x")
    error = only_error(load_dags(conf))
    assert "one.yaml: " in error
    assert "two.yaml: " in error


def test_a_missing_folder_is_an_import_error(load_dags, tmp_path):
    bag = load_dags(tmp_path / "nowhere")
    assert "set BATCHSCORE_CONF_DIR" in only_error(bag)


def test_parsing_imports_nothing_heavy(write_settings):
    """In a fresh process: what the DAG files add to Airflow's own imports, and how long that takes."""
    conf = write_settings().parent
    code = (
        "import json, sys, time\n"
        "import airflow.sdk, airflow.sdk.exceptions, airflow.sdk.bases.operator, airflow.dag_processing.dagbag\n"
        "from airflow.sdk import DAG, BaseOperator, CronDataIntervalTimetable, Context\n"
        f"sys.path.insert(0, {str(DAGS)!r})\n"
        "before, began = set(sys.modules), time.perf_counter()\n"
        "import batchscore_dags, batchscore_problems\n"
        "print(json.dumps([time.perf_counter() - began, sorted(set(sys.modules) - before)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BATCHSCORE_CONF_DIR": str(conf)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    print(f"the DAG files take {seconds:.3f} s")  # noqa: T201  # a figure to look at
    assert not [name for name in modules if name.split(".")[0] in HEAVY]
    assert seconds < 1


def test_a_hundred_files_parse_in_a_second(load_dags, write_settings):
    for number in range(100):
        path = write_settings(f"job_{number:03}")
    load_dags(path.parent)  # Airflow's own first imports are not what is measured
    began = time.perf_counter()
    bag = load_dags(path.parent)
    seconds = time.perf_counter() - began
    print(f"100 settings files take {seconds:.3f} s")  # noqa: T201  # a figure to look at
    assert len(bag.dags) == 100
    assert seconds < 2


def test_the_cli_lists_no_import_errors(airflow_database, write_settings):
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "list-import-errors", "--local", "--output", "json"],
        env={**os.environ, "BATCHSCORE_CONF_DIR": str(write_settings().parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "batchscore" not in done.stdout
