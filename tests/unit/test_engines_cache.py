"""A model is verified before it is loaded, and loaded once."""

import dataclasses
import shutil
import threading
from pathlib import Path

import pytest

from batchscore.engines import cache, pyfunc
from batchscore.engines.cache import loaded
from batchscore.errors import ModelError, SettingsError
from tests.factories import models as factory
from tests.factories.models import files_of


@pytest.fixture
def files(pinned, tmp_path):
    """A copy of a model's files that a test may change."""
    model, _ = pinned(factory.register_bad, "nan")
    folder = tmp_path / "copy"
    shutil.copytree(model.path, folder)
    # A name of its own output makes it another model for the cache.
    outputs = (dataclasses.replace(model.outputs[0], name=f"score_{tmp_path.name}"),)
    return dataclasses.replace(files_of(model), path=str(folder), outputs=outputs)


def test_loaded_once_whatever_thread_asks(files, monkeypatch):
    loads = []
    original = pyfunc.load
    monkeypatch.setattr(pyfunc, "load", lambda *arguments: loads.append(arguments) or original(*arguments))
    found = []
    threads = [threading.Thread(target=lambda: found.append(loaded("pyfunc", files, 1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in found}) == 1
    assert len(loads) == 1
    assert loaded("pyfunc", files, 2) is not found[0]
    assert len(loads) == 2


def test_a_flipped_byte_is_found_before_loading(files):
    victim = Path(files.path, "python_model.pkl")
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ModelError, match="not those that were resolved") as caught:
        loaded("pyfunc", files, 1)
    assert files.digest in str(caught.value)
    assert cache.digest_folder(files.path) in str(caught.value)


def test_an_added_file_is_found(files):
    Path(files.path, "sitecustomize.py").write_text("raise SystemExit")
    with pytest.raises(ModelError, match="not those that were resolved"):
        loaded("pyfunc", files, 1)


def test_byte_code_beside_the_model_is_never_run(files):
    planted = Path(files.path, "code", "__pycache__")
    planted.mkdir(parents=True)
    (planted / "module.pyc").write_bytes(b"anything")
    loaded("pyfunc", files, 1)
    assert not planted.exists()


def test_a_model_that_cannot_be_loaded(files):
    Path(files.path, "python_model.pkl").write_bytes(b"not a pickle")
    broken = dataclasses.replace(files, digest=cache.digest_folder(files.path))
    with pytest.raises(ModelError, match="cannot be loaded by engine pyfunc") as caught:
        loaded("pyfunc", broken, 1)
    assert caught.value.__cause__ is not None
    assert len(str(caught.value)) < 4_000


def test_missing_folder_and_unknown_engine(files):
    with pytest.raises(SettingsError, match="did you mean: pyfunc"):
        loaded("pyfunk", files, 1)
    shutil.rmtree(files.path)
    with pytest.raises(ModelError, match="folder is missing"):
        loaded("pyfunc", files, 1)
