from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from batchscore.contracts import ManifestHead, ManifestUnit, SourceFile, UnitState
from batchscore.plan.units import derived_unit_key, is_live, source_key, unit_key

A, B = (("ds", "2026-01-01"),), (("ds", "2026-01-02"),)
HEAD = ManifestHead("r1", "m", "1", "d", "s", (ManifestUnit(A, "ka", 5), ManifestUnit(B, "kb", 7)))
HEADS = {"r1": HEAD, "r2": replace(HEAD, run_id="r2", units=(ManifestUnit(A, "other", 3),))}

texts = st.text(max_size=8)
values = st.lists(st.tuples(texts, st.none() | texts), max_size=3).map(tuple)
files = st.lists(
    st.builds(SourceFile, path=texts, size=st.integers(0, 2**40), stamp=texts, rows=st.integers(-1, 9)), max_size=4
)


def test_live_when_rows_and_key_agree():
    assert is_live(UnitState((("r1", 5),)), "ka", A, HEADS, "partitions")


def test_not_live_when_rows_were_deleted():
    assert not is_live(UnitState((("r1", 4),)), "ka", A, HEADS, "partitions")


def test_not_live_when_nothing_is_there():
    assert not is_live(UnitState(), "ka", A, HEADS, "partitions")
    assert not is_live(UnitState(), "ka", A, HEADS, "append")


def test_not_live_under_another_key():
    assert not is_live(UnitState((("r1", 5),)), "kb", A, HEADS, "partitions")
    assert not is_live(UnitState((("r1", 5),)), "ka", B, HEADS, "partitions")


def test_not_live_with_a_foreign_file_or_a_second_run():
    assert not is_live(UnitState((("r1", 5),), 1, "x"), "ka", A, HEADS, "partitions")
    assert not is_live(UnitState((("r1", 5), ("r2", 3))), "ka", A, HEADS, "replace")


def test_append_needs_one_run_of_several():
    state = UnitState((("r1", 5), ("r2", 3)), 1, "x")
    assert is_live(state, "ka", A, HEADS, "append")
    assert is_live(state, "other", A, HEADS, "append")
    assert not is_live(state, "kb", A, HEADS, "append")


def test_a_missing_manifest_proves_nothing():
    assert not is_live(UnitState((("r9", 5),)), "ka", A, HEADS, "partitions")


@given(listed=files, unit=values)
def test_unit_key_ignores_the_order_of_files(listed, unit):
    key = unit_key("m", listed, "s", unit)
    assert key == unit_key("m", list(reversed(listed)), "s", unit)
    assert len(key) == 64


@given(listed=files.filter(bool), unit=values)
def test_unit_key_changes_with_each_part(listed, unit):
    first, *rest = listed
    keys = [
        unit_key("m", listed, "s", unit),
        unit_key("m2", listed, "s", unit),
        unit_key("m", listed, "s2", unit),
        unit_key("m", listed, "s", (*unit, ("more", None))),
        unit_key("m", [replace(first, size=first.size + 1), *rest], "s", unit),
        unit_key("m", [replace(first, stamp=first.stamp + "x"), *rest], "s", unit),
        unit_key("m", [*listed, SourceFile("another file", 1, "", 1)], "s", unit),
    ]
    assert len(set(keys)) == len(keys)


@given(unit=values, other=values)
def test_values_are_told_apart(unit, other):
    source = source_key("m", "snap", "s")
    assert (derived_unit_key(source, unit) == derived_unit_key(source, other)) == (unit == other)
    assert source != source_key("m", "snap2", "s")


def test_null_is_not_the_text_none():
    assert derived_unit_key("s", (("p", None),)) != derived_unit_key("s", (("p", "None"),))


def test_rows_read_from_metadata_do_not_count():
    known, unknown = SourceFile("a", 1, "x", 5), SourceFile("a", 1, "x", -1)
    assert unit_key("m", [known], "s", A) == unit_key("m", [unknown], "s", A)
