"""The worker: scores one group of splits, or one iterator of batches, into staged files."""

from __future__ import annotations

import functools
import os
import resource
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.membership import KnownRows
from batchscore.arrow.splits import read_split
from batchscore.arrow.types import to_arrow
from batchscore.arrow.values import array_of
from batchscore.contracts import RUN_COLUMN, BadRow, ReasonCount, Replay, ScoringTask, Split, TaskResult, merged
from batchscore.engines.cache import loaded
from batchscore.engines.given import GivenEngine, behind
from batchscore.engines.isolation import Isolating
from batchscore.errors import MAX_ITEMS, UnavailableError
from batchscore.redaction import learn_environment
from batchscore.score.core import coded_columns, score_batch
from batchscore.score.quarantine import samples
from batchscore.score.writer import QuarantineWriter, StagedWriter

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

P = ParamSpec("P")
T = TypeVar("T")


def run_splits_task(task: ScoringTask, splits: tuple[Split, ...]) -> TaskResult:
    """Reads ``splits``, scores their rows and stages the predictions.

    Raises:
        InputError: a file is damaged, vanished, or changed since the plan.
        ModelError: the model raised or returned something else than its signature says.
    """
    return _run(task, functools.partial(_split_batches, task, splits))


def run_batches_task(task: ScoringTask, batches: Iterable[pa.RecordBatch]) -> TaskResult:
    """Scores batches that Spark hands over (columns: ``task.source_columns``) and stages the predictions."""
    return _run(task, lambda _coded, seen: _sliced(batches, task.batch_rows, seen))


def in_spark(frame: DataFrame, task: ScoringTask) -> tuple[DataFrame, ScoringTask]:
    """What :func:`run_batches_task` gets where Spark itself scores: each row with its scores, and the task for that.

    Raises:
        ModelError: the pipeline cannot be loaded, or does not take the frame's columns.
    """
    from batchscore.engines.sparkml import SparkMLEngine  # noqa: PLC0415  # the driver's alone

    engine = loaded(task.engine, task.model, task.threads)
    if not isinstance(engine, SparkMLEngine):
        raise TypeError(f"engine {task.engine} does not score in Spark")
    return engine.scored_frame(frame, task), behind(task)


def load_ahead(task: ScoringTask) -> None:
    """Loads what the first task of this process would wait for: the model."""
    _pin_threads(task.threads)
    if task.loads_model:
        loaded(task.engine, task.model, task.threads)


def _split_batches(
    task: ScoringTask, splits: tuple[Split, ...], coded: Collection[str], seen: _Seen
) -> Iterator[pa.RecordBatch]:
    for split in splits:
        yield from read_split(
            split,
            task.source_uri,
            task.source_columns,
            task.predicate,
            task.batch_rows,
            coded=coded,
            on_rows=seen.add,
        )


def _sliced(batches: Iterable[pa.RecordBatch], rows: int, seen: _Seen) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        seen.add(batch.num_rows)  # a replay leaves most of them out
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _run(task: ScoringTask, read: Callable[[Collection[str], _Seen], Iterator[pa.RecordBatch]]) -> TaskResult:
    learn_environment(os.environ)  # what the model raises may tell of it, and goes to the quarantine
    _pin_threads(task.threads)
    engine = loaded(task.engine, task.model, task.threads) if task.loads_model else GivenEngine(task.model)
    isolating = Isolating(engine, task.max_quarantined)
    seen = _Seen()
    batches = read(coded_columns(task, engine), seen)
    writer, quarantine = StagedWriter(task), QuarantineWriter(task)
    clock = _Clock()
    rows_scored = rows_staged = 0
    counts: list[ReasonCount] = []
    bad_rows: list[BadRow] = []
    try:
        while (batch := clock.timed("read", next, batches, None)) is not None:
            if task.replay is not None:
                batch = batch.filter(known_rows(task.replay).among(batch))  # what is left of it
            scored = clock.timed("score", score_batch, batch, task, isolating, with_lineage=False)
            clock.timed("write", writer.write, scored.table)
            for rows in scored.left_out:
                clock.timed("write", quarantine.write, rows)
            rows_scored += batch.num_rows
            rows_staged += scored.table.num_rows
            if scored.counts:
                counts.extend(scored.counts)
                bad_rows.extend(samples(scored.left_out, task, MAX_ITEMS - len(bad_rows)))
        files = clock.timed("write", writer.finish)
        left_out = clock.timed("write", quarantine.finish)
    except BaseException:
        writer.discard()
        quarantine.discard()
        raise
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux reports KiB
    rows_read = max(seen.rows, rows_scored)
    return TaskResult(
        files=files,
        rows_read=rows_read,
        rows_staged=rows_staged,
        bad_rows=tuple(bad_rows),
        read_seconds=clock.seconds["read"],
        score_seconds=clock.seconds["score"],
        write_seconds=clock.seconds["write"],
        peak_bytes=peak_bytes,
        pid=os.getpid(),
        rows_filtered=rows_read - rows_scored,
        quarantined=merged(counts),
        quarantine=left_out,
    )


@functools.lru_cache(maxsize=1)
def known_rows(replay: Replay) -> KnownRows:
    """The rows that a replay takes, from the quarantine.

    Raises:
        UnavailableError: a file of the quarantine cannot be read.
    """
    filesystem, root = open_filesystem(replay.uri)
    names = [column.name for column in replay.keys]
    parts = []
    try:
        for path in replay.files:
            with filesystem.open_input_file(f"{root}/{path}") as file:
                rows = pq.ParquetFile(file).read(columns=[*names, RUN_COLUMN])
            of_run = pc.equal(rows.column(RUN_COLUMN), array_of([replay.run_id], pa.string())[0])
            kept = rows.filter(of_run)
            parts.append(pa.table([kept.column(c.name).cast(to_arrow(c.type)) for c in replay.keys], names=names))
    except (OSError, pa.ArrowInvalid) as error:
        raise UnavailableError(f"the quarantine {replay.uri} cannot be read", found=error, hint="try again") from error
    return KnownRows(pa.concat_tables(parts), names)


class _Seen:
    """Rows that were read, also those that the run's condition leaves out."""

    def __init__(self) -> None:
        self.rows = 0

    def add(self, rows: int) -> None:
        self.rows += rows


def _pin_threads(threads: int) -> None:
    # Each task has its own core; a library that opens a pool the size of the host slows all of them down.
    # Libraries read this when they are first loaded, which the engine does after this line.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    pa.set_cpu_count(threads)


class _Clock:
    """Seconds spent in each part of a task."""

    def __init__(self) -> None:
        self.seconds = {"read": 0.0, "score": 0.0, "write": 0.0}

    def timed(self, part: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        started = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            self.seconds[part] += time.perf_counter() - started
