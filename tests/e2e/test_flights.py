"""Real data: a model trained on January to June scores July to December, equal to the last bit."""

from __future__ import annotations

import json

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import yaml
from deltalake import DeltaTable
from mlflow.models import infer_signature

from tests.factories import flights

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("flights")]
FIRST_SCORED_DAY = "2013-07-01"


def as_trained(frame: pd.DataFrame, booster: lgb.Booster | None = None) -> pd.DataFrame:
    """Features with category columns; with a booster, in the categories that it was trained with."""
    features = frame[list(flights.FEATURES)].copy()
    for index, name in enumerate(flights.CATEGORIES):
        known = None if booster is None else booster.pandas_categorical[index]
        features[name] = pd.Categorical(features[name], categories=known)
    return features


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A registered model, half a year of flights by day, and the settings of the job."""
    folder = tmp_path_factory.mktemp("flights")
    frame = flights.load()
    training = frame[(frame["ds"] < FIRST_SCORED_DAY) & frame["late"].notna()]
    # Tampa is left out of training: in July it is an unseen category.
    training = training[training["dest"] != "TPA"]
    dataset = lgb.Dataset(as_trained(training), training["late"].astype(int))
    params = {"objective": "binary", "num_leaves": 31, "seed": 7, "deterministic": True, "verbosity": -1}
    booster = lgb.train(params, dataset, num_boost_round=40)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlruns.db")
    mlflow.create_experiment("flights", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("flights")
    example = training[list(flights.FEATURES)].head(100).astype(dict.fromkeys(flights.CATEGORIES, "object"))
    with mlflow.start_run():
        mlflow.lightgbm.log_model(
            booster,
            name="model",
            signature=infer_signature(example, np.zeros(1)),
            registered_model_name="late_departure",
        )
    scored = frame[frame["ds"] >= FIRST_SCORED_DAY]
    table = pa.Table.from_pandas(scored.drop(columns="late"), preserve_index=False)
    pads.write_dataset(
        table,
        folder / "flights",
        format="parquet",
        partitioning=pads.partitioning(pa.schema([("ds", pa.string())]), flavor="hive"),
    )
    settings = {
        "model": {"name": "late_departure", "version": "1"},
        "input": {"path": str(folder / "flights")},
        "output": {"path": str(folder / "predictions"), "keys": ["flight_id"]},
        "scoring": {"runner": "local"},
        "registry": {"tracking_uri": f"sqlite:///{folder}/mlruns.db"},
    }
    (folder / "flights.yaml").write_text(yaml.safe_dump(settings))
    return folder, scored, booster


def test_every_score_of_half_a_year_is_the_models_own_to_the_last_bit(job, run_cli):
    folder, scored, booster = job
    done = run_cli("run", "--config", str(folder / "flights.yaml"), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "published"
    assert document["rows"] == len(scored)
    assert document["units_published"] == scored["ds"].nunique() == 184
    table = DeltaTable(folder / "predictions").to_pyarrow_table(columns=["flight_id", "prediction", "ds"]).to_pandas()
    expected = pd.DataFrame(
        {"flight_id": scored["flight_id"], "ds": scored["ds"], "own": booster.predict(as_trained(scored, booster))}
    )
    both = expected.merge(table.assign(ds=table["ds"].astype(str)), on=["flight_id", "ds"], validate="one_to_one")
    assert len(both) == len(scored) == len(table)
    assert both["own"].to_numpy().tobytes() == both["prediction"].to_numpy().tobytes()
    assert scored["dest"].eq("TPA").any()
    assert scored["plane_year"].isna().any()


def test_one_day_by_partition_is_already_there(job, run_cli):
    folder, _, _ = job
    settings = str(folder / "flights.yaml")
    first = run_cli("run", "--config", settings, "--partition", "ds=2013-12-24", "--json", cwd=folder)
    assert first.returncode == 0, first.stderr
    version = DeltaTable(folder / "predictions").version()
    again = run_cli("run", "--config", settings, "--partition", "ds=2013-12-24", "--json", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["state"] == "skipped"
    assert DeltaTable(folder / "predictions").version() == version
