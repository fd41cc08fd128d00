"""Real Airflow, in the environment that `make airflow-test` makes; elsewhere nothing here is collected."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DAGS = ROOT / "airflow_dags"
HAS_AIRFLOW = importlib.util.find_spec("airflow") is not None
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-")) if HAS_AIRFLOW else None

collect_ignore_glob = [] if HAS_AIRFLOW else ["test_*.py"]

if AIRFLOW_HOME is not None:
    # Before any import of Airflow, which makes ~/airflow otherwise.
    os.environ["AIRFLOW_HOME"] = str(AIRFLOW_HOME)
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
    os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "INFO"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings are errors in our files alone: Airflow has its own, and as errors they would change what it does."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore", "error:::batchscore_"))


LoadDags = Callable[[Path], "DagBag"]


def pytest_unconfigure() -> None:
    """Removes Airflow's database and logs."""
    if AIRFLOW_HOME is not None:
        shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """An empty Airflow database in the temporary AIRFLOW_HOME."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True, timeout=180)


@pytest.fixture
def load_dags(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadDags]:
    """Parses the DAG folder for a folder of settings, as Airflow does."""
    monkeypatch.syspath_prepend(str(DAGS))  # Airflow puts a bundle's folder on the path

    def load(conf: Path) -> DagBag:
        from airflow.dag_processing.dagbag import DagBag

        monkeypatch.setenv("BATCHSCORE_CONF_DIR", str(conf))
        return DagBag(str(DAGS))

    yield load
    for name in [name for name in sys.modules if name.startswith("batchscore_")]:
        del sys.modules[name]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A project's settings folder."""
    folder = tmp_path / "conf"
    folder.mkdir()
    return folder


WriteSettings = Callable[..., Path]


@pytest.fixture
def write_settings(conf: Path) -> WriteSettings:
    """Writes ``conf/<name>.yaml`` with a daily schedule; keyword arguments are further top-level keys."""

    def write(name: str = "job", **keys: object) -> Path:
        document = {
            "model": {"name": "m", "version": "1"},
            "input": {"path": "data"},
            "output": {"path": "out", "partition_by": ["ds"]},
            "schedule": "@daily",
            "retry_delay_minutes": 0,
            **keys,
        }
        path = conf / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


class Stub:
    """A stand-in for the batchscore executable that ends with the exit codes that it is told, one a call."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.script = folder / "stub.py"
        self.body = folder / "body.py"
        self.script.write_text(
            "import json, os, pathlib, runpy, sys\n"
            f"calls = pathlib.Path({str(self.calls)!r})\n"
            "calls.open('a').write(json.dumps({'argv': sys.argv[1:], 'cwd': os.getcwd()}) + '\\n')\n"
            "count = len(calls.read_text().splitlines())\n"
            f"runpy.run_path({str(self.body)!r}, init_globals={{'count': count}})\n"
        )

    @property
    def command(self) -> str:
        return shlex.join([sys.executable, str(self.script)])

    def does(self, code: str) -> None:
        self.body.write_text(code)

    def arguments(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """The executable that DAGs call in this test."""
    made = Stub(tmp_path)
    monkeypatch.setenv("BATCHSCORE_COMMAND", made.command)
    return made
