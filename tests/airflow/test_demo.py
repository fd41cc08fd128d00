"""The demo's job on its schedule: real Airflow starts real batchscore, which lives in an environment of its own."""

from __future__ import annotations

import datetime as dt
import json
import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.airflow.conftest import ROOT

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]

PYTHON = os.environ.get("BATCHSCORE_PYTHON") or str(ROOT / ".venv/bin/python")
BATCHSCORE = ["env", f"PYTHONPATH={ROOT}", PYTHON, "-m", "batchscore"]
DAY_AFTER = dt.datetime(2026, 11, 3, tzinfo=dt.UTC)
ROWS, DAYS = 14_000, 14


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's folder: data of 14 days, a registered model, and the demo's own table."""
    folder = tmp_path_factory.mktemp("demo")
    made = subprocess.run(
        [*BATCHSCORE, "demo", "--runner", "local", "--rows", str(ROWS), "--dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert made.returncode == 0, made.stderr[-4_000:]
    return folder


@pytest.fixture
def attempts(tmp_path, monkeypatch):
    """How often batchscore was started; each start is one line of a file."""
    log = tmp_path / "attempts"
    script = f'echo started >> {shlex.quote(str(log))}; exec "$@"'
    monkeypatch.setenv("BATCHSCORE_COMMAND", shlex.join(["sh", "-c", script, "--", *BATCHSCORE]))
    return lambda: len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def schedule(demo):
    """Writes a settings file for the demo's data with a table of its own; it goes when the test has ended."""
    written = []

    def write(name, **sections):
        settings = yaml.safe_load((demo / "conf/fraud_detection.yaml").read_text())
        settings.update(schedule="@daily", start_date=dt.date(2026, 11, 1), retries=1, retry_delay_minutes=0)
        settings["scoring"] = {"runner": "local"}
        settings["output"]["path"] = f"predictions/{name}"
        for section, values in sections.items():
            settings[section] = {**settings.get(section, {}), **values}
        path = demo / "conf" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        written.append(path)
        return path

    yield write
    for path in written:
        path.unlink()


def run(load_dags, path):
    bag = load_dags(path.parent)
    assert bag.import_errors == {}
    return bag.dags[path.stem].test(logical_date=DAY_AFTER)


def record_of(done):
    return done.get_task_instance("score").xcom_pull(task_ids="score")


def commits(table):
    return sorted(path.name for path in (table / "_delta_log").glob("*.json"))


def partitions(table):
    adds = [
        json.loads(line)["add"]
        for path in (table / "_delta_log").glob("*.json")
        for line in path.read_text().splitlines()
        if "add" in json.loads(line)
    ]
    return {add["partitionValues"]["ds"] for add in adds}


def test_one_date_is_scored_once(demo, load_dags, schedule, attempts):
    path, table = schedule("nightly"), demo / "predictions/nightly"
    first = run(load_dags, path)
    assert first.state == "success"
    record = record_of(first)
    assert (record["state"], record["units_published"]) == ("published", 1)
    assert record["rows"] > 0
    assert partitions(table) == {"2026-11-02"}
    made = commits(table)

    second = run(load_dags, path)
    assert second.state == "success"
    again = record_of(second)
    assert (again["state"], again["rows"], again["units_live"]) == ("skipped", 0, 1)
    assert commits(table) == made
    assert attempts() == 2


def test_a_refused_run_fails_without_retry(demo, load_dags, schedule, attempts, capfd):
    suite = demo / "conf/expectations/impossible.json"
    suite.write_text(
        json.dumps(
            {
                "name": "impossible",
                "expectations": [
                    {
                        "type": "expect_column_values_to_be_between",
                        "kwargs": {"column": "prediction", "min_value": 5, "max_value": 6},
                    }
                ],
            }
        )
    )
    done = run(load_dags, schedule("refused", validation={"suite": "conf/expectations/impossible.json"}))
    assert done.state == "failed"
    assert attempts() == 1
    said = "".join(capfd.readouterr())
    assert "exit code 4, validation refused to publish" in said
    assert not commits(demo / "predictions/refused")


def test_a_registry_that_is_not_reachable_is_retried(demo, load_dags, schedule, attempts, capfd):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers at this port
        uri = f"http://127.0.0.1:{held.getsockname()[1]}"
        done = run(load_dags, schedule("unreachable", registry={"tracking_uri": uri}))
    assert done.state == "failed"
    assert attempts() == 2
    assert "exit code 7" in "".join(capfd.readouterr())
    assert not Path(demo / "predictions/unreachable").exists()
