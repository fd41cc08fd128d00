"""Encoders as tables: what a fitted chain of imputers and encoders makes of each value that it tells apart.

The converters of skl2onnx for these steps feed strings to the graph, where null is not None and not NaN. Here each
value, null and a value never seen are put through the fitted steps themselves, one column at a time; what comes out is
a table, and the graph looks rows up in it. So every option of an encoder means what it means to scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelInput
from batchscore.engines.frames import to_frame
from batchscore.engines.onnx_artifact import Vocabulary
from batchscore.engines.onnx_convert.graph import Dtype, Graph, Matrix
from batchscore.errors import ModelError
from batchscore.schema import FLOATS, INTEGERS

IMPUTER = "SimpleImputer"
ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")

# A table of 80 MB; an encoder of more belongs to a model that embeds or hashes.
MAX_CELLS = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What one column contributes.

    Attributes:
        vocabulary: its values.
        rows: outputs for each value, for null and for any other value: shape (values + 2, len(places)).
        places: the positions of these outputs among all outputs.
    """

    vocabulary: Vocabulary
    rows: np.ndarray[Any, Any]
    places: np.ndarray[Any, Any]


def is_step(part: Any, names: Sequence[str]) -> bool:  # noqa: ANN401  # any step
    """Whether a step is of one of scikit-learn's classes of these names."""
    return type(part).__module__.startswith("sklearn.") and type(part).__name__ in names


class _Chain:
    """The steps, and how rows of their columns are put through them."""

    def __init__(self, steps: Sequence[Any], items: Sequence[ModelInput], missing_text: float | None) -> None:
        self.steps = steps
        self.items = items
        self._missing_text = missing_text
        self.is_sparse = False

    def outputs(self, columns: Sequence[pa.Array]) -> np.ndarray[Any, Any]:
        """What comes out, of shape (rows, outputs)."""
        batch = pa.RecordBatch.from_arrays(list(columns), names=[item.name for item in self.items])
        values: Any = to_frame(batch, self.items, {}, self._missing_text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown categories, columns without names: as asked
            for step in self.steps:
                values = step.transform(values)
        self.is_sparse = hasattr(values, "toarray")
        return np.asarray(values.toarray() if self.is_sparse else values)


def append_lookup(
    graph: Graph,
    feed: Callable[[tuple[Vocabulary, ...]], Matrix],
    steps: Sequence[Any],
    items: Sequence[ModelInput],
    missing_text: float | None,
) -> Matrix:
    """Adds a chain of imputers and encoders.

    Args:
        graph: gets the operators.
        feed: called with the vocabularies of ``items``, gives the matrix of codes.
        steps: fitted; each output depends on one column.
        items: the columns that the chain is given.
        missing_text: how the reference spells a missing string.

    Raises:
        ModelError: a step is given values of a type that it cannot be asked for, or too many categories.
    """
    chain = _Chain(steps, items, missing_text)
    vocabularies = [_vocabulary(steps, position, item) for position, item in enumerate(items)]
    tables = _tables(chain, vocabularies)
    codes = feed(tuple(table.vocabulary for table in tables))
    parts = []
    for position, table in enumerate(tables):
        row = graph.op("Gather", codes.name, graph.constant(np.array(position)), axis=1)
        found = graph.op("Gather", graph.constant(table.rows), row, axis=0)
        parts.append(Matrix(found, table.rows.dtype, len(table.places), chain.is_sparse))
    together = graph.beside(parts)
    order = np.argsort(np.concatenate([table.places for table in tables]))
    return graph.columns(together, order.tolist())


def _tables(chain: _Chain, vocabularies: Sequence[Vocabulary]) -> list[Table]:
    first = [_values(known, [_any_value(known)]) for known in vocabularies]
    base = chain.outputs(first)[0]
    tables = []
    for position, known in enumerate(vocabularies):
        cells = (len(known.values) + 2) * len(base)
        if cells > MAX_CELLS:
            raise ModelError(
                f"{_named(chain.steps)} has too many categories for a table",
                found=f"{len(known.values)} values of input {chain.items[position].name}, {len(base)} outputs",
                hint="engine pyfunc serves it",
            )
        tables.append(_table(chain, position, known, first, base))
    return _complete(tables, base)


def _table(chain: _Chain, position: int, known: Vocabulary, first: list[pa.Array], base: np.ndarray[Any, Any]) -> Table:
    def outputs(values: list[Any]) -> np.ndarray[Any, Any]:
        columns = [_repeated(column, len(values)) for column in first]
        columns[position] = _values(known, values)
        return chain.outputs(columns)

    rows = [outputs(list(known.values))] if known.values else []
    accepted = []
    for odd in (None, _unseen(known)):
        try:
            rows.append(outputs([odd]))
            accepted.append(True)
        except (ValueError, TypeError, ModelError):  # handle_unknown="error", or a type that knows no null
            rows.append(base[None, :])
            accepted.append(False)
    table = np.concatenate(rows)
    differs = (table != base) & ~(_is_nan(table) & _is_nan(base))
    places = np.flatnonzero(differs.any(axis=0))
    return Table(Vocabulary(known.type, known.values, *accepted), table[:, places], places)


def _complete(tables: list[Table], base: np.ndarray[Any, Any]) -> list[Table]:
    """Outputs that no value changes are given to the first column."""
    changed = np.concatenate([table.places for table in tables])
    if len(np.unique(changed)) != len(changed):
        raise ModelError("an output of an encoder depends on several columns")
    constant = np.setdiff1d(np.arange(len(base)), changed)
    head = tables[0]
    rows = np.concatenate([head.rows, np.broadcast_to(base[constant], (len(head.rows), len(constant)))], axis=1)
    return [Table(head.vocabulary, rows, np.concatenate([head.places, constant])), *tables[1:]]


def _vocabulary(steps: Sequence[Any], position: int, item: ModelInput) -> Vocabulary:
    """All values of a column that some step tells apart; more than those do no harm."""
    if item.type == "boolean":
        return Vocabulary(item.type, (False, True))
    if item.type not in ("string", *FLOATS, *INTEGERS):
        raise ModelError(f"{_named(steps)} is given input {item.name} of type {item.type}", hint="use engine pyfunc")
    # An imputer may drop columns or add indicators; then a later step's categories are of other positions.
    widths = {step.n_features_in_ for step in steps}
    found: dict[Any, None] = {}
    for step in steps:
        for value in _distinguished(step, position if len(widths) == 1 else None):
            kept = _of_type(value, item.type)
            if kept is not None:
                found.setdefault(kept)
    return Vocabulary(item.type, tuple(found))


def _distinguished(step: Any, position: int | None) -> list[Any]:  # noqa: ANN401
    """The values that a step knows of one column, or of all columns."""
    chosen = slice(None) if position is None else slice(position, position + 1)
    if type(step).__name__ == IMPUTER:
        return [*step.statistics_[chosen], step.missing_values]
    return [value for categories in step.categories_[chosen] for value in categories]


def _of_type(value: Any, kind: str) -> Any:  # noqa: ANN401
    """A category as a value of the column's type, or None where the column cannot hold it."""
    if kind == "string":
        return str(value) if isinstance(value, str) else None
    if isinstance(value, str | bytes) or value is None or not np.isfinite(value):
        return None
    arrow = to_arrow(kind)
    try:
        held = pa.array([value.item() if hasattr(value, "item") else value]).cast(arrow)[0].as_py()
    except pa.ArrowException:
        return None
    return held + 0.0 if kind in FLOATS and held == value else held if held == value else None


def _any_value(known: Vocabulary) -> Any:  # noqa: ANN401
    return known.values[0] if known.values else None


def _unseen(known: Vocabulary) -> Any:  # noqa: ANN401
    """A value of the type that is not in the vocabulary; None where there is none."""
    if known.type == "boolean":
        return None
    if known.type == "string":
        return "?" * (1 + max((len(value) for value in known.values), default=0))
    return next(value for value in range(len(known.values) + 1) if value not in known.values)


def _values(known: Vocabulary, values: list[Any]) -> pa.Array:
    return pa.array(values, to_arrow(known.type))


def _repeated(column: pa.Array, rows: int) -> pa.Array:
    return column.take(pa.array(np.zeros(rows, np.int64)))


def _is_nan(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    is_float: bool = values.dtype.kind == "f"
    return np.isnan(values) if is_float else np.zeros(values.shape, bool)


def _named(steps: Sequence[Any]) -> str:
    return " and ".join(type(step).__name__ for step in steps)


def common_type(items: Sequence[ModelInput]) -> Dtype:
    """The type that numpy gives the columns of a frame together: float32 where all are, else float64."""
    return np.dtype(np.float32 if all(item.type == "float" for item in items) else np.float64)
