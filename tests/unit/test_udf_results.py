"""Outputs as the type that spark_udf was asked for: what fits, what is refused, and each value's fate."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import types as st

from batchscore.contracts import ModelOutput
from batchscore.errors import ModelError, SettingsError
from batchscore.udf.results import conversion, ddl, declared, inferred
from batchscore.udf.types import result_type_of
from batchscore.udf.values import retyped

SCALARS = {
    "boolean": [True, False, None],
    "byte": [1, -128, None],
    "integer": [1, -(2**31), None],
    "long": [1, -7, None],
    "float": [0.5, float("inf"), None],
    "double": [0.5, float("-inf"), None],
    "string": ["a", "", None],
}
# What each asked type takes when nothing names an output; the same as MLflow's select_dtypes.
FITS = {
    "boolean": {"boolean"},
    "integer": {"byte", "integer"},
    "long": {"byte", "integer", "long"},
    "float": {"byte", "integer", "long", "float", "double"},
    "double": {"byte", "integer", "long", "float", "double"},
    "string": set(SCALARS),
}
WRAP = {"boolean": bool, "integer": int, "long": int, "float": float, "double": float, "string": str}


def batch(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def arrow(kind: str) -> pa.DataType:
    from batchscore.arrow.types import to_arrow

    return to_arrow(kind)


@pytest.mark.parametrize("own", SCALARS)
@pytest.mark.parametrize("asked", FITS)
def test_scalars_fit_as_mlflow_chooses_columns(own, asked):
    outputs = (ModelOutput("", own),)
    if own not in FITS[asked]:
        for kind in (asked, f"array<{asked}>"):
            with pytest.raises(SettingsError, match="fits no output") as caught:
                conversion(outputs, kind)
            assert caught.value.allowed
        return
    expected = [None if value is None else WRAP[asked](value) for value in SCALARS[own]]
    scored = batch(prediction=pa.array(SCALARS[own], arrow(own)))
    one = conversion(outputs, asked).convert(scored)
    assert one.type == arrow(asked)
    assert one.to_pylist() == expected
    listed = conversion(outputs, f"array<{asked}>").convert(scored)
    assert listed.type == arrow(f"array<{asked}>")
    assert listed.to_pylist() == [[value] for value in expected]


@pytest.mark.parametrize(
    ("own", "asked", "values", "expected"),
    [
        ("long", "integer", [1, 2**31 - 1], [1, 2**31 - 1]),
        ("double", "integer", [3.0, float("nan")], [3, None]),
        ("double", "long", [-0.0, 2.0**53], [0, 2**53]),
        ("boolean", "double", [True, None], [1.0, None]),
        ("long", "double", [2**60, -(2**63), None], [2.0**60, -(2.0**63), None]),
        ("double", "float", [0.1, 1e-60], [float(np.float32(0.1)), 0.0]),
        ("float", "string", [0.1, float("nan")], ["0.1", "nan"]),
        ("array<long>", "array<integer>", [[1, 2], None, []], [[1, 2], None, []]),
        ("array<array<double>>", "array<array<float>>", [[[1.0], []], None], [[[1.0], []], None]),
        ("timestamp_ntz", "timestamp_ntz", [0], None),
    ],
)
def test_a_field_of_a_struct_is_converted_value_by_value(own, asked, values, expected):
    made = conversion((ModelOutput("x", own), ModelOutput("y", "double")), (("x", asked),))
    result = made.convert(batch(x=pa.array(values, arrow(own)), y=pa.array([0.0] * len(values))))
    assert result.type == pa.struct([("x", arrow(asked))])
    if expected is not None:
        assert result.field("x").to_pylist() == expected


@pytest.mark.parametrize(
    ("own", "asked", "value"),
    [
        ("long", "integer", 2**31),
        ("long", "double", 2**53 + 1),
        ("long", "double", 2**63 - 1),
        ("long", "float", 2**24 + 1),
        ("double", "integer", 0.5),
        ("double", "long", 2.0**63),
        ("double", "long", float("inf")),
        ("double", "float", 1e39),
        ("array<double>", "array<integer>", [0.5]),
    ],
)
def test_a_number_is_never_wrapped_or_cut(own, asked, value):
    made = conversion((ModelOutput("x", own),), (("x", asked),))
    with pytest.raises(ModelError, match=r"output x .* cannot hold"):
        made.convert(batch(x=pa.array([value], arrow(own))))


@pytest.mark.parametrize(
    ("own", "asked"),
    [("string", "double"), ("double", "boolean"), ("double", "array<double>"), ("array<double>", "double")],
)
def test_a_field_that_cannot_become_the_type_is_refused_at_once(own, asked):
    with pytest.raises(SettingsError, match="output x of the model cannot become"):
        conversion((ModelOutput("x", own),), (("x", asked),))


def test_nan_is_null_everywhere_but_in_text():
    nan = pa.array([float("nan"), 1.0, None])
    assert retyped(nan, "double", "x").to_pylist() == [None, 1.0, None]
    assert retyped(nan, "float", "x").to_pylist() == [None, 1.0, None]
    assert retyped(pa.array([[float("nan"), 1.0]]), "array<double>", "x").to_pylist() == [[None, 1.0]]
    assert retyped(nan, "string", "x").to_pylist() == ["nan", "1.0", None]


def test_text_is_what_str_makes_of_a_value():
    def text(array: pa.Array) -> list[str | None]:
        return retyped(array, "string", "x").to_pylist()

    doubles = [0.1, 1e16, 1e-5, 1e20, -0.0, float("inf"), 1.0]
    assert text(pa.array(doubles)) == [str(value) for value in doubles]
    assert text(pa.array([0.1], pa.float32())) == ["0.10000000149011612"]  # as pandas' map(str) in MLflow
    assert text(pa.array([True, False, None])) == ["True", "False", None]
    assert text(pa.array([2**63 - 1, None])) == ["9223372036854775807", None]
    assert text(pa.array([0, 1], pa.timestamp("us"))) == ["1970-01-01 00:00:00", "1970-01-01 00:00:00.000001"]


def test_whole_arrays_keep_nulls_where_they_are():
    values = pa.array([[1.0, None], None, [], [3.0]], pa.list_(pa.float32()))
    made = conversion((ModelOutput("", "array<float>"),), "array<double>")
    assert made.convert(batch(prediction=values)).to_pylist() == [[1.0, None], None, [], [3.0]]


def test_several_outputs_stand_side_by_side_in_an_array():
    outputs = (ModelOutput("a", "long"), ModelOutput("b", "double"), ModelOutput("c", "float"))
    scored = batch(a=pa.array([1, 2]), b=pa.array([0.5, float("nan")]), c=pa.array([4.0, None], pa.float32()))
    assert conversion(outputs, "array<double>").convert(scored).to_pylist() == [[1.0, 0.5, 4.0], [2.0, None, None]]
    texts = conversion(outputs, "array<string>").convert(scored)
    assert texts.to_pylist() == [["1", "0.5", "4.0"], ["2", "nan", None]]
    assert conversion(outputs, "array<double>").convert(scored.slice(0, 0)).to_pylist() == []


SEVERAL = (ModelOutput("score", "double"), ModelOutput("name", "string"), ModelOutput("parts", "array<double>"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("double", "is one value, and the model has 3 outputs"),
        ("string", "is one value"),
        ("array<double>", "would leave out 2 of the model's 3 outputs"),
        ("array<string>", "would leave out 1"),
        ("array<integer>", "fits no output"),
        ("array<array<double>>", "fits no output"),
    ],
)
def test_no_output_is_dropped_unnamed(asked, said):
    with pytest.raises(SettingsError, match=said) as caught:
        conversion(SEVERAL, asked)
    assert "struct<`score`: double, `name`: string, `parts`: array<double>>" in str(caught.value)


def test_named_fields_may_be_some_of_the_outputs_in_any_order():
    made = conversion(SEVERAL, (("parts", "array<float>"), ("score", "string")))
    scored = batch(score=pa.array([0.5]), name=pa.array(["x"]), parts=pa.array([[1.0, 2.0]]))
    assert made.convert(scored).to_pylist() == [{"parts": [1.0, 2.0], "score": "0.5"}]
    assert made.ddl == "struct<`parts`: array<float>, `score`: string>"


def test_a_field_that_is_no_output_is_told_with_its_like():
    with pytest.raises(SettingsError, match="did you mean: score"):
        conversion(SEVERAL, (("scores", "double"),))


@pytest.mark.parametrize("asked", ["double", "string", "array<array<double>>", "array<integer>"])
def test_an_array_is_not_cut_to_its_first_element(asked):
    with pytest.raises(SettingsError, match="fits no output") as caught:
        conversion((ModelOutput("", "array<double>"),), asked)
    assert caught.value.allowed == ("array<double>", "array<float>", "array<string>")
    assert ("score(...)[0]" in str(caught.value)) == (not asked.startswith("array"))


@pytest.mark.parametrize(
    ("outputs", "tensor", "expected"),
    [
        ([("", "double")], False, "double"),
        ([("", "double")], True, "array<double>"),
        ([("x", "array<float>")], True, "array<float>"),
        ([("x", "array<array<string>>")], False, "array<array<string>>"),
        ([("x", "timestamp_ntz")], False, "timestamp"),
        ([("0", "long"), ("p", "array<float>")], False, (("0", "long"), ("p", "array<float>"))),
    ],
)
def test_inferred_types(outputs, tensor, expected):
    made = tuple(ModelOutput(*output) for output in outputs)
    assert inferred(made, tensor=tensor) == expected
    assert conversion(made, expected).ddl == ddl(expected)


def test_wall_clock_time_of_a_model_is_utc():
    made = conversion((ModelOutput("", "timestamp_ntz"),), "timestamp")
    instants = made.convert(batch(prediction=pa.array([5], pa.timestamp("us"))))
    assert instants.type == pa.timestamp("us", tz="UTC")
    assert instants.cast(pa.int64()).to_pylist() == [5]


def test_a_model_that_states_no_outputs_has_those_that_are_asked_for():
    assert declared("integer") == (ModelOutput("", "integer"),)
    assert declared((("a", "float"), ("b", "array<array<float>>"))) == (
        ModelOutput("a", "double"),
        ModelOutput("b", "array<array<double>>"),
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (st.IntegerType(), "integer"),
        (st.ArrayType(st.ArrayType(st.FloatType())), "array<array<float>>"),
        (st.DecimalType(10, 2), "decimal(10,2)"),
        (
            st.StructType([st.StructField("a", st.LongType()), st.StructField("b", st.ArrayType(st.StringType()))]),
            (("a", "long"), ("b", "array<string>")),
        ),
    ],
)
def test_type_objects(given, expected):
    assert result_type_of(given) == expected
    if isinstance(given, st.StructType):
        assert st.StructType.fromJson(given.jsonValue()) == given


@pytest.mark.parametrize(
    "given",
    [
        st.MapType(st.StringType(), st.DoubleType()),
        st.VariantType(),
        st.StructType([]),
        st.StructType([st.StructField("a", st.LongType()), st.StructField("a", st.LongType())]),
        st.StructType([st.StructField("a", st.StructType([st.StructField("b", st.LongType())]))]),
        st.ArrayType(st.StructType([st.StructField("b", st.LongType())])),
        st.IntegerType,
        float,
    ],
)
def test_what_is_no_result_type(given):
    with pytest.raises(SettingsError, match="result_type"):
        result_type_of(given)


def test_names_are_quoted_in_ddl():
    assert ddl((("a b", "long"), ("c`d", "array<integer>"))) == "struct<`a b`: bigint, `c``d`: array<int>>"
