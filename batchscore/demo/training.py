"""The demo's model: a gradient-boosted tree classifier on made-up transactions, registered in MLflow."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.demo.data import CATEGORIES, COUNTRIES, DEVICES, transactions

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

MODEL_NAME = "fraud_detection"
ALIAS = "champion"
STAGE = "Production"
TRAINING_ROWS = 40_000
TRAINING_SEED = 7  # other than the scored data's: no row is scored that the model was trained on
TREES = 50
RECIPE = "1"  # to be raised when what is trained changes
RECIPE_TAG = "batchscore.demo.recipe"

NUMBERS = {"amount": "double", "hour": "integer", "account_age_days": "double", "distance_km": "double"}
LABELS = {"merchant_category": CATEGORIES, "country": COUNTRIES, "device": DEVICES}
NEVER_NULL = ("amount", "hour")


def train_and_register(registry_uri: str, directory: Path) -> str:
    """Trains ``fraud_detection`` and registers it with stage Production and alias champion.

    Does nothing when the registry holds this model already. The same seed gives the same trees.

    Args:
        registry_uri: MLflow tracking URI, for example ``sqlite:///mlruns.db``.
        directory: folder for the model's files.

    Returns:
        The registered version.
    """
    from mlflow import MlflowClient  # noqa: PLC0415  # 3 s: not for a folder that has its model already

    client = MlflowClient(tracking_uri=registry_uri, registry_uri=registry_uri)
    version = _registered(client)
    if version is None:
        version = _register(client, directory)
    with warnings.catch_warnings():
        # MLflow deprecates stages; that a job can still name one is what the demo shows.
        warnings.simplefilter("ignore", FutureWarning)
        client.transition_model_version_stage(MODEL_NAME, version, STAGE)
    client.set_registered_model_alias(MODEL_NAME, ALIAS, version)
    return version


def train(rows: int = TRAINING_ROWS) -> tuple[Any, pd.DataFrame]:
    """The fitted model and five rows that show its input.

    ``predict`` gives the probability of fraud: a regressor with the binary objective returns it as one column,
    where a classifier returns labels, or with ``predict_proba`` two columns.
    """
    from lightgbm import LGBMRegressor  # noqa: PLC0415  # 5 s: not for a folder that has its model already
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415  # with lightgbm
    from sklearn.pipeline import Pipeline  # noqa: PLC0415  # with lightgbm
    from sklearn.preprocessing import OrdinalEncoder  # noqa: PLC0415  # with lightgbm

    table, fraud = transactions(0, rows, TRAINING_SEED)
    frame = table.select([*NUMBERS, *LABELS]).to_pandas()
    # The categories are named here, so that a null, as None or as NaN, and an unseen value all get the code -1.
    encoder = OrdinalEncoder(
        categories=[list(labels) for labels in LABELS.values()], handle_unknown="use_encoded_value", unknown_value=-1
    )
    columns = ColumnTransformer([("numbers", "passthrough", list(NUMBERS)), ("labels", encoder, list(LABELS))])
    trees = LGBMRegressor(
        objective="binary",
        n_estimators=TREES,
        num_leaves=31,
        random_state=TRAINING_SEED,
        deterministic=True,
        force_row_wise=True,  # with deterministic: the same trees on every machine
        n_jobs=1,  # each worker is a process of its own
        verbose=-1,
    )
    model = Pipeline([("columns", columns), ("trees", trees)])
    model.fit(frame, fraud.astype(float))
    return model, frame.dropna().head(5)


def _registered(client: MlflowClient) -> str | None:
    """The newest version of this recipe whose files are there."""
    found = client.search_model_versions(f"name = '{MODEL_NAME}'")
    versions = [int(item.version) for item in found if item.tags.get(RECIPE_TAG) == RECIPE]
    return str(max(versions)) if versions else None


def _register(client: MlflowClient, directory: Path) -> str:
    """Saves the model's files and registers them; MLflow's logging functions would set a global registry."""
    import mlflow.sklearn  # noqa: PLC0415  # 3 s: not for a folder that has its model already
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # with mlflow

    model, example = train()
    folder = (directory / "models" / f"{MODEL_NAME}-{RECIPE}").resolve()
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was stopped here
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=signature(),
        input_example=example,
        pip_requirements=_requirements(),
        serialization_format="cloudpickle",
    )
    try:
        client.get_registered_model(MODEL_NAME)
    except MlflowException:
        client.create_registered_model(MODEL_NAME, description="Probability that a card transaction is fraud.")
    version = client.create_model_version(MODEL_NAME, folder.as_uri(), tags={RECIPE_TAG: RECIPE}, await_creation_for=0)
    return str(version.version)


def signature() -> ModelSignature:
    """What the demo's model takes and gives."""
    from mlflow.models import ModelSignature  # noqa: PLC0415  # with mlflow
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415  # with mlflow

    numbers = [ColSpec(kind, name, required=name in NEVER_NULL) for name, kind in NUMBERS.items()]
    labels = [ColSpec("string", name, required=False) for name in LABELS]
    return ModelSignature(inputs=Schema([*numbers, *labels]), outputs=Schema([ColSpec("double")]))


def _requirements() -> list[str]:
    from importlib.metadata import version  # noqa: PLC0415  # only when a model is logged

    return [f"{name}=={version(name)}" for name in ("scikit-learn", "lightgbm", "numpy", "pandas")]
