"""The signature as MLflow wrote it, in the types of the contracts. Compared with MLflow's own reading of it."""

import json

import numpy as np
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from batchscore.contracts import ModelInput, ModelOutput
from batchscore.errors import ModelError, SchemaMismatchError, SettingsError
from batchscore.models.params import resolve_params
from batchscore.models.signature import read_inputs, resolve_inputs, resolve_outputs


def document(inputs=None, outputs=None, params=None):
    if inputs is None and outputs is None and params is None:
        return {"signature": None}
    signature = ModelSignature(
        inputs=Schema(inputs) if inputs else None,
        outputs=Schema(outputs) if outputs else None,
        params=ParamSchema(params) if params else None,
    )
    return {"signature": signature.to_dict()}


def tensor(dtype, shape, name=None):
    return TensorSpec(np.dtype(dtype), shape, name)


def test_columns():
    names = ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
    inputs = read_inputs(document([ColSpec(name, f"c_{name}", required=name != "long") for name in names]))
    assert [(item.name, item.type, item.required) for item in inputs] == [
        ("c_boolean", "boolean", True),
        ("c_integer", "integer", True),
        ("c_long", "long", False),
        ("c_float", "float", True),
        ("c_double", "double", True),
        ("c_string", "string", True),
        ("c_binary", "binary", True),
        ("c_datetime", "timestamp_ntz", True),
    ]


def test_nested_types():
    inputs = read_inputs(
        document(
            [
                ColSpec(Array("double"), "a"),
                ColSpec(Array(Array("string")), "b"),
                ColSpec(Object([Property("x", "long")]), "c"),
                ColSpec(Map("string"), "d"),
                ColSpec(AnyType(), "e"),
                ColSpec(Array(Object([Property("x", "long")])), "f"),
            ]
        )
    )
    assert [item.type for item in inputs] == [
        "array<double>",
        "array<array<string>>",
        "unsupported(object)",
        "unsupported(map)",
        "unsupported(any)",
        "unsupported(object)",
    ]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", "float"), ("uint8", "short"), ("int64", "long"), ("bool", "boolean"), ("object", "string"),
     ("str", "string"), ("datetime64[ns]", "timestamp_ntz"), ("complex64", "unsupported(complex64)")],
)  # fmt: skip
def test_tensor_inputs(dtype, expected):
    assert read_inputs(document([tensor(dtype, (-1, 3), "x")])) == (ModelInput("x", expected, shape=(-1, 3)),)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (tensor("float64", (-1,)), "double"),
        (tensor("float64", (-1, 1)), "double"),
        (tensor("float32", (-1, 3)), "array<float>"),
        (tensor("float32", (-1, -1)), "array<float>"),
        (tensor("float32", (-1, 2, 2)), "unsupported(tensor[-1, 2, 2])"),
        (ColSpec("long"), "long"),
        (ColSpec(Array("double")), "array<double>"),
    ],
)
def test_one_output(spec, expected):
    assert resolve_outputs(document(outputs=[spec]), None) == (ModelOutput("", expected),)


def test_several_outputs():
    named = document(outputs=[ColSpec("long", "label"), ColSpec("double", "score")])
    assert resolve_outputs(named, None) == (ModelOutput("label", "long"), ModelOutput("score", "double"))
    unnamed = document(outputs=[ColSpec("long"), ColSpec("double")])
    assert [output.name for output in resolve_outputs(unnamed, None)] == ["0", "1"]
    assert resolve_outputs(document(), None) == (ModelOutput("", "double"),)
    settings = {"outputs": [{"name": "p", "type": "array<double>"}]}
    assert resolve_outputs(named, settings) == (ModelOutput("p", "array<double>"),)
    with pytest.raises(SettingsError, match="one name"):
        resolve_outputs(named, {"outputs": [{"name": "p", "type": "double"}, {"name": "P", "type": "double"}]})


def test_an_unnamed_tensor_is_fed_by_an_array_or_by_columns():
    unnamed = document([tensor("float32", (-1, 3))])
    one = resolve_inputs(unnamed, {"inputs": [{"name": "x", "type": "array<float>"}]})
    assert one == (ModelInput("", "float", shape=(-1, 3), columns=("x",)),)
    assert resolve_inputs(unnamed, {"inputs": [{"name": "x"}]}) == one
    three = resolve_inputs(unnamed, {"inputs": [{"name": name, "type": "float"} for name in "abc"]})
    assert three == (ModelInput("", "float", shape=(-1, 3), columns=("a", "b", "c")),)
    free = resolve_inputs(document([tensor("float32", (-1, -1))]), {"inputs": [{"name": name} for name in "ab"]})
    assert free == (ModelInput("", "float", shape=(-1, 2), columns=("a", "b")),)
    flat = resolve_inputs(document([tensor("float32", (-1,))]), {"inputs": [{"name": "x", "type": "float"}]})
    assert flat == (ModelInput("", "float", shape=(-1,), columns=("x",)),)


@pytest.mark.parametrize(
    ("inputs", "settings", "text"),
    [
        (None, None, "has no signature"),
        ([tensor("float32", (-1, 3))], None, "does not name its 1 input"),
        ([tensor("float32", (-1, 3))], [{"name": "a", "type": "float"}, {"name": "b"}], "2 column"),
        ([tensor("float32", (-1, 3))], [{"name": "a", "type": "double"}], "another type"),
        ([tensor("float32", (-1, 3))], [{"name": "a", "type": "float"}], "1 column"),
        ([ColSpec("long"), ColSpec("string")], None, "does not name its 2 input"),
        ([ColSpec("long"), ColSpec("string")], [{"name": "a"}], "name 1 inputs"),
        ([ColSpec("long"), ColSpec("string")], [{"name": "a"}, {"name": "b", "type": "long"}], "another type"),
        ([ColSpec("long", "a")], [{"name": "b", "type": "long"}], "cannot redeclare"),
    ],
)
def test_what_does_not_meet(inputs, settings, text):
    with pytest.raises(SchemaMismatchError, match=text):
        resolve_inputs(document(inputs), settings and {"inputs": settings})


def test_unnamed_columns_are_named_in_order():
    inputs = resolve_inputs(document([ColSpec("long"), ColSpec("string")]), {"inputs": [{"name": "a"}, {"name": "b"}]})
    assert inputs == (ModelInput("a", "long"), ModelInput("b", "string"))


def test_settings_of_a_model_without_signature():
    settings = {
        "inputs": [
            {"name": "a", "type": "datetime", "required": False},
            {"name": "b", "type": "array<double>"},
            {"name": "c", "type": "float", "shape": [-1, 4]},
        ]
    }
    assert resolve_inputs(document(), settings) == (
        ModelInput("a", "timestamp_ntz", required=False),
        ModelInput("b", "array<double>"),
        ModelInput("c", "float", shape=(-1, 4)),
    )


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"name": "a", "type": "doubel"}, "did you mean: double"),
        ({"name": "a"}, "no type"),
        ({"type": "double"}, "has no name"),
        ({"name": "a", "tpye": "double"}, "did you mean: type"),
        ({"name": "a", "type": "float", "shape": [4]}, "begins with -1"),
        ("amount", "is a mapping"),
    ],
)
def test_wrong_settings(entry, text):
    with pytest.raises(SettingsError, match=text):
        resolve_inputs(document(), {"inputs": [entry]})
    with pytest.raises(SettingsError, match="is a list"):
        resolve_inputs(document(), {"inputs": "amount"})


@pytest.mark.parametrize("text", ["[{", '{"a": 1}', '["a"]', json.dumps([{"type": "tensor"}])])
def test_a_damaged_signature(text):
    with pytest.raises(ModelError, match="signature is damaged"):
        read_inputs({"signature": {"inputs": text}})


def test_params():
    described = document(
        [ColSpec("long", "a")],
        params=[
            ParamSpec("k", "long", 1),
            ParamSpec("weights", "double", [1.0], (-1,)),
            ParamSpec("when", "datetime", np.datetime64("2026-01-01T00:00:00")),
        ],
    )
    params = resolve_params(described, {"weights": [1, 2.5], "when": "2026-02-01"})
    assert [(param.type, param.value) for param in params] == [
        ("long", 1),
        ("array<double>", (1, 2.5)),
        ("datetime", "2026-02-01"),
    ]
    for wrong in ({"weights": 1.0}, {"weights": ["a"]}, {"when": "soon"}):
        with pytest.raises(SettingsError, match="wrong type"):
            resolve_params(described, wrong)
    with pytest.raises(SettingsError, match="declares no parameters"):
        resolve_params(document(), {"k": 1})
