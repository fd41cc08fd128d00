"""An engine scores a run only with a proof, and auto takes the one that ends first."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from mlflow.models import infer_signature

from batchscore import engines, models
from batchscore.contracts import Candidate, Measurement
from batchscore.engines import artifacts, parity
from batchscore.errors import ModelError, UnavailableError
from batchscore.selection import Allowed, Prover, candidates, fastest, foreseen, seconds, select
from tests.factories import models as factory
from tests.factories.engines import wrapped

MANY = 50_000_000
STRICT = Allowed(1.0e-5, 0)
NOW = "2026-11-01T00:00:00Z"
FACTS = {"environment": "local", "rows": MANY, "cores": 2}


@pytest.fixture
def cache(tmp_path, monkeypatch, built_once):
    """An engine cache of its own, and engines that are quick to prove."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    named = {"wrapped": wrapped.__name__, **{name: engines.ENGINES[name] for name in ("native", "pyfunc")}}
    monkeypatch.setattr(engines, "ENGINES", engines.ENGINES)
    monkeypatch.setattr("batchscore.engines.ENGINES", {**named})
    for place in ("batchscore.engines.cache.ENGINES", "batchscore.engines.measure.ENGINES"):
        monkeypatch.setattr(place, named)


@pytest.fixture
def prover(pinned, cache):
    model, frame = pinned(factory.register_lightgbm, "booster")
    batch = factory.batch_of(model, frame)
    return Prover(model, STRICT, sample=lambda: batch, created_at=NOW, probe_rows=2_000, measure_seconds=0.2)


def test_auto_takes_the_fastest_and_a_slower_one_changes_the_choice(prover, monkeypatch):
    assert select("auto", prover, **FACTS).engine == "wrapped"
    for name in engines.ENGINES:
        (artifacts.entry_folder(name, prover.model) / artifacts.MEASUREMENT).unlink()
    monkeypatch.setenv(wrapped.FAULT, "slow")
    again = Prover(prover.model, STRICT, sample=prover.sample, created_at=NOW, probe_rows=2_000, measure_seconds=0.2)
    chosen = select("auto", again, **FACTS).engine
    took = {
        found.engine: seconds(found.measurement, FACTS["rows"], FACTS["cores"])
        for found in candidates(again)
        if found.measurement is not None
    }
    assert chosen == min(took, key=lambda name: took[name])
    assert chosen != "wrapped"
    assert len(took) > 2


def test_an_engine_with_other_scores_is_never_used(prover, monkeypatch):
    monkeypatch.setenv(wrapped.FAULT, "wrong")
    chosen = select("auto", prover, **FACTS)
    took = {
        found.engine: seconds(found.measurement, FACTS["rows"], FACTS["cores"])
        for found in candidates(prover)
        if found.measurement is not None
    }
    assert "wrapped" not in took
    assert chosen.engine == min(took, key=lambda name: took[name])
    with pytest.raises(ModelError, match="does not give the scores") as caught:
        select("wrapped", prover, **FACTS)
    assert "probe" in str(caught.value), "the offending row is named"
    allowed = Prover(
        prover.model, Allowed(0.1, 1_000), sample=prover.sample, created_at=NOW, probe_rows=2_000, measure_seconds=0.2
    )
    assert select("wrapped", allowed, **FACTS).certificate.max_abs_diff == pytest.approx(1e-3)


def test_what_was_proved_is_not_proved_again(prover, monkeypatch):
    first = select("auto", prover, **FACTS)
    monkeypatch.setattr(parity, "certify", lambda *_, **__: pytest.fail("proved again"))
    monkeypatch.setattr("batchscore.engines.measure.measure", lambda *_, **__: pytest.fail("measured again"))
    again = Prover(
        prover.model,
        STRICT,
        sample=lambda: pytest.fail("read again"),
        created_at=NOW,
        probe_rows=2_000,
        measure_seconds=0.2,
    )
    assert select("auto", again, **FACTS) == first
    assert foreseen("auto", again, **FACTS) == first.engine


def test_stricter_settings_ask_for_a_new_proof(prover, monkeypatch):
    select("wrapped", prover, **FACTS)
    monkeypatch.setenv(wrapped.FAULT, "wrong")
    strict = Prover(
        prover.model, Allowed(0.0, 0), sample=prover.sample, created_at=NOW, probe_rows=2_000, measure_seconds=0.2
    )
    with pytest.raises(ModelError, match="does not give the scores"):
        select("wrapped", strict, **FACTS)


def test_a_damaged_artifact_is_made_again(prover):
    first = select("wrapped", prover, **FACTS)
    for path in artifacts.entry_folder("wrapped", prover.model).rglob("*.so"):
        path.write_bytes(b"damaged")
    assert prover.stored("wrapped").state == "unproved"
    again = select("wrapped", prover, **FACTS)
    assert again.files.digest == first.files.digest


def test_another_machine_finds_what_was_proved_in_the_registry(prover, registry, tmp_path, monkeypatch):
    here = replace(prover, tracking_uri=registry.tracking_uri)
    first = here.proved("wrapped")
    assert first.state == "equal"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(wrapped, "convert", lambda *_: pytest.fail("converted again"))
    there = replace(prover, tracking_uri=registry.tracking_uri, sample=lambda: pytest.fail("read again"))
    assert there.stored("wrapped").state == "unproved"
    assert there.proved("wrapped").certificate == first.certificate


def test_a_registry_that_cannot_be_written_fails_no_proof(prover, tmp_path):
    alone = replace(prover, tracking_uri=f"sqlite:///{tmp_path}/none/registry.db")
    assert alone.proved("wrapped").state == "equal"


def test_few_rows_are_not_worth_a_proof(prover):
    few = {**FACTS, "rows": 10_000}
    chosen = select("auto", prover, **few)
    assert (chosen.engine, chosen.certificate) == ("pyfunc", None)
    assert "batchscore engines" in chosen.notice
    assert foreseen("auto", prover, **few) == "auto"
    select("wrapped", prover, **few)
    assert select("auto", prover, **few).certificate is not None, "once one is proved, auto uses what is known"


def test_a_model_that_an_engine_cannot_take_is_remembered(pinned, cache, monkeypatch):
    model, frame = pinned(factory.register_sklearn)
    batch = factory.batch_of(model, frame)
    prover = Prover(model, STRICT, sample=lambda: batch, created_at=NOW, probe_rows=2_000, measure_seconds=0.2)
    found = prover.proved("wrapped")
    assert (found.state, "no ensemble of trees" in found.reason) == ("unavailable", True)
    monkeypatch.setattr(wrapped, "convert", lambda *_: pytest.fail("tried again"))
    assert prover.proved("wrapped") == found
    with pytest.raises(ModelError, match="no ensemble of trees"):
        select("wrapped", prover, **FACTS)


def test_an_environment_of_its_own_runs_the_model_itself(prover):
    chosen = select("auto", prover, environment="uv", rows=MANY, cores=2)
    assert (chosen.engine, chosen.files.environment) == ("pyfunc", "uv")


def measured(engine: str, speed: float, load: float) -> Candidate:
    state = "reference" if engine == "pyfunc" else "equal"
    return Candidate(engine, state, measurement=Measurement(engine, 4_096, speed, load, 1, 1))


def test_the_first_to_end_depends_on_the_rows():
    found = [measured("quick to load", 1e5, 0.1), measured("quick to score", 1e6, 5.0), measured("pyfunc", 1e4, 9.0)]
    assert fastest(found, 100_000, 2).engine == "quick to load"
    assert fastest(found, 50_000_000, 2).engine == "quick to score"
    assert fastest(found, -1, 2).engine == "quick to score"
    assert seconds(found[0].measurement, 100_000, 2) == pytest.approx(0.6)


def test_refused_and_unmeasured_engines():
    slow, quick = measured("pyfunc", 1e4, 1.0), measured("onnx", 1e6, 1.0)
    assert fastest([replace(quick, state="refused"), slow], MANY, 2).engine == "pyfunc"
    unmeasured = [replace(slow, measurement=None), replace(quick, measurement=None)]
    assert fastest(unmeasured, MANY, 2).engine == "onnx", "without rows to measure on, a proof is preferred"
    with pytest.raises(ModelError, match="no engine"):
        fastest([replace(quick, state="refused", reason="because")], MANY, 2)


@pytest.fixture
def poisoned(registry, model_cache, cache):
    """A prover of a model that only pyfunc serves, with a row in its sample on which the model raises."""

    def predict(frame, params):
        if (frame["x"] < 0).any():
            raise ValueError("negative")
        return frame["x"] * 2

    rows = pa.RecordBatch.from_pydict({"x": [float(n) for n in range(5_000)]})
    frame = rows.to_pandas()
    uri = factory.register_python(registry, "poisoned", predict, signature=infer_signature(frame, frame["x"]))
    model = models.pin(uri, tracking_uri=registry.tracking_uri, cache_dir=model_cache)
    bad = pa.RecordBatch.from_pydict({"x": [*rows.column("x").to_pylist(), -1.0]})
    return Prover(model, STRICT, sample=lambda: bad, created_at=NOW, probe_rows=2_000, measure_seconds=0.2)


def test_a_row_on_which_the_model_raises_does_not_keep_it_from_being_measured(poisoned):
    assert poisoned._scored_sample.num_rows == 5_000
    chosen = select("auto", poisoned, **FACTS)
    assert chosen.engine == engines.REFERENCE
    assert chosen.measurement is not None


def test_measuring_never_makes_the_registered_model_unavailable(poisoned, monkeypatch):
    def failing(*_, **__):
        raise UnavailableError("it did not end in time")

    monkeypatch.setattr("batchscore.engines.measure.measure", failing)
    assert select("auto", poisoned, **FACTS).engine == engines.REFERENCE
    assert poisoned.measured(Candidate("native", "equal")).state == "unavailable"


def test_an_engine_that_fails_where_the_registered_model_does_not_stays_out(prover, monkeypatch):
    whole = engines.measure.measure

    def failing(engine, *arguments, **more):
        if engine == "wrapped":
            raise ModelError("it raised")
        return whole(engine, *arguments, **more)

    monkeypatch.setattr("batchscore.engines.measure.measure", failing)
    assert prover.measured(prover.proved("wrapped")).state == "unavailable"
