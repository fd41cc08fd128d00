from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from batchscore.contracts import RunRecord
from batchscore.demo import DemoOutcome, make_data, train_and_register, transactions
from batchscore.demo import data as demo_data
from batchscore.demo import run as demo_run
from batchscore.demo.training import ALIAS, LABELS, MODEL_NAME, NUMBERS, STAGE
from batchscore.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = 100_000


@pytest.fixture(scope="module")
def sample() -> tuple[pa.Table, np.ndarray]:
    return transactions(0, SAMPLE)


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlruns.db"
    assert train_and_register(uri, folder) == "1"
    return uri, folder


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(
        b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)
    ).hexdigest()


# --- data --------------------------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_files(tmp_path):
    make_data(tmp_path / "a", 2_003, days=3, seed=1)
    make_data(tmp_path / "b", 2_003, days=3, seed=1)
    make_data(tmp_path / "c", 2_003, days=3, seed=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_rows_days_and_ids(tmp_path):
    make_data(tmp_path / "t", 20_005, days=14)
    table = pads.dataset(tmp_path / "t", partitioning="hive").to_table()
    ids = table["transaction_id"].to_numpy()
    assert ids.dtype == np.int64
    assert sorted(ids) == list(range(2**53 + 1, 2**53 + 1 + 20_005))
    assert len(set(ids.astype(float))) < len(ids), "the ids must be ones that a float64 cannot tell apart"
    days = table["ds"].value_counts().to_pylist()
    assert {item["values"] for item in days} == {f"2026-11-{day:02d}" for day in range(1, 15)}
    assert max(item["counts"] for item in days) - min(item["counts"] for item in days) <= 1


def test_a_day_has_files_and_row_groups_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_data, "CHUNK_ROWS", 100)
    monkeypatch.setattr(demo_data, "FILE_ROWS", 250)
    make_data(tmp_path / "t", 600, days=1)
    files = sorted((tmp_path / "t/ds=2026-11-01").iterdir())
    metadata = [pq.read_metadata(path) for path in files]
    assert [item.num_rows for item in metadata] == [250, 250, 100]
    groups = [metadata[0].row_group(number).num_rows for number in range(metadata[0].num_row_groups)]
    assert groups == [100, 100, 50]


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def peak(rows: int) -> int:
        code = (
            "import resource, sys, pathlib; from batchscore.demo.data import make_data; "
            f"make_data(pathlib.Path(sys.argv[1]), {rows}, days=2); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / str(rows))],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert peak(1_500_000) < 1.15 * peak(400_000)


def test_distributions_are_those_documented(sample):
    table, fraud = sample
    amount = np.log(table["amount"].to_numpy())
    assert np.exp(np.median(amount)) == pytest.approx(30.0, rel=0.03)
    assert amount.std() == pytest.approx(1.1, rel=0.03)
    distance = np.log(table["distance_km"].drop_null().to_numpy())
    assert (np.exp(np.median(distance)), distance.std()) == pytest.approx((8.0, 1.5), rel=0.03)
    assert pc.mean(table["account_age_days"]).as_py() == pytest.approx(900, rel=0.03)
    assert 0.02 < fraud.mean() < 0.045
    hours = table["hour"].to_numpy()
    assert (hours.min(), hours.max()) == (0, 23)
    assert (hours < 6).mean() == pytest.approx(8 / 203, rel=0.15)
    for column, labels, shares in (
        ("merchant_category", demo_data.CATEGORIES, demo_data.CATEGORY_SHARES),
        ("country", demo_data.COUNTRIES, demo_data.COUNTRY_SHARES),
        ("device", demo_data.DEVICES, demo_data.DEVICE_SHARES),
    ):
        counts = {item["values"]: item["counts"] for item in table[column].drop_null().value_counts().to_pylist()}
        assert sum(shares) == pytest.approx(1.0)
        total = sum(counts.values())
        assert [counts[label] / total for label in labels] == pytest.approx(list(shares), rel=0.1)


def test_nulls_are_where_documented(sample):
    table, _ = sample
    for name in table.column_names:
        fraction = table[name].null_count / SAMPLE
        expected = 0.0 if name in ("transaction_id", "amount", "hour") else 0.015
        assert fraction == pytest.approx(expected, rel=0.15), name


def test_the_model_takes_every_column_but_the_key(sample):
    table, _ = sample
    assert {*NUMBERS, *LABELS} == set(table.column_names) - {"transaction_id"}


# --- model -------------------------------------------------------------------------------------------------


def test_registered_with_stage_and_alias_once(registry):
    from mlflow import MlflowClient

    uri, folder = registry
    assert train_and_register(uri, folder) == "1"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert [str(item.version) for item in client.search_model_versions(f"name = '{MODEL_NAME}'")] == ["1"]
    version = client.get_model_version_by_alias(MODEL_NAME, ALIAS)
    assert (str(version.version), version.current_stage) == ("1", STAGE)


def test_the_model_scores_probabilities_that_tell_fraud(registry):
    import mlflow.pyfunc
    from sklearn.metrics import roc_auc_score

    _, folder = registry
    model = mlflow.pyfunc.load_model(str(folder / "models" / f"{MODEL_NAME}-1"))
    table, fraud = transactions(0, SAMPLE)
    frame = table.select(model.metadata.get_input_schema().input_names()).to_pandas()
    scores = model.predict(frame)
    assert scores.shape == (SAMPLE,)
    assert 0 < scores.min() < scores.max() < 1
    assert scores.mean() == pytest.approx(fraud.mean(), rel=0.2)
    assert roc_auc_score(fraud, scores) > 0.75


def test_a_missing_label_scores_the_same_as_none_and_as_nan(registry):
    import mlflow.pyfunc

    _, folder = registry
    model = mlflow.pyfunc.load_model(str(folder / "models" / f"{MODEL_NAME}-1"))
    table, _ = transactions(0, 2_000)
    frame = table.select(model.metadata.get_input_schema().input_names()).to_pandas()
    other = frame.copy()
    for name in LABELS:
        assert frame[name].isna().any()
        other[name] = frame[name].astype(object).where(frame[name].notna(), np.nan)
    assert (model.predict(frame) == model.predict(other)).all()


def test_two_trainings_are_equal():
    from batchscore.demo.training import train

    frame = transactions(0, 500)[0].to_pandas()
    first, second = (train(3_000)[0].predict(frame) for _ in range(2))
    assert (first == second).all()


# --- the folder --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(rows: int) -> list[str]:
    stages: list[str] = []
    demo_run._make_data_once(demo_run._Recipe(rows, 2, 1, 1), lambda event: stages.append(str(event["stage"])))
    return stages


def test_data_is_made_once_and_anew_for_other_arguments(folder):
    assert make(100) == ["data"]
    before = digest(folder / "data")
    assert make(100) == []
    assert digest(folder / "data") == before
    assert make(120) == ["data"]
    assert pads.dataset(folder / "data/transactions", partitioning="hive").count_rows() == 120


def test_half_made_data_is_made_again(folder):
    make(100)
    (folder / "data/transactions").rename(folder / "data/transactions.unfinished")
    assert make(100) == ["data"]
    assert not (folder / "data/transactions.unfinished").exists()


def test_data_of_others_is_not_touched(folder):
    (folder / "data/transactions").mkdir(parents=True)
    (folder / "data/transactions/mine.parquet").write_text("precious")
    with pytest.raises(SettingsError, match="did not make"):
        make(100)
    assert (folder / "data/transactions/mine.parquet").read_text() == "precious"


def test_settings_that_were_edited_stay(folder):
    demo_run._write_settings()
    shipped = (ROOT / "conf/fraud_detection.yaml").read_text()
    path = folder / "conf/fraud_detection.yaml"
    assert path.read_text() == shipped
    assert json.loads((folder / "conf/expectations/fraud_detection.json").read_text())["name"] == MODEL_NAME
    path.write_text(shipped + "# mine\n")
    demo_run._write_settings()
    assert path.read_text().endswith("# mine\n")


def test_next_steps_name_the_run_and_the_places():
    record = RunRecord(
        "r1", "published", "", "", "fraud_detection", "1", "", "", None, "", "predictions/fraud_detection", 1, "", 0, 0,
        0, 0, "", "", 0.0, 0, "",
    )  # fmt: skip
    outcome = DemoOutcome("/d", 10, "fraud_detection/1", "predictions/fraud_detection", "p__runs", record)
    text = "\n".join(outcome.next_steps())
    assert "/d/predictions/fraud_detection " in text
    assert "/d/p__runs" in text
    assert "cd /d\n" in text
    for command in ("plan", "run", "history", "show r1"):
        assert f"  batchscore {command} --model fraud_detection/Production" in text or command == "show r1"
    assert "  batchscore show r1 --model fraud_detection/Production" in text
