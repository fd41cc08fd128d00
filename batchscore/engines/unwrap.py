"""The model behind MLflow's wrapper, and how that wrapper calls it.

Engines that do not call MLflow's pyfunc must still compute what it computes: the same method of the same estimator,
on inputs coded in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.contracts import ModelInput
from batchscore.engines.pyfunc import FLAVOR, quiet
from batchscore.errors import ModelError, listed
from batchscore.models.mlmodel import read_mlmodel

if TYPE_CHECKING:
    import pyarrow as pa

# The flavors whose pyfunc wrapper does nothing but call one method of the estimator.
PLAIN_FLAVORS = ("lightgbm", "xgboost", "sklearn")


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """An estimator, and what MLflow's pyfunc does with it.

    Attributes:
        estimator: as its own library gives it: a scikit-learn estimator or pipeline, a booster.
        library: the package that its class comes from: ``sklearn``, ``lightgbm``, ``xgboost``, …
        method: the method that pyfunc calls: ``predict``, ``predict_proba``, …
        categories: categories of each categorical input, in the order of their codes; see ``categories.py``.
    """

    estimator: Any
    library: str
    method: str
    categories: Mapping[str, pa.Array] = field(default_factory=dict)


def plain_flavor(flavors: tuple[str, ...]) -> str | None:
    """The flavor of :data:`PLAIN_FLAVORS` that the model has, or None."""
    return next((name for name in PLAIN_FLAVORS if name in flavors), None)


def unwrap(path: str, inputs: tuple[ModelInput, ...]) -> Unwrapped:
    """Loads the estimator of a model folder. Imports MLflow and the model's own library.

    Args:
        path: the model's folder, whose digest was verified.
        inputs: the model's inputs, in the order of its features.

    Raises:
        ModelError: the model is not of a flavor whose wrapper only calls one method.
    """
    flavors = read_mlmodel(Path(path))["flavors"]
    if plain_flavor(tuple(flavors)) is None:
        raise ModelError(
            "only the estimator of a scikit-learn, LightGBM or XGBoost model can be taken out of its wrapper",
            found=f"flavors {listed(sorted(flavors))}",
        )
    import mlflow.pyfunc  # noqa: PLC0415  # 4 s to import

    from batchscore.engines.categories import trained_categories  # noqa: PLC0415  # pandas, 0.5 s

    with quiet():
        estimator = mlflow.pyfunc.load_model(path, suppress_warnings=True).get_raw_model()
    return Unwrapped(
        estimator=estimator,
        library=type(estimator).__module__.partition(".")[0],
        method=str(flavors[FLAVOR].get("predict_fn") or "predict"),
        categories=trained_categories(estimator, inputs),
    )
