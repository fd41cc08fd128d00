"""A manifest that whoever writes the table forged runs no program: neither in `explain` nor in `reproduce`."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

from batchscore import models, record
from batchscore.contracts import TargetState
from batchscore.errors import InputError, SettingsError
from batchscore.explain import explain
from batchscore.models import Trust
from batchscore.recorded import registry_of
from batchscore.reproduce import Options, reproduce
from batchscore.reproduce.published import published_by
from tests.factories.delta import active_adds, commit_by_hand
from tests.factories.jobs import end_started, make_job
from tests.factories.models import make_registry
from tests.factories.staging import make_manifest, make_plan

KEY = ["id=1003"]


class Evil:
    """Makes a folder where it is loaded."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A job whose table holds two days, and its answer."""
    job, _ = make_job(tmp_path_factory.mktemp("recorded") / "job", days=2)
    done = job.run()
    assert done.code == 0, done.err
    yield job, done.answer
    end_started()


@pytest.fixture
def table(published, tmp_path):
    """A copy of the table, which a test may forge."""
    job, _ = published
    shutil.copytree(job.table.parent, tmp_path / "predictions")
    return tmp_path / "predictions" / "scores"


@pytest.fixture
def evil(published, tmp_path):
    """A model folder whose pickle makes a canary folder when it is loaded, and that one."""
    job, _ = published
    folder, canary = tmp_path / "evil", tmp_path / "canary"
    folder.mkdir()
    document = yaml.safe_load((job.folder / "model" / "MLmodel").read_text())
    document["flavors"] = {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"},
        "sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle"},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    (folder / "model.pkl").write_bytes(pickle.dumps(Evil(canary)))
    return folder, canary


@pytest.fixture
def registered(evil, tmp_path):
    """The URI of a registry in which that folder is version 1 of a model, and the model's URI."""
    from mlflow import MlflowClient

    (tmp_path / "registry").mkdir()
    uri = make_registry(tmp_path / "registry").tracking_uri
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("evil")
    client.create_model_version("evil", evil[0].as_uri(), await_creation_for=0)
    return uri, "models:/evil/1"


def forge(table, run, *, sections=None, **facts):
    """Changes the manifest of a run."""
    path = table / "_batchscore" / "manifests" / f"{run}.json"
    document = json.loads(path.read_text()) | facts
    for section, values in (sections or {}).items():
        document["settings"][section] = {**document["settings"].get(section, {}), **values}
    path.write_text(json.dumps(document))


def forge_folder(table, run, folder):
    """The manifest names a folder, with its true digest, and allows it itself."""
    facts = {"model_uri": str(folder), "model_version": "", "model_digest": models.digest_folder(folder)}
    forge(table, run, engine="native", certificate=None, sections={"registry": {"allowed_paths": ["/"]}}, **facts)


def forge_registry(table, run, folder, registered):
    uri, model = registered
    forge_folder(table, run, folder)
    forge(table, run, model_uri=model, model_version="1", sections={"registry": {"tracking_uri": uri}})


@pytest.fixture(params=["folder", "registry"])
def forged(request, published, table, evil, registered):
    """The table with a forged manifest, the run, what a refusal names, and the canary."""
    run = published[1]["run_id"]
    if request.param == "folder":
        forge_folder(table, run, evil[0])
        return table, run, f"--allow-path {evil[0]}", evil[1]
    forge_registry(table, run, evil[0], registered)
    return table, run, "--tracking-uri", evil[1]


def test_explain_loads_no_code_that_the_manifest_names(forged):
    table, _, hint, canary = forged
    found = explain(str(table), KEY)
    assert not canary.exists()
    assert "would run code of its own" in found.model.files_problem
    assert hint in found.model.files_problem
    assert found.recomputed.problem == "the model is not at hand"
    assert found.input.verified
    assert {value.name: value.value for value in found.input.values}["id"] == 1003


def test_reproduce_loads_no_code_that_the_manifest_names(forged):
    table, run, hint, canary = forged
    with pytest.raises(SettingsError, match="would run code of its own") as caught:
        reproduce(str(table), run, Options())
    assert hint in str(caught.value.hint)
    assert "--config" in str(caught.value.hint) or "registry.allowed_paths" in str(caught.value.hint)
    assert caught.value.exit_code == 2
    assert not canary.exists()


def test_a_server_that_the_manifest_names_is_not_asked(published, table, evil, monkeypatch):
    """MLflow would send it the token."""
    run, asked = published[1]["run_id"], []
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-the-operator")

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            self.send_error(404)

        do_POST = do_GET  # noqa: N815  # the name that the standard library looks for

        def log_message(self, *_):
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Listening) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        forge_registry(table, run, evil[0], (uri, "models:/evil/1"))
        found = explain(str(table), KEY)
        with pytest.raises(SettingsError, match="by the run's record alone"):
            reproduce(str(table), run, Options())
        assert asked == []
        explain(str(table), KEY, tracking_uri=uri)  # named by the operator
        server.shutdown()
    assert asked
    assert "--tracking-uri" in found.model.registry_problem
    assert "--tracking-uri" in found.model.files_problem


def test_a_registry_of_the_operators_own_vouches_for_its_models(published, table, evil, registered, monkeypatch):
    """The canary shows that the tests above would see a model that is loaded."""
    forge_registry(table, published[1]["run_id"], evil[0], registered)
    monkeypatch.setenv("XDG_CACHE_HOME", str(table.parent / "cache"))
    explain(str(table), KEY, tracking_uri=registered[0])
    assert evil[1].exists()
    evil[1].rmdir()
    shutil.rmtree(table.parent / "cache")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered[0])
    explain(str(table), KEY)
    assert evil[1].exists()


def test_an_allowed_path_vouches_for_a_folder(published, table, evil, monkeypatch):
    forge_folder(table, published[1]["run_id"], evil[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(table.parent / "cache"))
    explain(str(table), KEY, allowed_paths=[str(evil[0])])
    assert evil[1].exists()


def test_a_folder_is_reproduced_with_allow_path(published, table):
    job, answer = published
    with pytest.raises(SettingsError, match="would run code"):
        reproduce(str(table), answer["run_id"], Options())
    found = reproduce(str(table), answer["run_id"], Options(allowed_paths=(str(job.folder),)))
    assert found.exit_code == 0
    assert found.comparison.equal == 80


def test_what_the_cache_holds_was_allowed_when_it_was_fetched(registered, evil, tmp_path):
    uri, model = registered
    given = {"tracking_uri": uri, "cache_dir": tmp_path / "cache"}
    recorded = Trust(recorded=True)
    with pytest.raises(SettingsError, match="would run code"):
        models.pin(model, **given, trust=recorded)
    assert not list((tmp_path / "cache").iterdir())
    models.pin(model, **given, trust=Trust())
    assert models.pin(model, **given, trust=recorded).uri == model
    # Nobody allowed what its requirements name.
    with pytest.raises(SettingsError, match="requirements would be installed"):
        models.pin(model, **given, trust=Trust(installs=True, recorded=True))
    (evil[0] / "model.pkl").write_bytes(b"other")
    with pytest.raises(SettingsError, match="would run code"):
        models.pin(model, **given, trust=recorded)
    assert models.pin(model, **given, trust=Trust((str(evil[0].parent),), recorded=True)).uri == model


def test_whose_registry_it_is(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    manifest = make_manifest(make_plan(TargetState("/out"), "r1", {}), ())
    manifest = dataclasses.replace(manifest, settings={"registry": {"tracking_uri": "sqlite:///r.db"}})
    assert registry_of(manifest, None) == ("sqlite:///r.db", True)
    assert registry_of(manifest, "sqlite:///mine.db") == ("sqlite:///mine.db", False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///r.db")
    assert registry_of(manifest, None) == ("sqlite:///r.db", False)
    server = "postgresql://ml:hunter2@db/mlflow"
    masked = dataclasses.replace(manifest, settings={"registry": {"tracking_uri": "postgresql://***@db/mlflow"}})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert registry_of(masked, None) == (server, False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert registry_of(manifest, None) == ("sqlite:///r.db", True)


# --- the table's own log ------------------------------------------------------------------------------------


def plant(table, path):
    """A commit by hand that adds a copy of a data file under another path."""
    add = next(iter(active_adds(table).values()))
    commit_by_hand(table, [{"add": {**add, "path": path}}])


@pytest.mark.parametrize("climbs", [True, False])
def test_a_log_leads_out_of_the_table_for_nobody(published, table, tmp_path, climbs):
    shutil.copytree(table / "ds=2026-01-01", tmp_path / "elsewhere")
    (file,) = (tmp_path / "elsewhere").glob("*.parquet")
    plant(table, f"../../elsewhere/{file.name}" if climbs else str(file))
    problem = "names a file outside of the table" if climbs else "cannot be read without Spark"
    with pytest.raises(InputError, match=problem):
        explain(str(table), KEY)
    newest = dataclasses.replace(record.show(str(table), published[1]["run_id"])[0], table_version=1)
    with pytest.raises(InputError, match=problem):
        published_by(str(table), newest)


@pytest.mark.parametrize(
    "uri", ["http://[::1", "HTTPS://evil", " http://evil", "postgresql+psycopg2://u@h/d", "s3://b"]
)
def test_a_registry_elsewhere_is_told_whatever_its_address_looks_like(published, table, uri):
    forge(table, published[1]["run_id"], model_version="1", sections={"registry": {"tracking_uri": uri}})
    found = explain(str(table), KEY)
    assert "--tracking-uri" in found.model.registry_problem
    assert found.recomputed.equal  # the cache holds the very files
