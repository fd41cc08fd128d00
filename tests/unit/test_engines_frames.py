"""Batches become the frames and arrays that the model's own library was trained on."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.contracts import ModelInput
from batchscore.engines.categories import coded, trained_categories
from batchscore.engines.frames import to_frame, to_tensor
from batchscore.errors import ModelError


def frame_of(column, item, **settings):
    return to_frame(
        pa.RecordBatch.from_arrays([column], names=[item.name]), [item], settings.pop("categories", {}), **settings
    )


def test_dtypes():
    for column, kind, dtype in [
        (pa.array([1, 2]), "long", "int64"),
        (pa.array([1, 2], pa.int32()), "integer", "int32"),
        (pa.array([1.0, None], pa.float32()), "float", "float32"),
        (pa.array([True, False]), "boolean", "bool"),
        (pa.array([True, None]), "boolean", "object"),
        (pa.array(["a", None]), "string", "object"),
        (pa.array([b"a", None]), "binary", "object"),
    ]:
        assert frame_of(column, ModelInput("x", kind))["x"].dtype == dtype
    times = frame_of(pa.array([0, None], pa.timestamp("us")), ModelInput("x", "timestamp_ntz"))["x"]
    assert times.dtype.kind == "M"
    assert times.isna().tolist() == [False, True]


def test_whole_numbers_have_no_null():
    some, none = pa.array([1, None]), pa.array([None, None], pa.int64())
    for required in (True, False):
        with pytest.raises(ModelError, match="no null for type long"):
            frame_of(some, ModelInput("x", "long", required=required))
    with pytest.raises(ModelError, match="no null for type long"):
        frame_of(none, ModelInput("x", "long"))
    absent = frame_of(none, ModelInput("x", "long", required=False))
    assert (len(absent), list(absent.columns)) == (2, [])


def test_missing_text():
    column = pa.array(["a", None])
    assert frame_of(column, ModelInput("x", "string"))["x"].tolist() == ["a", None]
    as_nan = frame_of(column, ModelInput("x", "string"), missing_text=float("nan"))["x"]
    assert isinstance(as_nan[1], float)


def test_codes_keep_every_digit():
    categories = pa.array([2**60 + 1, 2**60 + 3])
    column = coded(pa.array([2**60 + 3, 2**60 + 2, None]), categories)
    assert column.codes.tolist() == [1, -1, -1]
    assert column.categories.tolist() == [2**60 + 1, 2**60 + 3]


class Booster:
    """What is read of a LightGBM booster."""

    __module__ = "lightgbm.basic"

    def __init__(self, lists, params):
        self.pandas_categorical = lists
        self.params = params


A, B, N = ModelInput("a", "string"), ModelInput("b", "string"), ModelInput("n", "long")


@pytest.mark.parametrize(
    ("lists", "params", "inputs", "expected"),
    [
        ([["x"]], {}, (A, N), {"a": ["x"]}),
        ([["x"], [5]], {"categorical_column": [0, 1]}, (A, N), {"a": ["x"], "n": [5]}),
        ([[5], ["x"]], {"categorical_feature": "0,1"}, (N, A), {"n": [5], "a": ["x"]}),
        ([["x"]], {"categorical_feature": [0, 1]}, (A, N), {"a": ["x"]}),
        ([], {"categorical_feature": [0]}, (N,), {}),
        (None, {}, (N,), {}),
    ],
)
def test_which_columns_are_categorical(lists, params, inputs, expected):
    found = trained_categories(Booster(lists, params), inputs)
    assert {name: categories.to_pylist() for name, categories in found.items()} == expected


def test_what_cannot_be_told():
    with pytest.raises(ModelError, match="does not tell which"):
        trained_categories(Booster([["x"], [5]], {}), (A, N))
    with pytest.raises(ModelError, match="training categories are not"):
        trained_categories(Booster([[5]], {}), (A, N))


def test_tensors():
    item = ModelInput("x", "float", shape=(-1, 2))
    lists = pa.array([[1.0, None], [3.0, 4.0]], pa.list_(pa.float32()))
    assert np.array_equal(to_tensor(lists, item), [[1.0, np.nan], [3.0, 4.0]], equal_nan=True)
    assert np.array_equal(to_tensor(lists.slice(1), item), [[3.0, 4.0]])
    cube = ModelInput("x", "long", shape=(-1, 2, 2))
    values = to_tensor(pa.array([[1, 2, 3, 2**62]]), cube, np.dtype("int64"))
    assert values.tolist() == [[[1, 2], [3, 2**62]]]
    assert to_tensor(pa.array([1, 2]), ModelInput("x", "long", shape=(-1, 1))).tolist() == [[1], [2]]
    assert to_tensor(pa.array(["a"]), ModelInput("x", "string", shape=(-1,)), np.dtype("str")).dtype.kind == "U"
    assert to_tensor(
        pa.array([200], pa.int16()), ModelInput("x", "short", shape=(-1,)), np.dtype("uint8")
    ).tolist() == [200]


@pytest.mark.parametrize(
    ("column", "item", "dtype", "text"),
    [
        (pa.array([[1.0], [1.0, 2.0]]), ModelInput("x", "double", shape=(-1, 2)), None, "different lengths"),
        (pa.array([[1.0], [1.0]]), ModelInput("x", "double", shape=(-1, 2)), None, "wrong shape"),
        (pa.array([[1.0], None]), ModelInput("x", "double", shape=(-1, 1)), None, "null arrays"),
        (pa.array([[1], [None]]), ModelInput("x", "long", shape=(-1, 1)), None, "no null"),
        (pa.array([300], pa.int16()), ModelInput("x", "short", shape=(-1,)), np.dtype("uint8"), "does not fit"),
    ],
)
def test_wrong_tensors(column, item, dtype, text):
    with pytest.raises(ModelError, match=text):
        to_tensor(column, item, dtype)


def test_the_frame_is_the_one_that_pandas_reads():
    table = pa.table({"a": [1.5, None], "b": ["x", None], "c": [1, 2]})
    items = [ModelInput("a", "double"), ModelInput("b", "string"), ModelInput("c", "long")]
    pd.testing.assert_frame_equal(to_frame(table.to_batches()[0], items, {}), table.to_pandas())
