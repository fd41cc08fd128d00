"""Rows among known rows, against Python's sets."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.membership import KnownRows

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string()), ("d", pa.date32())])
rows = st.lists(
    st.tuples(
        st.sampled_from([None, 0, 1, 2**62]),
        st.sampled_from([None, "", "a", "b"]),
        st.sampled_from([None, dt.date(2026, 1, 1), dt.date(2026, 1, 2)]),
    ),
    max_size=12,
)


def columns(found):
    return [pa.array([row[place] for row in found], field.type) for place, field in enumerate(SCHEMA)]


@given(rows, rows)
def test_as_a_set_of_tuples_says(known, looked_at):
    table = pa.Table.from_arrays(columns(known), schema=SCHEMA)
    batch = pa.RecordBatch.from_arrays(columns(looked_at), schema=SCHEMA)
    expected = [row in set(known) for row in looked_at]
    assert KnownRows(table, SCHEMA.names).among(batch).to_pylist() == expected
    halves = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    assert KnownRows(halves, SCHEMA.names).among(batch).to_pylist() == expected


def test_many_columns_do_not_overflow():
    names = [f"c{place}" for place in range(12)]
    table = pa.table({name: range(1000) for name in names})
    known = KnownRows(table, names)
    shifted = pa.table({name: [5 if name != "c11" else 6] for name in names}).to_batches()[0]
    assert known.among(table.to_batches()[0]).to_pylist() == [True] * 1000
    assert known.among(shifted).to_pylist() == [False]


def test_dictionaries_and_wider_text():
    known = KnownRows(pa.table({"s": pa.array(["a", "b"]).dictionary_encode()}), ["s"])
    assert known.among(pa.RecordBatch.from_pydict({"s": pa.array(["b", "c"], pa.large_string())})).to_pylist() == [
        True,
        False,
    ]
