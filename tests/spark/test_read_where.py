"""The subset of ``--where`` keeps the rows that Spark keeps: many generated filters, two Spark jobs."""

from __future__ import annotations

import datetime as dt
import functools
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from batchscore.arrow.predicate import mask
from batchscore.read import pin
from batchscore.read.where import parse_where

pytestmark = pytest.mark.spark
NAN = float("nan")
FILTERS = 300
FIXED = (
    "not flag = true and n > 1",
    "not n between 0 and 5",
    "! flag",
    "! n = 0",
    "n = 0 or x > 1 and not flag",
    "x = 0.0 and f = -0.0",
    "n is not null and not (s = 'a' or s is null)",
    "x in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)",
    "x in (0.0, -1.5)",
    "f in (-0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.1, 1.2, 1.3)",
    "f in (0.1, 0.25)",
    "f = 0.1",
    "f >= 16777216",
    "l > 9007199254740992",
    "l = 9007199254740992e0",
    "l < 9223372036854775807",
    "l >= -9223372036854775807",
    "n in (1, 5000000000)",
    "n > 5000000000",
    "n <= 2.0",
    "price in (1.5, 1.505, 2.0)",
    "price > 1.4999",
    "price <=> 1.500",
    "flag is not true",
    "flag is distinct from false",
    "wall >= '2026-11-21 00:00:00'",
    "wall < '2026-11-22T06:00:00'",
    "wall < date '2026-11-22'",
    "at <= timestamp '2026-11-21T07:00:00+01:00'",
    "ds in ('2026-11-21', '1900-01-01')",
    "ds between '1900-01-01' and date '2026-11-20'",
    "s >= 'ä' or s = ''",
    "'b' > s",
    "n not in (0, null)",
    "null = n or n = 0",
    "n <=> null",
    "null <=> flag",
)


def table():
    """Rows with nulls, NaN, both zeros, edges of each type; columns vary independently."""
    moment = dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC)
    wall = moment.replace(tzinfo=None)
    values = {
        "n": (pa.int32(), [None, 0, 1, -5, 2**31 - 1, -(2**31)]),
        "l": (pa.int64(), [None, 0, 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]),
        "x": (pa.float64(), [None, 0.0, -0.0, 1.5, NAN, float("inf"), float("-inf"), 0.1]),
        "f": (pa.float32(), [None, 0.0, -0.0, 0.25, NAN, float("inf"), 0.1, 16777216.0]),
        "s": (pa.string(), [None, "", "a", "A", "ä", "b", "a "]),
        "flag": (pa.bool_(), [None, True, False]),
        "ds": (pa.date32(), [None, dt.date(2026, 11, 21), dt.date(1900, 1, 1), dt.date(2026, 11, 20)]),
        "at": (pa.timestamp("us", "UTC"), [None, moment, moment + dt.timedelta(microseconds=1)]),
        "wall": (pa.timestamp("us"), [None, wall, wall + dt.timedelta(days=1)]),
        "price": (pa.decimal128(7, 2), [None, Decimal("1.50"), Decimal("-1.50"), Decimal(0), Decimal("1.51")]),
    }
    rows = 420
    return pa.table({name: pa.array([v[i % len(v)] for i in range(rows)], kind) for name, (kind, v) in values.items()})


LITERALS = {
    "n": ["0", "1", "-5", "2147483647", "5000000000", "1.0", "0.5e0", "5L", "null"],
    "l": ["0", "9007199254740993", "-1", "9007199254740992e0", "1.0", "null"],
    "x": ["0", "-0.0", "0.1", "1.5", "1e-1", "1.5D", "5000000000", "null"],
    "f": ["0", "0.1", "0.25", "2.5e-1", "16777216", "null"],
    "s": ["''", "'a'", '"ä"', "'A'", "null"],
    "flag": ["true", "false", "null"],
    "ds": ["'2026-11-21'", "date '1900-01-01'", "date'2026-11-20'", "null"],
    "at": ["timestamp '2026-11-21 06:00:00Z'", "timestamp '2026-11-21T07:00:00.000001+01:00'", "null"],
    "wall": ["'2026-11-21 06:00:00'", "timestamp_ntz '2026-11-22 06:00:00'", "date '2026-11-22'", "null"],
    "price": ["1.5", "1.505", "0", "-1.50", "null"],
}


def leaves():
    def of(name):
        literal = st.sampled_from(LITERALS[name])
        orders = ["=", "<>", "!=", "<=>", "=="] + ([] if name == "flag" else ["<", "<=", ">", ">="])
        op = st.sampled_from(orders)
        choices = [
            st.builds(lambda o, v: f"{name} {o} {v}", op, literal),
            st.builds(lambda o, v: f"{v} {o} {name.upper()}", op, literal),
            st.builds(
                lambda no, vs: f"{name} {no}in ({', '.join(vs)})",
                st.sampled_from(["", "not "]),
                st.lists(literal, min_size=1, max_size=4),
            ),
            st.sampled_from([f"{name} is null", f"{name} is not null"]),
        ]
        if name == "flag":
            choices.append(st.sampled_from(["flag", "not flag", "flag is true", "flag is not false"]))
        else:
            choices.append(
                st.builds(
                    lambda no, a, b: f"{name} {no}between {a} and {b}", st.sampled_from(["", "not "]), literal, literal
                )
            )
        return st.one_of(choices)

    return st.sampled_from(sorted(LITERALS)).flatmap(of)


FILTER = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map(lambda sql: f"not ({sql})"),
        st.builds(lambda a, o, b: f"{a} {o} {b}", inner, st.sampled_from(["and", "or"]), inner),
        st.builds(lambda a, o, b: f"({a}) {o} ({b})", inner, st.sampled_from(["and", "or"]), inner),
    ),
    max_leaves=5,
)


@functools.cache
def generated():
    found: dict[str, None] = {}

    @settings(
        max_examples=FILTERS,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(FILTER)
    def collect(sql):
        found[sql] = None

    collect()
    return tuple(found)


@pytest.mark.parametrize("ansi", ["true", "false"])
def test_generated_filters_keep_the_rows_that_spark_keeps(spark, tmp_path, ansi):
    data = table()
    pq.write_table(data, tmp_path / "a.parquet")
    columns = pin(str(tmp_path / "a.parquet")).columns
    trees = {sql: parse_where(sql, columns) for sql in (*FIXED, *generated())}
    taken = {sql: tree for sql, tree in trees.items() if not isinstance(tree, str)}
    assert len(taken) > FILTERS // 2, "most generated filters are to be tested"
    assert set(FIXED) <= set(taken)
    (numbered,) = data.append_column("row", pa.array(range(data.num_rows))).combine_chunks().to_batches()
    # Interpreted: to compile hundreds of expressions takes a minute, to evaluate them on 420 rows does not.
    conf = {
        "spark.sql.ansi.enabled": ansi,
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }
    for key, value in conf.items():
        spark.conf.set(key, value)
    try:
        frame = spark.read.parquet(str(tmp_path / "a.parquet")).coalesce(1)
        verdicts = []
        # One column a filter: a few wide projections instead of hundreds of jobs.
        sqls = list(taken)
        for start in range(0, len(sqls), 150):
            part = frame.selectExpr(*(f"({sql}) as c{index}" for index, sql in enumerate(sqls[start : start + 150])))
            verdicts.extend(part.toArrow().columns)
    finally:
        for key in conf:
            spark.conf.unset(key)
    wrong = []
    for sql, verdict in zip(sqls, verdicts, strict=True):
        ours = numbered.filter(mask(taken[sql], numbered, columns))["row"].to_pylist()
        spark_s = [index for index, value in enumerate(verdict.to_pylist()) if value is True]
        if ours != spark_s:
            wrong.append((sql, len(ours), len(spark_s)))
    assert not wrong, wrong[:10]
