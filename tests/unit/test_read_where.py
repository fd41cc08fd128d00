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
        ("wall > '2026-11-21T06:00:00'", Compare("wall", ">", Constant("2026-11-21 06:00:00", "timestamp_ntz"))),
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
        ("n = @limit", "variable", ()),
        ("current_date() > ds", "time of the run", ()),
        ("ds < current_date", "time of the run", ()),
        ("at > now() - interval 1 day", "time of the run", ()),
        ("rand() < 0.1", "differs when", ()),
        ("uuid() = name", "differs when", ()),
        ("input_file_name() like '%a%'", "differs when", ()),
        ("reflect('java.lang.System', 'getenv', 'HOME') = name", "row alone", ()),
        ("java_method('java.lang.Runtime', 'getRuntime') is null", "row alone", ()),
        ("`reflect`('java.lang.System', 'getenv', 'HOME') = name", "row alone", ()),
        ("spark_catalog.default.fn(n) = 1", "row alone|does not have", ()),
        ("identifier('reflect')('a', 'b') = name", "row alone|not one boolean", ()),
        ("name = '${env:HOME}'", "variables of the environment", ()),
        ("current_user() = name", "row alone", ()),
        ("current_user = name", "row alone", ()),
        ("uper(name) = 'A'", "row alone", ("upper",)),
        ("n = 1 /* reflect */ and secret('a') = name", "row alone|not one boolean", ()),
        ("exists(tags, t -> reflect('a', t) = t)", "row alone", ()),
        ("n in (table other)", "not one boolean|subquery|another table|row alone", ()),
        ("explode(tags) = 'a'", "row alone|generator", ()),
        ("read_files('/etc') is null", "row alone", ()),
        ("n = 1 union select 2", "not one boolean|subquery", ()),
        ("n = 1 limit 1", "not one boolean", ()),
        ("lateral view explode(tags)", "not one boolean", ()),
        (f"{'(' * 3000}flag{')' * 3000}", "nested too deep|not one boolean", ()),
        (f"{'not ' * 5000}flag", "nested too deep|not one boolean", ()),
        ("n in (" + "1, " * 40_000 + "1)", "longer than", ()),
    ],
)
def test_what_is_wrong(sql, problem, near):
    with pytest.raises(SettingsError, match=problem) as caught:
        parse_where(sql, COLUMNS)
    assert set(near) <= set(caught.value.near)
    assert len(str(caught.value)) <= 4_000


@pytest.mark.parametrize(
    "sql",
    [
        "upper(trim(name)) = 'A' and coalesce(n, 0) in (1, 2)",
        "date_trunc('month', ds) = date '2026-11-01' or cast(n as decimal(10, 2)) > 1.5",
        "case when n > (1 + 2) then flag else not (flag) end",
        "name like any ('a%', 'b%') and exists(tags, t -> length(t) > 1)",
        "extract(year from (ds)) = 2026 and n is distinct from (3)",
        "n = " + "9" * 5_000,
        "n = " + "9" * 5_000 + "L",
        "regexp_like(name, '(rand)(now)') and `with space` between (1) and (2)",
    ],
)
def test_functions_of_the_row_are_left_to_spark(sql):
    assert isinstance(parse_where(sql, COLUMNS), str)


def test_a_column_may_be_called_like_a_function_without_parentheses():
    columns = (*COLUMNS, Column("user", "string"))
    assert parse_where("user = 'x'", columns) == Compare("user", "=", Constant("x", "string"))
    with pytest.raises(SettingsError):
        parse_where("user = 'x'", COLUMNS)


def test_columns_that_differ_in_case_only_are_ambiguous():
    columns = (Column("Id", "long"), Column("id", "long"))
    assert parse_where("id = 1", columns) == Compare("id", "=", integer(1))
    with pytest.raises(SettingsError, match="case only"):
        parse_where("ID = 1", columns)
