from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchscore import faults

ROOT = Path(__file__).resolve().parents[2]


def called() -> dict[str, list[str]]:
    """The points that the package's code names, each with the files that do."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "batchscore").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "faults.reached":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}: a point is a literal"
                found.setdefault(str(argument.value), []).append(path.name)
    return found


def test_every_call_names_a_listed_point_and_every_listed_point_has_one_call():
    calls = called()
    assert set(calls) == set(faults.POINTS)
    assert {point: files for point, files in calls.items() if len(files) > 1} == {}
    assert len(faults.POINTS) >= 15


def test_nothing_happens_where_nobody_asked(monkeypatch):
    monkeypatch.setattr(faults, "_armed", {})
    for point in faults.POINTS:
        faults.reached(point)


@pytest.mark.parametrize(("text", "named"), [("nowhere=kill", "nowhere"), ("plan.made=explode", "explode")])
def test_a_slip_in_the_variable_is_an_error(text, named):
    with pytest.raises(ValueError, match=named):
        faults.parse(text)


def process(tmp_path, armed, code):
    return subprocess.Popen(
        [sys.executable, "-c", f"from batchscore import faults\n{code}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), faults.VARIABLE: armed},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kill(tmp_path):
    armed = process(tmp_path, "plan.made=kill", "faults.reached('score.end'); faults.reached('plan.made'); print('on')")
    assert armed.communicate(timeout=30)[0] == ""
    assert armed.returncode == -signal.SIGKILL


def test_kill_once(tmp_path):
    armed, code = f"plan.made=kill-once:{tmp_path / 'done'}", "faults.reached('plan.made'); print('on')"
    first, second = (process(tmp_path, armed, code).communicate(timeout=30)[0] for _ in range(2))
    assert (first, second) == ("", "on\n")


def test_stop_until_continued(tmp_path):
    stopped = process(tmp_path, "plan.made=stop", "print('up', flush=True); faults.reached('plan.made'); print('on')")
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "up\n"
    while os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT) is None:
        pass
    stopped.send_signal(signal.SIGCONT)
    assert stopped.communicate(timeout=30)[0] == "on\n"


def test_raise_and_log(tmp_path):
    armed = process(tmp_path, f"*=log:{tmp_path / 'log'};score.end=raise", "faults.reached('score.end')")
    assert "FaultError: at score.end" in armed.communicate(timeout=30)[1]
    assert (tmp_path / "log").read_text() == f"score.end {armed.pid}\n"
