"""Ctrl-C reaches the program even where a library drops it, and is handled once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = """
import abc, signal, sys, time
from batchscore.cli.interrupts import REPEAT_SECONDS, Interruption
interruption = Interruption()
interruption.watch()
"""


def ended(folder: Path, code: str, number: int, start: str = START) -> tuple[int, str]:
    """Exit code and output of ``code``, run as ``python -m``, which gets one signal after its first line."""
    (folder / "program.py").write_text(start + code)
    program = subprocess.Popen(
        [sys.executable, "-m", "program"], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(number)
        try:
            out, _ = program.communicate(timeout=30)
        finally:
            program.kill()
    return program.returncode, out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_is_dropped_comes_again(tmp_path, number):
    code = """
try:
    for attempt in range(3):
        try:
            print("ready", flush=True) if attempt == 0 else None
            time.sleep(20)
        except KeyboardInterrupt:
            print("dropped", flush=True)
    time.sleep(20)
except KeyboardInterrupt:
    interruption.settle()
    print("arrived")
    sys.exit(130)
"""
    assert ended(tmp_path, code, number) == (130, "dropped\ndropped\ndropped\narrived\n")


def test_an_interruption_that_is_being_handled_does_not_come_again(tmp_path):
    code = """
def clean_up():
    try:
        raise OSError("nothing to remove")
    except OSError:
        time.sleep(3 * REPEAT_SECONDS)
    time.sleep(3 * REPEAT_SECONDS)
    print("clean")

try:
    try:
        print("ready", flush=True)
        time.sleep(20)
    finally:
        clean_up()
except KeyboardInterrupt:
    interruption.settle()
    time.sleep(3 * REPEAT_SECONDS)
    sys.exit(130)
"""
    assert ended(tmp_path, code, signal.SIGINT) == (130, "clean\n")


def test_the_exit_code_stays_ours_where_an_exec_was_interrupted(tmp_path):
    code = """
try:
    exec("print('ready', flush=True); time.sleep(20)")
except KeyboardInterrupt:
    interruption.settle()
    sys.exit(130)
"""
    assert ended(tmp_path, code, signal.SIGINT) == (130, "")


def test_an_ignored_ctrl_c_stays_ignored(tmp_path):
    code = """
print("ready", flush=True)
time.sleep(1)
print("went on")
"""
    ignoring = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{START}"
    assert ended(tmp_path, code, signal.SIGINT, ignoring) == (0, "went on\n")
