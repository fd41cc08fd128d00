"""A ``--where`` text becomes a predicate tree, or a reason why Spark must evaluate it.

Only what has one meaning under every Spark setting is taken: comparisons of a column with a constant that are
exact in the type Spark compares in, IN, BETWEEN, IS NULL, boolean columns, AND, OR and NOT. Whatever depends on
ANSI mode, the session's time zone, string casts or escapes is left to Spark.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batchscore.contracts import And, Column, Compare, Constant, IsIn, IsNull, Not, Or, Predicate, Schema
from batchscore.errors import SettingsError, bounded
from batchscore.read.constants import Op, OutsideSubset, adapted
from batchscore.read.functions import check_functions
from batchscore.read.literals import constant
from batchscore.read.partitions import find_column
from batchscore.schema import INTEGERS, is_decimal

MAX_WHERE_CHARS = 100_000
# What the SQL parser lets out beside its own errors.
_FAILURES = (SqlglotError, ValueError, TypeError, AttributeError, KeyError, IndexError)
_OPS: dict[type[exp.Expr], Op] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "<=>",
}
_MIRRORED: dict[Op, Op] = {"=": "=", "!=": "!=", "<=>": "<=>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OUTSIDE = (
    (exp.Query, "a subquery"),
    (exp.Table, "another table"),
    (exp.Placeholder, "a parameter"),
    (exp.Parameter, "a variable"),
    (exp.SessionParameter, "a variable"),
)
_NOT_BOOLEAN = (exp.Literal, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Concat, exp.DPipe)


def parse_where(sql: str, columns: Schema) -> Predicate | str:
    """The predicate tree of a filter, or the reason why Spark must evaluate it.

    Args:
        sql: a boolean expression over the table's columns, in Spark's SQL.
        columns: the table's columns.

    Raises:
        SettingsError: for text that does not parse, several statements, subqueries, unknown columns (with near
            names), functions that depend on more than the row, and what is not a boolean expression.

    >>> columns = (Column("amount", "double"), Column("ds", "date"))
    >>> parse_where("AMOUNT > 5 and ds = '2026-11-21'", columns).operands[0]
    Compare(column='amount', op='>', constant=Constant(value=5, type='integer'))
    >>> parse_where("upper(ds) = 'X'", columns)
    'UPPER(ds) is not a column by itself'
    """
    try:
        return _understood(sql, columns)
    except RecursionError as error:
        raise SettingsError(
            "--where is nested too deep", found=sql, hint="use IN for many values, or filter when the input is written"
        ) from error


def understood_conjuncts(sql: str, columns: Schema) -> list[Predicate]:
    """Those parts of a filter that Spark need not evaluate; each row that the filter takes meets all of them.

    Args:
        sql: a filter that :func:`parse_where` did not refuse.
        columns: the table's columns.

    >>> understood_conjuncts("ds = '2026-11-21' AND month(ds) = 11", (Column("ds", "date"),))
    [Compare(column='ds', op='=', constant=Constant(value='2026-11-21', type='date'))]
    """
    if "\\" in sql:
        return []
    tree = _parsed(sql).unnest()
    found: list[Predicate] = []
    for part in tree.flatten() if isinstance(tree, exp.And) else (tree,):
        with contextlib.suppress(OutsideSubset):
            found.append(_predicate(part, columns))
    return found


def _understood(sql: str, columns: Schema) -> Predicate | str:
    tree = _parsed(sql)
    _check_scope(tree, columns)
    check_functions(sql, columns)
    _check_boolean(tree, columns)
    if "\\" in sql:
        return "a backslash in a string depends on Spark's escape settings"
    try:
        return _predicate(tree, columns)
    except OutsideSubset as outside:
        return bounded(outside)


def _parsed(sql: str) -> exp.Expr:
    if not sql.strip():
        raise SettingsError("--where is empty", hint="leave it out, or give a boolean expression such as amount > 5")
    if len(sql) > MAX_WHERE_CHARS:
        raise SettingsError(
            f"--where is longer than {MAX_WHERE_CHARS:,} characters", hint="filter when the input is written"
        )
    try:
        tree = sqlglot.parse_one(sql, dialect="spark", into=exp.Condition)
    except _FAILURES as error:
        raise SettingsError(
            "--where is not one boolean SQL expression",
            found=sql,
            detail=tuple(str(error).splitlines()[:1]),
            hint="give what stands after WHERE, for example: amount > 5 AND country = 'DE'",
        ) from error
    if tree is None or isinstance(tree, exp.Block):
        raise SettingsError("--where holds several statements", found=sql, allowed=("one boolean expression",))
    return tree


def _check_scope(tree: exp.Expr, columns: Schema) -> None:
    """Nothing but the table's own columns, no other table and no parameter."""
    for kind, what in _OUTSIDE:
        if tree.find(kind):
            raise SettingsError(f"--where holds {what}", found=tree.sql("spark"), allowed=("the table's own columns",))
    if tree.find(exp.AggFunc, exp.Window, exp.UDTF):
        raise SettingsError(
            "--where holds an aggregate or a generator of rows",
            found=tree.sql("spark"),
            allowed=("row by row conditions",),
        )
    for column in tree.find_all(exp.Column):
        _resolved(column, columns)


def _resolved(column: exp.Column, columns: Schema) -> Column:
    """The table's column; of a struct's field (``a.b``) the struct."""
    name = column.parts[0].name if len(column.parts) > 1 else column.name
    return find_column(name, columns, "--where names a column that the table does not have")


def _check_boolean(tree: exp.Expr, columns: Schema) -> None:
    """Refuses what is surely not boolean; of a function's type only Spark knows."""
    tree = tree.unnest()
    found = None
    if isinstance(tree, exp.Connector | exp.Not):
        for part in tree.args.values():
            if isinstance(part, exp.Expr):
                _check_boolean(part, columns)
    elif isinstance(tree, exp.Column) and len(tree.parts) == 1:
        column = _resolved(tree, columns)
        found = None if column.type == "boolean" else f"column {column.name}, which is of type {column.type}"
    elif isinstance(tree, _NOT_BOOLEAN):
        found = tree.sql("spark")
    if found:
        raise SettingsError(
            "--where is not a boolean expression", found=found, hint="compare it with something: amount > 5"
        )


def _predicate(tree: exp.Expr, columns: Schema) -> Predicate:
    tree = tree.unnest()
    for kind, build in _BUILDERS:
        if isinstance(tree, kind):
            return build(tree, columns)
    raise OutsideSubset(
        "only columns, constants, comparisons, IN, BETWEEN, IS NULL, AND, OR and NOT are read without Spark, "
        f"not {tree.sql('spark')}"
    )


def _column_of(tree: exp.Expr, columns: Schema) -> Column:
    tree = tree.unnest()
    if not isinstance(tree, exp.Column) or len(tree.parts) > 1:
        raise OutsideSubset(f"{tree.sql('spark')} is not a column by itself")
    return _resolved(tree, columns)


def _connector(tree: exp.Expr, columns: Schema) -> Predicate:
    kind = type(tree)
    operands = tuple(_predicate(part, columns) for part in tree.flatten())
    return And(operands) if kind is exp.And else Or(operands)


def _negation(tree: exp.Expr, columns: Schema) -> Predicate:
    return Not(_predicate(tree.this, columns))


def _boolean_column(tree: exp.Expr, columns: Schema) -> Predicate:
    return Compare(_column_of(tree, columns).name, "=", Constant(True, "boolean"))


def _comparison(tree: exp.Expr, columns: Schema) -> Predicate:
    op = _OPS[type(tree)]
    left, right = tree.this.unnest(), tree.expression.unnest()
    if isinstance(right, exp.Column):
        left, right, op = right, left, _MIRRORED[op]
    return _compare(_column_of(left, columns), op, right)


def _distinct(tree: exp.Expr, columns: Schema) -> Predicate:
    return Not(_compare(_column_of(tree.this, columns), "<=>", tree.expression.unnest()))


def _between(tree: exp.Expr, columns: Schema) -> Predicate:
    if tree.args.get("symmetric"):
        raise OutsideSubset("BETWEEN SYMMETRIC is left to Spark")
    column = _column_of(tree.this, columns)
    low, high = tree.args["low"].unnest(), tree.args["high"].unnest()
    return And((_compare(column, ">=", low), _compare(column, "<=", high)))


def _is(tree: exp.Expr, columns: Schema) -> Predicate:
    column = _column_of(tree.this, columns)
    if isinstance(tree.expression, exp.Null):
        return IsNull(column.name)
    if isinstance(tree.expression, exp.Boolean) and column.type == "boolean":
        return Compare(column.name, "<=>", Constant(bool(tree.expression.this), "boolean"))
    raise OutsideSubset(f"{tree.sql('spark')} is left to Spark")


def _membership(tree: exp.Expr, columns: Schema) -> Predicate:
    if not tree.expressions or any(tree.args.get(part) for part in ("query", "unnest", "field")):
        raise OutsideSubset(f"{tree.sql('spark')} is left to Spark")
    column = _column_of(tree.this, columns)
    constants = tuple(constant(part.unnest()) for part in tree.expressions)
    kinds = {_family(value.type) for value in constants if value.value is not None}
    if len(kinds) > 1:  # Spark casts all of them to one type
        raise OutsideSubset("an IN list of several types is left to Spark")
    members = tuple(adapted(column, "=", value) for value in constants)
    if any(kind != "integer" for kind in kinds) and column.type in INTEGERS:
        raise OutsideSubset("an IN list of fractions for a whole-number column is left to Spark")
    if column.type == "timestamp_ntz":
        raise OutsideSubset("an IN list of wall-clock times is left to Spark")
    return IsIn(column.name, members)


def _family(kind: str) -> str:
    return "integer" if kind in INTEGERS else "decimal" if is_decimal(kind) else kind


_BUILDERS: tuple[tuple[type | tuple[type, ...], Callable[[exp.Expr, Schema], Predicate]], ...] = (
    ((exp.And, exp.Or), _connector),
    (exp.Not, _negation),
    (exp.Column, _boolean_column),
    (exp.NullSafeNEQ, _distinct),
    (tuple(_OPS), _comparison),
    (exp.Between, _between),
    (exp.Is, _is),
    (exp.In, _membership),
)


def _compare(column: Column, op: Op, literal: exp.Expr) -> Predicate:
    return Compare(column.name, op, adapted(column, op, constant(literal)))
