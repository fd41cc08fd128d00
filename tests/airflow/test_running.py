"""The task against a stand-in for batchscore: arguments, exit codes, retries, the log, and its end."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.airflow.conftest import DAGS

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]

DAY_AFTER = dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
PUBLISHED = 'print(\'{"run_id": "r1", "state": "published", "rows": 3, "units": [1]}\')'


def run(bag, name="job"):
    return bag.dags[name].test(logical_date=DAY_AFTER)


def test_the_day_that_has_ended_is_the_partition(load_dags, write_settings, stub):
    path = write_settings(start_date=dt.date(2026, 11, 1))
    stub.does(PUBLISHED)
    done = run(load_dags(path.parent))
    assert done.state == "success"
    assert stub.arguments() == [
        {
            "argv": ["run", "--config", str(path), "--json", "--partition", "ds=2026-11-01"],
            "cwd": str(path.parent.parent),
        }
    ]
    task = done.get_task_instance("score")
    assert task.xcom_pull(task_ids="score") == {"run_id": "r1", "state": "published", "rows": 3}


def test_a_table_without_partitions_is_scored_whole(load_dags, write_settings, stub):
    path = write_settings(start_date=dt.date(2026, 11, 1), output={"path": "out", "partition_by": []})
    stub.does(PUBLISHED)
    bag = load_dags(path.parent)
    assert not bag.dags["job"].catchup
    assert run(bag).state == "success"
    assert stub.arguments()[0]["argv"] == ["run", "--config", str(path), "--json"]


def test_no_shell_reads_the_settings(load_dags, write_settings, stub, tmp_path):
    """What would be a command or a template in a shell is one argument as it stands."""
    column = f"ds; touch {tmp_path}/owned; $(touch {tmp_path}/owned) {{{{ 7 * 7 }}}}"
    stub.does(PUBLISHED)
    assert run(load_dags(write_settings(output={"partition_by": [column]}).parent)).state == "success"
    assert stub.arguments()[0]["argv"][-1] == f"{column}=2026-11-01"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 99])
def test_a_run_that_would_fail_again_is_not_retried(load_dags, write_settings, stub, code):
    """99 is the exit code that Airflow's BashOperator takes for a skip."""
    stub.does(f"import sys; sys.exit({code})")
    assert run(load_dags(write_settings().parent)).state == "failed"
    assert len(stub.arguments()) == 1


@pytest.mark.parametrize(
    "ending", ["sys.exit(7)", "sys.exit(130)", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["7", "130", "killed"]
)
def test_a_run_worth_it_is_retried(load_dags, write_settings, stub, ending):
    stub.does(f"import os, signal, sys\nif count < 3: {ending}\n{PUBLISHED}")
    assert run(load_dags(write_settings().parent)).state == "success"
    assert len(stub.arguments()) == 3


def test_retries_end(load_dags, write_settings, stub):
    stub.does("import sys; sys.exit(7)")
    assert run(load_dags(write_settings(retries=1).parent)).state == "failed"
    assert len(stub.arguments()) == 2


def test_an_executable_that_is_not_there_is_named(load_dags, write_settings, monkeypatch, capfd):
    monkeypatch.setenv("BATCHSCORE_COMMAND", "/nowhere/batchscore")
    assert run(load_dags(write_settings().parent)).state == "failed"
    said = capfd.readouterr()
    assert "set BATCHSCORE_COMMAND" in said.out + said.err


def test_a_long_log_is_cut(load_dags, write_settings, stub, capfd):
    stub.does(
        "import sys\nfor n in range(20_000): print(f'line-{n}-', file=sys.stderr)\n"
        "print('x' * 50_000_000, file=sys.stderr)"
    )
    assert run(load_dags(write_settings().parent)).state == "success"
    said = "".join(capfd.readouterr())
    assert said.count("line-") < 1_300
    assert "line-0-" in said
    assert "lines left out" in said
    assert len(said) < 3_000_000


def test_a_run_without_a_data_interval_says_so():
    """Airflow's "trigger without a logical date" leaves no day to score."""
    code = (
        f"import sys; sys.path.insert(0, {str(DAGS)!r})\n"
        "from pathlib import Path\nfrom types import SimpleNamespace\n"
        "from batchscore_operator import BatchscoreRun\n"
        "task = BatchscoreRun(task_id='t', settings=Path('/p/conf/x.yaml'), partition_column='ds', command=['b'])\n"
        "task._arguments({'dag_run': SimpleNamespace(data_interval_start=None)})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert "AirflowFailException" in done.stderr
    assert "trigger it with a logical date" in done.stderr


def alive(pid):
    """Whether a process runs; one that nobody has waited for is not running."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ends while it is looked at
        return False


def eventually(holds, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("stubborn", [False, True])
def test_when_airflow_ends_the_task_no_process_is_left(load_dags, write_settings, stub, tmp_path, stubborn):
    """Neither batchscore nor what it started (a JVM), even where both ignore SIGTERM, within Airflow's five seconds."""
    conf = write_settings(retries=0).parent
    pids = tmp_path / "pids"
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    stub.does(
        f"import os, pathlib, signal, subprocess, sys, time\n{ignore}"
        "jvm = subprocess.Popen(['sleep', '300'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{jvm.pid}}')\n"
        "time.sleep(300)\n"
    )
    code = (
        "import datetime as dt, sys\n"
        f"sys.path.insert(0, {str(DAGS)!r})\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"run = DagBag({str(DAGS)!r}).dags['job'].test(logical_date=dt.datetime(2026, 11, 2, tzinfo=dt.UTC))\n"
        "print('STATE', run.state)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "BATCHSCORE_CONF_DIR": str(conf), "BATCHSCORE_COMMAND": stub.command},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as task:
        assert eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60)
        started = [int(pid) for pid in pids.read_text().split()]
        assert all(map(alive, started))
        task.send_signal(signal.SIGTERM)
        ended = eventually(lambda: not any(map(alive, started)), 4.5)
        for pid in filter(alive, started):
            os.kill(pid, signal.SIGKILL)
        assert ended
        out, _ = task.communicate(timeout=60)
    assert "STATE failed" in out
