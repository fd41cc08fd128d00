"""The settings' rules as conditions that workers evaluate on Arrow batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.values import array_of
from batchscore.config.settings import RuleSettings
from batchscore.contracts import (
    And,
    Column,
    Compare,
    Constant,
    IsIn,
    IsNull,
    Matches,
    Not,
    Predicate,
    Reason,
    Rule,
    Schema,
    predicate_columns,
)
from batchscore.errors import SettingsError, bounded, listed
from batchscore.read.constants import INSTANT, Op, OutsideSubset, adapted, number, time_constant
from batchscore.read.partitions import find_column
from batchscore.schema import FLOATS

COMPUTED_PREFIX = "__batchscore_rule_"
_INFINITY = float("inf")


def compile_rules(rules: Sequence[RuleSettings], source: Schema, outputs: Schema) -> tuple[Rule, ...]:
    """What each row must meet, one rule for each condition.

    Args:
        rules: of the settings.
        source: the input's columns.
        outputs: the columns that the model fills; what reads one of them is looked at after scoring.

    Raises:
        SettingsError: an unknown column, a value of another type, a pattern or a condition that does not parse.
    """
    columns = (*source, *outputs)
    found: list[Rule] = []
    for rule in rules:
        if rule.sql is not None:
            found.append(_of_sql(rule, rule.sql, columns, len(found)))
        else:
            found.extend(_of_column(rule, columns))
    names = {column.name for column in outputs}
    return tuple(_placed(rule, names) for rule in found)


def _placed(rule: Rule, outputs: set[str]) -> Rule:
    reads_output = bool(outputs & set(rule.columns))
    if rule.sql and reads_output:
        raise SettingsError(
            f"rule {rule.name} reads a prediction, and its condition needs Spark",
            found=rule.sql,
            hint="write it with comparisons, IN, BETWEEN, IS NULL, AND, OR and NOT of columns and constants",
        )
    if rule.sql:
        return replace(rule, columns=(rule.holds.column,), named=rule.columns)  # type: ignore[union-attr]  # a comparison, by _of_sql
    return replace(rule, of_output=reads_output)


# --- of a column ---------------------------------------------------------------------------------------------


def _of_column(rule: RuleSettings, columns: Schema) -> list[Rule]:
    asked = rule.column or ""
    column = find_column(asked, columns, "a rule names a column that neither the input nor the prediction has")
    conditions: list[tuple[Reason, str, Predicate]] = []
    try:
        if rule.required:
            conditions.append(("required", f"{column.name} is there", Not(IsNull(column.name))))
        if rule.range is not None:
            low, high = rule.range
            text = f"{column.name} in [{'' if low is None else low}, {'' if high is None else high}]"
            conditions.append(("out_of_range", text, _in_range(column, low, high)))
        if rule.allowed is not None:
            text = f"{column.name} in ({listed(rule.allowed)})"
            members = tuple(_constant(column, "=", value) for value in rule.allowed)
            conditions.append(("not_allowed", text, IsIn(column.name, members)))
    except OutsideSubset as outside:
        raise SettingsError(
            f"a rule's value does not fit column {column.name}, which is of type {column.type}",
            found=outside,
            hint="give a value of the column's type, or a condition in sql",
        ) from outside
    if rule.regex is not None:
        _check_pattern(column, rule.regex)
        conditions.append(("no_match", f"{column.name} ~ {rule.regex}", Matches(column.name, rule.regex)))
    return [Rule(rule.name or bounded(text), reason, (column.name,), holds) for reason, text, holds in conditions]


def _in_range(column: Column, low: int | float | str | None, high: int | float | str | None) -> Predicate:
    parts: list[Predicate] = []
    if low is not None:
        parts.append(Compare(column.name, ">=", _constant(column, ">=", low)))
    if high is not None:
        parts.append(Compare(column.name, "<=", _constant(column, "<=", high)))
    elif column.type in FLOATS:  # NaN is above every number
        parts.append(Compare(column.name, "<=", Constant(_INFINITY, "double")))
    return And(tuple(parts))


def _constant(column: Column, op: Op, value: bool | int | float | str) -> Constant:
    """A value as SQL would spell it, compared with the column as Spark compares.

    Raises:
        OutsideSubset: it cannot be compared with the column exactly.
    """
    if isinstance(value, bool):
        return adapted(column, op, Constant(value, "boolean"))
    if isinstance(value, int | float):
        if column.type in FLOATS:
            return adapted(column, op, Constant(float(value), "double"))
        # As it is written: a decimal column is not compared with a double.
        return adapted(column, op, number(f"{Decimal(str(abs(value))):f}", -1 if value < 0 else 1))
    if column.type == "timestamp":
        return time_constant(value, "timestamp", INSTANT)
    return adapted(column, op, Constant(value, "string"))


def _check_pattern(column: Column, pattern: str) -> None:
    if column.type != "string":
        raise SettingsError(
            f"a rule has a regular expression for column {column.name}", found=column.type, allowed=("string",)
        )
    try:
        pc.match_substring_regex(array_of(["x"], pa.string()), pattern)
    except pa.ArrowInvalid as error:
        raise SettingsError(
            f"a rule's regular expression for column {column.name} is none",
            found=f"{pattern}: {error}",
            hint="it is read by RE2, which has no look-around and no back-references",
        ) from error


# --- of a condition ------------------------------------------------------------------------------------------


def _of_sql(rule: RuleSettings, sql: str, columns: Schema, place: int) -> Rule:
    from batchscore.read.where import parse_where  # noqa: PLC0415  # its SQL parser takes half a second

    name = rule.name or bounded(sql)
    try:
        parsed = parse_where(sql, columns)
    except SettingsError as error:
        raise SettingsError(
            error.problem.replace("--where", f"rule {name}"),
            found=error.found,
            allowed=error.allowed,
            near=error.near,
            hint="give one condition on a row, as it would stand in CHECK (…)",
            detail=error.detail,
        ) from error
    if isinstance(parsed, str):
        computed = f"{COMPUTED_PREFIX}{place}"
        return Rule(
            name, "rule", _columns_named(sql, columns), Compare(computed, "=", Constant(True, "boolean")), sql=sql
        )
    return Rule(name, "rule", predicate_columns(parsed), parsed)


def _columns_named(sql: str, columns: Schema) -> tuple[str, ...]:
    import sqlglot  # noqa: PLC0415  # takes half a second
    from sqlglot import exp  # noqa: PLC0415  # as above

    tree = sqlglot.parse_one(sql, dialect="spark", into=exp.Condition)
    names = {column.parts[0].name.casefold() for column in tree.find_all(exp.Column)}
    return tuple(column.name for column in columns if column.name.casefold() in names)


def computed_columns(rules: Sequence[Rule]) -> tuple[tuple[str, str], ...]:
    """The columns, and their SQL, that Spark has to compute for rules."""
    return tuple((rule.columns[0], rule.sql) for rule in rules if rule.sql)
