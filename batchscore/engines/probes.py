"""Rows on which an engine is compared with the reference.

Random rows prove nothing about trees: two engines differ on values that lie on a threshold, or within a rounding of
it. So each threshold is probed with its neighbours. A split is asked only by rows that reach its node; therefore
the other columns vary: in part of the rows they are those of real rows, in part *all* of them lie on thresholds of
their own, so that one row asks as many splits as lie on its path, in most trees several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.contracts import ModelInput
from batchscore.engines.boundaries import Values, column, edges, specials, spellings
from batchscore.schema import FLOATS, INTEGERS, element_of

Probes = list[tuple[str, pa.RecordBatch]]

ROWS = 100_000
# Parts of the rows for each kind; what they leave is for thresholds.
SHARES = {"input": 0.2, "special": 0.15, "missing": 0.05, "category": 0.1}
DENSE = 128  # times that each value near a threshold meets other values near thresholds, where there is room
SYNTHETIC_ROWS = 512
KNOWN_VALUES = 1_000
DISTINCT = 200
BACKGROUNDS = 3
MILD = 1e18


def build(
    inputs: tuple[ModelInput, ...],
    sample: pa.RecordBatch | None,
    thresholds: Mapping[str, Values],
    categories: Mapping[str, pa.Array],
    *,
    rows: int = ROWS,
    seed: int = 0,
) -> Probes:
    """Batches of probes, in the form that :meth:`batchscore.engines.base.Engine.score` takes.

    The same arguments give the same probes.

    Args:
        inputs: the model's inputs.
        sample: rows of the input to be scored, or None: plausible ones are made from the thresholds.
        thresholds: input name → the thresholds at which the model's trees split it, as doubles.
        categories: input name → categories that the model knows.
        rows: bound on the rows of all probes; where it is too small for each threshold with its neighbours in
            rows of their own, they share rows, and where one input has more of them than rows, there are more rows.
        seed: of the choice among rows.

    Returns:
        (kind, batch): ``input`` are rows of the sample, ``threshold`` values at the thresholds of trees,
        ``special`` zeros, infinities, NaN and limits of the types, ``missing`` nulls where the model may meet
        them, ``category`` known, unseen and misspelt categories.
    """
    base = _base(inputs, sample, thresholds, categories, seed)
    maker = _Maker(inputs, base, np.random.default_rng(seed))
    budget = {kind: max(int(rows * share), 1) for kind, share in SHARES.items()}
    own: Probes = []
    if sample is not None and sample.num_rows:
        own.append(("input", maker.spread(min(sample.num_rows, budget["input"]))))
    others = maker.specials(thresholds, budget["special"])
    others += maker.missing(budget["missing"])
    others += maker.categories(categories, budget["category"])
    left = rows - sum(batch.num_rows for _, batch in own + others)
    return own + maker.thresholds(thresholds, max(left, 1), skip=set(categories)) + others


@dataclass
class _Maker:
    """Makes probes out of base rows.

    Attributes:
        inputs: the model's inputs.
        base: rows whose values fill the columns that a probe does not ask about.
        random: source of all choices.
    """

    inputs: tuple[ModelInput, ...]
    base: pa.RecordBatch
    random: np.random.Generator

    def spread(self, rows: int) -> pa.RecordBatch:
        """Base rows, evenly from first to last."""
        return self.base.take(pa.array(np.linspace(0, self.base.num_rows - 1, rows).astype(np.int64)))

    def background(self, rows: int) -> list[pa.Array]:
        """Columns of random base rows."""
        return list(self.base.take(pa.array(self.random.integers(0, self.base.num_rows, rows))).columns)

    def batch(self, columns: Sequence[pa.Array]) -> pa.RecordBatch:
        """Columns as a batch of the base's schema."""
        return pa.RecordBatch.from_arrays(list(columns), schema=self.base.schema)

    # thresholds ------------------------------------------------------------------------------------------------

    def thresholds(self, thresholds: Mapping[str, Values], rows: int, skip: set[str]) -> Probes:
        """Each threshold with its neighbours, alone among base values and together with other thresholds."""
        near: dict[int, Values] = {}
        for index, item in enumerate(self.inputs):
            if item.name in thresholds and item.name not in skip and item.shape is None:
                values = edges(thresholds[item.name], item.type)
                if values is not None and values.size:
                    near[index] = values
        if not near:
            return []
        alone = sum(values.size for values in near.values())
        most = max(values.size for values in near.values())
        batches = [self._alone(near)] if alone <= rows // 5 else []
        left = rows - (alone if batches else 0)
        dense = max(min(max(DENSE * most, rows // 100), left), most)  # each of them at least once
        batches.append(self._together(near, dense))
        return [("threshold", batch) for batch in batches]

    def _alone(self, near: Mapping[int, Values]) -> pa.RecordBatch:
        """One column on a threshold, the others of one base row for all neighbours of a threshold."""
        parts = []
        for index, values in near.items():
            picked = np.repeat(self.random.integers(0, self.base.num_rows, len(values)), values.shape[1])
            columns = list(self.base.take(pa.array(picked)).columns)
            columns[index] = column(values.reshape(-1), self.inputs[index].type)
            parts.append(self.batch(columns))
        return _joined(parts)

    def _together(self, near: Mapping[int, Values], rows: int) -> pa.RecordBatch:
        """All columns on thresholds; in every third row about half of them, and in every third those next to a row.

        Next to a base row, because in trees of correlated inputs no row of independent values reaches some nodes.
        """
        columns = self.background(rows)
        first = max(values.size for values in near.values())  # until here each value comes up once in every column
        for index, values in near.items():
            flat = values.reshape(-1)
            picks = np.concatenate([self.random.permutation(len(flat)) for _ in range(-(-rows // len(flat)))])[:rows]
            some, beside = (np.arange(min(first + start, rows), rows, 3) for start in (0, 1))
            picks[beside] = self._beside(columns[index].take(pa.array(beside)), values)
            mask = np.ones(rows, bool)
            mask[some] = self.random.random(len(some)) < 0.5  # noqa: PLR2004  # every second column
            chosen = column(flat[picks], self.inputs[index].type)
            columns[index] = pc.if_else(pa.array(mask), chosen, columns[index])
        return self.batch(columns)

    def _beside(self, array: pa.Array, values: Values) -> Values:
        """Positions in the flat ``values`` of thresholds next to those of ``array``, or the next but one."""
        own = pc.fill_null(array.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
        middle = values[:, min(1, values.shape[1] - 1)].astype(np.float64)
        nearest = np.searchsorted(middle, own) - self.random.integers(-1, 3, len(own))
        width = values.shape[1]
        found: Values = np.clip(nearest, 0, len(middle) - 1) * width + self.random.integers(0, width, len(own))
        return found

    # special values --------------------------------------------------------------------------------------------

    def specials(self, thresholds: Mapping[str, Values], rows: int) -> Probes:
        """Values that engines treat apart: first the finite ones, then those that many models refuse."""
        finite: dict[int, list[Any]] = {}
        others: dict[int, list[Any]] = {}
        for index, item in enumerate(self.inputs):
            one, two = specials(element_of(item.type) or item.type, thresholds.get(item.name))
            if one:
                finite[index] = one
            if two:
                others[index] = two
        # Sums of the largest numbers depend on their order even where two engines are equal.
        mild = {index: [value for value in values if _is_mild(value)] for index, values in finite.items()}
        mixed = {index: mild[index] + others.get(index, []) for index in mild}
        batches = [*self._each(finite, rows // 2), *self._mixtures(mild, rows // 8)]
        batches += [*self._each(others, rows // 4), *self._mixtures(mixed, rows // 8)]
        return [("special", _joined(batches))] if batches else []

    def _each(self, values: Mapping[int, list[Any]], rows: int) -> list[pa.RecordBatch]:
        """Each value in each column among base rows; ordered by value, so that those a model refuses lie together."""
        pairs = [
            (position, index)
            for position in range(max(map(len, values.values()), default=0))
            for index in values
            if position < len(values[index])
        ]
        pairs = pairs * max(min(BACKGROUNDS, rows // max(len(pairs), 1)), 1)
        if len(pairs) > rows:  # very wide models: some columns for each value
            pairs = [pairs[choice] for choice in self.random.choice(len(pairs), rows, replace=False)]
        pairs.sort()
        if not pairs:
            return []
        columns = self.background(len(pairs))
        owners = np.array([index for _, index in pairs])
        for index in values:
            asked = np.flatnonzero(owners == index)
            if len(asked):
                chosen = [values[index][pairs[row][0]] for row in asked]
                columns[index] = self._put(columns[index], index, asked, chosen)
        return [self.batch(columns)]

    def _mixtures(self, values: Mapping[int, list[Any]], rows: int) -> list[pa.RecordBatch]:
        """Every column with one of its values: all with the same one, then at random."""
        if not values or not rows:
            return []
        same = min(max(map(len, values.values())), rows)
        columns = self.background(rows)
        for index, own in values.items():
            picks = np.concatenate([np.arange(same) % len(own), self.random.integers(0, len(own), rows - same)])
            columns[index] = self._put(columns[index], index, np.arange(rows), [own[pick] for pick in picks])
        return [self.batch(columns)]

    def _put(self, array: pa.Array, index: int, rows: Values, values: list[Any]) -> pa.Array:
        """``array`` with other values in some rows; in one element of each of these rows for arrays."""
        item = self.inputs[index]
        fresh = column(values, element_of(item.type) or item.type)
        if _is_list(array.type):
            return _put_elements(array, rows, fresh, self.random)
        return _replaced(array, rows, fresh)

    # nulls -----------------------------------------------------------------------------------------------------

    def missing(self, rows: int) -> Probes:
        """Nulls where scoring lets them through: alone, in all columns, at random; and absent columns."""
        able = [index for index, item in enumerate(self.inputs) if _nullable(item)]
        found: Probes = []
        if able:
            alone = np.tile(np.array(able), max(min(BACKGROUNDS, rows // (2 * len(able))), 1))[: max(rows // 2, 1)]
            size = len(alone) + max(rows - len(alone), 2)
            columns = self.background(size)
            scattered = self.random.random((size, len(self.inputs))) < 0.3  # noqa: PLR2004  # about one in three
            scattered[: len(alone)] = alone[:, None] == np.arange(len(self.inputs))
            scattered[len(alone) : len(alone) + 1 + (size - len(alone)) // 4] = True
            for index in able:
                columns[index] = pc.if_else(
                    pa.array(scattered[:, index]), pa.nulls(size, columns[index].type), columns[index]
                )
            found.append(("missing", self.batch(columns)))
        absent = [
            index
            for index, item in enumerate(self.inputs)
            if not item.required and not _nullable(item) and item.shape is None and element_of(item.type) is None
        ]
        groups = [[index] for index in absent[:BACKGROUNDS]] + ([absent] if len(absent) > 1 else [])
        for group in groups:  # batches of their own: MLflow knows absence only for a whole column
            columns = self.background(BACKGROUNDS)
            for index in group:
                columns[index] = pa.nulls(BACKGROUNDS, columns[index].type)
            found.append(("missing", self.batch(columns)))
        return found

    # categories ------------------------------------------------------------------------------------------------

    def categories(self, categories: Mapping[str, pa.Array], rows: int) -> Probes:
        """Known and unknown categories of coded inputs, and of every input of text."""
        values: dict[int, list[Any]] = {}
        for index, item in enumerate(self.inputs):
            if item.shape is None and (item.name in categories or item.type == "string"):
                known = categories.get(item.name)
                known = self.base.column(index).unique()[:DISTINCT] if known is None else known
                values[index] = spellings(known, KNOWN_VALUES)
        batches = [*self._each(values, rows // 2), *self._mixtures(values, rows // 2)]
        return [("category", _joined(batches))] if batches else []


def _nullable(item: ModelInput) -> bool:
    """Whether scoring lets a null through; in whole numbers, truth values and arrays it makes the row bad."""
    return item.shape is None and item.type not in ("boolean", *INTEGERS) and element_of(item.type) is None


def _is_mild(value: object) -> bool:
    return not isinstance(value, float) or abs(value) <= MILD


def _is_list(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches)


def _replaced(array: pa.Array, rows: Values, fresh: pa.Array) -> pa.Array:
    mask = np.zeros(len(array), bool)
    mask[rows] = True
    return pc.replace_with_mask(array, pa.array(mask), fresh)


def _put_elements(array: pa.Array, rows: Values, fresh: pa.Array, random: np.random.Generator) -> pa.Array:
    """A list array with one element of each row in ``rows`` replaced."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    starts = np.cumsum(lengths) - lengths
    some = lengths[rows] > 0
    places = (starts + (random.random(len(lengths)) * lengths).astype(np.int64))[rows][some]
    flat = _replaced(array.flatten(), places, fresh.filter(pa.array(some)).cast(array.type.value_type))
    if pa.types.is_fixed_size_list(array.type):
        return pa.FixedSizeListArray.from_arrays(flat, type=array.type)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, flat, type=array.type)


# base rows -----------------------------------------------------------------------------------------------------


def _base(
    inputs: Sequence[ModelInput],
    sample: pa.RecordBatch | None,
    thresholds: Mapping[str, Values],
    categories: Mapping[str, pa.Array],
    seed: int,
) -> pa.RecordBatch:
    if sample is not None and sample.num_rows:
        columns = [
            array.dictionary_decode() if pa.types.is_dictionary(array.type) else array for array in sample.columns
        ]
        return pa.RecordBatch.from_arrays(columns, names=[item.name for item in inputs])
    random = np.random.default_rng(seed)
    columns = [_plausible(item, thresholds.get(item.name), categories.get(item.name), random) for item in inputs]
    return pa.RecordBatch.from_arrays(columns, names=[item.name for item in inputs])


def _plausible(
    item: ModelInput, thresholds: Values | None, known: pa.Array | None, random: np.random.Generator
) -> pa.Array:
    """A column of values that a model may have been trained on, for want of real ones."""
    kind = element_of(item.type) or item.type
    width = int(abs(np.prod((item.shape or (-1,))[1:]))) if item.shape is not None else 1
    size = SYNTHETIC_ROWS * width
    array = _scalars(kind, size, thresholds, known, random)
    if (item.shape is not None and len(item.shape) > 1) or element_of(item.type) is not None:
        return pa.FixedSizeListArray.from_arrays(array, width).cast(pa.list_(pa.field("element", to_arrow(kind))))
    return array


def _scalars(
    kind: str, size: int, thresholds: Values | None, known: pa.Array | None, random: np.random.Generator
) -> pa.Array:
    if known is not None and len(known):
        return known.take(pa.array(random.integers(0, len(known), size)))
    if kind in (*FLOATS, *INTEGERS):
        spread = random.normal(size=size)
        if thresholds is not None and len(thresholds):
            scale = float(np.std(thresholds)) or 1.0
            spread = random.choice(np.asarray(thresholds, np.float64), size) + spread * scale / 10
        if kind in FLOATS:
            return column(spread.astype(to_arrow(kind).to_pandas_dtype()), kind)
        near = edges(spread, kind)
        return column(random.permutation(near.reshape(-1))[:size], kind)  # type: ignore[union-attr]  # whole numbers have edges
    if kind == "string":
        return pa.array(random.choice(["a", "b", "c"], size).tolist(), pa.string())
    finite, _ = specials(kind)
    if not finite:
        return pa.nulls(size, to_arrow(kind))
    return column([finite[pick] for pick in random.integers(0, len(finite), size)], kind)
