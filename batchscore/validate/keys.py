"""Are keys unique? Exactly, in bounded memory, at the speed of sorting 64-bit numbers.

Each row's key becomes a 64-bit number: itself where it is one integer, else a hash. The numbers are sorted;
equal neighbours are candidates, and a second pass over the candidates' rows compares the keys themselves, so
a collision of hashes never refuses a run. Where the numbers do not fit in the budget, the key space is cut
into slices and each slice takes a pass of its own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.values import array_of, numbers_of, shown

Words = npt.NDArray[np.uint64]

# Number, its sorted copy and what sorting needs.
BYTES_PER_ROW = 24
MAX_CANDIDATES = 1_000
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_NULL_WORD = np.uint64(0x5851F42D4C957F2D)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What the search found.

    Attributes:
        rows: rows whose key another row has too (an estimate by hash where there are over 1,000 such keys).
        keys: up to ``limit`` such keys with the number of their rows.
    """

    rows: int
    keys: tuple[tuple[tuple[object, ...], int], ...]


Batches = Callable[[], Iterator[pa.RecordBatch]]


def fits(rows: int, budget_bytes: int) -> bool:
    """Whether the numbers of all rows fit in the budget, so that one pass is enough."""
    return rows * BYTES_PER_ROW <= budget_bytes


def duplicates(
    batches: Batches,
    keys: Sequence[str],
    rows: int,
    budget_bytes: int,
    limit: int = 10,
    *,
    words: list[Words] | None = None,
) -> Duplicates:
    """Keys that occur more than once; rows with a null in a key are left out.

    Args:
        batches: opens a new pass over the rows; only the key columns are used.
        keys: names of the key columns.
        rows: number of rows, to size the passes.
        budget_bytes: memory for one pass.
        limit: most keys to return.
        words: :func:`key_words` of every batch, where somebody read the rows already and they fit in the budget; it
            is emptied.
    """
    slices = 1 if words is not None else max(1, -(-rows * BYTES_PER_ROW // max(budget_bytes, BYTES_PER_ROW)))
    found_rows = 0
    candidates: list[Words] = []
    for part in range(slices):
        chunks = _words_of_slice(batches(), keys, part, slices) if words is None else words
        if _ascend(chunks):
            continue
        whole = np.concatenate(chunks)
        chunks.clear()
        whole.sort()
        equal = whole[1:] == whole[:-1]
        if equal.any():
            repeated = np.unique(whole[1:][equal])
            candidates.append(repeated)
            found_rows += int(equal.sum()) + len(repeated)
    if not candidates:
        return Duplicates(0, ())
    return _verified(batches(), keys, np.concatenate(candidates), found_rows, limit)


def _words_of_slice(batches: Iterator[pa.RecordBatch], keys: Sequence[str], part: int, slices: int) -> list[Words]:
    chunks = []
    for batch in batches:
        words = key_words(without_null_keys(batch, keys), keys)
        if slices > 1:
            # The numbers may be small consecutive ids: mixing spreads them over the slices.
            words = words[_mixed(words) % np.uint64(slices) == part]
        chunks.append(words)
    return chunks


def _ascend(chunks: Sequence[Words]) -> bool:
    """Whether each chunk ascends strictly and no two of them overlap: then no number occurs twice.

    Tables are mostly written in the order of their ids; this is a tenth of the time of sorting them.
    """
    ranges = []
    for words in chunks:
        if not (words[1:] > words[:-1]).all():
            return False
        if len(words):
            ranges.append((int(words[0]), int(words[-1])))
    ranges.sort()
    return all(last < first for (_, last), (first, _) in itertools.pairwise(ranges))


def _verified(
    batches: Iterator[pa.RecordBatch], keys: Sequence[str], candidates: Words, found_rows: int, limit: int
) -> Duplicates:
    looked_at = candidates[:MAX_CANDIDATES]
    counts: dict[tuple[object, ...], int] = {}
    for batch in batches:
        complete = without_null_keys(batch, keys)
        hit = np.isin(key_words(complete, keys), looked_at)
        if hit.any():
            table = pa.Table.from_batches([complete]).filter(array_of(hit, pa.bool_()))
            grouped = table.group_by(list(keys)).aggregate([([], "count_all")])
            values = zip(*([shown(value) for value in grouped[name]] for name in keys), strict=True)
            for key, count in zip(values, grouped["count_all"].to_pylist(), strict=True):
                counts[key] = counts.get(key, 0) + count
    repeated = [(key, count) for key, count in counts.items() if count > 1]
    exact = sum(count for _, count in repeated)
    rows = exact if len(looked_at) == len(candidates) else max(exact, found_rows)
    return Duplicates(rows, tuple(repeated[:limit]))


def without_null_keys(batch: pa.RecordBatch, keys: Sequence[str]) -> pa.RecordBatch:
    """The rows of a batch whose keys are all there."""
    columns = [batch.column(name) for name in keys]
    if not any(column.null_count for column in columns):
        return batch
    complete = columns[0].is_valid()
    for column in columns[1:]:
        complete = pc.and_(complete, column.is_valid())
    return batch.filter(complete)


def key_words(batch: pa.RecordBatch, keys: Sequence[str]) -> Words:
    """One 64-bit number a row: the key itself where it is one number, else a hash of all key columns."""
    words = [column_words(batch.column(name)) for name in keys]
    whole = words[0]
    for column in words[1:]:
        with np.errstate(over="ignore"):
            whole = _mixed(whole) * _BASE + column
    return whole


def column_words(column: pa.Array) -> Words:
    """One 64-bit number a value: distinct values of at most 64 bits get distinct numbers.

    >>> [int(word) for word in column_words(pa.array([7, 7, 8]))]
    [7, 7, 8]
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        return _float_words(column)
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.int32())
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_boolean(kind):
        numbers: npt.NDArray[np.int64] = numbers_of(column.cast(pa.int64()))
        return numbers.view(np.uint64)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    text = column if is_bytes else column.cast(pa.large_string())
    return _byte_words(text.cast(pa.large_binary()))


def _float_words(column: pa.Array) -> Words:
    # Adding zero makes -0.0 equal to 0.0, as it is to every reader.
    values: npt.NDArray[np.float64] = numbers_of(column.cast(pa.float64())) + 0.0
    one_nan: npt.NDArray[np.float64] = np.where(np.isnan(values), np.nan, values)
    return one_nan.view(np.uint64)


def _byte_words(column: pa.LargeBinaryArray) -> Words:
    """Polynomial hashes modulo 2**64 of all values at once, from prefix sums over the bytes."""
    _, offsets_buffer, data_buffer = column.buffers()
    if len(column) == 0:
        return np.empty(0, np.uint64)
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    first = offsets[0]
    data = np.frombuffer(data_buffer or b"", np.uint8)[first : offsets[-1]]
    starts = (offsets[:-1] - first).astype(np.int64)
    ends = (offsets[1:] - first).astype(np.int64)
    with np.errstate(over="ignore"):
        powers, inverses = _powers(_BASE, len(data)), _powers(_INVERSE, len(data))
        prefix = np.zeros(len(data) + 1, np.uint64)
        np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers[: len(data)], out=prefix[1:])
        sums = (prefix[ends] - prefix[starts]) * inverses[starts]
        return _mixed(sums + (ends - starts).astype(np.uint64) * _NULL_WORD)


def _powers(base: np.uint64, count: int) -> Words:
    return _powers_of_size(int(base), 1 << max(count, 1).bit_length())


@functools.lru_cache(maxsize=4)
def _powers_of_size(base: int, count: int) -> Words:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    np.multiply.accumulate(powers, out=powers)
    return powers


def _mixed(words: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): spreads every bit, one to one."""
    with np.errstate(over="ignore"):
        mixed = words + _BASE
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
