"""Constants of a ``--where`` text."""

from __future__ import annotations

from sqlglot import exp

from batchscore.contracts import Constant
from batchscore.read.constants import (
    DATE,
    INSTANT,
    INTEGER,
    MAX_NUMBER_CHARS,
    WALL_TIME,
    OutsideSubset,
    double,
    number,
    time_constant,
)


def constant(tree: exp.Expr) -> Constant:
    """A literal with the type that Spark gives it."""
    if isinstance(tree, exp.Null):
        return Constant(None, "null")
    if isinstance(tree, exp.Boolean):
        return Constant(bool(tree.this), "boolean")
    if isinstance(tree, exp.Cast):
        return _cast_literal(tree)
    sign, literal = (-1, tree.this.unnest()) if isinstance(tree, exp.Neg) else (1, tree)
    if isinstance(literal, exp.Literal):
        if not literal.is_string:
            return number(str(literal.this), sign)
        if sign > 0:
            return Constant(str(literal.this), "string")
    raise OutsideSubset(f"{tree.sql('spark')} is not a constant that is read without Spark")


def _cast_literal(tree: exp.Cast) -> Constant:
    """``DATE '…'``, ``TIMESTAMP '…Z'``, ``TIMESTAMP_NTZ '…'`` and numbers with a suffix (``5L``, ``1.5D``)."""
    literal, kind = tree.this, tree.to.this
    if isinstance(literal, exp.Literal):
        text = str(literal.this)
        if literal.is_string and kind in _TIME_LITERALS:
            return time_constant(text, *_TIME_LITERALS[kind])
        if not literal.is_string and kind == exp.DataType.Type.BIGINT and INTEGER.fullmatch(text[:MAX_NUMBER_CHARS]):
            return Constant(_fits_long(int(text[:MAX_NUMBER_CHARS])), "long")
        if not literal.is_string and kind == exp.DataType.Type.DOUBLE:
            return double(text, 1)
    raise OutsideSubset(f"{tree.sql('spark')} is not a constant that is read without Spark")


def _fits_long(value: int) -> int:
    if value >= 1 << 63:
        raise OutsideSubset(f"{value} is beyond a 64-bit integer")
    return value


_TIME_LITERALS = {
    exp.DataType.Type.DATE: ("date", DATE),
    exp.DataType.Type.TIMESTAMPTZ: ("timestamp", INSTANT),
    exp.DataType.Type.TIMESTAMPNTZ: ("timestamp_ntz", WALL_TIME),
}
