"""Predicates against an oracle in plain Python; tests/spark compares them with Spark itself."""

from __future__ import annotations

import datetime as dt
import math
import operator
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.predicate import common_type, mask
from batchscore.arrow.types import to_arrow
from batchscore.contracts import And, Column, Compare, Constant, IsIn, IsNull, Not, Or, predicate_columns

NAN = float("nan")
COLUMNS = (
    Column("i", "integer"),
    Column("l", "long"),
    Column("d", "double"),
    Column("f", "float"),
    Column("s", "string"),
    Column("b", "boolean"),
    Column("dt", "date"),
    Column("t", "timestamp"),
    Column("c", "decimal(6,2)"),
)
VALUES = {
    "i": [None, 0, 1, -5, 2**31 - 1],
    "l": [None, 0, 1, -5, 2**53 + 1],
    "d": [None, 0.0, -0.0, 1.5, NAN, math.inf, -math.inf],
    "f": [None, 0.0, -0.0, 1.5, NAN, math.inf, 0.25],
    "s": [None, "", "a", "A", "ä", "ab"],
    "b": [None, True, False],
    "dt": [None, dt.date(2026, 11, 21), dt.date(1900, 1, 1)],
    "t": [None, dt.datetime(2026, 11, 21, 5, tzinfo=dt.UTC), dt.datetime(1900, 1, 1, tzinfo=dt.UTC)],
    "c": [None, Decimal("1.50"), Decimal("-1.50"), Decimal("0.00")],
}
CONSTANTS = {
    "i": [Constant(1, "integer"), Constant(2**40, "long"), Constant(0.5, "double")],
    "l": [Constant(1, "integer"), Constant(2**53 + 1, "long")],
    "d": [Constant(0, "integer"), Constant("1.5", "decimal(2,1)"), Constant(NAN, "double"), Constant(-0.0, "double")],
    "f": [Constant(0, "integer"), Constant("0.25", "decimal(2,2)"), Constant(1.5, "double")],
    "s": [Constant("a", "string"), Constant("", "string")],
    "b": [Constant(True, "boolean"), Constant(False, "boolean")],
    "dt": [Constant("2026-11-21", "date")],
    "t": [Constant("2026-11-21 06:00:00+01:00", "timestamp")],
    "c": [Constant("1.5", "decimal(2,1)"), Constant("1.505", "decimal(4,3)"), Constant(0, "integer")],
}


def constants(name):
    return st.sampled_from([*CONSTANTS[name], Constant(None, {c.name: c.type for c in COLUMNS}[name])])


def leaves():
    def of(name):
        ops = ["=", "!=", "<=>"] + ([] if name == "b" else ["<", "<=", ">", ">="])
        return st.one_of(
            st.builds(Compare, st.just(name), st.sampled_from(ops), constants(name)),
            st.builds(IsIn, st.just(name), st.lists(constants(name), min_size=1, max_size=3).map(tuple)),
            st.just(IsNull(name)),
        )

    return st.sampled_from([column.name for column in COLUMNS]).flatmap(of)


predicates = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(And),
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(Or),
    ),
    max_leaves=6,
)


def value_of(constant):
    if constant.value is None:
        return None
    if constant.type == "date":
        return dt.date.fromisoformat(constant.value)
    if constant.type == "timestamp":
        return dt.datetime.fromisoformat(constant.value)
    return Decimal(constant.value) if constant.type.startswith("decimal") else constant.value


def rank(value):
    """Spark's order: NaN after everything, and equal to itself."""
    return (1, 0.0) if isinstance(value, float) and math.isnan(value) else (0, value)


def oracle(predicate, row):  # noqa: C901, PLR0911  # one case for each node, as the definition reads
    match predicate:
        case IsNull(column):
            return row[column] is None
        case Not(operand):
            inner = oracle(operand, row)
            return None if inner is None else not inner
        case And(operands):
            found = [oracle(part, row) for part in operands]
            return False if False in found else None if None in found else True
        case Or(operands):
            found = [oracle(part, row) for part in operands]
            return True if True in found else None if None in found else False
        case IsIn(column, values):
            return oracle(Or(tuple(Compare(column, "=", value) for value in values)), row)
        case Compare(column, op, constant):
            left, right = row[column], value_of(constant)
            if op == "<=>":
                return left is right if None in (left, right) else rank(left) == rank(right)
            if left is None or right is None:
                return None
            compare = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt}
            return compare.get(op, operator.ge)(rank(left), rank(right))


@given(predicates, st.lists(st.fixed_dictionaries({k: st.sampled_from(v) for k, v in VALUES.items()}), max_size=20))
def test_keeps_exactly_the_rows_that_are_true(predicate, rows):
    columns = [pa.array([row[c.name] for row in rows], type=to_arrow(c.type)) for c in COLUMNS]
    numbers = pa.array(range(len(rows)), type=pa.int64())
    batch = pa.RecordBatch.from_arrays([*columns, numbers], names=[*(c.name for c in COLUMNS), "row"])
    kept = batch.filter(mask(predicate, batch, COLUMNS))["row"].to_pylist()
    assert kept == [index for index, row in enumerate(rows) if oracle(predicate, row) is True]


def test_a_column_that_is_not_read_is_an_error():
    with pytest.raises(ValueError, match="not among the columns"):
        mask(IsNull("zz"), pa.RecordBatch.from_pydict({"zz": [1]}), COLUMNS)


@pytest.mark.parametrize(
    ("column", "constant"),
    [
        ("string", "integer"),
        ("integer", "string"),
        ("timestamp", "date"),
        ("decimal(38,0)", "decimal(2,1)"),
        ("decimal(5,2)", "double"),
        ("boolean", "integer"),
    ],
)
def test_comparisons_that_are_not_exact_are_errors(column, constant):
    with pytest.raises(ValueError, match="not compared exactly"):
        common_type(column, constant)


def test_columns_of_a_predicate():
    tree = Or((IsNull("b"), Not(And((Compare("a", "=", Constant(1, "integer")), IsIn("c", ()))))))
    assert predicate_columns(tree) == ("a", "b", "c")
    assert predicate_columns(None) == ()
