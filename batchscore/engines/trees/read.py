"""Any model that is an ensemble of trees: its forest, and what its method makes of the sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchscore.contracts import ModelInput
from batchscore.engines.features import Features, describe
from batchscore.engines.trees.forest import Forest
from batchscore.engines.trees.scores import Scores
from batchscore.engines.unwrap import Unwrapped
from batchscore.errors import ModelError

LIGHTGBM = ("Booster", "LGBMClassifier", "LGBMRegressor", "LGBMRanker")
XGBOOST = ("Booster", "XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor")


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A model as trees.

    Attributes:
        features: how a batch becomes the forest's matrix.
        forest: the trees.
        scores: what the model's method makes of the sums.
    """

    features: Features
    forest: Forest
    scores: Scores


def read_forest(estimator: Any) -> Forest:  # noqa: ANN401  # an estimator of any library
    """The trees of an estimator.

    Raises:
        ModelError: it is no ensemble of trees, or of a kind that is not known here.
    """
    library, kind = _kind(estimator)
    if library == "lightgbm" and kind in LIGHTGBM:
        from batchscore.engines.trees import of_lightgbm  # noqa: PLC0415  # only what the model needs

        return of_lightgbm.read_text(getattr(estimator, "booster_", estimator).model_to_string())
    if library == "xgboost" and kind in XGBOOST:
        from batchscore.engines.trees import of_xgboost  # noqa: PLC0415  # only what the model needs

        return of_xgboost.read_booster(of_xgboost.booster_of(estimator), allow_inf=kind != "Booster")
    from batchscore.engines.trees import of_sklearn  # noqa: PLC0415  # only what the model needs

    if library == "sklearn" and kind in of_sklearn.KINDS:
        return of_sklearn.read_estimator(estimator)
    raise ModelError(
        "the model is no ensemble of trees of a known kind",
        found=f"{library} {kind}",
        allowed=("LightGBM and XGBoost models", "scikit-learn's trees, forests and gradient boosters, by themselves"),
    )


def read_ensemble(unwrapped: Unwrapped, inputs: tuple[ModelInput, ...]) -> Ensemble:
    """A model's trees, inputs and outputs.

    Args:
        unwrapped: the estimator.
        inputs: the model's inputs, in the order of its features.

    Raises:
        ModelError: what stands in the way.
    """
    estimator = unwrapped.estimator
    forest = read_forest(estimator)
    library, _ = _kind(estimator)
    features = describe(inputs, unwrapped.categories, forest.compare, by_way_of_double=library == "sklearn")
    if features.width != forest.features:
        raise ModelError(
            "the model's signature has another number of columns than its trees",
            found=f"{features.width} columns",
            allowed=(f"{forest.features} columns",),
        )
    if library == "xgboost":
        _check_categories(forest, inputs, unwrapped)
    return Ensemble(features, forest, _scores(library, estimator, unwrapped.method))


def _scores(library: str, estimator: Any, method: str) -> Scores:  # noqa: ANN401
    if library == "lightgbm":
        from batchscore.engines.trees import of_lightgbm  # noqa: PLC0415  # only what the model needs

        return of_lightgbm.scores_of(getattr(estimator, "booster_", estimator), estimator, method)
    if library == "xgboost":
        from batchscore.engines.trees import of_xgboost  # noqa: PLC0415  # only what the model needs

        return of_xgboost.scores_of(of_xgboost.booster_of(estimator), estimator, method)
    from batchscore.engines.trees import of_sklearn  # noqa: PLC0415  # only what the model needs

    return of_sklearn.scores_of(estimator, method)


def _check_categories(forest: Forest, inputs: tuple[ModelInput, ...], unwrapped: Unwrapped) -> None:
    coded = {index for index, item in enumerate(inputs) if item.name in unwrapped.categories}
    plain = set(forest.feature[forest.category_set >= 0].tolist()) - coded
    if plain:
        raise ModelError(
            "the model splits on categories that its file does not hold",
            found=[inputs[index].name for index in sorted(plain)],
        )


def _kind(estimator: Any) -> tuple[str, str]:  # noqa: ANN401
    return type(estimator).__module__.partition(".")[0], type(estimator).__name__
