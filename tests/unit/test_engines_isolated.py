"""A model in an environment of its own: other versions, same scores, no process left, errors that arrive."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pytest

from batchscore import models
from batchscore.contracts import ModelFiles
from batchscore.engines import environment
from batchscore.engines.cache import loaded
from batchscore.errors import ModelError, SetupError, UnavailableError

OTHER = ("iniconfig", "2.0.0")  # small, and of another version than the one that runs here
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model that tells where it runs, and dies or raises when it is asked to."""
    import mlflow

    folder = tmp_path_factory.mktemp("isolated")

    def predict(frame, params):
        import importlib.metadata
        import os
        import time

        print("a model may print")  # noqa: T201  # that is the test
        asked = frame["x"].iloc[0]
        if asked == -1:
            raise RuntimeError("no such luck")
        if asked == -2:
            os.kill(os.getpid(), 9)
        if asked == -3:
            time.sleep(600)
        version = importlib.metadata.version("iniconfig")
        return [float(version.replace(".", ""))] * len(frame)

    class Custom(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return predict(model_input, params)

    own = [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow-skinny", "cloudpickle", "pandas")]
    schema = mlflow.models.ModelSignature(
        inputs=mlflow.types.Schema([mlflow.types.ColSpec("double", "x")]),
        outputs=mlflow.types.Schema([mlflow.types.ColSpec("double")]),
    )
    mlflow.pyfunc.save_model(
        str(folder / "model"), python_model=Custom(), signature=schema, pip_requirements=[*own, "==".join(OTHER)]
    )
    model = models.pin(str(folder / "model"), tracking_uri=f"sqlite:///{folder}/none.db", cache_dir=folder / "cache")
    return ModelFiles.of(model, "uv")


def batch(*values: float) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"x": pa.array(values, pa.float64())})


def test_the_model_runs_with_its_own_versions(files):
    assert importlib.metadata.version("iniconfig") != OTHER[1]
    engine = loaded("pyfunc", files, threads=1)
    assert engine.score(batch(1.0, 2.0)).to_pydict() == {"prediction": [200.0, 200.0]}
    assert engine.score(batch(*range(100_000))).num_rows == 100_000
    assert loaded("pyfunc", files, threads=1) is engine


def test_the_environment_is_made_once(files, monkeypatch):
    interpreter = environment.restored(files.path, files.digest)
    monkeypatch.setattr(environment, "_make", lambda *_: pytest.fail("made again"))
    assert environment.restored(files.path, files.digest) == interpreter


def test_what_the_model_raises_arrives(files):
    engine = loaded("pyfunc", files, threads=1)
    with pytest.raises(ModelError, match="no such luck"):
        engine.score(batch(-1.0))
    assert engine.score(batch(1.0)).num_rows == 1, "an error is no reason to start again"


def test_a_process_that_dies_is_reported(files):
    from batchscore.engines import isolated

    engine = isolated.load("batchscore.engines.pyfunc", files, 1)
    with pytest.raises(UnavailableError, match="SIGKILL"):
        engine.score(batch(-2.0))


@pytest.mark.parametrize("at_work", [True, False])
def test_a_process_that_died_is_started_anew_for_the_next_task(files, at_work):
    engine = loaded("pyfunc", files, threads=1)
    if at_work:
        with pytest.raises(UnavailableError, match="SIGKILL"):
            engine.score(batch(-2.0))
    else:  # as the kernel does where memory runs out, between two tasks
        engine._process.kill()
        engine._process.wait()
    again = loaded("pyfunc", files, threads=1)
    assert again is not engine
    assert again.score(batch(1.0, 2.0)).num_rows == 2
    assert loaded("pyfunc", files, threads=1) is again


def test_a_killed_worker_leaves_no_process_and_no_file_even_while_the_model_works(files, tmp_path):
    script = f"""
        import pickle, pyarrow as pa
        from pathlib import Path
        from batchscore.engines import isolated
        files = pickle.loads({__import__("pickle").dumps(files)!r})
        engine = isolated.load("batchscore.engines.pyfunc", files, 1)
        print(engine._process.pid, flush=True)
        engine.score(pa.RecordBatch.from_pydict({{"x": pa.array([-3.0])}}))
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(1)
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
    assert not list(tmp_path.iterdir())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_requirements_that_cannot_be_had_say_so(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {python_function: {}}")
    (folder / "requirements.txt").write_text("iniconfig==999.9\n")
    with pytest.raises(SetupError, match=r"iniconfig==999\.9"):
        environment.restored(str(folder), files.digest)
    assert not list((tmp_path / "cache").rglob("python")), "a half-made environment must not look whole"


def test_a_model_without_requirements_cannot_be_restored(files, tmp_path):
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {}}")
    with pytest.raises(ModelError, match="records no requirements"):
        environment.restored(str(tmp_path), files.digest)
    (tmp_path / "requirements.txt").write_text("mlflow")
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {python_version: 3.8.1}}")
    with pytest.raises(ModelError, match=r"Python 3\.8\.1"):
        environment.restored(str(tmp_path), files.digest)
