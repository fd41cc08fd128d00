"""Every engine, every kind of model, every kind of input: the registered model's own scores, at boundaries.

What serves a kind is written down, so that an engine that quietly stops to do so fails here, too.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batchscore import engines
from batchscore.engines import artifacts, cuda
from batchscore.engines.cache import loaded
from batchscore.engines.trees.read import read_forest
from batchscore.engines.unwrap import unwrap
from batchscore.errors import ModelError
from batchscore.score.core import takes_codes
from tests.factories import models as factory
from tests.factories.boundaries import boundary_rows
from tests.factories.models import batch_of, files_of

# scikit-learn adds up huge values to see whether all are finite.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning"),
    pytest.mark.usefixtures("built_once"),
]

TREES = factory.TREE_KINDS
# oneDAL's leaves hold one value.
SEVERAL_VALUES = {
    *("sklearn_tree", "sklearn_tree_proba", "sklearn_forest", "sklearn_forest_proba"),
    *("sklearn_forest3_proba", "sklearn_extra_proba"),
}
CATEGORIES = ("compiled", "onnx", "native")
REGISTERED = {
    "pipeline": ((factory.register_sklearn,), ("onnx", "native")),
    "probabilities": ((factory.register_probabilities,), ("onnx", "native")),
    "lightgbm_categories": ((factory.register_lightgbm, "booster"), CATEGORIES),
    "lightgbm_categories_classifier": ((factory.register_lightgbm, "classifier"), CATEGORIES),
    "xgboost_categories": ((factory.register_xgboost, "booster"), CATEGORIES),
    "xgboost_categories_classifier": ((factory.register_xgboost, "classifier"), CATEGORIES),
    "onnx": ((factory.register_onnx,), ("onnx",)),
    "onnx_tensor": ((factory.register_onnx_tensor,), ("onnx",)),
    "parameters": ((factory.register_params,), ()),
    "outputs": ((factory.register_outputs, "frame"), ()),
    "types": ((factory.register_types,), ()),
}
# Sums in the library's own order and type: not a bit differs.
EXACT = ("compiled", "native")
FAST = [
    name
    for name in engines.ENGINES
    if name not in (engines.REFERENCE, engines.SPARKML) and (name != engines.CUDA or cuda.missing() is None)
]


def verdict(engine, model, batch, cache):
    """``bits``, ``rounding``, or why the engine does not serve the model."""
    reason = engines.supports(engine, model)
    if reason is not None:
        return f"no: {reason}"
    try:
        files = artifacts.files_for(engine, model, cache)
        found = loaded(engine, files, 1).score(batch)
    except ModelError as error:
        return f"no: {error.text()}"
    expected = loaded(engines.REFERENCE, files_of(model), 1).score(batch)
    assert found.schema == expected.schema
    same = [_same(one, other) for one, other in zip(found.columns, expected.columns, strict=True)]
    return "bits" if all(same) else "rounding"


def _same(found, expected):
    """Whether a column is equal to the bit; else the rounding of a float is all that may differ."""
    one, other = np.array(found.to_pylist()), np.array(expected.to_pylist())
    if one.dtype.kind != "f":
        assert np.array_equal(one, other)
        return True
    if np.array_equal(one, other, equal_nan=True):
        return True
    assert np.array_equal(np.isnan(one), np.isnan(other))
    # Another order of sums, or leaves that are float32; relative where a score is not below 1.
    assert (np.abs(one - other) <= 1e-6 * np.maximum(1, np.abs(other)))[~np.isnan(one)].all()
    if one.ndim > 1:
        assert np.array_equal(one.argmax(axis=1), other.argmax(axis=1))
    elif ((other >= 0) & (other <= 1)).all():
        assert np.array_equal(one > 0.5, other > 0.5)
    return False


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", TREES)
def test_trees(tree_model, tmp_path, kind, dtype, engine):
    model, frame = tree_model(kind, dtype)
    rows = boundary_rows(read_forest(unwrap(model.path, model.inputs).estimator), frame)
    assert len(rows) > 2_000
    found = verdict(engine, model, batch_of(model, rows), tmp_path)
    if engine == "onedal" and kind in SEVERAL_VALUES:
        assert "hold several values" in found
    else:
        assert found in (("bits",) if engine in EXACT else ("bits", "rounding"))


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("kind", REGISTERED)
def test_other_models(pinned, tmp_path, kind, engine):
    arguments, serving = REGISTERED[kind]
    model, frame = pinned(*arguments)
    found = verdict(engine, model, batch_of(model, frame), tmp_path)
    if engine not in serving:
        assert found.startswith("no: ")
    else:
        assert found in (("bits",) if engine in EXACT else ("bits", "rounding"))


# Engines that look a text up in a list of their own, and models that have text.
CODED = [("onnx", "pipeline"), *((e, k) for k in REGISTERED if "categories" in k for e in ("compiled", "onnx"))]


@pytest.mark.parametrize(("engine", "kind"), CODED)
def test_text_as_dictionaries_gives_the_same_bits(pinned, tmp_path, kind, engine):
    model, frame = pinned(*REGISTERED[kind][0])
    serving = loaded(engine, artifacts.files_for(engine, model, tmp_path), 1)
    assert takes_codes(serving)
    plain = batch_of(model, frame)
    assert pa.string() in plain.schema.types
    texts = [array.type == pa.string() for array in plain.columns]
    coded = [
        # Of some rows: their dictionary has texts that do not occur, as that of a row group has in each batch.
        _coded(array, backwards=bool(index % 2)) if text else array
        for index, (array, text) in enumerate(zip(plain.columns, texts, strict=True))
    ]
    batch = pa.RecordBatch.from_arrays(coded, names=plain.schema.names)
    assert serving.score(batch.slice(3)).equals(serving.score(plain.slice(3)))


def _coded(array, *, backwards):
    encoded = array.dictionary_encode()
    if not backwards:
        return encoded
    last = len(encoded.dictionary) - 1
    flipped = encoded.dictionary.take(pa.array(range(last, -1, -1)))
    return pa.DictionaryArray.from_arrays(pc.subtract(pa.scalar(last, pa.int32()), encoded.indices), flipped)
