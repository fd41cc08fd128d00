"""A reference becomes an exact version, a digest and local files; or an error that says what could be meant."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscore import models
from batchscore.errors import ModelError, SchemaMismatchError, SettingsError, SetupError, UnavailableError
from batchscore.models.digest import digest_folder
from tests.factories import models as factory


@pytest.fixture(scope="module", autouse=True)
def fraud(registry):
    """A model with three versions, Production on 2 and the alias champion on 3."""
    from mlflow import MlflowClient

    uris = [
        factory.register_python(
            registry, "Fraud", lambda data, _, factor=factor: data["amount"] * factor, signature=_signature()
        )
        for factor in (1.0, 2.0, 3.0)
    ]
    client = MlflowClient(tracking_uri=registry.tracking_uri)
    with pytest.warns(FutureWarning, match="deprecated"):
        client.transition_model_version_stage("Fraud", "2", "Production")
    client.set_registered_model_alias("Fraud", "champion", "3")
    return [client.get_model_version("Fraud", str(number)) for number in (1, 2, 3)], uris


def _signature():
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature

    return infer_signature(pd.DataFrame({"amount": [1.0]}), np.zeros(1))


@pytest.fixture
def pin(registry, model_cache, monkeypatch, tmp_path):
    """``models.pin`` on the test registry, in an empty working directory in which nothing may appear."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def pinned(reference, **arguments):
        return models.pin(reference, **{"tracking_uri": registry.tracking_uri, "cache_dir": model_cache} | arguments)

    yield pinned
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("Fraud/1", "1"),
        ("models:/Fraud/1", "1"),
        ("Fraud/Production", "2"),
        ("Fraud/production", "2"),
        ("models:/Fraud/Production", "2"),
        ("Fraud@champion", "3"),
        ("models:/Fraud@champion", "3"),
        ("Fraud/latest", "3"),
    ],
)
def test_registry_references(pin, fraud, reference, version):
    model = pin(reference)
    assert (model.requested, model.name, model.version, model.uri) == (
        reference,
        "Fraud",
        version,
        f"models:/Fraud/{version}",
    )
    assert model.run_id == fraud[0][int(version) - 1].run_id
    assert model.digest in model.path
    assert digest_folder(model.path) == model.digest
    assert model.size_bytes == sum(file.stat().st_size for file in Path(model.path).rglob("*") if file.is_file())
    assert model.python_version == ".".join(map(str, sys.version_info[:3]))
    assert model.requirements == ("mlflow",)
    assert model.flavors == ("python_function",)


def test_notices(pin):
    assert "use an alias" in pin("Fraud/Production").notices[0]
    assert "newest version" in pin("Fraud/latest").notices[0]
    assert pin("Fraud@champion").notices == ()


@pytest.mark.parametrize(("version", "found"), [("2", "2"), ("Production", "2"), ("@champion", "3"), ("latest", "3")])
def test_version_of_the_settings(pin, version, found):
    assert pin("Fraud", version=version).version == found


def test_the_digest_is_the_files_however_they_came(pin, fraud, tmp_path):
    versions, uris = fraud
    by_name, again = pin("Fraud/1"), pin("Fraud@champion")
    assert by_name.digest != again.digest
    logged = pin(uris[0])
    by_run = pin(f"runs:/{versions[0].run_id}/model")
    copy = tmp_path / "copy"
    shutil.copytree(by_name.path, copy)
    (copy / "registered_model_meta").write_text("model_name: Fraud")
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "module.pyc").write_bytes(b"x")
    by_path, by_uri = pin(str(copy)), pin(copy.as_uri())
    assert {model.digest for model in (logged, by_run, by_path, by_uri)} == {by_name.digest}
    assert {model.path for model in (logged, by_run, by_path, by_uri)} == {by_name.path}
    assert (by_run.run_id, by_run.version, by_path.name) == (versions[0].run_id, "", "copy")


def test_a_damaged_copy_in_the_cache_is_replaced(pin):
    path = Path(pin("Fraud/1").path, "MLmodel")
    content = path.read_bytes()
    path.write_bytes(content + b"\n# changed")
    assert Path(pin("Fraud/1").path, "MLmodel").read_bytes() == content


def test_nothing_is_left_in_the_cache(pin, model_cache):
    pin("Fraud/1")
    with pytest.raises(ModelError):
        pin("Fraud/99")
    assert [path.name for path in model_cache.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("reference", "texts"),
    [
        ("Fruad/1", ["no registered model is named Fruad", "did you mean: Fraud?"]),
        ("fraud/1", ["no registered model is named fraud", "did you mean: Fraud?"]),
        ("Fraud/99", ["Fraud has no version 99", "Fraud@champion, Fraud/Production, Fraud/3, Fraud/2, Fraud/1"]),
        ("Fraud/Staging", ["has no stage Staging", "Fraud/Production"]),
        ("Fraud/Prodution", ["has no stage Prodution", "did you mean: Fraud/Production?"]),
        ("Fraud/champion", ["has no stage champion", "did you mean: Fraud@champion?"]),
        ("Fraud@champoin", ["has no alias champoin", "did you mean: Fraud@champion?"]),
        ("Fraud@Champion", ["has no alias Champion", "did you mean: Fraud@champion?"]),
        ("Fraud@production", ["has no alias production", "did you mean: Fraud/Production?"]),
        ("Fraud", ["named without a version", "Fraud@champion, Fraud/Production, Fraud/3"]),
        ("models:/m-00000000000000000000000000000000", ["does not know this model"]),
        ("runs:/00000000000000000000000000000000/model", ["does not know this model"]),
    ],
)
def test_what_the_registry_does_not_know(pin, reference, texts):
    with pytest.raises(ModelError) as caught:
        pin(reference)
    for text in texts:
        assert text in str(caught.value)


def test_a_run_without_such_a_model(pin, fraud):
    with pytest.raises(ModelError, match=r"not where the registry says|does not know"):
        pin(f"runs:/{fraud[0][0].run_id}/other")


@pytest.mark.parametrize(
    "reference", ["", "a/b/c", "a//1", "s3://bucket/model", "runs:/only", "../", "name@", "models:/../1", "@x"]
)
def test_what_is_no_reference(pin, reference):
    with pytest.raises((SettingsError, ModelError)) as caught:
        pin(reference)
    assert isinstance(caught.value, ModelError) == (reference == "../")


def test_a_version_twice(pin):
    with pytest.raises(SettingsError, match="twice"):
        pin("Fraud/1", version="2")


def test_a_folder_that_could_be_a_name(registry, model_cache, tmp_path, monkeypatch):
    model = models.pin("Fraud/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)
    shutil.copytree(model.path, tmp_path / "Fraud" / "1")
    monkeypatch.chdir(tmp_path)
    local = models.pin("Fraud/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)
    assert (local.version, local.name) == ("", "1")
    assert "taken as a folder" in local.notices[0]


# --- damaged folders ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(registry, model_cache, tmp_path):
    """A model folder that a test may damage."""
    model = models.pin("Fraud/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)
    shutil.copytree(model.path, tmp_path / "model")
    return tmp_path / "model"


def test_damaged_folders(pin, folder):
    (folder / "python_model.pkl").unlink()
    with pytest.raises(ModelError, match=r"a file of the model is missing\n  found: python_model.pkl"):
        pin(str(folder))
    text = (folder / "MLmodel").read_text()
    for damaged, message in [
        ("flavors: [", "cannot be read"),
        ("just text", "names no flavors"),
        ("flavors: {python_function: 1}", "names no flavors"),
        ("\x00", "cannot be read"),
        (text.replace("python_model.pkl", "../../secret.pkl"), "outside the model's folder"),
    ]:
        (folder / "MLmodel").write_text(damaged)
        with pytest.raises(ModelError, match=message):
            pin(str(folder))
    (folder / "MLmodel").unlink()
    with pytest.raises(ModelError, match="holds no MLmodel file"):
        pin(str(folder))
    with pytest.raises(ModelError, match="no such model folder"):
        pin(str(folder / "nowhere"))


def test_links_that_leave_the_folder(pin, folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "inside").symlink_to("MLmodel")
    assert pin(str(folder)).name == "model"
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leaves the folder"):
        pin(str(folder))
    (folder / "link").unlink()
    (folder / "folder").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="leaves the folder"):
        pin(str(folder))


def test_files_that_are_gone_from_the_store(registry, model_cache):
    from mlflow import MlflowClient

    uri = factory.register_python(registry, "Gone", lambda data, _: data["amount"], signature=_signature())
    stored = MlflowClient(tracking_uri=registry.tracking_uri).get_logged_model(uri.split("/")[-1]).artifact_location
    shutil.rmtree(stored.removeprefix("file://"))
    with pytest.raises(ModelError, match=r"not where the registry says|does not know|holds no MLmodel"):
        models.pin("Gone/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)


# --- a registry that does not answer -----------------------------------------------------------------------


def _refused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "postgresql", "mysql+pymysql"])
def test_a_server_that_is_down(pin, scheme):
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="not reachable") as caught:
        pin("Fraud/1", tracking_uri=f"{scheme}://ann:s3cret@127.0.0.1:{_refused_port()}/mlflow")
    assert time.monotonic() - started < 20
    assert "s3cret" not in str(caught.value)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:s3cret@db:543a/mlflow",
        "postgresql://ann:s3c/ret@db/mlflow",  # then the port is "s3c"
        "mysql+pymysql://ann:s3cret@db:70000/mlflow",
        "postgresql://ann:s3cret@db..internal/mlflow",
        "http://ann:s3cret@[::1",
        "https://ann:s3cret@host:port/",
    ],
)
def test_an_address_that_is_none(pin, uri):
    with pytest.raises(SettingsError, match="the address of the model registry is none") as caught:
        pin("Fraud/1", tracking_uri=uri)
    assert "s3c" not in caught.value.text()
    with pytest.raises(SettingsError, match="the address of the model registry is none"):
        models.describe("Fraud", "1", tracking_uri=uri)


def test_an_address_of_a_folder_that_is_none(pin):
    with pytest.raises(SettingsError, match="no address of a file"):
        pin("file://[x/model")


def test_sqlite_files(pin, tmp_path):
    missing = tmp_path / "missing.db"
    with pytest.raises(UnavailableError, match="no such file"):
        pin("Fraud/1", tracking_uri=f"sqlite:///{missing}")
    assert not missing.exists()
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(UnavailableError, match="not an MLflow registry"):
        pin("Fraud/1", tracking_uri=f"sqlite:///{empty}")
    assert empty.stat().st_size == 0
    other = tmp_path / "other.db"
    other.write_bytes(b"this is no database at all" * 99)
    with pytest.raises(UnavailableError, match="not a database"):
        pin("Fraud/1", tracking_uri=f"sqlite:///{other}")
    with pytest.raises(UnavailableError, match="no such folder"):
        pin("Fraud/1", tracking_uri=str(tmp_path / "mlruns"))


def test_a_locked_sqlite_file(pin, registry, tmp_path, monkeypatch):
    monkeypatch.setattr(models.registry, "SQLITE_WAIT_SECONDS", 0.2)
    path = tmp_path / "locked.db"
    shutil.copy(registry.tracking_uri.removeprefix("sqlite:///"), path)
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnavailableError, match="locked"):
        pin("Fraud/1", tracking_uri=f"sqlite:///{path}")
    holder.close()


def test_a_cache_that_cannot_be_made(pin, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be made"):
        pin("Fraud/1", cache_dir=tmp_path / "file" / "cache")


# --- what the settings add ---------------------------------------------------------------------------------


def test_without_a_signature_the_settings_name_the_columns(pinned):
    with pytest.raises(SchemaMismatchError, match=r"signature: \{inputs: \[\{name: amount, type: double\}"):
        pinned(factory.register_no_signature)
    model, _ = pinned(factory.register_no_signature, signature={"inputs": [{"name": "amount", "type": "double"}]})
    assert [(item.name, item.type, item.required) for item in model.inputs] == [("amount", "double", True)]
    assert [(item.name, item.type) for item in model.outputs] == [("", "double")]


def test_params_are_checked(pinned):
    model, _ = pinned(factory.register_params, params={"shift": 5})
    assert [(param.name, param.type, param.value) for param in model.params] == [
        ("factor", "double", 2.0),
        ("shift", "long", 5),
        ("label", "string", "x"),
    ]
    with pytest.raises(SettingsError, match="did you mean: factor"):
        pinned(factory.register_params, params={"factr": 1.0})
    for wrong in ({"factor": "2"}, {"shift": 1.5}, {"shift": True}, {"shift": 2**63}, {"label": 1}):
        with pytest.raises(SettingsError, match="wrong type"):
            pinned(factory.register_params, params=wrong)


def test_importing_models_imports_no_mlflow():
    code = "import sys, batchscore.models, batchscore.engines; print('mlflow' in sys.modules, 'pandas' in sys.modules)"
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    assert done.stdout.split() == ["False", "False"]
