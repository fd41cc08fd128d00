import pytest

from batchscore import models
from tests.factories.models import make_registry


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
