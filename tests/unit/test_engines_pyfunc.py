"""The pyfunc engine gives, to the last bit, what the model's own library or MLflow gives in one process."""

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from batchscore.arrow.types import to_arrow
from batchscore.engines import choose
from batchscore.engines.cache import loaded
from batchscore.errors import ModelError
from tests.factories import models as factory
from tests.factories.models import batch_of, files_of


def scored(model, frame, threads=1):
    return loaded("pyfunc", files_of(model), threads).score(batch_of(model, frame))


def own(model, frame, **arguments):
    return mlflow.pyfunc.load_model(model.path).predict(frame, **arguments)


def test_pipeline_with_text_and_missing_values(pinned):
    model, frame = pinned(factory.register_sklearn)
    assert choose("auto", model) == "pyfunc"
    result = scored(model, frame)
    assert result.schema == pa.schema([("prediction", pa.int64())])
    assert np.array_equal(result.column(0).to_numpy(), own(model, frame))


def test_predict_proba_gives_an_array_a_row(pinned):
    model, frame = pinned(factory.register_probabilities)
    result = scored(model, frame)
    assert result.column(0).type == to_arrow("array<double>")
    assert np.array_equal(np.array(result.column(0).to_pylist()), own(model, frame))


def test_missing_text_is_spelled_as_in_training(pinned):
    model, frame = pinned(factory.register_probabilities, "trained_on_nan", float("nan"))
    assert frame["country"].map(lambda value: value is not None).all()
    result = np.array(scored(model, frame).column(0).to_pylist())
    assert np.array_equal(result, own(model, frame))
    as_none = frame.assign(country=frame["country"].where(frame["country"].notna(), None))
    assert not np.array_equal(result, own(model, as_none))  # so the spelling matters


@pytest.mark.parametrize("kind", ["booster", "classifier"])
def test_lightgbm_codes_are_the_training_sets(pinned, kind):
    model, frame = pinned(factory.register_lightgbm, kind)
    native, training = factory.train_lightgbm(kind)
    expected = native.predict(training)
    assert np.array_equal(scored(model, frame).column(0).to_numpy(), expected)
    _check_few_unseen_and_null(model, frame, training, native.predict)


@pytest.mark.parametrize("kind", ["booster", "classifier"])
def test_xgboost_codes_are_the_training_sets(pinned, kind):
    import xgboost

    model, frame = pinned(factory.register_xgboost, kind)
    native, training = factory.train_xgboost(kind)

    def predict(data):
        return native.predict(xgboost.DMatrix(data, enable_categorical=True) if kind == "booster" else data)

    assert np.array_equal(scored(model, frame).column(0).to_numpy(), predict(training))
    _check_few_unseen_and_null(model, frame, training, predict)


def _check_few_unseen_and_null(model, frame, training, predict):
    """Rows scored alone, and rows with an unseen or null category, equal the native model's missing value."""
    expected = predict(training)
    for start in (0, 17, 399):
        one = frame.iloc[start : start + 1]
        assert scored(model, one).column(0).to_numpy()[0] == expected[start]
    missing = training.assign(
        country=pd.Categorical([None] * len(training), categories=training["country"].cat.categories)
    )
    assert not np.array_equal(predict(missing), expected)
    for value in ("Atlantis", None):
        strange = frame.assign(country=np.array([value] * len(frame), dtype=object))
        assert np.array_equal(scored(model, strange).column(0).to_numpy(), predict(missing))
    unknown_shop = training.assign(
        shop=pd.Categorical([None] * len(training), categories=training["shop"].cat.categories)
    )
    beside = scored(model, frame.assign(shop=2**60 + 2)).column(0).to_numpy()  # one double with a known shop's number
    assert np.array_equal(beside, predict(unknown_shop))


def test_every_type_reaches_the_model_as_mlflow_gives_it(pinned):
    model, frame = pinned(factory.register_types)
    result = scored(model, frame).column(0).to_pylist()
    assert result == own(model, frame).tolist()
    assert f"{2**63 - 1}" in result[0]
    absent = pa.RecordBatch.from_arrays(
        [
            pa.nulls(2, column.type) if name == "id" else column
            for name, column in zip(batch_of(model, frame).schema.names, batch_of(model, frame).columns, strict=True)
        ],
        names=list(frame.columns),
    )
    without = loaded("pyfunc", files_of(model), 1).score(absent).column(0).to_pylist()
    assert without == own(model, frame.drop(columns="id")).tolist()


def test_params_reach_the_model(pinned):
    model, frame = pinned(factory.register_params)
    assert scored(model, frame).column(0).to_pylist()[:2] == [3.0, 6.0]
    other, _ = pinned(factory.register_params, params={"factor": 10})
    result = scored(other, frame).column(0).to_numpy()
    assert np.array_equal(result, own(model, frame, params={"factor": 10.0}), equal_nan=True)
    assert np.isnan(result[2])


@pytest.mark.parametrize("kind", ["frame", "dict"])
def test_several_outputs(pinned, kind):
    model, frame = pinned(factory.register_outputs, kind)
    result = scored(model, frame)
    assert result.to_pydict() == {"score": [2.0, 5.0, 6.0], "name": ["n1.0", "n2.5", "n3.0"]}


def test_outputs_are_found_by_name_not_position(pinned):
    settings = {"outputs": [{"name": "name", "type": "string"}, {"name": "score", "type": "double"}]}
    model, frame = pinned(factory.register_outputs, "frame", signature=settings)
    assert scored(model, frame).column(0).to_pylist() == ["n1.0", "n2.5", "n3.0"]


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ([{"name": "score", "type": "double"}], "surplus"),
        ([{"name": "score", "type": "double"}, {"name": "label", "type": "string"}], "missing: label"),
        ([{"name": n, "type": "double"} for n in ("score", "name", "third")], "outputs are missing"),
        ([{"name": "score", "type": "long"}, {"name": "name", "type": "string"}], "another type for output score"),
        ([{"name": "score", "type": "string"}, {"name": "name", "type": "string"}], "another type for output score"),
    ],
)
def test_other_outputs_than_declared_are_refused(pinned, outputs, text):
    model, frame = pinned(factory.register_outputs, "frame", signature={"outputs": outputs})
    with pytest.raises(ModelError, match=text):
        scored(model, frame / 5)  # so that no score is a whole number


def test_unnamed_tensor_from_an_array_column(pinned):
    settings = {"inputs": [{"name": "features", "type": "array<double>"}]}
    model, frame = pinned(factory.register_unnamed_tensor, signature=settings)
    assert model.inputs[0].columns == ("features",)
    expected = own(model, np.stack(frame["features"]))
    assert np.array_equal(scored(model, frame).column(0).to_numpy(), expected)
    ragged = frame.assign(features=[row[: 4 + index % 2] for index, row in enumerate(frame["features"])])
    with pytest.raises(ModelError, match="wrong shape"):
        scored(model, ragged)


def test_fixed_size_lists_feed_a_tensor(pinned):
    settings = {"inputs": [{"name": f"c{index}"} for index in range(5)]}
    model, frame = pinned(factory.register_unnamed_tensor, signature=settings)
    values = np.stack(frame["features"])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 5)
    batch = pa.RecordBatch.from_arrays([lists], names=[""])
    result = loaded("pyfunc", files_of(model), 1).score(batch.slice(10, 7))
    assert np.array_equal(result.column(0).to_numpy(), own(model, values)[10:17])


def test_model_without_signature(pinned):
    settings = {"inputs": [{"name": "amount", "type": "double"}], "outputs": [{"type": "double"}]}
    model, frame = pinned(factory.register_no_signature, signature=settings)
    assert np.array_equal(scored(model, frame).column(0).to_numpy(), [2.0, 4.0, np.nan], equal_nan=True)


def test_onnx_flavor_through_pyfunc(pinned):
    model, frame = pinned(factory.register_onnx)
    result = scored(model, frame)
    assert result.schema == pa.schema([("variable", pa.float32())])
    assert np.array_equal(result.column(0).to_numpy(), own(model, frame)["variable"].to_numpy())


@pytest.mark.parametrize(
    ("kind", "text"),
    [("few_rows", "returned 2 rows for 3"), ("strings", "another type for output prediction")],
)
def test_bad_models_are_named(pinned, kind, text):
    model, frame = pinned(factory.register_bad, kind)
    with pytest.raises(ModelError, match=text) as caught:
        scored(model, frame)
    assert f"bad_{kind} 1" in str(caught.value)


def test_model_that_raises_on_one_batch(pinned):
    model, frame = pinned(factory.register_bad, "raises")
    assert scored(model, frame).column(0).to_pylist() == [1.0, 2.0, 3.0]
    with pytest.raises(ModelError, match="ValueError: an amount above 100") as caught:
        scored(model, frame * 100)
    assert isinstance(caught.value.__cause__, ValueError)


def test_nan_is_passed_on_and_is_not_null(pinned):
    model, frame = pinned(factory.register_bad, "nan")
    column = scored(model, frame).column(0)
    assert column.null_count == 0
    assert np.isnan(column.to_numpy()).all()


def test_no_rows(pinned):
    model, frame = pinned(factory.register_lightgbm, "booster")
    result = scored(model, frame.iloc[:0])
    assert (result.num_rows, result.schema.names) == (0, ["prediction"])
