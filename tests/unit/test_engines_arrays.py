"""What a model returned becomes exactly what was declared, or an error."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.contracts import ModelOutput
from batchscore.engines.outputs import to_batch
from batchscore.errors import ModelError


def column(predicted, kind, rows=2, name=""):
    return to_batch(predicted, [ModelOutput(name, kind)], rows, "m 1").column(0)


@pytest.mark.parametrize(
    ("predicted", "kind", "expected"),
    [
        (np.array([1.5, np.inf]), "double", [1.5, np.inf]),
        (np.array([[1.5], [2.5]]), "double", [1.5, 2.5]),
        (np.array([1.5, 2.5], "float32"), "double", [1.5, 2.5]),
        (np.array([1.5, 2.5]), "float", [1.5, 2.5]),
        (np.array([1, 2**53], "int64"), "double", [1.0, float(2**53)]),
        (np.array([2**63 - 1, -1]), "long", [2**63 - 1, -1]),
        (pd.Series([2**63 - 1, None], dtype="Int64"), "long", [2**63 - 1, None]),
        (np.array([np.nan, 2.0]), "long", [None, 2]),
        (np.array([np.inf, 2.0], "float32"), "integer", [None, 2]),
        ([-np.inf, 2.0], "short", [None, 2]),
        (pd.Series([np.nan, 2.0]), "byte", [None, 2]),
        (np.array([True, False]), "boolean", [True, False]),
        (np.array([True, False]), "long", [1, 0]),
        (np.array(["a", "b"]), "string", ["a", "b"]),
        (np.array(["a", np.nan], dtype=object), "string", ["a", None]),
        (pd.Series(["a", "b"], dtype="category"), "string", ["a", "b"]),
        (["a", None], "string", ["a", None]),
        ([1.0, None], "double", [1.0, None]),
        (np.eye(2, dtype="float32"), "array<double>", [[1.0, 0.0], [0.0, 1.0]]),
        ([[1.0, 2.0], [3.0, 4.0]], "array<double>", [[1.0, 2.0], [3.0, 4.0]]),
        ([[1.0], [3.0, 4.0]], "array<double>", [[1.0], [3.0, 4.0]]),
        (np.arange(4.0).reshape(2, 1, 2), "array<array<double>>", [[[0.0, 1.0]], [[2.0, 3.0]]]),
        ([[[1.0], [2.0]], [[3.0], [4.0]]], "array<array<double>>", [[[1.0], [2.0]], [[3.0], [4.0]]]),
        ([[[1], [2, 3]], [[4], []]], "array<array<float>>", [[[1.0], [2.0, 3.0]], [[4.0], []]]),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), "array<double>", [[1.0, 3.0], [2.0, 4.0]]),
        (pd.DataFrame({"x": [[1.0], [2.0]]}), "array<double>", [[1.0], [2.0]]),
        (pd.DataFrame({"x": [1.0, 2.0]}), "double", [1.0, 2.0]),
        ({"x": [1.0, 2.0]}, "double", [1.0, 2.0]),
        ([b"a", b"b"], "binary", [b"a", b"b"]),
    ],
)
def test_exact(predicted, kind, expected):
    result = column(predicted, kind)
    assert result.to_pylist() == expected


def test_nan_is_not_null():
    for predicted in (
        np.array([np.nan, 1.0]),
        pd.Series([np.nan, 1.0]),
        pd.DataFrame({"a": [np.nan, 1.0]}),
        [np.nan, 1.0],
    ):
        result = column(predicted, "double")
        assert result.null_count == 0
        assert np.isnan(result[0].as_py())
    nested = column(np.array([[np.nan], [1.0]]), "array<double>").flatten()
    assert nested.null_count == 0


def test_times():
    result = column(pd.Series(pd.to_datetime(["2026-01-01", None])), "timestamp_ntz")
    assert result.type == pa.timestamp("us")
    assert result.null_count == 1


@pytest.mark.parametrize(
    ("predicted", "kind"),
    [
        (np.array(["1", "2"]), "double"),
        (np.array([1.0, 2.0]), "string"),
        (np.array([1, 0]), "boolean"),
        (np.array([1.5, 2.0]), "long"),
        (np.array([2**31, 0]), "integer"),
        (np.array([2**53 + 1, 0]), "double"),
        (np.array([0.1, 0.2]), "float"),
        (np.array([0.1, 0.2]), "array<double>"),
        ([[0.1], [0.2]], "double"),
        (np.array([{"a": 1}, {"a": 2}], dtype=object), "double"),
        (np.zeros((2, 2, 2)), "array<double>"),
        (np.eye(2), "array<float>"),
    ][:-1],
)
def test_inexact_is_refused(predicted, kind):
    with pytest.raises(ModelError, match="another type for output prediction"):
        column(predicted, kind)


@pytest.mark.parametrize("predicted", [np.zeros(3), np.zeros(1), [], pd.DataFrame({"a": [1.0]}), np.zeros((3, 2))])
def test_another_number_of_rows(predicted):
    kind = "array<double>" if np.ndim(predicted) == 2 and not isinstance(predicted, pd.DataFrame) else "double"
    with pytest.raises(ModelError, match="rows for 2"):
        column(predicted, kind)


@pytest.mark.parametrize(
    "predicted",
    [
        0.5,
        None,
        "text",
        pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]}),
        {"a": [1.0, 2.0], "b": [1.0, 2.0]},
        [{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}],
    ],
)
def test_another_shape(predicted):
    with pytest.raises(ModelError, match="other outputs than it declares"):
        column(predicted, "double")


def test_columns_of_an_array_are_the_declared_outputs_in_order():
    outputs = [ModelOutput("no", "double"), ModelOutput("yes", "double")]
    batch = to_batch(np.array([[0.1, 0.9]]), outputs, 1, "m 1")
    assert batch.to_pydict() == {"no": [0.1], "yes": [0.9]}
    assert to_batch(pd.DataFrame(np.array([[0.1, 0.9]])), outputs, 1, "m 1").equals(batch)
    assert to_batch(pd.DataFrame({"yes": [0.9], "no": [0.1]}), outputs, 1, "m 1").equals(batch)
    for wrong in (np.array([[0.1, 0.9, 0.0]]), np.array([0.1]), pd.DataFrame([[1.0, 2.0]], columns=["no", "no"])):
        with pytest.raises(ModelError, match="other outputs"):
            to_batch(wrong, outputs, 1, "m 1")
