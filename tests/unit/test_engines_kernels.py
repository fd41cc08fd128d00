"""The compiled kernels give the bits of the numpy walk: each way, each width of vectors, every kind of tree."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchscore.engines.trees import kernels, library, read_forest
from batchscore.engines.trees.masks import masks_of, size
from batchscore.engines.trees.pack import pack
from batchscore.engines.trees.walk import sums_of
from batchscore.errors import SetupError
from tests.factories import models as factory
from tests.factories.boundaries import SPECIAL, beside, boundary_rows
from tests.factories.forests import random_forest, rows_of, stump

WAYS = ("walk", *kernels.LEVELS)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("library") / "trees.so"
    library.build(path)
    return path


def kernel_of(built, way, forest, dtype, threads=1):
    if way == "walk":
        return kernels.walker(built, forest, dtype, threads)
    return kernels.masks(built, forest, dtype, threads, way)


def columns_of(matrix):
    return list(np.ascontiguousarray(matrix.T))


def here(built):
    """The ways that this processor has."""
    widest = kernels.LEVELS.index(kernels.widest(built))
    return ("walk", *kernels.LEVELS[: widest + 1])


def narrowed(matrix, dtype):
    with np.errstate(over="ignore"):
        return matrix.astype(dtype)


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 300),
    sums=st.sampled_from(["float32", "float64"]),
    targets=st.integers(1, 3),
    dtype=st.sampled_from(["float32", "float64"]),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
def test_random_forests(built, seed, rows, sums, targets, dtype):
    if sums == "float32":
        dtype = "float32"  # XGBoost's: it knows no doubles
    forest = random_forest(seed, sums=sums, targets=targets)
    matrix = narrowed(rows_of(forest, seed, rows), dtype)
    expected = sums_of(forest, matrix)
    for way in here(built):
        assert np.array_equal(kernel_of(built, way, forest, dtype).sums(columns_of(matrix)), expected), way


@given(
    threshold=st.one_of(st.floats(allow_nan=False), st.sampled_from([one for one in SPECIAL if not np.isnan(one)])),
    default_left=st.booleans(),
    rule=st.sampled_from([0, 1, 2]),
    values=hnp.arrays(np.float64, 12),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
def test_any_threshold(built, threshold, default_left, rule, values):
    forest = stump(threshold, default_left=default_left, rule=rule)
    wide = np.concatenate([values, SPECIAL, beside(np.array([threshold]))]).reshape(-1, 1)
    for matrix in (wide, narrowed(wide, "float32")):
        with np.errstate(over="ignore", invalid="ignore"):
            expected = sums_of(forest, matrix)
        for way in here(built):
            assert np.array_equal(kernel_of(built, way, forest, str(matrix.dtype)).sums(columns_of(matrix)), expected)


@pytest.mark.parametrize("default_left", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sets(built, default_left, dtype):
    forest = stump(0.0, default_left=default_left, categories=[0, 5, 31, 32, 63, 64])
    values = [0, 1, 5, 31, 32, 33, 63, 64, 65, 95, 96, 1e9, 3e9, -1, -0.5, 5.9, -1e300, np.nan, np.inf, -np.inf]
    matrix = narrowed(np.array(values).reshape(-1, 1), dtype)
    inside = [v in {0, 5, 31, 32, 63, 64, -0.5, 5.9} or (default_left and np.isnan(v)) for v in values]
    expected = np.where(inside, 1.0, 2.0).reshape(-1, 1)
    assert np.array_equal(sums_of(forest, matrix), expected)
    for way in here(built):
        assert np.array_equal(kernel_of(built, way, forest, dtype).sums(columns_of(matrix)), expected), way


@pytest.mark.parametrize("kind", ["lightgbm_multiclass", "lightgbm_zero_missing", "xgboost_softprob"])
def test_trained_forests(built, kind):
    estimator, frame, _ = factory.train_trees(kind, "float32")
    forest = read_forest(estimator)
    matrix = boundary_rows(forest, frame).to_numpy()
    for way in here(built):
        found = kernel_of(built, way, forest, "float32").sums(columns_of(matrix))
        assert np.array_equal(found, sums_of(forest, matrix)), way


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_divided_among_threads(built, way):
    if way not in here(built):
        pytest.skip(f"this processor has no {way}")
    forest = random_forest(3, targets=2)
    matrix = rows_of(forest, 3, 5 * kernels.ROWS_A_THREAD + 7)
    assert np.array_equal(kernel_of(built, way, forest, "float64", 4).sums(columns_of(matrix)), sums_of(forest, matrix))


def test_leaves_of_several_values_are_walked(built):
    forest = random_forest(4, width=3)
    matrix = rows_of(forest, 4, 200)
    kernel = kernels.fastest(built, forest, "float64")
    assert kernel.function.startswith("walk")
    assert np.array_equal(kernel.sums(columns_of(matrix)), sums_of(forest, matrix))


def test_large_trees_are_walked_and_small_ones_are_not(built):
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(0)
    table = random.normal(size=(20_000, 4))
    grown = RandomForestRegressor(2, n_jobs=1, random_state=0).fit(table, random.normal(size=20_000))
    assert kernels.fastest(built, read_forest(grown), "float32").function.startswith("walk")
    estimator, _, _ = factory.train_trees("lightgbm_binary", "float64")
    assert kernels.fastest(built, read_forest(estimator), "float64").function.startswith("masks")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_leaf_has_a_bit_and_every_node_clears_its_left(dtype):
    forest = random_forest(11)
    found = masks_of(forest, dtype)
    assert len(found.nodes) == size(forest, dtype)
    assert found.leaf[-1] == len(forest.values)
    assert np.array_equal(np.sort(found.values[: len(forest.values)]), np.sort(forest.values[:, 0]))
    assert found.runs[0, 0] == 0
    assert found.runs[-1, 3] == len(found.nodes)
    assert np.array_equal(found.runs[1:, 0], found.runs[:-1, 3])
    assert (found.nodes["clear"] != 0).all()


@pytest.mark.parametrize("way", ["walk", "plain"])
def test_other_rows_are_refused(built, way):
    kernel = kernel_of(built, way, stump(0.5), "float64")
    for columns in (
        columns_of(np.zeros((3, 2))),
        columns_of(np.zeros((3, 1), "float32")),
        [np.zeros((3, 1))],
        [np.zeros(6)[::2]],
        [],
    ):
        with pytest.raises(ValueError, match="1 columns of float64"):
            kernel.sums(columns)


def test_no_rows(built):
    for way in here(built):
        assert kernel_of(built, way, stump(0.5), "float64").sums([np.empty(0)]).shape == (0, 1)


def test_a_file_that_is_no_library(tmp_path):
    path = tmp_path / "trees.so"
    path.write_bytes(b"nothing")
    with pytest.raises(SetupError, match="does not load"):
        kernels.widest(path)


@pytest.mark.parametrize("command", ["gcc", "clang"])
def test_compilers_have_nothing_to_say(command, tmp_path):
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    arguments = [command, *library.FLAGS, "-Wall", "-Wextra", *library.SOURCES, "-o", str(tmp_path / "trees.so"), "-lm"]
    found = subprocess.run(arguments, cwd=Path(library.__file__).parent, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_packed_nodes_lie_breadth_first():
    estimator, _, _ = factory.train_trees("lightgbm_multiclass", "float64")
    forest = read_forest(estimator)
    packed = pack(forest, "float64")
    assert len(packed.nodes) == len(forest.feature)
    assert (np.diff(packed.roots) > 0).all()
    leaf = packed.nodes["left"] == np.arange(len(packed.nodes))
    assert leaf.sum() == len(forest.values)
    assert np.isposinf(packed.nodes["threshold"][leaf]).all()
    assert sorted(packed.slots[leaf].tolist()) == list(range(len(forest.values)))
    assert (packed.nodes["left"][~leaf] > np.flatnonzero(~leaf)).all()
