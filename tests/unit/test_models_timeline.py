"""What the registry tells of an alias or a stage in the past."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from batchscore.errors import ModelError, SettingsError
from batchscore.models import parse_reference, version_history
from tests.factories.models import make_registry


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Model ``m``: version 1 archived, 2 in Production and named champion, 3 in no stage."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("timeline")
    address = make_registry(folder).tracking_uri
    client = MlflowClient(address, address)
    client.create_registered_model("m")
    for name in ("one", "two", "three"):
        client.create_model_version("m", (folder / name).as_uri(), await_creation_for=0)
        time.sleep(0.005)  # times are in milliseconds
    for version, stage in (("1", "Production"), ("2", "Production")):
        with pytest.warns(FutureWarning, match="deprecated"):
            client.transition_model_version_stage("m", version, stage, archive_existing_versions=True)
    client.set_registered_model_alias("m", "champion", "2")
    return address


def history(uri, text):
    return version_history(parse_reference(text), tracking_uri=uri)


def test_who_carries_it_now_and_when_versions_were_made(uri):
    stage = history(uri, "m/production")
    assert (stage.kind, stage.value, stage.current) == ("stage", "Production", "2")
    assert [version.version for version in stage.versions] == ["1", "2", "3"]
    assert [version.stage for version in stage.versions] == ["Archived", "Production", "None"]
    moments = [dt.datetime.fromisoformat(version.created_at) for version in stage.versions]
    assert moments == sorted(set(moments))
    assert all(moment.tzinfo is not None for moment in moments)
    assert stage.versions[1].updated_at > stage.versions[2].created_at
    assert (history(uri, "m@champion").kind, history(uri, "m@champion").current) == ("alias", "2")
    assert history(uri, "m/latest").kind == "latest"


def test_what_nobody_carries(uri):
    assert history(uri, "m@nobody").current == ""
    assert history(uri, "m/Staging").current == ""


def test_a_name_that_always_means_the_same_version(uri):
    for text in ("m/2", "m"):
        with pytest.raises(SettingsError, match="alias or a stage"):
            history(uri, text)
    with pytest.raises(ModelError, match="no registered model is named n"):
        history(uri, "n@champion")
