from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore import manifests
from batchscore.contracts import Check, Manifest, ManifestUnit
from batchscore.errors import SettingsError, SetupError

texts = st.text(max_size=12)
units = st.builds(
    ManifestUnit,
    values=st.lists(st.tuples(texts, st.none() | texts), max_size=2).map(tuple),
    key=texts,
    rows=st.integers(0, 2**62),
    read=texts,
)
checks = st.builds(
    Check,
    name=texts,
    passed=st.booleans(),
    observed=texts,
    unexpected=st.integers(0, 9),
    sample=st.lists(texts, max_size=2).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
any_manifest = st.builds(
    Manifest,
    format_version=st.just(1),
    run_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", fullmatch=True),
    created_at=texts, batchscore_version=texts, model_name=texts, model_version=texts, model_uri=texts,
    model_digest=texts, source_uri=texts, source_kind=texts, source_version=st.none() | st.integers(0, 9),
    source_snapshot=texts, source_key=texts, settings_digest=texts,
    settings=st.dictionaries(texts, json_values, max_size=3),
    engine=texts, runner=texts, mode=st.sampled_from(["partitions", "replace", "append"]),
    rows_read=st.integers(0, 9), rows_staged=st.integers(0, 9),
    units=st.lists(units, max_size=3).map(tuple), checks=st.lists(checks, max_size=2).map(tuple),
)  # fmt: skip
UNIT = ManifestUnit((("ds", None),), "k", 3)
ONE = Manifest(1, "r1", "t", "0", "m", "1", "u", "d", "s", "parquet", None, "sn", "sk", "sd", {}, "e", "local",
               "partitions", 3, 3, (UNIT,))  # fmt: skip


@given(any_manifest)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_round_trip(tmp_path, manifest):
    path = manifests.write(str(tmp_path), manifest)
    assert path == f"_batchscore/manifests/{manifest.run_id}.json"
    assert manifests.read(str(tmp_path), manifest.run_id) == manifest
    head = manifests.heads(str(tmp_path), [manifest.run_id])[manifest.run_id]
    assert head.units == manifest.units


def test_no_temporary_file_stays(tmp_path):
    manifests.write(str(tmp_path), ONE)
    assert [path.name for path in (tmp_path / manifests.FOLDER).iterdir()] == ["r1.json"]
    assert manifests.all_ids(str(tmp_path)) == ("r1",)


def test_a_file_uri_is_a_place_too(tmp_path):
    manifests.write(tmp_path.as_uri(), ONE)
    assert manifests.read(str(tmp_path), "r1") == ONE


def test_missing(tmp_path):
    assert manifests.read(str(tmp_path / "none"), "r1") is None
    assert manifests.heads(str(tmp_path), ["r1", "r2"]) == {}
    assert manifests.all_ids(str(tmp_path / "none")) == ()


@pytest.mark.parametrize("run_id", ["../r1", "", "a/b", ".r", "x" * 33])
def test_odd_run_ids_reach_no_file(tmp_path, run_id):
    assert manifests.read(str(tmp_path), run_id) is None
    with pytest.raises(SettingsError, match="run id"):
        manifests.write(str(tmp_path), replace(ONE, run_id=run_id))


def _file(tmp_path) -> Path:
    return tmp_path / manifests.write(str(tmp_path), ONE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[: len(t) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda _: '{"format_version": 1}',
        lambda t: t.replace('"units"', '"unit"'),
        lambda t: t.replace('"run_id": "r1"', '"run_id": "r2"'),
    ],
)
def test_damage_counts_as_missing_and_warns(tmp_path, caplog, damage):
    path = _file(tmp_path)
    path.write_text(damage(path.read_text()))
    assert manifests.read(str(tmp_path), "r1") is None
    assert manifests.heads(str(tmp_path), ["r1"]) == {}
    assert "r1" in caplog.text


def test_bytes_that_are_no_text(tmp_path, caplog):
    _file(tmp_path).write_bytes(b"\xff\xfe\x00")
    assert manifests.read(str(tmp_path), "r1") is None
    assert "damaged" in caplog.text


def test_a_newer_format_is_an_error(tmp_path):
    path = _file(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(SetupError, match="newer batchscore"):
        manifests.read(str(tmp_path), "r1")


def test_unknown_keys_of_the_same_format_are_ignored(tmp_path):
    path = _file(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert manifests.read(str(tmp_path), "r1") == ONE
