"""Probes ask what they are for: every threshold, from both sides, by rows that reach the split."""

import numpy as np
import pyarrow as pa
import pytest

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelInput
from batchscore.engines.boundaries import edges, specials, spellings
from batchscore.engines.probes import ROWS, build
from batchscore.schema import element_of

FEATURES = 6


def numbers(kind, count=FEATURES):
    return tuple(ModelInput(f"f{i}", kind) for i in range(count))


def sample_of(inputs, rows=300, seed=0):
    random = np.random.default_rng(seed)
    columns = []
    for item in inputs:
        arrow = to_arrow(element_of(item.type) or item.type)
        values = random.normal(size=rows) * 3
        if item.shape is not None or element_of(item.type):
            columns.append(pa.array([list(values[:3])] * rows, pa.list_(arrow)))
        elif pa.types.is_string(arrow):
            columns.append(pa.array(random.choice(["red", "Blue", "green"], rows).tolist()))
        elif pa.types.is_boolean(arrow):
            columns.append(pa.array(values > 0))
        elif pa.types.is_integer(arrow):
            columns.append(pa.array(values.astype(np.int64)).cast(arrow))
        else:
            columns.append(pa.array(values, pa.float64()).cast(arrow))
    return pa.RecordBatch.from_arrays(columns, names=[item.name for item in inputs])


def merged(probes, kind):
    return pa.Table.from_batches([batch for name, batch in probes if name == kind]).combine_chunks()


def test_edges_of_floats():
    threshold = 0.1  # lies between two floats
    values = edges(np.array([threshold, np.nan, np.inf, threshold]), "float")
    assert (values.dtype, values.shape) == (np.float32, (1, 3))
    below = max(value for value in values[0] if float(value) <= threshold)
    above = min(value for value in values[0] if float(value) > threshold)
    assert np.nextafter(below, np.float32(np.inf)) == above


def test_edges_of_doubles():
    threshold = 0.1
    values = edges(np.array([threshold]), "double")[0]
    assert {np.nextafter(threshold, -1), threshold, np.nextafter(threshold, 1)} <= set(values)
    assert {float(np.float32(threshold)), float(np.nextafter(np.float32(threshold), np.float32(0)))} <= set(values)
    assert np.isfinite(edges(np.array([1.7e308, -1.7e308, 3.5e38]), "double")).all()


@pytest.mark.parametrize(
    ("kind", "threshold", "expected"),
    [
        ("long", 2.5, [1, 2, 3, 4]),
        ("integer", 2.0, [1, 2, 3, 4]),
        ("long", -1e-35, [-2, -1, 0, 1]),
        ("byte", 200.0, [124, 125, 126, 127]),
        ("byte", -1e9, [-128, -127, -126, -125]),
    ],
)
def test_edges_of_whole_numbers(kind, threshold, expected):
    values = edges(np.array([threshold]), kind)
    assert values.tolist() == [expected]
    assert pa.array(values[0]).type == to_arrow(kind)
    assert edges(np.array([1e300, -1e300]), "long").shape == (2, 4)


def test_edges_of_other_types():
    assert edges(np.array([0.5, 0.7]), "boolean").tolist() == [[False, True]]
    assert edges(np.array([0.5]), "string") is None


@pytest.mark.parametrize("kind", ["float", "double", "long", "integer"])
@pytest.mark.parametrize("rows", [2_000, 20_000])
def test_each_threshold_and_its_neighbours_are_probed(kind, rows):
    random = np.random.default_rng(3)
    thresholds = {f"f{i}": random.normal(size=60) * 10 for i in range(FEATURES)}
    probes = build(numbers(kind), sample_of(numbers(kind)), thresholds, {}, rows=rows)
    table = merged(probes, "threshold")
    for name, values in thresholds.items():
        assert set(edges(values, kind).reshape(-1)) <= set(table[name].to_numpy())
    assert sum(batch.num_rows for _, batch in probes) <= rows


def tree_splits(booster):
    """The nodes of a LightGBM model as nested dictionaries."""
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]


def asked(node, values, rows, kind):
    """(splits that some row asks from both sides of their threshold, splits)."""
    if "split_feature" not in node:
        return 0, 0
    column, threshold = values[rows, node["split_feature"]], node["threshold"]
    near = edges(np.array([threshold]), kind)[0].astype(np.float64)
    sides = [near[near <= threshold].max(), near[near > threshold].min()]
    found = int(any((column == side).any() for side in sides))
    left = column <= threshold
    one = asked(node["left_child"], values, rows[left], kind)
    two = asked(node["right_child"], values, rows[~left], kind)
    return found + one[0] + two[0], 1 + one[1] + two[1]


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("sampled", [True, False])
def test_splits_are_reached_at_their_threshold(kind, sampled):
    import lightgbm

    random = np.random.default_rng(5)
    data = random.normal(size=(4_000, FEATURES))
    label = (data[:, 0] * data[:, 1] + np.sin(3 * data[:, 2]) + data[:, 3] > 0).astype(int)
    params = {"objective": "binary", "num_leaves": 31, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(data, label), 40)
    table = booster.trees_to_dataframe().dropna(subset=["threshold"])
    thresholds = {
        f"f{name.removeprefix('Column_')}": part["threshold"].astype(float).to_numpy()
        for name, part in table.groupby("split_feature")
    }
    inputs = numbers(kind)
    sample = pa.RecordBatch.from_arrays(
        [pa.array(data[:, i]).cast(to_arrow(kind), safe=False) for i in range(FEATURES)],
        names=[item.name for item in inputs],
    )
    probes = build(inputs, sample if sampled else None, thresholds, {})
    values = np.stack([column.to_numpy().astype(np.float64) for column in merged(probes, "threshold").columns], axis=1)
    counts = np.sum([asked(tree, values, np.arange(len(values)), kind) for tree in tree_splits(booster)], axis=0)
    assert counts[1] == sum(map(len, thresholds.values()))
    assert counts[0] / counts[1] > 0.95  # one row for each threshold among real rows: 0.3
    assert sum(batch.num_rows for _, batch in probes) <= ROWS


def test_the_same_arguments_give_the_same_probes():
    inputs = numbers("double")
    thresholds = {"f0": np.array([0.5, 1.5])}
    one, two, other = (build(inputs, sample_of(inputs), thresholds, {}, rows=1_000, seed=seed) for seed in (1, 1, 2))
    assert [kind for kind, _ in one] == [kind for kind, _ in two]
    assert all(a.to_pydict().__repr__() == b.to_pydict().__repr__() for (_, a), (_, b) in zip(one, two, strict=True))
    assert any(a.to_pydict().__repr__() != b.to_pydict().__repr__() for (_, a), (_, b) in zip(one, other, strict=True))


MIXED = (
    ModelInput("amount", "double"),
    ModelInput("ratio", "float"),
    ModelInput("count", "long"),
    ModelInput("maybe", "integer", required=False),
    ModelInput("also", "long", required=False),
    ModelInput("flag", "boolean"),
    ModelInput("colour", "string"),
    ModelInput("when", "timestamp_ntz"),
    ModelInput("raw", "binary"),
)


def mixed_sample():
    base = sample_of(MIXED[:7])
    when = pa.array(range(base.num_rows), pa.timestamp("us"))
    raw = pa.array([b"x"] * base.num_rows)
    return pa.RecordBatch.from_arrays([*base.columns, when, raw], names=[item.name for item in MIXED])


@pytest.mark.parametrize("sampled", [True, False])
def test_probes_have_the_form_that_engines_take(sampled):
    probes = build(MIXED, mixed_sample() if sampled else None, {"amount": np.array([1.0])}, {}, rows=3_000)
    kinds = [kind for kind, _ in probes]
    assert set(kinds) == {"threshold", "special", "missing", "category"} | ({"input"} if sampled else set())
    for _, batch in probes:
        assert batch.schema.names == [item.name for item in MIXED]
        assert batch.schema.types == [to_arrow(item.type) for item in MIXED]
        batch.validate(full=True)
    assert sum(batch.num_rows for _, batch in probes) <= 3_100


def test_rows_of_the_input():
    sample = mixed_sample()
    probes = dict(build(MIXED, sample, {}, {}, rows=50_000))
    assert probes["input"].equals(sample)
    few = dict(build(MIXED, sample, {}, {}, rows=100))["input"]
    assert few.num_rows == 20
    assert (few.slice(0, 1).equals(sample.slice(0, 1)), few.slice(19).equals(sample.slice(299))) == (True, True)


def test_special_values_of_each_type():
    probes = merged(build(MIXED, mixed_sample(), {"amount": np.array([0.3])}, {}, rows=20_000), "special")
    amounts = probes["amount"].drop_null().to_numpy()
    bits = set(amounts.view(np.uint64).tolist())
    ones = np.array([0.3]).view(np.uint64) | np.uint64(0xFFFFFFFF)
    wanted = [0.0, -0.0, 1e-35, -1e-35, 1e-36, np.inf, -np.inf, np.finfo(float).max, np.finfo(float).min, 1 - 2**-53]
    wanted += [np.nextafter(1e-35, 1), float(np.float32(1e-35)), 5e-324, *ones.view(float)]
    assert {np.array(value).view(np.uint64).item() for value in wanted} <= bits
    assert np.isnan(amounts).any()
    ratios = set(probes["ratio"].drop_null().to_numpy().tolist())
    assert {0.0, float(np.float32(1e-35)), np.inf, -np.inf, float(np.finfo(np.float32).max)} <= ratios
    assert {0, 2**63 - 1, -(2**63), 2**53 + 1, 2**24 + 1} <= set(probes["count"].to_pylist())
    assert {2**31 - 1, -(2**31)} <= set(probes["maybe"].to_pylist())
    assert set(probes["flag"].to_pylist()) == {True, False}
    assert b"" in probes["raw"].to_pylist()


def test_values_that_models_refuse_come_last():
    """So that a reference which refuses them scores the others in few calls."""
    amounts = merged(build(numbers("double"), sample_of(numbers("double")), {}, {}), "special")
    odd = ~np.isfinite(np.stack([column.to_numpy() for column in amounts.columns])).all(axis=0)
    assert not odd[: len(odd) // 2].any()
    assert odd[-len(odd) // 4 :].mean() > 0.3
    mild = np.abs(np.stack([column.to_numpy() for column in amounts.columns]))
    large = (mild > 1e30) & np.isfinite(mild)
    assert large.any()
    assert large.sum(axis=0).max() == 1  # sums of several depend on their order


def test_nulls_only_where_scoring_lets_them_through():
    probes = build(MIXED, mixed_sample(), {}, {}, rows=4_000)
    batches = [batch for kind, batch in probes if kind == "missing"]
    for name in ("amount", "ratio", "colour", "when", "raw"):
        column = batches[0].column(name)
        assert 0 < column.null_count < len(column)
        alone = batches[0].filter(pa.compute.is_null(column))
        others = [alone.column(other) for other in ("amount", "ratio", "colour", "when", "raw") if other != name]
        assert any(all(array[row].is_valid for array in others) for row in range(alone.num_rows))
    assert any(
        all(batches[0].column(n)[row].as_py() is None for n in ("amount", "ratio", "colour", "when", "raw"))
        for row in range(batches[0].num_rows)
    )
    for kind, batch in probes:
        for name in ("count", "flag"):
            assert batch.column(name).null_count == 0
        for name in ("maybe", "also"):  # absent as a whole, or there
            assert batch.column(name).null_count in ((0, batch.num_rows) if kind == "missing" else (0,))
    absent = [(b.column("maybe").null_count > 0, b.column("also").null_count > 0) for b in batches[1:]]
    assert absent == [(True, False), (False, True), (True, True)]


def test_categories():
    known = {"colour": pa.array(["Red", "blue", None]), "count": pa.array([5, 9])}
    probes = merged(build(MIXED, mixed_sample(), {"count": np.array([1.5])}, known, rows=4_000), "category")
    colours = set(probes["colour"].to_pylist())
    assert {"Red", "blue", "", "RED", "red", "BLUE", "Blue", "Red "} <= colours
    assert any("unseen" in str(colour) for colour in colours)
    assert {5, 9, 4, 6, 8, 10, 2**63 - 1} <= set(probes["count"].to_pylist())
    plain = build(MIXED, mixed_sample(), {}, {}, rows=4_000)
    assert {"red", "RED", "Green", ""} <= set(merged(plain, "category")["colour"].to_pylist())
    # Codes are no numbers: thresholds of a coded input are not probed.
    assert not [
        kind for kind, _ in build(MIXED, mixed_sample(), {"count": np.array([1.5])}, known) if kind == "threshold"
    ]


def test_spellings_are_bounded():
    found = spellings(pa.array([f"c{i}" for i in range(5_000)]), 100)
    assert len(found) < 200
    assert spellings(pa.array([127], pa.int8()), 10)[0] == 127
    assert max(spellings(pa.array([127], pa.int8()), 10)) == 127
    assert spellings(pa.array([1.0, None]), 10) == [1.0, -1.0, 0.5]


def test_arrays_and_tensors():
    inputs = (ModelInput("", "double", shape=(-1, 3)), ModelInput("tags", "array<long>"))
    for sample in (sample_of(inputs), None):
        probes = build(inputs, sample, {}, {}, rows=3_000)
        special = merged(probes, "special")
        assert set(special.column(0).combine_chunks().value_lengths().to_pylist()) == {3}
        flat = special.column(0).combine_chunks().flatten().to_numpy()
        assert np.isnan(flat).any()
        assert np.isinf(flat).any()
        assert 1 - 2**-53 in flat
        assert 2**53 + 1 in special.column(1).combine_chunks().flatten().to_pylist()
        assert not [kind for kind, _ in probes if kind == "missing"]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(600.0)), 3)
    batch = pa.RecordBatch.from_arrays([fixed], names=[""])
    special = dict(build(inputs[:1], batch, {}, {}, rows=500))["special"]
    assert special.schema.types == [fixed.type]
    assert np.isnan(special.column(0).flatten().to_numpy()).any()


def test_dictionary_columns_of_the_sample():
    inputs = (ModelInput("colour", "string"),)
    batch = pa.RecordBatch.from_arrays([pa.array(["a", "b"]).dictionary_encode()], names=["colour"])
    assert all(found.schema.types == [pa.string()] for _, found in build(inputs, batch, {}, {}, rows=200))


def test_one_input_with_more_thresholds_than_probes_has_each_of_them_probed():
    thresholds = {"f0": np.random.default_rng(5).normal(size=3_000), "f1": np.array([0.5])}
    probes = build(numbers("double", 2), sample_of(numbers("double", 2)), thresholds, {}, rows=2_000)
    asked_for = edges(thresholds["f0"], "double").reshape(-1)
    assert set(asked_for) <= set(merged(probes, "threshold")["f0"].to_numpy())
    assert sum(batch.num_rows for _, batch in probes) <= 2_000 + len(asked_for)


def test_wide_models_stay_within_bounds():
    inputs = numbers("double", 300)
    thresholds = {item.name: np.random.default_rng(0).normal(size=40) for item in inputs}
    probes = build(inputs, sample_of(inputs, 50), thresholds, {}, rows=10_000)
    assert sum(batch.num_rows for _, batch in probes) <= 10_000
    table = merged(probes, "threshold")
    assert set(edges(thresholds["f299"], "double").reshape(-1)) <= set(table["f299"].to_numpy())


def test_specials_of_types_without_any():
    assert specials("string") == ([], [])
    assert build((ModelInput("x", "date"),), None, {}, {}, rows=100)
