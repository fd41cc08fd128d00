"""What is compared, by which rows, and what of a run's settings can be built again."""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.config import load, redacted
from batchscore.contracts import Forgetting, ForgottenUnit, Restriction, SourceFile, Split, TargetState
from batchscore.errors import InputError, SettingsError
from batchscore.plan import make
from batchscore.reproduce import Options, compare
from batchscore.reproduce.compare import Excused, Tally
from batchscore.reproduce.erased import Erasures
from batchscore.reproduce.sample import draw
from batchscore.reproduce.settings import check_filled, filled, rebuilt
from tests.factories.staging import day, make_manifest, make_plan
from tests.factories.values import config, plan_inputs, source

NAN = float("nan")


def compared(left, right, keys=("id",), outputs=("prediction",), rows=10, **options):
    """Two tables compared as batches of three rows."""
    tally = Tally(keys, outputs, **options)
    tally.add(lambda: left.to_batches(max_chunksize=3), lambda: right.to_batches(max_chunksize=3), rows)
    return tally.result()


def scores(ids, values, kind=None):
    return pa.table({"id": pa.array(ids, kind or pa.int64()), "prediction": pa.array(values, pa.float64())})


def counts(found):
    return found.equal, found.different, found.missing, found.surplus


# --- comparing ----------------------------------------------------------------------------------------------


def test_the_order_of_rows_does_not_matter():
    left = scores(range(8), [0.5, NAN, None, 1.0, 2.0, -0.0, 3.0, 4.0])
    found = compared(left, left.take(list(reversed(range(8)))))
    assert counts(found) == (8, 0, 0, 0)
    assert found.is_equal


def test_the_last_bit_counts():
    left = scores([1, 2, 3], [0.1, 0.0, 7.0])
    right = scores([1, 2, 3], [np.nextafter(0.1, 1), -0.0, 7.0])
    found = compared(left, right)
    assert counts(found) == (1, 2, 0, 0)
    assert [(sample.keys, sample.published, sample.again) for sample in found.samples] == [
        ((("id", "1"),), "0.1", "0.10000000000000002"),
        ((("id", "2"),), "0.0", "-0.0"),
    ]
    assert found.largest == (("prediction", pytest.approx(1.4e-17, rel=0.1)),)
    assert not found.is_equal


def test_rows_that_one_side_lacks():
    found = compared(scores([1, 2, 3], [1.0, 2.0, 3.0]), scores([2, 4], [2.0, 4.0]))
    assert counts(found) == (1, 0, 1, 2)
    texts = {sample.keys[0][1]: (sample.published, sample.again) for sample in found.samples}
    assert texts == {"1": ("1.0", ""), "3": ("3.0", ""), "4": ("", "4.0")}


def test_a_side_without_rows():
    table = scores([1], [1.0])
    assert counts(compared(table, table.slice(0, 0))) == (0, 0, 0, 1)
    assert counts(compared(table.slice(0, 0), table)) == (0, 0, 1, 0)


def test_of_a_sample_only_the_drawn_rows_count():
    found = compared(scores([1, 2, 3], [1.0, 2.0, 3.0]), scores([2, 4], [2.5, 4.0]), subset=True)
    assert counts(found) == (0, 1, 1, 0)


def test_samples_are_bounded():
    found = compared(scores(range(50), [0.0] * 50), scores(range(50), [1.0] * 50))
    assert (found.different, len(found.samples), found.largest) == (50, 10, (("prediction", 1.0),))


def test_rows_that_cannot_be_told_apart():
    with pytest.raises(SettingsError, match="cannot be told apart"):
        compared(scores([1, 1], [1.0, 2.0]), scores([1, 1], [1.0, 2.0]))


def test_several_keys_and_outputs():
    def table(label):
        return pa.table(
            {
                "x": [0.0, -0.0, NAN, None],
                "ds": [dt.date(2026, 11, 1)] * 4,
                "prediction_a": ["u", "v", None, "w"],
                "prediction_b": [[1.0], [], None, [label]],
            }
        )

    found = compared(table(1.0), table(2.0), ("x", "ds"), ("prediction_a", "prediction_b"))
    assert counts(found) == (3, 1, 0, 0)
    assert found.samples[0].column == "prediction_b"
    assert compared(table(1.0), table(1.0), ("x", "ds"), ("prediction_a", "prediction_b")).is_equal


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.float64()])
def test_large_units_are_compared_in_ranges(monkeypatch, kind):
    ids = np.random.default_rng(5).permutation(1000)
    left = scores(pa.array(ids).cast(kind), ids / 3.0, kind)
    right = scores(pa.array(ids[::-1]).cast(kind), np.where(ids == 77, 1.0, ids / 3.0)[::-1], kind)
    whole = compared(left, right, rows=1000)
    most = []
    monkeypatch.setattr(compare, "RANGE_ROWS", 90)
    real = Tally._compare

    def seen(self, a, b):
        most.append(0 if a is None else a.num_rows)
        real(self, a, b)

    monkeypatch.setattr(Tally, "_compare", seen)
    assert compared(left, right, rows=1000) == whole
    assert counts(whole) == (999, 1, 0, 0)
    assert (sum(most), len(most)) == (1000, 12)
    assert max(most) < 200


def test_null_keys_are_in_some_range(monkeypatch):
    monkeypatch.setattr(compare, "RANGE_ROWS", 3)
    table = scores([None, *range(9)], [9.0, *map(float, range(9))])
    assert counts(compared(table, table, rows=10)) == (10, 0, 0, 0)


@given(st.dictionaries(st.integers(-5, 5), st.floats()), st.dictionaries(st.integers(-5, 5), st.floats()))
def test_as_dictionaries_compare(left, right):
    found = compared(scores(list(left), list(left.values())), scores(list(right), list(right.values())))
    same = {
        key for key in left.keys() & right.keys() if np.float64(left[key]).tobytes() == np.float64(right[key]).tobytes()
    }
    both = left.keys() & right.keys()
    assert counts(found) == (len(same), len(both) - len(same), len(right.keys() - both), len(left.keys() - both))


# --- samples ------------------------------------------------------------------------------------------------


def planned(*rows):
    files = tuple(SourceFile(f"/in/f{index}", 10, "", count, (count,)) for index, count in enumerate(rows))
    tasks = tuple((Split(file.path, file.rows, None, (), 10),) for file in files)
    return make_plan(TargetState("/out"), "r1", {}, source=source(files=files, uri="/in"), tasks=tasks)


def test_every_file_is_drawn_from():
    drawn = draw(planned(1000, 10, 1, 500), 20, seed=1)
    assert sorted(drawn) == ["/in/f0", "/in/f1", "/in/f2", "/in/f3"]
    assert sum(map(len, drawn.values())) <= 20
    assert len(drawn["/in/f0"]) > len(drawn["/in/f1"])
    for path, places in drawn.items():
        assert (np.diff(places) > 0).all(), path


def test_the_seed_decides():
    plan = planned(1000, 1000)
    first, again, other = (draw(plan, 10, seed) for seed in (1, 1, 2))
    assert {path: places.tolist() for path, places in first.items()} == {
        path: places.tolist() for path, places in again.items()
    }
    assert any(first[path].tolist() != other.get(path, np.array([])).tolist() for path in first)


def test_fewer_rows_than_files():
    drawn = draw(planned(*[5] * 30), 4, seed=3)
    assert [len(places) for places in drawn.values()] == [1] * 4


# --- settings -----------------------------------------------------------------------------------------------


def manifest(settings, **facts):
    made = make_manifest(make_plan(TargetState("/out"), "r1", {}), ())
    base = {"settings": settings, "model_uri": "models:/fraud/7", "source_uri": "/data/in", "source_kind": "parquet"}
    return dataclasses.replace(made, **{**base, **facts})


def again(settings, given=None, *, tracking_uri=None, runner="local", **facts):
    registry, _ = Options(tracking_uri=tracking_uri, settings=given).registry(manifest(settings, **facts))
    return rebuilt(manifest(settings, **facts), given, registry=registry, runner=runner, output="/scratch")


def test_names_become_exact():
    job = config(
        model={"version": "Production"},
        scoring={"runner": "spark", "engine": "auto", "batch_rows": 500},
        output={"keys": ["id"], "mode": "replace", "carry": ["*"]},
        validation={"suite": "conf/x.json"},
    )
    found = again(redacted(job), engine="compiled")
    assert (found.model.requested, found.input.path, found.input.format) == ("models:/fraud/7", "/data/in", "parquet")
    assert (found.scoring.engine, found.scoring.runner, found.scoring.batch_rows) == ("compiled", "local", 500)
    assert (found.output.path, found.output.keys, found.output.carry) == ("/scratch", ("id",), ("*",))
    assert found.validation.suite is None


def test_a_delta_input_has_its_recorded_version():
    found = again(redacted(config(input={"version": "latest"})), source_kind="delta", source_version=3)
    assert (found.input.version, found.input.format) == (3, "delta")


def test_the_gpu_engine_is_onnx_on_cuda():
    found = again(redacted(config()), engine="onnx-cuda")
    assert (found.scoring.engine, found.scoring.device) == ("onnx", "cuda")
    assert again(redacted(config(scoring={"device": "auto"})), engine="onnx").scoring.device == "cpu"


def test_masked_settings_are_named():
    job = config(registry={"tracking_uri": "postgresql://ml:hunter2@db/mlflow"}, spark={"conf": {"my.token": "s3cret"}})
    with pytest.raises(SettingsError, match="masks settings") as caught:
        again(redacted(job))
    assert caught.value.found == "registry.tracking_uri"
    assert "hunter2" not in str(caught.value)
    found = again(redacted(job), tracking_uri="sqlite:///r.db")
    assert found.registry.tracking_uri == "sqlite:///r.db"
    assert again(redacted(job), job, runner="spark").spark.conf == {"my.token": "s3cret"}


def test_what_scores_and_is_masked_comes_from_the_settings_of_today():
    condition = "password='open'"
    job = config(
        model={"params": {"token": "<eos>", "max_new_tokens": 64}},
        input={"where": condition},
        quarantine={"rules": [{"sql": condition}]},
    )
    recorded = redacted(job)
    assert recorded["model"]["params"] == {"token": "***", "max_new_tokens": 64}
    assert filled(manifest(recorded)) == (("model", "params"), ("input", "where"), ("quarantine", "rules"))
    with pytest.raises(SettingsError, match="masks settings") as caught:
        again(recorded)
    assert caught.value.found == "model.params.token, input.where, quarantine.rules.sql"
    found = again(recorded, job)
    assert found.model.params == {"token": "<eos>", "max_new_tokens": 64}
    assert (found.input.where, found.quarantine.rules[0].sql) == (condition, condition)


def test_the_digest_says_whether_they_are_the_runs():
    job = config(scoring={"engine": "auto", "runner": "local"}, input={"where": "password='open'"})

    def planned(given):
        return make(plan_inputs(config=given, restriction=Restriction(where=given.input.where)))

    facts = {"settings_digest": planned(job).settings_digest, "engine": "native"}
    recorded = manifest(redacted(job), **facts)
    check_filled(recorded, again(redacted(job), job, **facts), planned(job))
    other = config(scoring={"engine": "auto", "runner": "local"}, input={"where": "password='shut'"})
    with pytest.raises(SettingsError, match="are others than the run's by now") as caught:
        check_filled(recorded, again(redacted(job), other, **facts), planned(other))
    assert "input.where" in str(caught.value.found)


def test_whose_programs_run_is_not_for_the_manifest_to_say():
    forged = config(
        registry={"tracking_uri": "sqlite:///r.db", "allowed_paths": ["/"]},
        spark={"master": "spark://elsewhere:7077", "conf": {"spark.pyspark.python": "/evil/python"}},
    )
    for runner in ("local", "spark"):
        found = again(redacted(forged), runner=runner)
        assert (found.registry.tracking_uri, found.registry.allowed_paths) == ("sqlite:///r.db", ())
        assert (found.spark.master, found.spark.conf) == ("local[*]", {})
    own = config(registry={"tracking_uri": "sqlite:///own.db", "allowed_paths": ["/models"]})
    found = again(redacted(forged), own, tracking_uri="sqlite:///moved.db", runner="spark")
    assert (found.registry.tracking_uri, found.registry.allowed_paths) == ("sqlite:///moved.db", ("/models",))
    assert found.spark.conf == {}


def test_a_view_cannot_be_read_again():
    with pytest.raises(InputError, match="cannot be read again"):
        again(redacted(config()), source_kind="catalog", source_uri="sales.view")


def test_settings_that_this_release_does_not_know():
    with pytest.raises(SettingsError):
        again({**redacted(config()), "future": {"x": 1}})


def test_every_default_survives():
    job = load(None, {"model.name": "m/1", "input.path": "/in", "output.path": "/out"})
    assert again(redacted(job)).output.retention_days == 30


# --- rows that were erased ----------------------------------------------------------------------------------


def test_rows_that_one_side_lacks_on_purpose():
    left, right = scores([1, 2, 3], [1.0, 2.0, 3.0]), scores([2, 3, 4, 5], [2.5, 3.0, 4.0, 5.0])
    tally = Tally(("id",), ("prediction",))
    tally.add(left.to_batches, right.to_batches, 4, Excused(missing=2, surplus=1))
    found = tally.result()
    assert counts(found) == (1, 1, 0, 0)
    assert [sample.keys for sample in found.samples] == [(("id", "2"),)]
    tally.add(left.to_batches, right.to_batches, 4, Excused(missing=1))
    assert counts(tally.result()) == (2, 2, 2, 1)
    assert len(tally.result().samples) == 5


def test_erased_rows_are_those_that_an_erasure_left_out():
    first, second = day("2026-11-20"), day("2026-11-21")
    records = (
        Forgetting("f1", "", "", (ForgottenUnit(first, "r1", 40, 39), ForgottenUnit(first, "r2", 7, 6)), ()),
        Forgetting("f2", "", "", (ForgottenUnit(first, "r1", 39, 37), ForgottenUnit(second, "r1", 5, 0)), ()),
    )
    erasures = Erasures("r1", records)
    assert [erasures.lost(first, rows) for rows in (40, 39, 38, 37, 0)] == [0, 1, 0, 3, 0]
    assert [erasures.lost(second, rows) for rows in (5, 4, 0)] == [0, 0, 5]
    assert (erasures.asked(first), erasures.asked(second), erasures.asked(day("2026-11-22"))) == (3, 5, 0)
