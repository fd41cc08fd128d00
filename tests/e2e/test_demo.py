"""The demo as a user runs it: twice in one folder, and with more rows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("cores")]

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


def demo(run_cli: RunCli, *arguments: str) -> dict[str, object]:
    done = run_cli("demo", "--runner", "local", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_twice_in_one_folder(run_cli: RunCli, tmp_path: Path):
    import pyarrow.dataset as pads
    from deltalake import DeltaTable

    first = demo(run_cli, "--rows", "14000")
    assert first["record"]["state"] == "published"  # type: ignore[index]
    assert first["record"]["rows"] == 14_000  # type: ignore[index]
    table = DeltaTable(tmp_path / "demo/predictions/fraud_detection")
    scores = table.to_pyarrow_table(columns=["transaction_id", "prediction"])
    source = pads.dataset(tmp_path / "demo/data/transactions").to_table(columns=["transaction_id"])
    assert sorted(scores["transaction_id"].to_pylist()) == sorted(source["transaction_id"].to_pylist())

    second = demo(run_cli, "--rows", "14000")
    assert (second["record"]["state"], second["record"]["rows"]) == ("skipped", 0)  # type: ignore[index]
    assert DeltaTable(tmp_path / "demo/predictions/fraud_detection").version() == table.version()

    third = demo(run_cli, "--rows", "15000")
    assert (third["record"]["state"], third["record"]["rows"]) == ("published", 15_000)  # type: ignore[index]


def test_a_folder_with_data_of_others_is_refused(run_cli: RunCli, tmp_path: Path):
    (tmp_path / "demo/data/transactions").mkdir(parents=True)
    done = run_cli("demo", "--runner", "local")
    assert done.returncode == 2
    assert "did not make" in done.stderr
