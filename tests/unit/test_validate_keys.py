from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.validate import keys as keys_module
from batchscore.validate.keys import column_words, duplicates


def found(table: pa.Table, names: list[str], budget: int = 1 << 20, rows_a_batch: int = 7):
    return duplicates(lambda: iter(table.to_batches(max_chunksize=rows_a_batch)), names, table.num_rows, budget)


@pytest.mark.parametrize("budget", [1, 200, 1 << 20])
@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9) | st.none(), max_size=60))
def test_integers_as_counted_one_by_one(budget, ids):
    counts = Counter(value for value in ids if value is not None)
    expected = {(value,): count for value, count in counts.items() if count > 1}
    result = found(pa.table({"a": pa.array(ids, pa.int64())}), ["a"], budget)
    assert result.rows == sum(expected.values())
    assert len(result.keys) == min(len(expected), 10)
    assert set(result.keys) <= set(expected.items())


@given(rows=st.lists(st.tuples(st.text(max_size=4) | st.none(), st.sampled_from([0.0, -0.0, 1.5])), max_size=60))
def test_strings_and_floats_as_counted_one_by_one(rows):
    counts = Counter(row for row in rows if row[0] is not None)
    table = pa.table(
        {"a": pa.array([r[0] for r in rows], pa.string()), "b": pa.array([r[1] for r in rows], pa.float64())}
    )
    assert found(table, ["a", "b"]).rows == sum(count for count in counts.values() if count > 1)


def test_a_collision_of_hashes_refuses_nothing(monkeypatch):
    monkeypatch.setattr(keys_module, "column_words", lambda column: np.zeros(len(column), np.uint64))
    assert found(pa.table({"a": ["x", "y", "z"]}), ["a"]).rows == 0
    assert found(pa.table({"a": ["x", "y", "x"]}), ["a"]).keys == ((("x",), 2),)


def test_the_hash_of_a_text_does_not_depend_on_its_place():
    texts = ["", "a", "ab", "b", "a", "\x00", "ba", ""]
    whole = column_words(pa.array(texts))
    assert [int(w) for w in whole[2:5]] == [int(w) for w in column_words(pa.array(texts).slice(2, 3))]
    assert [int(w) for w in whole] == [int(column_words(pa.array([text]))[0]) for text in texts]
    assert len({int(word) for word in whole}) == 6


def test_more_repeated_keys_than_are_compared_one_by_one():
    table = pa.table({"a": list(range(5_000)) * 2})
    result = found(table, ["a"], rows_a_batch=1_000)
    assert result.rows == 10_000
    assert len(result.keys) == 10


@pytest.mark.parametrize(
    ("batches", "repeated"),
    [
        ([[4, 5], [1, 2]], 0),
        ([[1, 2, 3], [3, 4]], 2),
        ([[1, 5], [2, 3]], 0),
        ([[1, 5], [2, 5]], 2),
        ([[1, 1]], 2),
        ([[-2, -1], [0, 1]], 0),
        ([[], [7]], 0),
    ],
)
def test_numbers_that_ascend_within_batches(batches, repeated):
    found = duplicates(lambda: (pa.record_batch({"id": pa.array(ids, pa.int64())}) for ids in batches), ["id"], 9, 999)
    assert found.rows == repeated
