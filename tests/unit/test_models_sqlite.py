"""A SQLite registry read directly says what MLflow's client says, and leaves the rest to it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from batchscore.models import facts, sqlite
from batchscore.models import registry as client_side
from batchscore.models.reference import parse_reference


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Model ``m`` with versions 1 to 4: a folder, a copied one, a logged model's and a run's; 5 is deleted."""
    import mlflow
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("direct")
    address = f"sqlite:///{folder / 'registry.db'}"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)  # MLflow resolves the sources of new versions against it
    client = MlflowClient(address, address)
    experiment = client.create_experiment("e", artifact_location=(folder / "files").as_uri())
    run = client.create_run(experiment)
    logged = client.create_logged_model(experiment, "model", source_run_id=run.info.run_id)
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_registered_model("m")
    client.create_registered_model("other 'quoted'")
    for source, arguments in (
        ((folder / "one").as_uri(), {"run_id": run.info.run_id}),
        (str(folder / "two"), {}),
        (f"models:/{logged.model_id}", {}),
        (f"runs:/{run.info.run_id}/model", {"run_id": run.info.run_id}),
        ((folder / "five").as_uri(), {}),
    ):
        client.create_model_version("m", source, await_creation_for=0, **arguments)
    client.create_model_version("other 'quoted'", (folder / "six").as_uri(), await_creation_for=0)
    for version, stage in (("1", "Production"), ("2", "Production"), ("3", "Staging")):
        with pytest.warns(FutureWarning, match="deprecated"):
            client.transition_model_version_stage("m", version, stage)
    client.set_registered_model_alias("m", "champion", "1")
    client.set_registered_model_alias("m", "also", "1")
    client.set_registered_model_alias("m", "gone", "5")
    client.delete_model_version("m", "5")
    mlflow.set_tracking_uri(before)
    return address


def by_client(uri, reference):
    return client_side.locate(client_side.connect(uri, None), uri, parse_reference(reference))


@pytest.mark.parametrize(
    "reference",
    ["m/1", "m/2", "m/3", "m/Production", "m/Staging", "m@champion", "m@also", "models:/m/2", "models:/m@champion"],
)
def test_as_the_client_says(uri, reference):
    found = sqlite.locate(uri, None, parse_reference(reference))
    assert found is not None
    assert found == by_client(uri, reference)


def test_names_with_quotes_and_the_latest_version(uri):
    for reference in ("models:/other 'quoted'/1", "models:/other 'quoted'/latest"):
        found = sqlite.locate(uri, None, parse_reference(reference))
        assert found is not None
        assert found == by_client(uri, reference)


@pytest.mark.parametrize(
    "reference",
    ["m/4", "m/5", "m/9", "m/x", "m/latest", "m@gone", "m@nobody", "m/Archived", "none/1", "M/1", "m", "runs:/a/model"],
)
def test_what_is_left_to_the_client(uri, reference):
    """A run's files, whatever does not resolve, deleted versions, and other kinds of references."""
    assert sqlite.locate(uri, None, parse_reference(reference)) is None


def test_other_stores_and_registries_are_left_to_the_client(uri, monkeypatch):
    reference = parse_reference("m/1")
    for other in ("http://127.0.0.1:5000", "file:///tmp", "sqlite:////nowhere/r.db", "postgresql://h/db", f"{uri}?x=1"):
        assert sqlite.locate(other, None, reference) is None
    assert sqlite.locate(uri, "http://127.0.0.1:5000", reference) is None
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    assert sqlite.locate(uri, None, reference) is None


@pytest.fixture
def copy(uri, tmp_path):
    """The registry's database, to be changed."""
    return Path(shutil.copy(uri.removeprefix("sqlite:///"), tmp_path / "r.db"))


def test_an_unknown_revision_of_the_tables_is_left_to_the_client(copy):
    assert sqlite.locate(f"sqlite:///{copy}", None, parse_reference("m/1")) is not None
    with sqlite3.connect(copy) as database:
        database.execute("UPDATE alembic_version SET version_num = 'newer'")
    assert sqlite.locate(f"sqlite:///{copy}", None, parse_reference("m/1")) is None


def test_a_model_of_another_workspace_is_left_to_the_client(copy):
    with sqlite3.connect(copy) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("UPDATE model_versions SET workspace = 'team'")
    assert sqlite.locate(f"sqlite:///{copy}", None, parse_reference("m/1")) is None


def test_mlflow_is_at_a_known_revision():
    """Fails when MLflow moves on: read what changed in its tables, then add the revision."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert _get_latest_schema_revision() in sqlite.KNOWN_REVISIONS


def test_mlflow_is_not_imported(uri):
    script = (
        "import sys; from batchscore.models import sqlite; from batchscore.models.reference import parse_reference; "
        f"assert sqlite.locate({uri!r}, None, parse_reference('m/1')); "
        "assert not {'mlflow', 'sqlalchemy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_where_a_version_was_copied_to_goes_before_where_it_came_from(uri, tmp_path):
    copy = tmp_path / "r.db"
    shutil.copy(uri.removeprefix("sqlite:///"), copy)
    with sqlite3.connect(copy) as database:
        database.execute("UPDATE model_versions SET storage_location = 'file:///elsewhere' WHERE version = 1")
        database.execute("UPDATE model_versions SET storage_location = '' WHERE version = 2")
    for version in ("1", "2"):
        found = sqlite.locate(f"sqlite:///{copy}", None, parse_reference(f"m/{version}"))
        assert found is not None
        assert found == by_client(f"sqlite:///{copy}", f"m/{version}")
    assert sqlite.locate(f"sqlite:///{copy}", None, parse_reference("m/1")).files == "file:///elsewhere"


# --- who registered a version -------------------------------------------------------------------------------


@pytest.fixture
def told(copy):
    """The registry with what people write into one: users, a run's name, descriptions."""
    with sqlite3.connect(copy) as database:
        database.execute("UPDATE model_versions SET user_id = 'ann', description = 'first try' WHERE version = 1")
        database.execute("UPDATE registered_models SET description = 'scores m' WHERE name = 'm'")
        database.execute("UPDATE runs SET user_id = 'bob', name = 'nightly', start_time = 1764000000000")
        database.execute("UPDATE model_versions SET source = 'https://u:secret@host/x' WHERE version = 2")
    return f"sqlite:///{copy}"


@pytest.mark.parametrize("version", ["1", "2", "3", "4", "9", "x", str(2**63), "9" * 5_000])
def test_versions_are_described_as_the_client_does(told, version):
    found = sqlite.describe(told, None, "m", version)
    assert found is not None
    assert found == facts.describe(client_side.connect(told, None), told, "m", version)


def test_what_is_described(told):
    found = sqlite.describe(told, None, "m", "1")
    assert found is not None
    assert (found.state, found.user, found.description, found.model_description) == (
        "registered", "ann", "first try", "scores m",
    )  # fmt: skip
    assert (found.stage, found.aliases) == ("Production", ("also", "champion"))
    assert (found.run_user, found.run_name, found.experiment) == ("bob", "nightly", "e")
    assert found.run_started_at == "2025-11-24T16:00:00Z"
    assert found.created_at.endswith("Z")
    other = sqlite.describe(told, None, "m", "2")
    assert other is not None
    assert other.source == "https://***@host/x"


def test_a_time_that_is_none_is_not_told(told):
    with sqlite3.connect(told.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE model_versions SET creation_time = ? WHERE version = 1", [2**62])
    assert sqlite.describe(told, None, "m", "1").created_at == ""


def test_deleted_and_unknown_versions(told):
    states = {version: sqlite.describe(told, None, "m", version).state for version in ("5", "9", "x")}
    assert states == {"5": "deleted", "9": "unknown", "x": "unknown"}
    assert sqlite.describe(told, None, "none", "1").state == "unknown"
    by_client = facts.describe(client_side.connect(told, None), told, "m", "5")
    assert by_client.state == "unknown"  # the client does not tell the two apart


def test_other_registries_are_described_by_the_client(told):
    assert sqlite.describe("http://127.0.0.1:5000", None, "m", "1") is None
    with sqlite3.connect(told.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'newer'")
    assert sqlite.describe(told, None, "m", "1") is None
