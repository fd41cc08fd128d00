"""A GPU is used where there is one and it was proved; where there is none, a run says so and loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore import engines, prepare
from batchscore.cli import show
from batchscore.config import load
from batchscore.contracts import RunOptions
from batchscore.engines import artifacts, cuda, onnx, onnx_cuda
from batchscore.engines.onnx_tensors import open_session
from batchscore.errors import ModelError, SettingsError, SetupError
from batchscore.selection import Allowed, Prover, foreseen, known, select
from tests.factories import models as factory
from tests.factories.engines import wrapped

PROVIDERS = onnxruntime.get_available_providers()
# These tests are of machines without a GPU.
pytestmark = pytest.mark.skipif(cuda.missing() is None, reason="this machine has a GPU")
ON_CPU = ("native", "pyfunc")
FACTS = {"environment": "local", "rows": 50_000_000, "cores": 2}


@pytest.fixture
def onnx_model(pinned):
    return pinned(factory.register_onnx)


@pytest.fixture
def job(pinned, registry, tmp_path):
    """``job(**settings)``: settings for a LightGBM model and a small table."""
    model, frame = pinned(factory.register_lightgbm, "booster")
    table = tmp_path / "table"
    table.mkdir()
    pq.write_table(pa.Table.from_pandas(frame.assign(id=range(len(frame))), preserve_index=False), table / "0.parquet")

    def make(**settings):
        return load(
            None,
            {
                "model.name": model.requested,
                "input.path": str(table),
                "output.path": str(tmp_path / "out"),
                "output.keys": ["id"],
                "registry.tracking_uri": registry.tracking_uri,
                "scoring.runner": "local",
                **settings,
            },
        )

    return make


def planned(config):
    return prepare.make_plan(config, RunOptions(), prepare.LazySpark(config, lambda _: None))


def test_a_session_on_a_gpu_is_refused_with_the_providers_that_are_here(onnx_model):
    model, _ = onnx_model
    with pytest.raises(SetupError, match="no CUDAExecutionProvider") as caught:
        onnx_cuda.load(factory.files_of(model), 1)
    assert "CPUExecutionProvider" in caught.value.text()
    assert "onnxruntime-gpu" in caught.value.text()


def test_a_session_that_fell_back_to_the_cpu_is_not_taken_for_one_on_a_gpu(onnx_model, monkeypatch):
    model, _ = onnx_model
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda.PROVIDER, cuda.CPU_PROVIDER])
    with (
        pytest.raises(SetupError, match="cannot use a GPU here") as caught,
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
    ):
        onnx.load_on(factory.files_of(model), 1, cuda=True)
    assert "CPUExecutionProvider" in caught.value.text()


def test_the_gpu_library_without_a_driver_is_no_gpu(tmp_path, monkeypatch):
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / cuda.LIBRARY).write_bytes(b"")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda _: spec)
    assert cuda.missing() == "there is no NVIDIA driver here"
    monkeypatch.setattr(cuda, "DRIVERS", (str(tmp_path),))
    assert cuda.missing() is None
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda _: None)
    assert cuda.missing() == "ONNX Runtime is not installed"


def test_cuda_on_a_machine_without_one_is_an_error_before_anything_is_done(job):
    with pytest.raises(SetupError, match="no CUDAExecutionProvider") as caught:
        planned(job(**{"scoring.device": "cuda"}))
    assert caught.value.exit_code == SetupError.exit_code
    assert all(name in caught.value.text() for name in PROVIDERS)


@pytest.mark.parametrize(
    "settings",
    [
        {"scoring.engine": "compiled"},
        {"scoring.engine": "pyfunc"},
        {"model.environment": "uv"},
        {"scoring.outputs": ["prediction", "probability"], "scoring.engine": "native"},
    ],
    ids=str,
)
def test_cuda_with_what_cannot_use_it_is_a_contradiction(job, settings):
    with pytest.raises((SettingsError, ModelError)):
        planned(job(**{"scoring.device": "cuda", **settings}))


def test_auto_takes_the_cpu_and_the_plan_says_why(job):
    plan = planned(job())
    assert (plan.device, plan.device_reason) == ("cpu", "ONNX Runtime has no CUDAExecutionProvider here")
    assert "device     cpu: ONNX Runtime has no CUDAExecutionProvider here" in show.plan_lines(plan, "local")
    quiet = planned(job(**{"scoring.device": "cpu"}))
    assert not any(line.startswith("device") for line in show.plan_lines(quiet, "local"))
    assert quiet.settings_digest == plan.settings_digest, "where a CPU computes, nothing is scored again"


@pytest.fixture
def with_gpu(pinned, tmp_path, monkeypatch, built_once):
    """A prover on a machine whose engine for GPUs is another one, on the CPU, that can be slowed down."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    named = {engines.CUDA: wrapped.__name__, **{name: engines.ENGINES[name] for name in ("native", "pyfunc")}}
    for place in ("engines", "engines.cache", "engines.measure"):
        monkeypatch.setattr(f"batchscore.{place}.ENGINES", named)
    model, frame = pinned(factory.register_lightgbm, "booster")
    batch = factory.batch_of(model, frame)
    return Prover(model, Allowed(1e-5, 0), lambda: batch, "2026-11-01T00:00:00Z", probe_rows=2_000, measure_seconds=0.2)


def test_a_gpu_is_proved_and_measured_like_any_other_engine(with_gpu, monkeypatch):
    assert select("auto", with_gpu, **FACTS).engine == engines.CUDA
    on_cpu = replace(with_gpu, device="cpu")
    assert select("auto", on_cpu, **FACTS).engine in ON_CPU
    assert foreseen("auto", on_cpu, **FACTS) in ON_CPU
    assert known("auto", on_cpu, environment="local").engine in ON_CPU
    for name in engines.ENGINES:
        measured = artifacts.entry_folder(name, with_gpu.model) / artifacts.MEASUREMENT
        measured.unlink()
    monkeypatch.setenv(wrapped.FAULT, "slow")
    assert select("auto", with_gpu, **FACTS).engine in ON_CPU
    asked = replace(with_gpu, device="cuda")
    assert select("auto", asked, **FACTS).engine == engines.CUDA, "who asks for a GPU gets it, fast or not"
    assert select("onnx", asked, **{**FACTS, "rows": 10}).certificate.engine == engines.CUDA
    assert foreseen("auto", asked, **FACTS) == engines.CUDA
    assert known("auto", asked, environment="local").engine == engines.CUDA


def test_a_gpu_with_other_scores_is_refused(with_gpu, monkeypatch):
    monkeypatch.setenv(wrapped.FAULT, "wrong")
    with pytest.raises(ModelError, match="does not give the scores"):
        select("auto", replace(with_gpu, device="cuda"), **FACTS)
    assert select("auto", with_gpu, **FACTS).engine in ON_CPU


def test_the_cpu_sessions_have_no_other_provider(onnx_model):
    model, _ = onnx_model
    session = open_session(next(Path(model.path).rglob("*.onnx")), 1)
    assert session.get_providers() == [cuda.CPU_PROVIDER]
