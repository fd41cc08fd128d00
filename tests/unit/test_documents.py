"""YAML of unknown origin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.config import load, parse_assignment
from batchscore.documents import DocumentError, read_yaml, read_yaml_file
from batchscore.errors import ModelError, SettingsError
from batchscore.models.mlmodel import read_mlmodel

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
HOSTILE = {
    "aliases of aliases": BOMB,
    "an alias of itself": "a: &a [*a]",
    "a thousand brackets": "[" * 5_000,
    "a call": "a: !!python/object/apply:os.system [ls]",
    "a class": "a: !!python/name:os.system",
    "a module": "!!python/module:os {}",
    "another tag": "a: !secret b",
    "a date that is none": "a: 2026-13-45",
    "a number of many digits": "a: " + "9" * 5_000,
    "a wrong integer": "a: !!int b",
    "a wrong time": "a: !!timestamp b",
    "wrong bytes": "a: !!binary ä",
    "a list as key": "? [a]\n: b",
    "two documents": "a: 1\n---\nb: 2",
    "a control character": "a: \x07",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_documents_are_refused_in_a_line(text, tmp_path):
    with pytest.raises(DocumentError) as caught:
        read_yaml(text)
    assert len(str(caught.value)) <= 200
    assert "\n" not in str(caught.value)
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        read_mlmodel(tmp_path)
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(SettingsError) as settings:
        load(tmp_path / "job.yaml")
    assert len(str(settings.value)) <= 4_000


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_assignments(text):
    with pytest.raises(SettingsError) as caught:
        parse_assignment(f"model.params={text}")
    assert len(str(caught.value)) <= 4_000


def test_large_files_are_not_read(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("a: " + "x" * 2_000_000)
    with pytest.raises(DocumentError, match="larger than"):
        read_yaml_file(path, 1_000_000)
    with pytest.raises(SettingsError, match="larger than"):
        load(path)


@pytest.mark.parametrize("value", ["a\x00b", "a\ud800"])
def test_text_that_no_file_system_takes(value):
    least = {"model.name": "m", "input.path": "i", "output.path": "o"}
    with pytest.raises(SettingsError, match=r"input\.path holds a character that is none"):
        load(None, {**least, "input.path": value})
    with pytest.raises(SettingsError, match="character that is none"):
        load(None, {**least, "input.partitions": {value: ["x"]}})


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        read_yaml(text)
    except DocumentError as error:
        assert len(str(error)) <= 200  # noqa: PT017
