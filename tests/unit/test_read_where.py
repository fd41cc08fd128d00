from __future__ import annotations

import pytest

from batchscore.contracts import And, Column, Compare, Constant, IsIn, IsNull, Not, Or
from batchscore.errors import SettingsError
from batchscore.read.where import parse_where

COLUMNS = (
    Column("id", "long"),
    Column("n", "integer"),
    Column("x", "double"),
    Column("f", "float"),
    Column("name", "string"),
    Column("flag", "boolean"),
    Column("ds", "date"),
    Column("at", "timestamp"),
    Column("wall", "timestamp_ntz"),
    Column("price", "decimal(8,2)"),
    Column("with space", "integer"),
    Column("tags", "array<string>"),
    Column("raw", "binary"),
    Column("payload", "unsupported(struct)"),
)


def integer(value):
    return Constant(value, "integer")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("n = 1", Compare("n", "=", integer(1))),
        ("1 < N", Compare("n", ">", integer(1))),
        ("n == -1", Compare("n", "=", integer(-1))),
        ("n <> 1", Compare("n", "!=", integer(1))),
        ("n != 1", Compare("n", "!=", integer(1))),
        ("n <=> null", Compare("n", "<=>", Constant(None, "integer"))),
        ("n is distinct from 3", Not(Compare("n", "<=>", integer(3)))),
        ("n = 2.0", Compare("n", "=", integer(2))),
        ("id = 5000000000", Compare("id", "=", Constant(5_000_000_000, "long"))),
        ("id = 9007199254740993", Compare("id", "=", Constant(9007199254740993, "long"))),
        ("id = 5L", Compare("id", "=", Constant(5, "long"))),
        ("x >= 0.5", Compare("x", ">=", Constant("0.5", "decimal(1,1)"))),
        ("x >= 5e-1", Compare("x", ">=", Constant(0.5, "double"))),
        ("f < 16777216", Compare("f", "<", integer(16777216))),
        ("price <= 1.005", Compare("price", "<=", Constant("1.005", "decimal(4,3)"))),
        ("name = 'O\"Neil'", Compare("name", "=", Constant('O"Neil', "string"))),
        ('name = "x"', Compare("name", "=", Constant("x", "string"))),
        ("ds >= '2026-11-21'", Compare("ds", ">=", Constant("2026-11-21", "date"))),
        ("ds >= date '2026-11-21'", Compare("ds", ">=", Constant("2026-11-21", "date"))),
        (
            "at > timestamp '2026-11-21 06:00:00+01:00'",
            Compare("at", ">", Constant("2026-11-21 06:00:00+01:00", "timestamp")),
        ),
        ("wall > '2026-11-21 06:00:00'", Compare("wall", ">", Constant("2026-11-21 06:00:00", "timestamp_ntz"))),
        ("wall > date '2026-11-21'", Compare("wall", ">", Constant("2026-11-21", "date"))),
        ("flag", Compare("flag", "=", Constant(True, "boolean"))),
        ("not flag", Not(Compare("flag", "=", Constant(True, "boolean")))),
        ("flag is not true", Not(Compare("flag", "<=>", Constant(True, "boolean")))),
        ("tags is not null", Not(IsNull("tags"))),
        ("payload is null", IsNull("payload")),
        ("`with space` = 1", Compare("with space", "=", integer(1))),
        ("n between 1 and 2", And((Compare("n", ">=", integer(1)), Compare("n", "<=", integer(2))))),
        ("n not in (1, null)", Not(IsIn("n", (integer(1), Constant(None, "integer"))))),
        (
            "n = 1 or n = 2 and flag",
            Or(
                (
                    Compare("n", "=", integer(1)),
                    And((Compare("n", "=", integer(2)), Compare("flag", "=", Constant(True, "boolean")))),
                )
            ),
        ),
        ("(n = 1) -- a comment", Compare("n", "=", integer(1))),
    ],
)
def test_the_subset(sql, expected):
    assert parse_where(sql, COLUMNS) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "name = 5",
        "n = '5'",
        "n = 2.5",
        "n in (1, 2.5)",
        "f = 16777217",
        "price = 1e0",
        "ds = '2026-13-01'",
        "ds = '2026-1-1'",
        "at > '2026-11-21'",
        "at > timestamp '2026-11-21 06:00:00'",
        "at > date '2026-11-21'",
        "wall = timestamp '2026-11-21 06:00:00'",
        "ds < timestamp '2026-11-21 06:00:00Z'",
        "flag < true",
        "flag = 1",
        "raw = X'41'",
        "tags = array('a')",
        "name = 'a' 'b'",
        "name = 'it''s'",
        "name = 'a\\\\nb'",
        "name like 'a%'",
        "upper(name) = 'A'",
        "n + 1 > 2",
        "n = id",
        "1 = 1",
        "exists(tags, t -> t = 'a')",
        "payload.kind = 'x'",
        "n > 99999999999999999999",
        "id between 1 and 2 = true",
        "current_date() > ds",
        "n = 1.5BD",
    ],
)
def test_what_is_left_to_spark_has_a_reason(sql):
    found = parse_where(sql, COLUMNS)
    assert isinstance(found, str)
    assert found


@pytest.mark.parametrize(
    ("sql", "problem", "near"),
    [
        ("n =", "not one boolean SQL expression", ()),
        ("", "empty", ()),
        ("n = 1; drop table x", "not one boolean|several statements", ()),
        ("n = 1; flag", "several statements", ()),
        ("n = 1 group by n", "not one boolean", ()),
        ("n in (select 1)", "subquery", ()),
        ("exists (select 1 from other)", "subquery", ()),
        ("n = (select max(n) from other)", "subquery", ()),
        ("prise > 1", "does not have", ("price",)),
        ("upper(nam) = 'A'", "does not have", ("name",)),
        ("other.n = 1", "does not have", ()),
        ("n", "not a boolean", ()),
        ("flag and n", "not a boolean", ()),
        ("n + 1", "not a boolean", ()),
        ("'x'", "not a boolean", ()),
        ("sum(n) > 1", "aggregate", ()),
        ("row_number() over (order by n) = 1", "aggregate", ()),
        ("n = :limit", "parameter", ()),
    ],
)
def test_what_is_wrong(sql, problem, near):
    with pytest.raises(SettingsError, match=problem) as caught:
        parse_where(sql, COLUMNS)
    assert caught.value.near == near


def test_columns_that_differ_in_case_only_are_ambiguous():
    columns = (Column("Id", "long"), Column("id", "long"))
    assert parse_where("id = 1", columns) == Compare("id", "=", integer(1))
    with pytest.raises(SettingsError, match="case only"):
        parse_where("ID = 1", columns)
