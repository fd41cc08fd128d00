import shutil

import pytest

from batchscore import models
from batchscore.engines.trees import library
from tests.factories.models import make_registry, save_trees


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """An empty SQLite registry, shared: each test registers what it needs under names of its own."""
    return make_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory):
    """The folder where pinned models go."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def pinned(registry, model_cache):
    """``pinned(factory function, *arguments, **settings)``: a model, registered once, pinned, and its sample."""
    known = {}

    def pin(make, *arguments, **settings):
        key = (make.__name__, *map(str, arguments))
        if key not in known:
            known[key] = make(registry, *arguments)
        name, sample = known[key]
        model = models.pin(f"{name}/1", tracking_uri=registry.tracking_uri, cache_dir=model_cache, **settings)
        return model, sample

    return pin


@pytest.fixture(scope="session")
def tree_model(tmp_path_factory, model_cache):
    """``tree_model(kind, dtype)``: a tree model of ``TREE_KINDS``, trained and pinned once, and its sample."""
    known = {}

    def make(kind, dtype):
        if (kind, dtype) not in known:
            folder = tmp_path_factory.mktemp("trees") / f"{kind}_{dtype}"
            sample = save_trees(folder, kind, dtype)
            model = models.pin(str(folder), tracking_uri="", cache_dir=model_cache)
            known[kind, dtype] = (model, sample)
        return known[kind, dtype]

    return make


@pytest.fixture(scope="session")
def pin_folder(model_cache):
    """``pin_folder(folder, **settings)``: a model in a folder, pinned."""
    return lambda folder, **settings: models.pin(str(folder), tracking_uri="", cache_dir=model_cache, **settings)


@pytest.fixture
def built_once(monkeypatch, tmp_path_factory):
    """The kernels are the same for all models, so the tests compile it once."""
    kept = tmp_path_factory.getbasetemp() / "trees.so"
    build = library.build

    def copied(path):
        if not kept.exists():
            build(kept)
        shutil.copyfile(kept, path)

    monkeypatch.setattr(library, "build", copied)
    return build
