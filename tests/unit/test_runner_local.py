from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchscore.contracts import TaskResult
from batchscore.errors import BadRowsError, BatchscoreError, SettingsError, UnavailableError
from batchscore.runners import LocalRunner, end_spares, local, process, runner_class, start_ahead
from batchscore.runners.process import TRIES
from tests import samples

TESTS = Path(samples.__file__).parent


def silent(_: TaskResult) -> None:
    pass


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def gone_within(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_results_are_in_the_order_of_the_groups_and_heard_as_they_end():
    heard: list[TaskResult] = []
    results = LocalRunner(2).run_splits(
        samples.first_is_slow, samples.scoring_task(), samples.groups_of(5, 6, 7), heard.append
    )
    assert [r.files[0].path for r in results] == ["f0", "f1", "f2"]
    assert [r.rows_read for r in results] == [5, 6, 7]
    assert [r.files[0].path for r in heard] == ["f1", "f2", "f0"]
    pids = {r.pid for r in results}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert gone_within(list(pids), 2)


def test_no_groups_start_no_process():
    assert LocalRunner(2).run_splits(samples.count_rows, samples.scoring_task(), [], silent) == []


def test_a_workers_own_error_arrives_and_cancels_the_rest(tmp_path):
    task = samples.scoring_task(staging=str(tmp_path))
    with pytest.raises(BadRowsError) as caught:
        LocalRunner(2).run_splits(samples.bad_rows_in_second, task, samples.groups_of(*[1] * 20), silent)
    assert caught.value.detail == ("id=1",)
    assert caught.value.hint == "mend them"
    calls = list(tmp_path.iterdir())
    assert len(calls) < 6
    assert gone_within([int(call.read_text()) for call in calls], 2)


def test_a_bug_in_a_worker_is_named_with_its_place():
    with pytest.raises(BatchscoreError, match="KeyError") as caught:
        LocalRunner(1).run_splits(samples.bug, samples.scoring_task(), samples.groups_of(1), silent)
    assert caught.value.exit_code == 1
    assert "samples.py" in caught.value.detail[-1]


def test_a_group_that_met_failing_storage_is_tried_again_a_few_times(tmp_path):
    task = samples.scoring_task(staging=str(tmp_path))
    (result,) = LocalRunner(1).run_splits(samples.flaky, task, samples.groups_of(1), silent)
    assert result.rows_read == 1
    assert len(list(tmp_path.glob("flaky-*"))) == 2
    with pytest.raises(UnavailableError, match="does not answer"):
        LocalRunner(1).run_splits(samples.unavailable, task, samples.groups_of(1), silent)
    assert len(list(tmp_path.iterdir())) == 2 + TRIES


@pytest.mark.parametrize(("worker", "how"), [(samples.killed, "SIGKILL"), (samples.exits, "exit code 3")])
def test_a_lost_worker_is_unavailable(worker, how):
    with pytest.raises(UnavailableError, match=how):
        LocalRunner(2).run_splits(worker, samples.scoring_task(), samples.groups_of(1, 1), silent)


def test_an_error_of_on_result_leaves_no_process(tmp_path):
    task = samples.scoring_task(staging=str(tmp_path))

    def full(_: TaskResult) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        LocalRunner(2).run_splits(samples.bad_rows_in_second, task, samples.groups_of(1), full)
    assert gone_within([int(call.read_text()) for call in tmp_path.iterdir()], 2)


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from tests import samples
from batchscore.runners import LocalRunner
task = samples.scoring_task(staging={staging!r})
if __name__ == "__main__":
    results = LocalRunner(2).run_splits(samples.{worker}, task, samples.groups_of(1, 2), lambda result: None)
    print([result.rows_read for result in results])
"""


def start_driver(staging: Path, worker: str) -> subprocess.Popen[str]:
    code = DRIVER.format(tests=str(TESTS), staging=str(staging), worker=worker)
    root = str(TESTS.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def workers_of(staging: Path) -> list[int]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pids = [int(call.read_text() or 0) for call in staging.iterdir()]
        if len(pids) == 2 and all(pids):
            return pids
        time.sleep(0.05)
    raise AssertionError("the workers did not start")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_ends_leaves_no_process(tmp_path, number):
    driver = start_driver(tmp_path, "sleeps")
    pids = workers_of(tmp_path)
    if number == signal.SIGINT:
        os.killpg(driver.pid, number)  # as a terminal does: to the whole group
    else:
        driver.send_signal(number)
    _, stderr = driver.communicate(timeout=10)
    assert gone_within(pids, 3)
    assert stderr.count("KeyboardInterrupt\n") == (1 if number == signal.SIGINT else 0)


def test_what_a_model_prints_and_warns_reaches_stderr_only(tmp_path):
    stdout, stderr = start_driver(tmp_path, "talks").communicate(timeout=30)
    assert stdout == "[1, 2]\n"
    assert "printed by a model" in stderr
    assert "warned by a model" in stderr


def test_an_unknown_runner_is_named_with_its_neighbour():
    with pytest.raises(SettingsError, match="did you mean: spark"):
        runner_class("sparkk")


def test_processes_started_ahead_are_taken_over_and_the_rest_end(monkeypatch):
    started = []
    original = local.WorkerProcess
    monkeypatch.setattr(local, "WorkerProcess", lambda module: started.append(original(module)) or started[-1])
    start_ahead(samples.__name__, 3)
    start_ahead(samples.__name__, 3)
    assert len(started) == 3, "called twice, started once"
    results = LocalRunner(2).run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(1, 2), silent)
    assert {result.pid for result in results} <= {process.pid for process in started}
    assert len(started) == 3
    assert gone_within([process.pid for process in started], 2), "the third was not needed"


def test_processes_that_nobody_takes_end():
    start_ahead("no.such.module", 1)
    [process] = local._spares
    assert alive(process.pid), "what cannot be imported ahead is found out when it is needed"
    end_spares()
    assert gone_within([process.pid], 2)
    script = (
        "from batchscore.runners import start_ahead; from batchscore.runners import local; "
        "start_ahead('batchscore.score', 1); print(local._spares[0].pid, flush=True); import os; os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=TESTS.parent, capture_output=True, text=True, check=True)
    assert gone_within([int(done.stdout)], 5), "its parent is gone"


def test_kept_processes_serve_the_next_run_and_another_task(tmp_path):
    runner = LocalRunner(2, keep=True)
    first = runner.run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(1, 2), silent)
    task = samples.scoring_task(staging=str(tmp_path))
    with pytest.raises(BadRowsError):
        runner.run_splits(samples.bad_rows_in_second, task, samples.groups_of(1, 1), silent)
    second = runner.run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(3, 4), silent)
    assert [result.rows_read for result in second] == [3, 4], "an answer of the run that failed is not taken for ours"
    pids = {result.pid for result in first}
    assert all(alive(pid) for pid in {result.pid for result in second})
    assert pids & {result.pid for result in second}, "no process was used again"
    end_spares()
    assert gone_within([*pids, *(result.pid for result in second)], 2)


@pytest.mark.parametrize(("seconds", "tries"), [(0, 1), (30, TRIES)])
def test_a_group_whose_storage_was_waited_for_is_not_tried_again(monkeypatch, seconds, tries):
    tried = []

    def worker(*_):
        tried.append(1)
        raise UnavailableError("the storage does not answer")

    monkeypatch.setattr(process, "TRY_AGAIN_SECONDS", seconds)
    (group,) = samples.groups_of(1)
    assert isinstance(process._outcome(worker, samples.scoring_task(), group), UnavailableError)
    assert len(tried) == tries


def test_a_kept_process_that_died_is_not_used_again():
    runner = LocalRunner(1, keep=True)
    (first,) = runner.run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(1), silent)
    os.kill(first.pid, signal.SIGKILL)
    assert gone_within([first.pid], 5)
    threads = Path(f"/proc/{first.pid}/task")  # its leader may be gone while others still hold the connection
    until = time.monotonic() + 5
    while threads.exists() and len(list(threads.iterdir())) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    (second,) = runner.run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(1), silent)
    assert second.pid != first.pid
    end_spares()


def test_a_worker_that_cannot_be_imported_is_an_error_and_the_process_stays_usable(monkeypatch):
    runner = LocalRunner(1, keep=True)
    (before,) = runner.run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(1), silent)
    monkeypatch.setattr(samples.first_is_slow, "__module__", "tests.no_such_module")
    monkeypatch.setitem(sys.modules, "tests.no_such_module", samples)
    with pytest.raises(BatchscoreError, match="ModuleNotFoundError"):
        runner.run_splits(samples.first_is_slow, samples.scoring_task(), samples.groups_of(1), silent)
    (after,) = runner.run_splits(samples.count_rows, samples.scoring_task(), samples.groups_of(5), silent)
    assert (after.pid, after.rows_read) == (before.pid, 5)
    end_spares()


def test_runs_on_two_threads_share_kept_processes():
    runner = LocalRunner(1, keep=True)
    task, rows = samples.scoring_task(), list(range(1, 9))
    with ThreadPoolExecutor(2) as pool:
        scored = pool.map(
            lambda count: runner.run_splits(samples.count_rows, task, samples.groups_of(count), silent), rows
        )
        found = [result for (result,) in scored]
    assert [result.rows_read for result in found] == rows
    assert len({result.pid for result in found}) <= 2
    end_spares()
