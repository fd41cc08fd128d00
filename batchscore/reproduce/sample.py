"""Some rows of a plan, spread over its files, scored in memory. The same seed draws the same rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.footers import read_footer
from batchscore.arrow.predicate import mask
from batchscore.arrow.splits import read_split
from batchscore.arrow.values import array_of
from batchscore.contracts import Column, OutputColumn, ScoringPlan, ScoringTask, Split
from batchscore.engines.cache import loaded
from batchscore.score import score_batch

Places: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
THREADS = 1
DRAWN = "_batchscore_drawn"  # a column beside the table's own


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of a file that are read as one: ``start`` is the first one's position in the file."""

    split: Split
    start: int
    rows: int


def draw(plan: ScoringPlan, rows: int, seed: int) -> dict[str, Places]:
    """Positions in each file, ascending: one of each file as far as the number goes, the others by the files' rows.

    Args:
        plan: its tasks' files are drawn from.
        rows: how many; at most all.
        seed: of the random generator.
    """
    sizes = {path: sum(groups) for path, groups in sorted(_groups(plan).items())}
    paths = [path for path, size in sizes.items() if size]
    random = np.random.default_rng(seed)
    counts = dict.fromkeys(paths, 0)
    for index in random.permutation(len(paths))[:rows].tolist():
        counts[paths[index]] = 1
    total = sum(sizes.values())
    left = max(rows - len(paths), 0)
    if left:
        more = random.multinomial(left, [sizes[path] / total for path in paths]).tolist()
        for path, count in zip(paths, more, strict=True):
            counts[path] = min(counts[path] + count, sizes[path])
    return {
        path: np.sort(random.choice(sizes[path], count, replace=False)).astype(np.int64)
        for path, count in counts.items()
        if count
    }


def scored(plan: ScoringPlan, drawn: Mapping[str, Places], *, whole_batches: bool = False) -> Iterator[pa.RecordBatch]:
    """The drawn rows as rows of the prediction table.

    Args:
        plan: with the engine that scores.
        drawn: as of :func:`draw`.
        whole_batches: score each batch as the run did, and take the rows from it: for models whose rounding depends
            on which rows are scored together.
    """
    task = plan.task
    engine = loaded(task.engine, task.model, THREADS)
    for piece in _pieces(plan, cut=not whole_batches):
        places = drawn.get(piece.split.path)
        if places is None:
            continue
        wanted = places[(places >= piece.start) & (places < piece.start + piece.rows)] - piece.start
        for batch, inside in _batches(task, piece, wanted):
            rows = _flagged(batch, inside) if whole_batches else batch.take(array_of(inside, pa.int64()))
            if task.predicate is not None:
                rows = rows.filter(mask(task.predicate, rows, task.source_columns))
            if whole_batches:
                table = score_batch(rows, _with_flag(task), engine).table
                yield table.filter(table.column(DRAWN))
            else:
                yield score_batch(rows, task, engine).table


def _flagged(batch: pa.RecordBatch, inside: Places) -> pa.RecordBatch:
    flags = np.zeros(batch.num_rows, np.bool_)
    flags[inside] = True
    return batch.append_column(DRAWN, array_of(flags, pa.bool_()))


def _with_flag(task: ScoringTask) -> ScoringTask:
    """The task with the flag carried along: rows that cannot be scored are in no output, so places tell nothing."""
    return replace(
        task,
        source_columns=(*task.source_columns, Column(DRAWN, "boolean")),
        columns=(*task.columns, OutputColumn(DRAWN, "boolean", "source", DRAWN)),
    )


def _batches(task: ScoringTask, piece: _Piece, wanted: Places) -> Iterator[tuple[pa.RecordBatch, Places]]:
    """The batches that hold wanted rows, and these rows' places in them; reads no further than the last one."""
    if not len(wanted):
        return
    start = 0
    for batch in read_split(piece.split, task.source_uri, task.source_columns, None, task.batch_rows):
        inside = wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start
        start += batch.num_rows
        if len(inside):
            yield batch, inside
        if start > wanted[-1]:
            return


def _groups(plan: ScoringPlan) -> dict[str, tuple[int, ...]]:
    """Rows of the row groups of each file that the plan reads; a footer is read where pinning did not."""
    filesystem, _ = open_filesystem(plan.source.uri)
    known = {file.path: file for file in plan.source.files}
    found = {}
    for path in {split.path for task in plan.tasks for split in task}:
        groups = known[path].row_groups
        found[path] = groups or read_footer(filesystem, path).row_groups
    return found


def _pieces(plan: ScoringPlan, *, cut: bool) -> Iterator[_Piece]:
    """The plan's splits as the run reads them, or cut at row groups, so that fewer rows are read."""
    groups = _groups(plan)
    starts: dict[str, list[int]] = defaultdict(list)
    for path, sizes in groups.items():
        starts[path] = np.cumsum([0, *sizes]).tolist()
    for split in (split for task in plan.tasks for split in task):
        chosen = split.row_groups if split.row_groups is not None else tuple(range(len(groups[split.path])))
        if not chosen:
            continue
        if cut:
            for group in chosen:
                rows = groups[split.path][group]
                yield _Piece(replace(split, row_groups=(group,), rows=rows), starts[split.path][group], rows)
        else:
            rows = sum(groups[split.path][group] for group in chosen)
            yield _Piece(split, starts[split.path][chosen[0]], rows)
