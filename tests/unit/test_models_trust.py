"""Whose model folders are loaded."""

from __future__ import annotations

import shutil

import pytest
import yaml

from batchscore import models
from batchscore.config import load
from batchscore.errors import SettingsError
from batchscore.models import Trust
from batchscore.models.trust import code_in
from tests.factories import models as factory


@pytest.fixture
def pickled(registry, model_cache, tmp_path):
    """The folder of a model that is a pickle."""
    name = factory.register_params(registry, "pickled").name
    model = models.pin(f"{name}/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache)
    shutil.copytree(model.path, tmp_path / "exports" / "model")
    return tmp_path / "exports" / "model"


@pytest.fixture
def booster(tree_model, tmp_path):
    """The folder of a LightGBM model in its own text format."""
    model, _ = tree_model("lightgbm_binary", "float64")
    shutil.copytree(model.path, tmp_path / "exports" / "booster")
    return tmp_path / "exports" / "booster"


@pytest.fixture
def pin(model_cache):
    return lambda folder, *paths, **facts: models.pin(
        str(folder), tracking_uri="", cache_dir=model_cache, trust=Trust(tuple(map(str, paths)), **facts)
    )


def test_a_pickle_is_loaded_from_an_allowed_path_only(pin, pickled, tmp_path):
    with pytest.raises(SettingsError, match="would run code") as caught:
        pin(pickled)
    assert f"--allow-path {pickled}" in str(caught.value)
    assert "registry.allowed_paths" in str(caught.value)
    assert "loaded by" in str(caught.value)
    for allowed in (pickled, pickled.parent, f"file://{pickled.parent}"):
        assert pin(pickled, allowed).name == "model"
    for other in (tmp_path / "elsewhere", pickled.with_name("mod"), pickled / "MLmodel"):
        with pytest.raises(SettingsError, match="would run code"):
            pin(pickled, other)


def test_links_are_followed_before_paths_are_compared(pin, pickled, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(pickled)
    with pytest.raises(SettingsError, match="would run code"):
        pin(allowed / "link", allowed)
    with pytest.raises(SettingsError, match="would run code"):
        pin(f"{allowed}/../exports/model", allowed)
    (tmp_path / "alias").symlink_to(pickled.parent)
    assert pin(pickled, tmp_path / "alias").name == "model"


def test_a_folder_that_holds_no_code_is_loaded_from_anywhere(pin, booster):
    assert "lightgbm" in pin(booster).flavors
    with pytest.raises(SettingsError, match="requirements would be installed"):
        pin(booster, installs=True)
    assert pin(booster, booster, installs=True)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("python_function", {"loader_module": "os"}),
        ("python_function", {"loader_module": "mlflow.sklearn"}),
        ("python_function", {"code": "code"}),
        ("python_function", {"predict_fn": "save_model"}),
        ("lightgbm", {"code": "code"}),
        ("lightgbm", {"model_class": "lightgbm.sklearn.LGBMClassifier"}),
        ("lightgbm", {"model_class": "os.system"}),
        ("sklearn", {"pickled_model": "model.pkl"}),
        ("spark", {"model_data": "sparkml"}),
        ("surprise", {}),
    ],
)
def test_what_makes_a_folder_code(pin, booster, section, change):
    path = booster / "MLmodel"
    document = yaml.safe_load(path.read_text())
    document["flavors"].setdefault(section, {}).update(change)
    assert code_in(document) is not None
    for name in ("model.pkl", "sparkml", "code"):
        (booster / name).write_bytes(b"")
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(SettingsError, match="would run code"):
        pin(booster)


def test_a_model_of_a_registry_needs_no_path(registry, model_cache, pickled):
    model = models.pin("pickled/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache, trust=Trust())
    assert "python_function" in model.flavors


@pytest.mark.parametrize("reference", ["models://other/fraud/1", "runs://databricks/abc/model"])
def test_a_model_of_another_registry(registry, model_cache, reference):
    with pytest.raises(SettingsError, match="another registry"):
        models.pin(reference, tracking_uri=registry.tracking_uri, cache_dir=model_cache)


def test_the_setting_takes_one_path_or_several():
    least = {"model.name": "m", "input.path": "in", "output.path": "out"}
    assert load(None, {**least, "registry.allowed_paths": "/models"}).registry.allowed_paths == ("/models",)
    assert load(None, least).registry.allowed_paths == ()
