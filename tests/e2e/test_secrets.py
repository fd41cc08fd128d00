"""Canaries in every place that holds a secret; nothing written or printed may hold one."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e.bad_models import bad_model
from tests.e2e.conftest import Job

pytestmark = pytest.mark.e2e

CANARY = "c4n4ry"


def canary(place: str) -> str:
    """A secret that tells where it leaked from; hex alone, as any library would print it."""
    return f"{CANARY}0{place.encode().hex()}0{CANARY}"


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": canary("access key"),
    "AWS_SECRET_ACCESS_KEY": canary("secret key"),
    "AWS_SESSION_TOKEN": canary("session"),
    "AZURE_STORAGE_ACCOUNT_KEY": canary("azure"),
    "MLFLOW_TRACKING_USERNAME": "ml",
    "MLFLOW_TRACKING_PASSWORD": canary("mlflow password"),
    "MLFLOW_TRACKING_TOKEN": canary("mlflow token"),
    "DATABASE_URL": f"postgresql://app:{canary('database')}@127.0.0.1:9/app",
    "SOME_API_KEY": canary("api key"),
}
SETTINGS = {
    "spark.hadoop.fs.s3a.secret.key": canary("s3a"),
    "spark.hadoop.fs.azure.account.key.lake.dfs.core.windows.net": canary("abfss"),
    "spark.hadoop.fs.azure.sas.lake.token": canary("sas"),
    "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:postgresql://h/db?user=u&password={canary('jdbc')}",
    "spark.executorEnv.SERVICE_TOKEN": canary("executor"),
    "spark.some.proxy": f"http://user:{canary('proxy')}@127.0.0.1:9",
}


@pytest.fixture
def laden(job: Job) -> Job:
    """The demo's job with secrets in its settings."""
    settings = yaml.safe_load(job.settings.read_text())
    settings["spark"] = {"conf": dict(SETTINGS)}
    job.settings.write_text(yaml.safe_dump(settings))
    return job


def leaks(text: str) -> list[str]:
    return [line[:300] for line in text.splitlines() if CANARY in line]


def search(job: Job) -> list[str]:
    """Files that hold a canary, but for the settings that were given."""
    files = (path for path in job.folder.rglob("*") if path.is_file() and path != job.settings)
    return [str(path.relative_to(job.folder)) for path in files if CANARY.encode() in path.read_bytes()]


def tried(job: Job, code: int, *arguments: object, **environment: str) -> str:
    """Runs a command that must end with ``code`` and leak nothing; returns its stdout."""
    done = job.batchscore(*arguments, **{**ENVIRONMENT, **environment})
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not leaks(done.stdout)
    assert not leaks(done.stderr)
    return done.stdout


def test_a_run_and_what_tells_of_it(laden):
    job = ("--config", laden.settings, "--model", "fraud_detection/1")
    local = (*job, "--runner", "local")
    tried(laden, 0, "plan", *local, "--json", "--verbose")
    tried(laden, 0, "check", *local, "--verbose")
    tried(laden, 0, "run", *local, "--verbose")
    tried(laden, 0, "run", *local, "--json")
    tried(laden, 0, "history", "--config", laden.settings)
    history = json.loads(tried(laden, 0, "history", "--config", laden.settings, "--json", "--verbose"))
    for run in history["runs"]:
        shown = tried(laden, 0, "show", run["run_id"], "--config", laden.settings, "--json")
        tried(laden, 0, "show", run["run_id"], "--config", laden.settings)
        assert run["state"] != "published" or "***" in shown, "the settings that were masked stand in the manifest"
    tried(
        laden, laden.batchscore("doctor", "--config", laden.settings).returncode, "doctor", "--config", laden.settings
    )
    assert not search(laden)


FAILURES = {
    "a registry behind http": (7, "--tracking-uri", f"http://u:{canary('http')}@127.0.0.1:9/x?token={canary('t')}"),
    "a registry in a database": (7, "--tracking-uri", f"postgresql://u:{canary('pg')}@127.0.0.1:9/mlflow"),
    "a password with odd characters": (7, "--tracking-uri", f"mysql+pymysql://u:a%2F{canary('my')}@127.0.0.1:9/m"),
    "a registry of no known kind": (None, "--tracking-uri", f"nosuch://u:{canary('nosuch')}@h/m"),
    "an input with a key": (2, "--input", f"s3://key:{canary('input')}@bucket/t"),
    "an input with a signature": (2, "--input", f"https://h/c/t?sv=2024&sig={canary('sig')}"),
    "an output with a key": (2, "--output", f"s3://key:{canary('output')}@bucket/t"),
    "an output with a token": (2, "--output", f"abfss://c@a.dfs.core.windows.net/t?secret_token={canary('out')}"),
    "a setting that is unknown": (2, "--set", f"spark.confg.fs.s3a.secret.key={canary('typo')}"),
    "a secret of a wrong type": (2, "--set", f"spark.conf.fs.s3a.secret.key=[{canary('type')}]"),
    "a secret that is no YAML": (2, "--set", f"spark.conf.fs.s3a.secret.key=[{canary('yaml')}"),
    "a flag with a typing error": (2, "--sett", f"spark.conf.fs.s3a.secret.key={canary('flag')}"),
    "a stray argument": (2, f"spark.conf.fs.s3a.secret.key={canary('stray')}"),
    "a parameter that the model lacks": (2, "--set", f"model.params.api_token={canary('param')}"),
    "a schedule that is an address": (2, "--set", f"schedule=https://u:{canary('schedule')}@h"),
    "a model that is an address": (2, "--model", f"https://u:{canary('model')}@h/m"),
    "a suite that is an address": (2, "--suite", f"https://u:{canary('suite')}@h/s.json"),
    "a master that is an address": (2, "--runner", "spark", "--set", f"spark.master=https://u:{canary('master')}@h"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("form", ["--json", "--verbose"])
def test_failures_of_many_kinds(laden, failure, form):
    code, *arguments = FAILURES[failure]
    local = () if "--runner" in arguments else ("--runner", "local")
    model = () if "--model" in arguments else ("--model", "fraud_detection/1")
    command = ("run", "--config", laden.settings, *local, *model, *arguments, form)
    if code is None:
        code = laden.batchscore(*command).returncode
        assert code in {2, 3, 7}
    tried(laden, code, *command)
    assert not search(laden)


def test_a_model_that_tells_what_it_knows(laden):
    model = bad_model(laden, "import os; raise ValueError('my key is ' + os.environ['SOME_API_KEY'])")
    flags = ("--config", laden.settings, *model, "--runner", "local", "--verbose")
    tried(laden, 3, "run", *flags)
    assert not search(laden)


def test_what_a_model_tells_of_rows_that_it_does_not_take(laden):
    """It goes to the quarantine, from worker processes that know what the environment holds."""
    path = next(path for path in sorted(laden.data.rglob("*.parquet")))
    rows = pq.read_table(path, partitioning=None)
    amounts = pa.array([-1.0, -2.0, *rows["amount"].to_pylist()[2:]])
    pq.write_table(rows.set_column(rows.schema.names.index("amount"), "amount", amounts), path)
    body = (
        "import os\n"
        "        if (model_input['amount'] < 0).any(): raise ValueError('my key is ' + os.environ['SOME_API_KEY'])\n"
        "        return model_input['amount'] * 2"
    )
    flags = ("--config", laden.settings, *bad_model(laden, body), "--runner", "local", "--set", "validation.suite=null")
    told = json.loads(tried(laden, 0, "run", *flags, "--json"))
    assert told["rows_quarantined"] == 2
    assert "my key is" in tried(laden, 0, "quarantine", "--config", laden.settings)
    assert not search(laden)


@pytest.mark.spark
def test_sparks_own_event_log_and_what_it_prints(laden):
    events = laden.folder / "events"
    events.mkdir()
    flags = ("--config", laden.settings, "--model", "fraud_detection/1", "--verbose")
    spark = {"master": "local[1]", "conf.spark.eventLog.enabled": "true", "conf.spark.eventLog.dir": events.as_uri()}
    spark["conf.spark.logConf"] = "true"
    settings = [part for key, value in spark.items() for part in ("--set", f"spark.{key}={value}")]
    tried(laden, 0, "run", *flags, *settings)
    assert any(path.is_file() for path in Path(events).rglob("*"))
    assert not search(laden)
