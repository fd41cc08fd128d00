"""README's examples are commands that work, in the order in which it shows them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("cores")]


def test_the_examples_run(run_cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path):
    folder, outputs = tmp_path, {}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "cd":
            folder = folder / arguments[0]
            continue
        assert program == "batchscore", f"README shows a command that this test cannot run: {command}"
        done = run_cli(*arguments, cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout, command
        if "--json" in arguments:
            json.loads(done.stdout)
        outputs[command] = done.stdout
    again = outputs["batchscore run --model fraud_detection/Production --runner local"]
    assert "nothing to do" in again or "already published" in again
    forced = next(text for command, text in outputs.items() if "--force" in command)
    assert "1 published" in forced


def test_there_are_examples():
    assert len(COMMANDS) >= 8


def test_links_and_paths_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    table = README.partition("## Where do I change")[2].partition("\n## ")[0]
    for path in re.findall(r"`((?:batchscore|conf)/[^`]*)`", table):
        assert (ROOT / path).exists(), path


def test_the_exit_codes_are_those_of_the_errors():
    from batchscore import errors

    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    known = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BatchscoreError)
    }
    assert shown == known | {0, 130}


def test_python_m_is_the_command(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "batchscore", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("batchscore ")
