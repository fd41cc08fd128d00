"""Columns, units and predicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name and its type in the vocabulary of ``schema.py``."""

    name: str
    type: str
    nullable: bool = True


Schema: TypeAlias = tuple[Column, ...]

# The values of a unit's partition columns, in the order of the output's partition columns, as the canonical
# strings that Delta's log holds (None is null). () is the only unit of a table without partitions.
UnitValues: TypeAlias = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant in a predicate; ``type`` names its type in the vocabulary of ``schema.py``."""

    value: str | int | float | bool | None
    type: str


@dataclass(frozen=True, slots=True)
class Compare:
    """``column <op> constant``; ``<=>`` is Spark's null-safe equality."""

    column: str
    op: Literal["=", "!=", "<", "<=", ">", ">=", "<=>"]
    constant: Constant


@dataclass(frozen=True, slots=True)
class IsIn:
    """``column IN (constants)`` with SQL's three-valued logic."""

    column: str
    constants: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """Text in which the regular expression (RE2) is found somewhere; ``^`` and ``$`` anchor it."""

    column: str
    pattern: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """``column IS NULL``."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """Negation; NOT unknown is unknown."""

    operand: Predicate


@dataclass(frozen=True, slots=True)
class And:
    """Conjunction with three-valued logic."""

    operands: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Disjunction with three-valued logic."""

    operands: tuple[Predicate, ...]


Predicate: TypeAlias = Compare | IsIn | Matches | IsNull | Not | And | Or


def predicate_columns(predicate: Predicate | None) -> tuple[str, ...]:
    """The columns that a predicate reads, sorted; a split's reader needs them among its columns.

    >>> predicate_columns(And((IsNull("b"), Not(IsNull("a")))))
    ('a', 'b')
    """
    match predicate:
        case None:
            return ()
        case Compare(column) | IsIn(column) | Matches(column) | IsNull(column):
            return (column,)
        case Not(operand):
            return predicate_columns(operand)
        case And(operands) | Or(operands):
            return tuple(sorted({name for operand in operands for name in predicate_columns(operand)}))
