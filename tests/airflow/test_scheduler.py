"""Airflow's own processes: dag-processor, scheduler and API server catch up with the days since the start date."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing

import pytest

from tests.airflow.conftest import DAGS

pytestmark = pytest.mark.airflow

SECONDS = 240


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def stop(processes):
    """Ends each service with its group: an API server and a scheduler have processes of their own."""
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def airflow(tmp_path, conf, stub):
    """Starts Airflow for the folder of settings; answers queries to its database."""
    home, port = tmp_path / "airflow", free_port()
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, as long as it must be " * 2,
        "BATCHSCORE_CONF_DIR": str(conf),
        "BATCHSCORE_COMMAND": stub.command,
    }
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=env, check=True, capture_output=True)
    with ExitStack() as stack:
        processes = []
        stack.callback(stop, processes)
        for service in ("api-server", "dag-processor", "scheduler"):
            log = stack.enter_context((tmp_path / f"{service}.log").open("wb"))
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "airflow", service],
                    env=env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

        def query(sql):
            with closing(sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True, timeout=30)) as database:
                return database.execute(sql).fetchall()

        yield query


def test_days_since_the_start_are_caught_up_with_while_a_file_is_broken(airflow, conf, write_settings, stub):
    today = dt.datetime.now(tz=dt.UTC).date()
    days = [today - dt.timedelta(days=back) for back in (3, 2, 1)]
    stub.does("print('{}')")
    (conf / "broken.yaml").write_text("schedule: '@daily'\noutput: [")
    write_settings(start_date=days[0])
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        states = [state for (state,) in airflow("select state from dag_run order by logical_date")]
        if len(states) == 3 and set(states) == {"success"}:
            break
        time.sleep(1)
    assert states == ["success"] * 3
    assert [call["argv"][-1] for call in stub.arguments()] == [f"ds={day}" for day in days]  # oldest first
    assert airflow("select dag_id, has_import_errors, is_stale from dag") == [("job", 0, 0)]
    ((file, text),) = airflow("select filename, stacktrace from import_error")
    assert file == "batchscore_problems.py"
    assert "broken.yaml: cannot be read" in text
