"""Batches as matrices: what each type becomes, from a description that is plain text."""

import json

import numpy as np
import pyarrow as pa
import pytest

from batchscore.contracts import ModelInput
from batchscore.engines import features
from batchscore.errors import ModelError


def batch(**columns):
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def described(inputs, categories=None, compare="float64", **settings):
    one = features.describe(inputs, categories or {}, compare, **settings)
    again = features.from_json(json.loads(json.dumps(one.as_json())))
    assert again == one
    return again


def test_numbers_flags_and_nulls():
    inputs = [ModelInput("a", "double"), ModelInput("b", "float"), ModelInput("c", "long"), ModelInput("d", "boolean")]
    data = batch(
        a=pa.array([0.1, None]),
        b=pa.array([np.nan, 2.5], pa.float32()),
        c=pa.array([2**53 + 1, -1]),
        d=pa.array([True, False]),
    )
    found = described(inputs).matrix(data)
    assert found.flags.c_contiguous
    assert found.dtype == np.float64
    assert np.array_equal(found, [[0.1, np.nan, 2.0**53, 1], [np.nan, 2.5, -1, 0]], equal_nan=True)


@pytest.mark.parametrize(
    ("kinds", "compare", "dtype"),
    [
        (["float", "float"], "float64", "float32"),
        (["float", "boolean", "short", "byte"], "float64", "float32"),
        (["float", "integer"], "float64", "float64"),
        (["double", "long"], "float32", "float32"),
    ],
)
def test_the_type_is_the_librarys_choice(kinds, compare, dtype):
    inputs = [ModelInput(str(index), kind) for index, kind in enumerate(kinds)]
    assert described(inputs, compare=compare).dtype == dtype


def test_one_rounding_or_two():
    value = 2**60 + 2**36 + 1  # rounds up to float32 at once, down by way of double
    data = batch(a=pa.array([value]), b=pa.array([0.5]))
    inputs = [ModelInput("a", "long"), ModelInput("b", "double")]
    once = described(inputs, compare="float32").matrix(data)
    twice = described(inputs, compare="float32", by_way_of_double=True).matrix(data)
    assert once[0, 0] == np.float32(2**60 + 2**37)
    assert twice[0, 0] == np.float32(2**60)
    alone = described(inputs[:1], compare="float32", by_way_of_double=True)
    assert alone.matrix(data.select(["a"]))[0, 0] == np.float32(2**60 + 2**37)


@pytest.mark.parametrize("compare", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "values", "known", "codes"),
    [
        ("string", ["b", "ä", None, "z", "a", ""], ["a", "b", "ä"], [1, 2, np.nan, np.nan, 0, np.nan]),
        ("long", [2**60 + 1, 2**60 + 2, None], [2**60 + 1, 2**60 + 3], [0, np.nan, np.nan]),
        ("boolean", [True, False, None], [False, True], [1, 0, np.nan]),
        ("double", [0.1, 0.2, None], [0.1], [0, np.nan, np.nan]),
        ("integer", [3, 7, None], [7, 3], [1, 0, np.nan]),
    ],
)
def test_categories_are_codes(kind, values, known, codes, compare):
    from batchscore.arrow.types import to_arrow

    categories = {"a": pa.array(known, to_arrow(kind))}
    data = batch(a=pa.array(values, to_arrow(kind)))
    found = described([ModelInput("a", kind)], categories, compare).matrix(data)
    assert np.array_equal(found[:, 0], codes, equal_nan=True)
    assert np.array_equal(
        described([ModelInput("a", kind)], categories, compare).matrix(data.slice(1))[:, 0], codes[1:], equal_nan=True
    )


@pytest.mark.parametrize("kind", ["long", "integer", "boolean"])
def test_a_null_without_spelling_is_an_error(kind):
    from batchscore.arrow.types import to_arrow

    data = batch(a=pa.array([1, None], to_arrow(kind)) if kind != "boolean" else pa.array([True, None]))
    with pytest.raises(ModelError, match="input a has nulls"):
        described([ModelInput("a", kind)]).matrix(data)


def test_arrays():
    tensor = [ModelInput("a", "double", shape=(-1, 3))]
    rows = pa.array([[1.0, 2, 3], [4, None, 6], [7, 8, 9]], pa.list_(pa.float64()))
    found = described(tensor).matrix(batch(a=rows.slice(1)))
    assert np.array_equal(found, [[4, np.nan, 6], [7, 8, 9]], equal_nan=True)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(9.0)), 3)
    assert np.array_equal(described(tensor).matrix(batch(a=fixed.slice(1))), np.arange(3.0, 9).reshape(2, 3))
    for bad in ([[1.0, 2, 3], [4.0, 5]], [[1.0, 2, 3], None], [[1.0, 2], [3.0, 4, 5, 6]]):
        with pytest.raises(ModelError, match="wrong shape"):
            described(tensor).matrix(batch(a=pa.array(bad, pa.list_(pa.float64()))))
    single = [ModelInput("a", "float", shape=(-1, 1))]
    assert described(single).matrix(batch(a=pa.array([1.5, None], pa.float32()))).shape == (2, 1)
    whole = [ModelInput("a", "long", shape=(-1, 2))]
    with pytest.raises(ModelError, match="has nulls"):
        described(whole).matrix(batch(a=pa.array([[1, None]], pa.list_(pa.int64()))))
    assert described(whole).matrix(batch(a=pa.array([[1, 2]], pa.list_(pa.int64())))).tolist() == [[1, 2]]


def test_no_rows():
    data = batch(a=pa.array([], pa.float64()), b=pa.array([], pa.int64()))
    assert described([ModelInput("a", "double"), ModelInput("b", "long")]).matrix(data).shape == (0, 2)
    tensor = batch(a=pa.array([], pa.list_(pa.float64())))
    assert described([ModelInput("a", "double", shape=(-1, 3))]).matrix(tensor).shape == (0, 3)


def test_what_does_not_fit():
    text = ModelInput("t", "string")
    assert features.unfit([text], None) is None
    assert "without categories" in features.unfit([text], {})
    assert "timestamp" in features.unfit([ModelInput("w", "timestamp")], None)
    for shape in ((-1,), (-1, 2, 2), (-1, -1)):
        assert "one matrix" in features.unfit([ModelInput("a", "double", shape=shape)], None)
    assert "one matrix" in features.unfit([ModelInput("a", "array<double>")], None)
    assert "one matrix" in features.unfit([ModelInput("a", "double", shape=(-1, 2)), ModelInput("b", "double")], None)
    with pytest.raises(ModelError, match="do not fit one matrix"):
        described([text])


@pytest.mark.parametrize(
    ("values", "survives"),
    [
        ([0.5, np.nan, np.inf, -np.inf, 0.0, -0.0], True),
        ([1 - 2**-53], False),
        ([1e39], False),
        ([1e-46], False),
        ([float(np.float32(0.1)), 2.0**24 + 1], False),
        ([float(np.float32(1e-45))], True),
        ([], True),
    ],
)
def test_survives_float32(values, survives):
    assert features.survives_float32(np.array([values], np.float64)) is survives
    assert features.survives_float32(np.array([[1.5]], np.float32))
