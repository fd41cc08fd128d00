"""Categorical features of gradient-boosted trees, coded as the training set coded them.

A model trained on pandas ``category`` columns splits on codes: the position of a value among the categories of the
*training* frame. A batch knows only some of them, or others. MLflow's signature calls such a column string or long,
and its enforcement turns a category column back into objects, which the boosters refuse. So the codes are made here,
from the categories that the model's file holds; an unseen category is a missing value, as in both libraries'
training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelInput
from batchscore.errors import ModelError
from batchscore.schema import INTEGERS

if TYPE_CHECKING:
    import pandas as pd

# Keys under which a LightGBM booster lists its categorical features: after training, and after loading.
LIGHTGBM_KEYS = ("categorical_column", "categorical_feature")


def trained_categories(raw: Any, inputs: Sequence[ModelInput]) -> dict[str, pa.Array]:  # noqa: ANN401  # any model
    """The categories of each categorical input of a LightGBM or XGBoost model, in the order of their codes.

    Args:
        raw: the model as its own library gives it.
        inputs: the model's inputs, in the order of its features.

    Returns:
        Input name → categories; {} for a model without categorical features, and for other libraries.

    Raises:
        ModelError: the model's file does not tell which input has which categories.
    """
    library = type(raw).__module__.partition(".")[0]
    if library == "lightgbm":
        found = _lightgbm(getattr(raw, "booster_", raw), inputs)
    elif library == "xgboost":
        found = _xgboost(raw.get_booster() if hasattr(raw, "get_booster") else raw, inputs)
    else:
        return {}
    types = {item.name: item.type for item in inputs}
    return {name: _as_type(name, types[name], categories) for name, categories in found.items()}


def coded(column: pa.Array, categories: pa.Array) -> pd.Categorical:
    """A column as codes into ``categories``; null and unseen values have the code -1, missing.

    >>> coded(pa.array(["b", "z", None]), pa.array(["a", "b"])).codes.tolist()
    [1, -1, -1]
    """
    import pandas as pd  # noqa: PLC0415  # half of the time of a plan, which loads the module for its version alone

    codes = pc.fill_null(pc.index_in(column, value_set=categories, skip_nulls=True), -1).to_numpy()
    return pd.Categorical.from_codes(codes, categories=categories.to_pandas())


def _lightgbm(booster: Any, inputs: Sequence[ModelInput]) -> Mapping[str, list[Any]]:  # noqa: ANN401
    """LightGBM keeps the category lists in column order, but not of which columns.

    All string inputs are; the others are those that it lists as categorical features. (An ordered category is not
    listed, so an ordered one of numbers cannot be told from a plain number.)
    """
    lists = booster.pandas_categorical or []
    listed = {int(index) for key in LIGHTGBM_KEYS for index in _indices(booster.params.get(key))}
    texts = {index for index, item in enumerate(inputs) if item.type == "string"}
    chosen = sorted(texts | listed)
    if len(chosen) != len(lists):
        chosen = sorted(texts)  # categorical_feature was given for columns that are plain numbers
    if len(chosen) != len(lists):
        raise ModelError(
            f"the model has {len(lists)} categorical columns, but its file does not tell which",
            found=[inputs[index].name for index in chosen if index < len(inputs)],
            hint="train it with strings as unordered categories and log it again",
        )
    return {inputs[index].name: categories for index, categories in zip(chosen, lists, strict=True)}


def _indices(value: object) -> Sequence[Any]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip().isdigit()]
    return [index for index in value if str(index).isdigit()] if isinstance(value, list | tuple) else ()


def _xgboost(booster: Any, inputs: Sequence[ModelInput]) -> Mapping[str, list[Any]]:  # noqa: ANN401
    """XGBoost from 3.1 on keeps each feature's categories."""
    kinds = booster.feature_types or []
    if "c" not in kinds:
        return {}
    stored = booster.get_categories(export_to_arrow=True).to_arrow()
    found = {}
    for item, kind, (_, categories) in zip(inputs, kinds, stored, strict=True):
        if kind == "c" and categories is not None:
            found[item.name] = categories.to_pylist()
        elif kind == "c" and item.type not in INTEGERS:
            raise ModelError(
                f"the model's file does not hold the categories of input {item.name}",
                hint="XGBoost before 3.1 did not store them: train it with 3.1 or later and log it again",
            )
    return found


def _as_type(name: str, kind: str, categories: list[Any]) -> pa.Array:
    try:
        return pa.array(categories, to_arrow(kind))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ModelError(
            f"input {name} is {kind} in the signature, but its training categories are not",
            found=categories[:3],
            hint="log the model with the signature of its training frame",
        ) from error
