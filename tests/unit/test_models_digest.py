"""The digest changes when a path or a content changes, and with nothing else."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import ModelError
from batchscore.models.digest import digest_folder

NAMES = st.text(st.characters(categories=("Ll", "Nd")), min_size=1, max_size=5)
TREES = st.dictionaries(NAMES, st.binary(max_size=20), max_size=5)


def write(folder, tree):
    folder.mkdir()
    for name, content in tree.items():
        (folder / name).write_bytes(content)
    return folder


@given(first=TREES, second=TREES)
def test_equal_exactly_when_the_files_are(first, second, tmp_path_factory):
    root = tmp_path_factory.mktemp("digest")
    same = digest_folder(write(root / "a", first)) == digest_folder(write(root / "b", second))
    assert same == (first == second)


def test_where_names_and_contents_meet(tmp_path):
    assert digest_folder(write(tmp_path / "a", {"ab": b"c"})) != digest_folder(write(tmp_path / "b", {"a": b"bc"}))


def test_times_modes_and_empty_folders_do_not_count(tmp_path):
    folder = write(tmp_path / "a", {"x": b"1"})
    before = digest_folder(folder)
    os.utime(folder / "x", (0, 0))
    (folder / "x").chmod(0o700)
    (folder / "empty").mkdir()
    assert digest_folder(folder) == before
    (folder / "empty" / "y").touch()
    assert digest_folder(folder) != before


def test_what_is_no_file_is_refused(tmp_path):
    folder = write(tmp_path / "a", {"x": b"1"})
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match="holds files only"):
        digest_folder(folder)


def test_a_missing_folder(tmp_path):
    with pytest.raises(ModelError, match="folder is missing"):
        digest_folder(tmp_path / "none")
