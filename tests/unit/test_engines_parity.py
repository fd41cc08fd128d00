"""The certificate: an engine that differs anywhere a probe looks is refused, with the row."""

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batchscore.contracts.proof import Certificate, Measurement
from batchscore.engines.certificates import from_json, to_json, valid
from batchscore.engines.differences import TIE, differences, layout_reason
from batchscore.engines.parity import BATCH_ROWS, certify
from batchscore.errors import ModelError

FACTS = {
    "engine": "fast",
    "model_digest": "m" * 64,
    "artifact_digest": "a" * 64,
    "versions": {"onnx": "1.19", "numpy": "2"},
    "allowed_abs_diff": 1e-6,
    "allowed_label_flips": 0,
    "created_at": "2026-11-01T00:00:00Z",
}


class Fake:
    """An engine made of a function of the batch."""

    def __init__(self, function, name="score"):
        self.function, self.name, self.sizes = function, name, []

    def score(self, batch):
        self.sizes.append(batch.num_rows)
        found = self.function(batch)
        if isinstance(found, dict):
            return pa.RecordBatch.from_pydict(found)
        return pa.RecordBatch.from_arrays([found], names=[self.name])


def probes(rows=5_000):
    values = np.random.default_rng(0).normal(size=rows)
    return [("input", pa.RecordBatch.from_arrays([pa.array(values), pa.array(np.arange(rows))], names=["x", "id"]))]


def double(batch):
    return pc.multiply(batch.column(0), 0.1)


def against(function, reference=double, rows=5_000, **facts):
    return certify(Fake(reference), Fake(function), probes(rows), **{**FACTS, **facts})


def test_an_equal_engine():
    certificate = against(double)
    assert (certificate.verdict, certificate.reason, certificate.worst) == ("equal", "", ())
    assert certificate.probes == (("input", 5_000),)
    assert certificate.versions == (("numpy", "2"), ("onnx", "1.19"))
    assert (certificate.max_abs_diff, certificate.skipped) == (0.0, 0)


def test_one_row_that_differs_is_named():
    def shifted(batch):
        values = double(batch).to_numpy().copy()
        values[batch.column("id").to_numpy() == 4_321] += 0.73
        return pa.array(values)

    certificate = against(shifted)
    assert certificate.verdict == "refused"
    assert certificate.max_abs_diff == pytest.approx(0.73)
    assert "output score differs by up to 0.73 (allowed 1e-06) in 1 of 5000 rows" in certificate.reason
    assert "id=4321" in certificate.reason
    assert certificate.reason.endswith(certificate.worst[0])
    assert against(shifted, allowed_abs_diff=0.8).verdict == "equal"


def test_the_worst_rows_come_first_and_are_few():
    certificate = against(lambda batch: pc.add(double(batch), pc.divide(batch.column("id"), 1e4)))
    assert len(certificate.worst) == 5
    assert "id=4999" in certificate.worst[0]
    assert "id=4998" in certificate.worst[1]


def test_a_wide_row_is_bounded_and_begins_with_what_is_unusual():
    base = {f"c{i}": np.zeros(50) for i in range(300)}
    base["c77"] = np.where(np.arange(50) == 49, 1e30, 0.0)
    batch = pa.RecordBatch.from_pydict(base)
    certificate = certify(
        Fake(lambda found: found.column("c0")), Fake(lambda found: found.column("c77")), [("input", batch)], **FACTS
    )
    assert "row c77=1e+30, c0=0.0" in certificate.reason
    assert "and 294 more" in certificate.reason
    assert len(certificate.reason) <= 1_000


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([math.nan, 1.0], "has NaN or null"),
        ([None, 1.0], "has NaN or null"),
    ],
)
def test_nan_and_null_are_told_apart(values, text):
    batch = [("special", pa.RecordBatch.from_pydict({"x": [0.0, 1.0]}))]
    for reference, candidate in ((pa.array([0.0, 1.0]), values), (pa.array([math.nan, 1.0]), [None, 1.0])):
        found = certify(
            Fake(lambda part, r=reference: r.slice(0, part.num_rows)),
            Fake(lambda part, c=candidate: pa.array(c, pa.float64()).slice(0, part.num_rows)),
            batch,
            **FACTS,
        )
        assert found.verdict == "refused"
        assert text in found.reason
        assert found.nan_mismatches >= 1


@pytest.mark.parametrize(
    ("one", "two", "absolute"),
    [
        (math.inf, math.inf, 0.0),
        (-math.inf, math.inf, math.inf),
        (math.inf, 1.0, math.inf),
        (1.0, -math.inf, math.inf),
        (math.nan, math.nan, 0.0),
        (0.0, -0.0, 0.0),
        (2.0, 2.5, 0.5),
    ],
)
def test_differences_of_numbers(one, two, absolute):
    rows = differences(pa.array([one]), pa.array([two]), probability=False)
    assert rows.absolute.tolist() == [absolute]
    assert not rows.missing.any()
    vector = differences(pa.array([[one, 1.0]]), pa.array([[two, 1.0]]), probability=False)
    assert vector.absolute.tolist() == [absolute]


def test_relative_differences():
    rows = differences(pa.array([0.0, 4.0, 0.0]), pa.array([1e-9, 5.0, 0.0]), probability=False)
    assert rows.relative.tolist() == [math.inf, 0.25, 0.0]


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        (pa.int64(), [1, 2, None], [1, 3, None]),
        (pa.string(), ["a", "b", None], ["a", "c", None]),
        (pa.bool_(), [True, False, None], [True, True, None]),
        (pa.list_(pa.string()), [["a"], ["b"], None], [["a"], ["c"], None]),
    ],
)
def test_labels(kind, one, two):
    rows = differences(pa.array(one, kind), pa.array(two, kind), probability=False)
    assert rows.flips.tolist() == [False, True, False]
    assert not rows.missing.any()
    gone = differences(pa.array(one, kind), pa.array([*two[:2], two[0]], kind), probability=False)
    assert gone.missing.tolist() == [False, False, True]


def test_flips_of_a_probability():
    one = pa.array([0.49, 0.5 + TIE / 2, 0.9, math.nan, 7.0])
    two = pa.array([0.51, 0.5 - TIE / 2, 0.6, 0.1, 0.1])
    assert differences(one, two, probability=True).flips.tolist() == [True, False, False, False, False]
    assert not differences(one, two, probability=False).flips.any()


def test_flips_of_class_probabilities():
    one = pa.array([[0.2, 0.5, 0.3], [0.4, 0.4 - TIE / 2, 0.2], [0.4, 0.3, 0.3], [0.1, 0.5, 0.9]])
    two = pa.array([[0.4, 0.3, 0.3], [0.39, 0.41, 0.2], [0.39, 0.31, 0.3], [0.9, 0.5, 0.1]])
    rows = differences(one, two, probability=False)
    assert rows.flips.tolist() == [True, False, False, False]  # the last is no distribution
    assert rows.absolute[1] == pytest.approx(0.01 + TIE / 2, abs=1e-6)


def test_a_generous_allowance_does_not_hide_flips():
    """Who allows 0.1 of difference and no flip gets no flip."""

    def flipping(batch):
        values = double(batch).to_numpy()
        return {"probability": np.where(batch.column("id").to_numpy() == 9, 0.45, 0.3 + 0 * values)}

    def reference(batch):
        values = double(batch).to_numpy()
        return {"probability": np.where(batch.column("id").to_numpy() == 9, 0.52, 0.3 + 0 * values)}

    found = certify(Fake(reference), Fake(flipping), probes(), **{**FACTS, "allowed_abs_diff": 0.1})
    assert (found.verdict, found.label_flips) == ("refused", 1)
    assert "another label" in found.reason
    allowing = certify(
        Fake(reference), Fake(flipping), probes(), **{**FACTS, "allowed_abs_diff": 0.1, "allowed_label_flips": 1}
    )
    assert allowing.verdict == "equal"


def test_outputs_known_to_be_probabilities():
    crossing = lambda by: lambda batch: pa.array(np.full(batch.num_rows, by))  # noqa: E731
    known = against(crossing(0.51), crossing(0.49), allowed_abs_diff=0.1, probabilities=("score",))
    assert known.label_flips == 5_000
    assert against(crossing(0.51), crossing(0.49), allowed_abs_diff=0.1).verdict == "equal"


def test_vectors_of_other_lengths():
    rows = differences(pa.array([[1.0], [1.0, 2.0], []]), pa.array([[1.0, 2.0], [1.0, 2.0], []]), probability=False)
    assert rows.absolute.tolist() == [math.inf, 0.0, 0.0]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0]), 2)
    assert differences(fixed.slice(1), pa.array([[3.0, 4.5]]), probability=False).absolute.tolist() == [0.5]


def test_rounding_of_large_numbers():
    """The last bits of 1e12 are more than is allowed; they are refused only where the same bits are asked for."""

    def large(add):
        return lambda batch: pa.array(np.full(batch.num_rows, 1e12) + add)

    assert against(large(1e-3), large(0)).verdict == "equal"
    assert against(large(1e-3), large(0), allowed_abs_diff=0.0).verdict == "refused"
    assert against(large(10.0), large(0)).verdict == "refused"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda batch: {"other": double(batch)}, "its outputs are"),
        (lambda batch: {"score": double(batch), "more": double(batch)}, "its outputs are"),
        (lambda batch: double(batch).cast(pa.float32()), "output score is float, the reference's double"),
        (lambda batch: double(batch).slice(1), "rows for"),
    ],
)
def test_other_layouts(function, text):
    certificate = against(function)
    assert certificate.verdict == "refused"
    assert text in certificate.reason
    assert layout_reason(pa.RecordBatch.from_pydict({"a": [1]}), pa.RecordBatch.from_pydict({"a": [2]})) is None


@pytest.mark.parametrize("size", [1, 7])
def test_an_engine_that_is_wrong_in_small_batches_only(size):
    found = against(lambda batch: pc.add(double(batch), 1.0 if batch.num_rows == size else 0.0))
    assert found.verdict == "refused"
    assert f"in a batch of {size}" in found.reason


def test_an_engine_that_is_wrong_in_large_batches_only():
    found = against(lambda batch: pc.add(double(batch), 1.0 if batch.num_rows == BATCH_ROWS else 0.0), rows=BATCH_ROWS)
    assert found.verdict == "refused"


def test_a_reference_that_depends_on_the_batch_is_compared_like_with_like():
    def uneven(batch):
        return pc.add(double(batch), 1e-3 / batch.num_rows)

    assert against(uneven, uneven).verdict == "equal"


def test_batches_are_bounded():
    engine = Fake(double)
    certify(Fake(double), engine, probes(10_000), **FACTS)
    assert max(engine.sizes) == BATCH_ROWS
    assert {1, 7} <= set(engine.sizes)


# engines that raise


def refusing(limit, kind=ValueError):
    """An engine that raises for a batch with an id that is a multiple of ``limit``."""

    def score(batch):
        if (batch.column("id").to_numpy() % limit == limit - 1).any():
            raise kind("infinite " * 3)
        return double(batch)

    return score


def test_a_candidate_that_raises():
    found = against(refusing(4_000))
    assert found.verdict == "refused"
    assert "it raises where the reference scores, on a input probe: infinite infinite infinite" in found.reason
    assert "id=3999" in found.reason


def test_a_candidate_that_raises_on_no_single_row():
    def score(batch):
        if batch.num_rows > 3_000:
            raise ModelError("too many rows")
        return double(batch)

    assert "too many rows" in against(score).reason


def test_rows_that_the_reference_refuses_are_left_out_and_counted():
    found = against(double, refusing(1_000))
    assert found.verdict == "equal"
    assert (found.skipped, found.probes) == (5, (("input", 4_995),))
    wrong = against(lambda batch: pc.add(double(batch), 1.0), refusing(1_000))
    assert wrong.verdict == "refused"


def test_a_reference_that_never_scores():
    with pytest.raises(ModelError, match="scores none of the probes") as caught:
        against(double, refusing(1))
    assert "infinite" in str(caught.value)
    with pytest.raises(ModelError, match="there are no probes"):
        certify(Fake(double), Fake(double), [], **FACTS)


def test_a_reference_that_refuses_most_is_asked_within_bounds():
    reference = Fake(refusing(2))
    found = certify(reference, Fake(double), probes(BATCH_ROWS), **FACTS)
    assert len(reference.sizes) < 1_000
    assert found.skipped + sum(rows for _, rows in found.probes) == BATCH_ROWS


# certificates as text


def certificate(**changes):
    return dataclasses.replace(against(double), **changes)


def test_certificates_survive_json():
    for value in (0.0, 1e-300, math.inf, math.nan, 0.1):
        written = certificate(max_abs_diff=value, max_rel_diff=-math.inf, worst=("é", 'a"b'), skipped=3)
        text = to_json(written)
        assert "NaN" not in text
        assert "Infinity" not in text
        read = from_json(text, Certificate)
        assert repr(read) == repr(written)
    measured = Measurement("onnx", 4_096, math.inf, 1.5, 1 << 30, 12)
    assert from_json(to_json(measured), Measurement) == measured


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"format": 1,', ""),
        ('"equal"', '"fine"'),
        ('"label_flips": 0', '"label_flips": "0"'),
        ('"label_flips": 0', '"label_flips": true'),
        ('"max_abs_diff": 0.0', '"max_abs_diff": "much"'),
        ('"engine": "fast"', '"engine": 5'),
        ('"worst": []', '"worst": {}'),
        ('"reference"', '"referenz"'),
        ("}", ""),
        ("{", "[{"),
    ],
)
def test_damaged_certificates_are_none(old, new):
    text = to_json(certificate())
    assert old in text
    assert from_json(text.replace(old, new), Certificate) is None
    assert from_json(text[: len(text) // 2], Certificate) is None
    assert from_json(text, Measurement) is None


HERE = {key: FACTS[key] for key in FACTS if key != "created_at"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"engine": "other"}, "another engine"),
        ({"model_digest": "x"}, "another model digest"),
        ({"artifact_digest": ""}, "another artifact digest"),
        ({"versions": {"onnx": "1.20", "numpy": "2"}}, "other versions: onnx"),
        ({"versions": {"numpy": "2"}}, "other versions: onnx"),
        ({"versions": {"onnx": "1.19", "numpy": "2", "more": "1"}}, "other versions: more"),
        ({"allowed_abs_diff": 1e-7}, "allow less"),
    ],
)
def test_certificates_for_something_else(changes, text):
    assert valid(certificate(), **HERE) is None
    assert text in valid(certificate(), **{**HERE, **changes})


def test_looser_settings_keep_an_approval_and_end_a_refusal():
    looser = {**HERE, "allowed_abs_diff": 1e-3, "allowed_label_flips": 2}
    assert valid(certificate(), **looser) is None
    refused = certificate(verdict="refused", reason="differs", max_abs_diff=1.0)
    assert valid(refused, **HERE) is None
    assert "allow more" in valid(refused, **looser)
    assert "allow less" in valid(certificate(allowed_label_flips=1), **HERE)


@pytest.mark.parametrize(
    "changes", [{"max_abs_diff": math.inf}, {"label_flips": 1}, {"nan_mismatches": 1}, {"probes": ()}]
)
def test_certificates_that_contradict_themselves(changes):
    assert valid(certificate(**changes), **HERE) is not None


# a real conversion


@pytest.mark.filterwarnings("ignore")
def test_the_plain_conversion_of_a_booster_is_refused():
    """onnxmltools rounds thresholds to the nearest float: no random row shows it, the probes do."""
    import lightgbm
    import onnxmltools
    import onnxruntime
    from onnxmltools.convert.common.data_types import FloatTensorType

    from batchscore.contracts import ModelInput
    from batchscore.engines.probes import build

    random = np.random.default_rng(3)
    data = random.normal(size=(3_000, 4)).astype(np.float32)
    label = np.floor(data * 2).sum(axis=1) % 2  # steps, so that a row on the wrong side of one gets the other label
    params = {"objective": "binary", "num_leaves": 31, "verbose": -1, "num_threads": 1, "learning_rate": 0.8}
    booster = lightgbm.train(params, lightgbm.Dataset(data, label), 8)
    graph = onnxmltools.convert_lightgbm(
        booster, initial_types=[("x", FloatTensorType([None, 4]))], zipmap=False, target_opset=15
    )
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = tuple(ModelInput(f"f{i}", "float") for i in range(4))
    table = booster.trees_to_dataframe().dropna(subset=["threshold"])
    thresholds = {
        f"f{name.removeprefix('Column_')}": part["threshold"].astype(float).to_numpy()
        for name, part in table.groupby("split_feature")
    }

    def matrix(batch):
        return batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()

    def native(batch):
        return {"probability": booster.predict(matrix(batch)).astype(np.float32)}

    def plain(batch):
        return {"probability": session.run(None, {"x": matrix(batch)})[1][:, 1]}

    sample = pa.RecordBatch.from_arrays([pa.array(data[:, i]) for i in range(4)], names=[item.name for item in inputs])
    facts = {**FACTS, "allowed_abs_diff": 1e-5}
    asked = build(inputs, sample, thresholds, {}, rows=10_000)
    found = certify(Fake(native), Fake(plain), asked, **facts)
    assert found.verdict == "refused"
    assert found.label_flips > 0
    assert "threshold probe, probability is" in found.reason
    rows = [(kind, batch) for kind, batch in asked if kind == "input"]
    assert certify(Fake(native), Fake(plain), rows, **facts).verdict == "equal"
    assert certify(Fake(native), Fake(native), asked, **facts).verdict == "equal"
