"""Engines are measured in processes of their own, within bounds, and the fastest is chosen."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from batchscore.contracts import ModelFiles, ModelInput, ModelOutput
from batchscore.contracts.proof import Measurement
from batchscore.engines import ENGINES
from batchscore.engines import measure as module
from batchscore.engines.measure import fastest, measure
from batchscore.errors import ModelError, SettingsError, UnavailableError
from batchscore.models.digest import digest_folder
from tests.factories import models as factory
from tests.factories.engines import timed
from tests.factories.models import batch_of, files_of


@pytest.fixture
def files(tmp_path, monkeypatch):
    """``files(name)``: a model for the timed engine, which does what the name says."""
    monkeypatch.setitem(ENGINES, "timed", timed.__name__)
    monkeypatch.setitem(ENGINES, "other", timed.__name__)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"0" * 1_234)
    plain = ModelFiles(
        str(folder), digest_folder(folder), "", "1", (), (ModelInput("x", "double"),), (ModelOutput("", "double"),), ()
    )
    return lambda name: dataclasses.replace(plain, name=name)


def rows(count=70_000, width=1):
    return pa.RecordBatch.from_pydict({f"x{i}": np.arange(float(count)) for i in range(width)})


def test_what_is_measured(files):
    found = measure("timed", files("slow-0.002"), rows(), seconds=0.6)
    assert (found.engine, found.batch_rows, found.size_bytes) == ("timed", 65_536, 1_234)
    # 65,536 rows in 2 ms, and what this machine's other work takes.
    assert 1e6 < found.rows_per_second < 65_536 / 0.002
    assert 0.01 < found.load_seconds < 60
    assert 20 << 20 < found.peak_bytes < 2 << 30


def test_the_best_batch_size_is_found(files):
    assert measure("timed", files("rows"), rows(), seconds=0.5).batch_rows == 4_096


def test_a_slow_wrapper_changes_the_choice(files):
    """Two engines of one speed; the one that is slowed is not taken."""
    for slowed in ("timed", "other"):
        found = [
            measure(engine, files("slow-0.02" if engine == slowed else "slow-0.001"), rows(), seconds=0.3)
            for engine in ("timed", "other")
        ]
        assert {fastest(found).engine, slowed} == {"timed", "other"}


def test_a_real_engine(pinned):
    model, sample = pinned(factory.register_lightgbm, "booster")
    found = measure("pyfunc", files_of(model), batch_of(model, sample), seconds=0.3)
    assert found.batch_rows > 400, "the sample is repeated: a run's batches are larger"
    assert found.rows_per_second > 100
    assert found.load_seconds > 0.5  # MLflow and LightGBM are imported in there, although this process has them
    assert found.size_bytes == model.size_bytes


def test_memory_is_that_of_the_child(files):
    ballast = np.ones(600 << 17)  # 600 MiB here
    small = measure("timed", files("slow"), rows(), seconds=0.1)
    large = measure("timed", files("large-200"), rows(), seconds=0.1)
    assert ballast.nbytes > 500 << 20 > small.peak_bytes
    assert 150 << 20 < large.peak_bytes - small.peak_bytes < 300 << 20


def test_loading_counts_from_nothing(files):
    slow = measure("timed", files("load-1.5"), rows(100), seconds=0.1)
    assert slow.load_seconds > 1.5
    assert slow.batch_rows == 65_536


def test_the_byte_budget(files):
    found = measure("timed", files("slow-0.001"), rows(70_000, 10), seconds=0.2, max_bytes=10_000 * 80)
    assert found.batch_rows <= 10_000
    assert measure("timed", files("slow"), rows(5, 10), seconds=0.1, max_bytes=1).batch_rows == 1


def test_slow_engines_take_no_longer_than_asked(files):
    begun = time.monotonic()
    found = measure("timed", files("slow-0.5"), rows(), seconds=1.0)
    assert found.batch_rows == 4_096
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("kind", ["hang", "spawn"])
def test_a_hanging_engine_is_killed_with_all_it_started(files, kind, monkeypatch, capfd):
    processes = []
    original = module.subprocess.Popen
    monkeypatch.setattr(
        module.subprocess, "Popen", lambda *a, **k: processes.append(original(*a, **k)) or processes[-1]
    )
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="timed could not be measured") as caught:
        measure("timed", files(kind), rows(100), max_seconds=6)
    assert "no answer within 6 s" in str(caught.value)
    assert time.monotonic() - begun < 12
    [process] = processes
    assert process.poll() is not None
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if _group(pid) == process.pid]
    assert capfd.readouterr().out == ""


def _group(folder):
    try:
        state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return None
    return int(group) if state != "Z" else None


def test_an_orphan_ends_by_itself(files, tmp_path):
    """The child's own clock ends it when nobody is left who would."""
    import pickle
    import signal
    import subprocess
    import sys

    folder = tmp_path / "job"
    folder.mkdir()
    with pa.OSFile(str(folder / "sample.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows(10).schema) as writer:
        writer.write_batch(rows(10))
    request = ("timed", timed.__name__, files("hang"), 1, 1.0, -2.0)  # 3 s with the grace
    (folder / "request").write_bytes(pickle.dumps(request))
    code = "from batchscore.engines.measure import serve; serve(__import__('sys').argv[1], 0.0)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("crash", UnavailableError, "killed by SIGSEGV"),
        ("exit", UnavailableError, "ended with exit code 3\n.*the last words"),
        ("raise", ModelError, "failed while it was measured\n.*ValueError: no such operator"),
        ("refuse", ModelError, "the model raised\n.*a reason"),
    ],
)
def test_engines_that_fail(files, name, kind, text):
    with pytest.raises(kind, match=f"(?s){text}"):
        measure("timed", files(name), rows(100))


def test_what_cannot_be_measured(files):
    with pytest.raises(ModelError, match="without rows"):
        measure("timed", files("slow"), rows(0))
    with pytest.raises(SettingsError, match="unknown engine"):
        measure("timd", files("slow"), rows(1))
    changed = dataclasses.replace(files("slow"), digest="0" * 64)
    with pytest.raises(ModelError, match="not those that were resolved"):
        measure("timed", changed, rows(1))


def test_a_model_that_prints_does_not_disturb(files, capfd):
    measure("timed", files("slow"), rows(10), seconds=0.1)
    assert capfd.readouterr().out == ""


def test_fastest():
    one, two, three = (Measurement(name, 1, speed, 0.0, 0, 0) for name, speed in (("a", 1.0), ("b", 5.0), ("c", 5.0)))
    assert fastest([one, two, three]) == two
    with pytest.raises(ValueError, match="empty"):
        fastest([])
