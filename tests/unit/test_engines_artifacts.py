"""Artifacts are made once, never trusted unseen, and whole whatever happens beside them."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batchscore import models
from batchscore.contracts.proof import Certificate, Measurement
from batchscore.engines import ENGINES, artifacts, sharing
from batchscore.engines.artifacts import (
    entry_folder,
    files_for,
    needs_artifact,
    prepared,
    read_certificate,
    read_measurement,
    versions_of,
    write_certificate,
    write_measurement,
)
from batchscore.engines.cache import loaded
from batchscore.errors import ModelError, SettingsError, SetupError
from batchscore.models.digest import digest_folder
from tests.factories import models as factory
from tests.factories.engines import converting
from tests.factories.models import files_of

ENGINE = "converting"


@pytest.fixture
def diary(tmp_path, monkeypatch):
    """Registers the converting engine; gives the list of its conversions."""
    path = tmp_path / "diary"
    monkeypatch.setitem(ENGINES, ENGINE, converting.__name__)
    monkeypatch.setenv(converting.DIARY, str(path))
    return lambda: path.read_text().split() if path.exists() else []


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def model(pinned):
    return pinned(factory.register_bad, "nan")[0]


def certificate(**changes):
    facts = {
        "engine": ENGINE,
        "reference": "pyfunc",
        "model_digest": "m",
        "artifact_digest": "a",
        "versions": (("copier", "1"),),
        "probes": (("input", 3),),
        "max_abs_diff": float("inf"),
        "max_rel_diff": 0.0,
        "label_flips": 0,
        "nan_mismatches": 0,
        "verdict": "refused",
        "reason": "differs",
        "worst": ("row",),
        "allowed_abs_diff": 1e-6,
        "allowed_label_flips": 0,
        "created_at": "2026-11-01T00:00:00Z",
    }
    return Certificate(**{**facts, **changes})


def test_converted_once(diary, cache, model):
    one, two = prepared(ENGINE, model, cache), prepared(ENGINE, model, cache)
    assert one == two
    assert len(diary()) == 1
    assert (one.engine, one.digest) == (ENGINE, digest_folder(one.path))
    assert one.size_bytes == 6_000 + len(model.digest)
    folder = entry_folder(ENGINE, model, cache)
    assert Path(one.path).parent == folder
    assert folder.parent == cache / model.digest
    assert not [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]


def test_the_default_place(diary, tmp_path, model, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    artifact = prepared(ENGINE, model)
    assert Path(artifact.path).is_relative_to(tmp_path / "home" / "batchscore" / "engines" / model.digest)


def test_nobody_else_may_look_or_write(diary, cache, model):
    prepared(ENGINE, model, cache)
    write_certificate(certificate(), model, cache)
    for path in (cache, cache / model.digest, entry_folder(ENGINE, model, cache)):
        assert path.stat().st_mode & 0o077 == 0


def test_other_versions_models_and_declarations_have_other_artifacts(diary, cache, model, monkeypatch):
    first = prepared(ENGINE, model, cache)
    outputs = (dataclasses.replace(model.outputs[0], type="float"),)
    for other in (dataclasses.replace(model, digest="f" * 64), dataclasses.replace(model, outputs=outputs)):
        assert prepared(ENGINE, other, cache).path != first.path
    monkeypatch.setitem(converting.VERSION, "copier", "2")
    assert prepared(ENGINE, model, cache).path != first.path
    assert len(diary()) == 4
    monkeypatch.setitem(converting.VERSION, "copier", "1")
    assert prepared(ENGINE, model, cache) == first
    assert len(diary()) == 4


def _flip(folder):
    path = folder / "artifact" / "sub" / "graph.txt"
    path.write_text(path.read_text().replace("graph", "grapf", 1))


def _edit(**changes):
    def change(folder):
        path = folder / "entry.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda folder: (folder / "artifact" / "weights.bin").unlink(),
        lambda folder: (folder / "artifact" / "more").write_text("x"),
        lambda folder: shutil.rmtree(folder / "artifact"),
        lambda folder: (folder / "entry.json").unlink(),
        lambda folder: (folder / "entry.json").write_text("{"),
        lambda folder: (folder / "entry.json").write_text("[]"),
        lambda folder: (folder / "entry.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "artifact" / "sub" / "away").symlink_to("/etc/passwd"),
        _edit(format=0),
        _edit(engine="other"),
        _edit(model_digest="other"),
        _edit(versions={"copier": "0"}),
        _edit(digest="0" * 64),
        _edit(digest=None),
    ],
)
def test_what_is_not_intact_is_made_again(diary, cache, model, damage):
    first = prepared(ENGINE, model, cache)
    write_certificate(certificate(), model, cache)
    damage(entry_folder(ENGINE, model, cache))
    again = prepared(ENGINE, model, cache)
    assert again == first
    assert digest_folder(again.path) == first.digest
    assert len(diary()) == 2
    # It was for what lay there before.
    assert read_certificate(ENGINE, model, cache) is None
    assert prepared(ENGINE, model, cache) == first
    assert len(diary()) == 2


CONVERT = """
import pickle, sys
from pathlib import Path
from batchscore.engines import ENGINES
from batchscore.engines.artifacts import prepared
ENGINES["converting"] = "tests.factories.engines.converting"
model = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
sys.stdin.readline()
print(prepared("converting", model, Path(sys.argv[2])))
"""


def start(tmp_path, model, cache, **environment):
    request = tmp_path / "model"
    request.write_bytes(pickle.dumps(model))
    process = subprocess.Popen(
        [sys.executable, "-c", CONVERT, str(request), str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(*processes):
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0] for process in processes]


def test_two_processes_at_once_make_one_artifact(diary, cache, model, tmp_path):
    results = go(*(start(tmp_path, model, cache, SLEEP="1") for _ in range(2)))
    assert results[0] == results[1]
    assert "Artifact(" in results[0]
    assert len(diary()) == 1
    assert prepared(ENGINE, model, cache).digest in results[0]


def test_without_locks_the_rename_keeps_entries_whole(diary, cache, model, tmp_path):
    """Where the filesystem has no locks both convert, and both end with one intact artifact."""
    code = CONVERT.replace(
        "ENGINES[", "import fcntl\ndef no(*a): raise OSError(37, 'No locks available')\nfcntl.flock = no\nENGINES[", 1
    )
    request = tmp_path / "model"
    request.write_bytes(pickle.dumps(model))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(request), str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SLEEP": "1"},
        )
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    results = go(*processes)
    assert len(diary()) == 2
    assert results[0] == results[1]
    assert prepared(ENGINE, model, cache).digest in results[0]
    assert len(diary()) == 2


def test_another_process_was_first_by_a_moment(diary, cache, model, monkeypatch):
    """An entry that appears just before the rename is taken, if it is whole."""
    original = Path.rename

    def late(whole):
        def rename(self, target):
            shutil.copytree(self, target)
            if not whole:
                (target / "artifact" / "weights.bin").unlink()
            raise OSError(39, "Directory not empty")

        return rename

    monkeypatch.setattr(Path, "rename", late(whole=False))
    with pytest.raises(SetupError, match="not empty"):
        prepared(ENGINE, model, cache)
    monkeypatch.setattr(Path, "rename", late(whole=True))
    found = prepared(ENGINE, model, cache)
    monkeypatch.setattr(Path, "rename", original)
    assert prepared(ENGINE, model, cache) == found
    assert len(diary()) == 2


def test_an_intact_entry_is_never_replaced(diary, cache, model):
    """Workers may be reading it."""
    folder = entry_folder(ENGINE, model, cache)
    seen = []

    def slow(target):
        seen.append(artifacts.settle(ENGINE, model, folder, lambda inner: converting.convert(model, inner)))
        seen.append((folder / "artifact").stat().st_ino)
        (target / "weights.bin").write_bytes(b"another")

    folder.parent.mkdir(parents=True)
    assert artifacts.settle(ENGINE, model, folder, slow) == seen[0]
    assert (folder / "artifact").stat().st_ino == seen[1]


def test_an_entry_gets_its_place_by_one_rename(diary, cache, model):
    folder = entry_folder(ENGINE, model, cache)
    folder.parent.mkdir(parents=True)
    seen = []

    def make(target):
        assert not folder.exists()
        seen.append(target.stat().st_ino)
        converting.convert(model, target)

    artifact = artifacts.settle(ENGINE, model, folder, make)
    assert Path(artifact.path).stat().st_ino == seen[0]


def test_a_process_that_died_leaves_nothing_that_counts(diary, cache, model, tmp_path):
    process = start(tmp_path, model, cache, BEHAVIOUR="die")
    assert go(process) == [""]
    assert process.returncode == 9
    assert len(list((cache / model.digest).iterdir())) == 2  # the lock, and half an artifact
    artifact = prepared(ENGINE, model, cache)
    assert digest_folder(artifact.path) == artifact.digest
    assert sorted(path.is_dir() for path in (cache / model.digest).iterdir()) == [False, True]


@pytest.mark.usefixtures("diary")
@pytest.mark.parametrize(
    ("behaviour", "kind", "text"),
    [
        ("raise", ModelError, "cannot convert model.*\n.*operator Frobnicate is unknown"),
        ("refuse", ModelError, "this model has a custom objective"),
        ("nothing", ModelError, "made nothing"),
        ("compiler", ModelError, "cannot convert model.*\n.*'cc'"),
        ("full", SetupError, "cannot be written\n.*No space left"),
    ],
)
def test_conversions_that_fail(cache, model, monkeypatch, behaviour, kind, text):
    monkeypatch.setenv(converting.BEHAVIOUR, behaviour)
    with pytest.raises(kind, match=text):
        prepared(ENGINE, model, cache)
    assert not [path for path in (cache / model.digest).iterdir() if path.is_dir()]
    monkeypatch.delenv(converting.BEHAVIOUR)
    assert prepared(ENGINE, model, cache).size_bytes


def test_a_cache_that_cannot_be_written(diary, tmp_path, model):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for cache in (blocked / "cache", Path("/proc/batchscore")):
        with pytest.raises(SetupError, match="cannot be written") as caught:
            prepared(ENGINE, model, cache)
        assert "XDG_CACHE_HOME" in str(caught.value)
        with pytest.raises(SetupError, match="cannot be written"):
            write_certificate(certificate(), model, cache)
    assert diary() == []


def test_a_small_disk(diary, cache, model, tmp_path):
    """A real limit on the size of files stands for a full disk."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))\n" + CONVERT
    request = tmp_path / "model"
    request.write_bytes(pickle.dumps(model))
    done = subprocess.run(
        [sys.executable, "-c", code, str(request), str(cache)],
        input="go\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SetupError: the cache of converted models cannot be written" in done.stderr
    assert not [path for path in (cache / model.digest).iterdir() if path.is_dir()]


def test_files_for(diary, cache, model, monkeypatch):
    files = files_for(ENGINE, model, cache)
    artifact = prepared(ENGINE, model, cache)
    assert files == dataclasses.replace(files_of(model), path=artifact.path, digest=artifact.digest)
    assert loaded(ENGINE, files, 1) is not None
    assert needs_artifact(ENGINE, model)
    assert files_for("pyfunc", model, cache) == files_of(model)
    monkeypatch.setattr(converting, "needs_artifact", lambda asked: asked is not model, raising=False)
    assert files_for(ENGINE, model, cache) == files_of(model)
    assert versions_of("pyfunc") == {}
    with pytest.raises(SettingsError, match="unknown engine"):
        files_for("pyfunk", model, cache)


def test_certificates_and_measurements_lie_with_the_artifact(diary, cache, model, monkeypatch):
    assert read_certificate(ENGINE, model, cache) is None
    artifact = prepared(ENGINE, model, cache)
    measured = Measurement(ENGINE, 4_096, 1.5e6, 0.5, 1 << 28, 100)
    write_certificate(certificate(), model, cache)
    write_measurement(measured, model, cache)
    assert read_certificate(ENGINE, model, cache) == certificate()
    assert read_measurement(ENGINE, model, cache) == measured
    assert prepared(ENGINE, model, cache) == artifact
    assert len(diary()) == 1
    write_certificate(certificate(reason="other"), model, cache)
    assert read_certificate(ENGINE, model, cache).reason == "other"
    path = entry_folder(ENGINE, model, cache) / "certificate.json"
    path.write_text(path.read_text()[:-20])
    assert read_certificate(ENGINE, model, cache) is None
    path.write_bytes(b"\xff")
    assert read_certificate(ENGINE, model, cache) is None
    monkeypatch.setitem(converting.VERSION, "copier", "2")
    assert read_measurement(ENGINE, model, cache) is None


def test_a_certificate_without_an_artifact(cache, model):
    """Engines that load the model's own files have certificates too."""
    write_certificate(certificate(engine="pyfunc"), model, cache)
    assert read_certificate("pyfunc", model, cache).engine == "pyfunc"


# in the registry


@pytest.fixture
def shared(registry):
    return {"tracking_uri": registry.tracking_uri}


def test_published_beside_the_model_and_fetched(diary, cache, registry, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, _ = factory.register_bad(registry, "few_rows")
    model = models.pin(f"{name}/1", **shared, cache_dir=tmp_path / "models")
    assert sharing.fetch_artifact(ENGINE, model, **shared, cache_dir=cache) is None
    assert "has no artifact" in sharing.publish_artifact(ENGINE, model, **shared, cache_dir=cache)
    artifact = prepared(ENGINE, model, cache)
    write_certificate(certificate(), model, cache)
    assert sharing.publish_artifact(ENGINE, model, **shared, cache_dir=cache) is None
    again = models.pin(f"{name}/1", **shared, cache_dir=tmp_path / "again")
    assert again.digest == model.digest
    elsewhere = tmp_path / "elsewhere"
    fetched = sharing.fetch_artifact(ENGINE, model, **shared, cache_dir=elsewhere)
    assert fetched == dataclasses.replace(artifact, path=fetched.path)
    assert fetched.path.startswith(str(elsewhere))
    assert read_certificate(ENGINE, model, elsewhere) == certificate()
    assert prepared(ENGINE, model, elsewhere) == fetched
    assert len(diary()) == 1
    assert sharing.fetch_artifact(ENGINE, model, tracking_uri="sqlite:////nowhere", cache_dir=elsewhere) == fetched
    monkeypatch.setitem(converting.VERSION, "copier", "2")
    assert sharing.fetch_artifact(ENGINE, model, **shared, cache_dir=tmp_path / "third") is None
    assert not list(tmp_path.glob("*.db"))  # MLflow makes one where it is asked about no registry


def test_what_was_damaged_in_the_registry_is_not_taken(diary, cache, registry, shared, tmp_path):
    model, run = _published(registry, shared, cache, tmp_path)
    for damage, name in ((b"grapf", "graph.txt"), (b"{", "entry.json")):
        [path] = run.rglob(name)
        before = path.read_bytes()
        path.write_bytes(damage)
        elsewhere = tmp_path / name
        assert sharing.fetch_artifact(ENGINE, model, **shared, cache_dir=elsewhere) is None
        assert not [path for path in (elsewhere / model.digest).iterdir() if path.is_dir()]
        path.write_bytes(before)
    [entry] = run.rglob("entry.json")
    entry.unlink()  # an upload that did not end
    assert sharing.fetch_artifact(ENGINE, model, **shared, cache_dir=tmp_path / "third") is None


def _published(registry, shared, cache, tmp_path):
    name, _ = factory.register_bad(registry, "nan")
    model = models.pin(f"{name}/1", **shared, cache_dir=tmp_path / "models")
    prepared(ENGINE, model, cache)
    assert sharing.publish_artifact(ENGINE, model, **shared, cache_dir=cache) is None
    from mlflow import MlflowClient

    uri = MlflowClient(shared["tracking_uri"]).get_run(model.run_id).info.artifact_uri
    return model, Path(uri.removeprefix("file://"))


def test_a_registry_that_may_not_be_written_is_a_notice(diary, cache, model, shared, monkeypatch):
    prepared(ENGINE, model, cache)
    assert "no run" in sharing.publish_artifact(
        ENGINE, dataclasses.replace(model, run_id=""), **shared, cache_dir=cache
    )
    gone = {"tracking_uri": "sqlite:////nowhere/at.db"}
    assert "not kept" in sharing.publish_artifact(ENGINE, model, **gone, cache_dir=cache)
    assert sharing.fetch_artifact(ENGINE, model, **gone, cache_dir=cache.parent / "other") is None
    from mlflow import MlflowClient

    def forbidden(*arguments):
        raise RuntimeError("s3://ann:secret@bucket says no " + "x" * 1_000)

    monkeypatch.setattr(MlflowClient, "log_artifacts", forbidden)
    notice = sharing.publish_artifact(ENGINE, model, **shared, cache_dir=cache)
    assert "says no" in notice
    assert "secret" not in notice
    assert len(notice) <= 300


def test_a_model_at_the_runs_root_keeps_its_folder(diary, cache, model, shared, monkeypatch):
    """A model logged at the root of its run would get the artifact into its own folder."""
    prepared(ENGINE, model, cache)
    monkeypatch.setattr(sharing, "_names", lambda *arguments: ["MLmodel", "model.pkl"])
    assert "must not change" in sharing.publish_artifact(ENGINE, model, **shared, cache_dir=cache)


def test_formats_are_numbered(diary, cache, model, monkeypatch):
    """A later version of batchscore does not trust what this one wrote."""
    prepared(ENGINE, model, cache)
    monkeypatch.setattr(artifacts, "FORMAT", 2)
    prepared(ENGINE, model, cache)
    assert len(diary()) == 2
