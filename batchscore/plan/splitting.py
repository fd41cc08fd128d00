"""Files become tasks: large files are cut between segments of their row groups, small ones share a task.

Tasks are contiguous runs of the files in order of partition and path, because a task writes at least one file
for each partition that it meets. Among the contiguous cuts the one with the smallest largest task is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchscore.contracts import SourceFile, Split, segments

# A task's end and the next one's start take Spark 30-60 ms, in which a fast engine scores 200,000 rows.
TASK_SECONDS = 2.0
# What is left is dealt out in waves, each of this share of it (factoring: Hummel, Schonberg and Flynn 1992): the first
# tasks are large, and the last ones small enough that no core waits long for another.
WAVE_SHARE = 0.75
# What reading and writing take beside scoring, measured on one core over 30 columns.
SECONDS_PER_BYTE = 1e-9
SECONDS_PER_ROW = 1e-7
# Used only where no file tells its rows: 30 compressed float columns take about 200 bytes a row, 4 take 30.
ASSUMED_BYTES_PER_ROW = 100


@dataclass(frozen=True, slots=True)
class _Piece:
    """A whole file, row groups None, or one of its segments."""

    weight: int
    file: SourceFile
    row_groups: tuple[int, ...] | None


def make_tasks(
    files: Sequence[SourceFile], *, cores: int, rows_per_task: int = 1_000_000
) -> tuple[tuple[Split, ...], ...]:
    """The splits of each task; every segment of every file is in exactly one of them.

    Args:
        files: files to read; those without ``row_groups`` are not cut.
        cores: tasks that run at a time; as many tasks are made where the segments allow it.
        rows_per_task: rows in a task beyond which more tasks than cores are made.

    Raises:
        ValueError: when ``cores`` or ``rows_per_task`` is not positive.

    >>> one = SourceFile("a.parquet", 3_000_000, "", 300_000, row_groups=(100_000, 100_000, 100_000))
    >>> [[split.row_groups for split in task] for task in make_tasks([one], cores=2)]
    [[(0, 1)], [(2,)]]
    """
    if cores < 1 or rows_per_task < 1:
        raise ValueError(f"cores and rows_per_task must be positive: {cores}, {rows_per_task}")
    if not files:
        return ()
    ordered = sorted(files, key=_order)
    bytes_per_row = _bytes_per_row(ordered)
    weights = [_weight(file, bytes_per_row) for file in ordered]
    count = _task_count(sum(weights), cores, rows_per_task)
    target = max(1, -(-sum(weights) // count))
    pieces = [piece for file, weight in zip(ordered, weights, strict=True) for piece in _cut(file, weight, target)]
    return _packed(pieces, _smallest_capacity([piece.weight for piece in pieces], count))


def joined(tasks: Sequence[tuple[Split, ...]], *, cores: int, rows_per_second: float) -> tuple[tuple[Split, ...], ...]:
    """Neighbouring tasks made one where the engine is fast, so that a task takes long beside its own start.

    Args:
        tasks: of :func:`make_tasks`.
        cores: tasks that run at a time.
        rows_per_second: the engine's speed on one core.

    >>> tasks = [(Split(f"{number}", 500_000, None, (), 60_000_000),) for number in range(16)]
    >>> [len(task) for task in joined(tasks, cores=2, rows_per_second=4e6)]
    [5, 5, 2, 2, 1, 1]
    >>> len(joined(tasks, cores=2, rows_per_second=1e5))
    16
    """
    if any(split.rows < 0 for task in tasks for split in task):
        return tuple(tasks)
    seconds = [sum(_seconds(split, rows_per_second) for split in task) for task in tasks]
    found: list[tuple[Split, ...]] = []
    start, left = 0, sum(seconds)
    while start < len(tasks):
        wanted = min(TASK_SECONDS, left * WAVE_SHARE / cores)
        for _ in range(cores):
            end = _fill(seconds, start, wanted)
            found.append(_merged(tasks[start:end]))
            left -= sum(seconds[start:end])
            start = end
            if start == len(tasks):
                break
    return tuple(found)


def _seconds(split: Split, rows_per_second: float) -> float:
    return split.rows * (1 / max(rows_per_second, 1.0) + SECONDS_PER_ROW) + max(split.size, 0) * SECONDS_PER_BYTE


def _fill(seconds: Sequence[float], start: int, wanted: float) -> int:
    """Where a task ends that begins at ``start`` and takes at most ``wanted`` seconds, but is not empty."""
    end, taken = start + 1, seconds[start]
    while end < len(seconds) and taken + seconds[end] <= wanted:
        taken += seconds[end]
        end += 1
    return end


def _merged(tasks: Sequence[tuple[Split, ...]]) -> tuple[Split, ...]:
    """The tasks' splits; two pieces of one file that follow each other become one."""
    splits: list[Split] = []
    for split in (split for task in tasks for split in task):
        last = splits[-1] if splits else None
        if last is not None and last.path == split.path and last.row_groups and split.row_groups:
            groups = last.row_groups + split.row_groups
            splits[-1] = replace(last, rows=last.rows + split.rows, row_groups=groups, size=last.size + split.size)
        else:
            splits.append(split)
    return tuple(splits)


def _order(file: SourceFile) -> tuple[tuple[tuple[str, bool, str], ...], str]:
    return tuple((name, value is None, value or "") for name, value in file.partition), file.path


def _bytes_per_row(files: Sequence[SourceFile]) -> float:
    known = [file for file in files if file.rows > 0]
    rows = sum(file.rows for file in known)
    return max(sum(file.size for file in known) / rows, 1e-9) if rows else ASSUMED_BYTES_PER_ROW


def _weight(file: SourceFile, bytes_per_row: float) -> int:
    return max(1, file.rows if file.rows >= 0 else round(file.size / bytes_per_row))


def _task_count(weight: int, cores: int, rows_per_task: int) -> int:
    """At least one task a core; above that whole waves, so that no core idles in the last one."""
    wanted = -(-weight // rows_per_task)
    return cores * max(1, -(-wanted // cores))


def _cut(file: SourceFile, weight: int, target: int) -> list[_Piece]:
    """The file whole, or its segments where it is more than ``target`` rows."""
    if weight <= target or not file.row_groups:
        return [_Piece(weight, file, None)]
    return [
        _Piece(max(1, sum(file.row_groups[index] for index in segment)), file, segment)
        for segment in segments(file.row_groups)
    ]


def _smallest_capacity(weights: Sequence[int], count: int) -> int:
    """The smallest capacity with which contiguous tasks number at most ``count``; by bisection."""
    low, high = max(weights), sum(weights)
    while low < high:
        middle = (low + high) // 2
        if _tasks_needed(weights, middle) <= count:
            high = middle
        else:
            low = middle + 1
    return low


def _tasks_needed(weights: Sequence[int], capacity: int) -> int:
    tasks, used = 1, 0
    for weight in weights:
        if used + weight > capacity:
            tasks, used = tasks + 1, 0
        used += weight
    return tasks


def _packed(pieces: Sequence[_Piece], capacity: int) -> tuple[tuple[Split, ...], ...]:
    tasks: list[tuple[Split, ...]] = []
    task: list[_Piece] = []
    used = 0
    for piece in pieces:
        if used + piece.weight > capacity:
            tasks.append(_splits(task))
            task, used = [], 0
        task.append(piece)
        used += piece.weight
    tasks.append(_splits(task))
    return tuple(tasks)


def _splits(task: Sequence[_Piece]) -> tuple[Split, ...]:
    """One split for each file of a task."""
    groups: dict[str, list[int]] = {}
    files: dict[str, SourceFile] = {}
    for piece in task:
        files[piece.file.path] = piece.file
        groups.setdefault(piece.file.path, []).extend(piece.row_groups or ())
    return tuple(_split(file, tuple(groups[path]) or None) for path, file in files.items())


def _split(file: SourceFile, row_groups: tuple[int, ...] | None) -> Split:
    rows = file.rows if row_groups is None else sum(file.row_groups[index] for index in row_groups)
    total = sum(file.row_groups)
    size = file.size if row_groups is None or not total else file.size * rows // total
    return Split(file.path, rows, row_groups, file.partition, size, file.size, file.stamp)
