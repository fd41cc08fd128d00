"""The compiled walker scores as MLflow's pyfunc does, bit for bit, at every boundary, for every kind of tree model."""

import shutil

import numpy as np
import pytest

from batchscore.engines import compiled
from batchscore.engines.cache import loaded
from batchscore.engines.trees import artifact, library
from tests.factories import models as factory
from tests.factories.artifacts import converted, outputs_of
from tests.factories.boundaries import boundary_rows
from tests.factories.models import batch_of, files_of

# scikit-learn adds up huge values to see whether all are finite.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning")
# scikit-learn's logistic function is scipy's, whose exponential may round otherwise than libm's.
LAST_BITS = {"sklearn_boosting_proba", "sklearn_boosting_exponential_proba", "sklearn_histogram_proba"}


@pytest.fixture(autouse=True)
def built_once(monkeypatch, tmp_path_factory):
    """The walker is the same for all models, so the tests compile it once."""
    kept = tmp_path_factory.getbasetemp() / "walk.so"
    build = library.build

    def copied(path):
        if not kept.exists():
            build(kept)
        shutil.copyfile(kept, path)

    monkeypatch.setattr(library, "build", copied)
    return build


def reference(model, batch):
    return loaded("pyfunc", files_of(model), 1).score(batch)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", factory.TREE_KINDS)
def test_equal_at_boundaries(tree_model, tmp_path, kind, dtype):
    model, frame = tree_model(kind, dtype)
    files = converted(compiled, model, tmp_path)
    rows = boundary_rows(artifact.read(tmp_path)[0].forest, frame)
    assert len(rows) > 2_000
    batch = batch_of(model, rows)
    expected, found = reference(model, batch), compiled.load(files, 1).score(batch)
    assert found.schema == expected.schema
    if kind in LAST_BITS:
        np.testing.assert_allclose(outputs_of(found), outputs_of(expected), rtol=0, atol=2.3e-16)
    else:
        assert np.array_equal(outputs_of(found), outputs_of(expected), equal_nan=outputs_of(found).dtype.kind == "f")
