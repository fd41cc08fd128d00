"""Published and newly scored rows side by side: joined by their keys, compared bit for bit, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.bits import largest_difference, same_bits
from batchscore.arrow.values import shown
from batchscore.errors import MAX_ITEMS, SettingsError, bounded, listed
from batchscore.reproduce.values import Comparison, Difference

# Rows of both sides that are in memory at a time: with keys and scores about 200 MB. Larger units are compared in
# ranges of their first key, each with a pass over the files.
RANGE_ROWS = 2_000_000
PICKED_ROWS = 100_000  # rows whose first keys are looked at to cut the ranges
_WHOLE = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}

Rows: TypeAlias = Callable[[], Iterable[pa.RecordBatch]]


@dataclass(frozen=True, slots=True)
class Excused:
    """Rows that are on one side alone for a known reason: ``missing`` in the table, ``surplus`` in it."""

    missing: int = 0
    surplus: int = 0


NOTHING = Excused()


@dataclass
class Tally:
    """Counts what was compared.

    Args:
        keys: columns that name a row.
        outputs: columns to compare.
        subset: whether only some of the rows were scored again; then none is missed among the others.
    """

    keys: Sequence[str]
    outputs: Sequence[str]
    subset: bool = False
    _equal: int = 0
    _different: int = 0
    _missing: int = 0
    _surplus: int = 0
    _largest: dict[str, float] = field(default_factory=dict)
    _samples: list[Difference] = field(default_factory=list)
    _alone: dict[bool, list[Difference]] = field(default_factory=dict)

    def add(self, published: Rows, again: Rows, rows: int, excused: Excused = NOTHING) -> None:
        """Compares two sets of rows.

        Args:
            published: gives batches with keys and outputs; called once for each range.
            again: the same of the rows scored again.
            rows: about how many there are.
            excused: how many rows one side lacks on purpose; where it lacks more, all of them count.

        Raises:
            SettingsError: two rows of one side have the same keys.
        """
        before = self._missing, self._surplus
        self._alone = {}
        edges = _edges(again, self.keys[0], rows)
        for index in range(len(edges) + 1):
            low, high = (edges[index - 1] if index else None), (edges[index] if index < len(edges) else None)
            left, right = (self._table(_between(side(), self.keys[0], low, high)) for side in (published, again))
            self._compare(left, right)
        if self._missing - before[0] <= excused.missing:
            self._missing = before[0]
            self._alone.pop(False, None)
        if self._surplus - before[1] <= excused.surplus:
            self._surplus = before[1]
            self._alone.pop(True, None)
        alone = [sample for samples in self._alone.values() for sample in samples]
        self._samples += alone[: MAX_ITEMS - len(self._samples)]

    def result(self) -> Comparison:
        """What was found."""
        return Comparison(
            equal=self._equal,
            different=self._different,
            missing=self._missing,
            surplus=self._surplus,
            largest=tuple(sorted(self._largest.items())),
            samples=tuple(self._samples),
        )

    def _table(self, batches: Iterable[pa.RecordBatch]) -> pa.Table | None:
        found = [batch.select([*self.keys, *self.outputs]) for batch in batches if batch.num_rows]
        return pa.Table.from_batches(found).combine_chunks() if found else None

    def _compare(self, left: pa.Table | None, right: pa.Table | None) -> None:
        if left is None or right is None:
            self._one_sided(left, right)
            return
        places = _places(left, right, self.keys)
        counts = [places.column(name) for name in ("left", "right")]
        if any(pc.max(count).as_py() > 1 for count in counts):
            raise SettingsError(
                "the run's rows cannot be told apart, so they cannot be compared",
                found=f"several rows have the same {listed(self.keys, 5)}",
                hint="with output.keys every row has a name of its own",
            )
        ours, theirs = (pc.equal(count, 1) for count in counts)
        both = places.filter(pc.and_(ours, theirs))
        self._pairs(left.take(both["at_left"]), right.take(both["at_right"]))
        alone = places.filter(pc.and_not(ours, theirs))
        self._only(None if self.subset else left.take(alone["at_left"]), published=True)
        self._only(right.take(places.filter(pc.and_not(theirs, ours))["at_right"]), published=False)

    def _one_sided(self, left: pa.Table | None, right: pa.Table | None) -> None:
        self._only(None if self.subset else left, published=True)
        self._only(right, published=False)

    def _pairs(self, left: pa.Table, right: pa.Table) -> None:
        all_same: pa.Array | None = None
        for name in self.outputs:
            then, now = _array(left[name]), _array(right[name])
            same = pa.array(same_bits(then, now))
            all_same = same if all_same is None else pc.and_(all_same, same)
            changed = pc.indices_nonzero(pc.invert(same))
            if len(changed):
                self._differ(name, left.take(changed), then.take(changed), now.take(changed))
        equal = 0 if all_same is None else pc.sum(all_same).as_py() or 0
        self._equal += equal
        self._different += left.num_rows - equal

    def _differ(self, name: str, rows: pa.Table, then: pa.Array, now: pa.Array) -> None:
        gap = largest_difference(then, now)
        if gap is not None:
            self._largest[name] = max(gap, self._largest.get(name, 0.0))
        for index in range(min(len(then), MAX_ITEMS - len(self._samples))):
            texts = (_exact(shown(then[index])), _exact(shown(now[index])))
            self._samples.append(Difference(self._names(rows, index), name, *texts))

    def _only(self, rows: pa.Table | None, *, published: bool) -> None:
        if rows is None:
            return
        if published:
            self._surplus += rows.num_rows
        else:
            self._missing += rows.num_rows
        name, samples = self.outputs[0], self._alone.setdefault(published, [])
        for index in range(min(rows.num_rows, MAX_ITEMS - len(samples))):
            text = _exact(shown(rows[name][index]))
            texts = (text, "") if published else ("", text)
            samples.append(Difference(self._names(rows, index), name, *texts))

    def _names(self, rows: pa.Table, index: int) -> tuple[tuple[str, str], ...]:
        return tuple((key, bounded(shown(rows[key][index]))) for key in self.keys[:5])


def _exact(value: object) -> str:
    """A value with all its digits."""
    return bounded(repr(value) if isinstance(value, float) else value)


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if not isinstance(combined, pa.ChunkedArray):
        return combined
    return combined.chunk(0) if combined.num_chunks else pa.nulls(0, combined.type)


def _places(left: pa.Table, right: pa.Table, keys: Sequence[str]) -> pa.Table:
    """For each key how often each side has it, and where."""
    names = [f"key {index}" for index in range(len(keys))]
    sides = []
    for table, is_left in ((left, True), (right, False)):
        rows = table.num_rows
        at = pa.array(np.arange(rows, dtype=np.int64))
        one, none, nowhere = pa.repeat(1, rows), pa.repeat(0, rows), pa.repeat(-1, rows)
        facts = [one, none, at, nowhere] if is_left else [none, one, nowhere, at]
        columns = [_bits(_array(table[key])) for key in keys]
        sides.append(pa.Table.from_arrays([*columns, *facts], names=[*names, "l", "r", "al", "ar"]))
    wanted = [("l", "sum"), ("r", "sum"), ("al", "max"), ("ar", "max")]
    grouped = pa.concat_tables(sides).group_by(names, use_threads=False).aggregate(wanted)
    found = [grouped[f"{name}_{how}"] for name, how in wanted]
    return pa.Table.from_arrays(found, names=["left", "right", "at_left", "at_right"])


def _bits(array: pa.Array) -> pa.Array:
    """Floats by their bits, so that NaN is one key and 0.0 another than -0.0."""
    return array.view(_WHOLE[array.type.bit_width]) if pa.types.is_floating(array.type) else array


# --- ranges of the first key --------------------------------------------------------------------------------


def _edges(again: Rows, key: str, rows: int) -> list[pa.Scalar]:
    """The values at which the rows are cut into ranges of about :data:`RANGE_ROWS`; none for few rows."""
    count = math.ceil(rows / RANGE_ROWS)
    if count <= 1:
        return []
    step = max(rows // PICKED_ROWS, 1)
    picked = pa.concat_arrays([_bits(batch.column(key))[::step] for batch in again()])
    ordered = pc.unique(picked.drop_null())
    ordered = ordered.take(pc.sort_indices(ordered))
    places = sorted({len(ordered) * index // count for index in range(1, count)} - {0})
    return [ordered[place] for place in places if place < len(ordered)]


def _between(
    batches: Iterable[pa.RecordBatch], key: str, low: pa.Scalar | None, high: pa.Scalar | None
) -> Iterator[pa.RecordBatch]:
    """Rows whose key lies in [low, high); null keys are in the first range."""
    for batch in batches:
        masks: list[Any] = []
        column = _bits(batch.column(key)) if low is not None or high is not None else None
        if low is not None:
            masks.append(pc.fill_null(pc.greater_equal(column, low), pa.scalar(False)))
        if high is not None:
            below = pc.fill_null(pc.less(column, high), pa.scalar(True))
            masks.append(below)
        for mask in masks[1:]:
            masks[0] = pc.and_(masks[0], mask)
        yield batch.filter(masks[0]) if masks else batch
