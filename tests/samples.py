"""A scoring task and workers for it that score nothing: enough to see what a runner does with them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from batchscore.contracts import ModelFiles, ScoringTask, Split, StagedFile, TaskResult
from batchscore.errors import BadRowsError, UnavailableError

Group = tuple[Split, ...]


def scoring_task(model_path: str = "/nowhere", digest: str = "d" * 64, staging: str = "/nowhere") -> ScoringTask:
    model = ModelFiles(model_path, digest, "fraud", "7", ("python_function",), (), (), ())
    return ScoringTask(
        run_id="run-1",
        model=model,
        engine="pyfunc",
        batch_rows=1000,
        threads=1,
        source_uri="/nowhere",
        source_columns=(),
        predicate=None,
        bindings=(),
        columns=(),
        partition_by=(),
        keys=(),
        lineage=(),
        staging_uri=staging,
        file_rows=1000,
    )


def groups_of(*rows: int) -> list[Group]:
    return [
        (Split(path=f"f{number}", rows=count, row_groups=None, partition=(), size=1),)
        for number, count in enumerate(rows)
    ]


def result(name: str, rows: int) -> TaskResult:
    file = StagedFile(path=name, size=1, rows=rows, unit=(), stats=())
    return TaskResult((file,), rows, rows, (), 0.0, 0.0, 0.0, 0, os.getpid())


def count_rows(_: ScoringTask, group: Group) -> TaskResult:
    return result(group[0].path, sum(split.rows for split in group))


def first_is_slow(task: ScoringTask, group: Group) -> TaskResult:
    time.sleep(0.8 if group[0].path == "f0" else 0.0)
    return count_rows(task, group)


def bad_rows_in_second(task: ScoringTask, group: Group) -> TaskResult:
    note_call(task, group)
    if group[0].path == "f1":
        raise BadRowsError("3 rows cannot be cast", found="x" * 10, hint="mend them", detail=["id=1"])
    time.sleep(0.5)
    return count_rows(task, group)


def bug(_: ScoringTask, group: Group) -> TaskResult:
    return {}[group[0].path]


def killed(_: ScoringTask, group: Group) -> TaskResult:
    os.kill(os.getpid(), signal.SIGKILL)
    return result(group[0].path, 0)


def exits(_task: ScoringTask, _group: Group) -> TaskResult:
    sys.stderr.flush()
    os._exit(3)


def sleeps(task: ScoringTask, group: Group) -> TaskResult:
    note_call(task, group)
    time.sleep(60)
    return count_rows(task, group)


def talks(task: ScoringTask, group: Group) -> TaskResult:
    sys.stdout.write("printed by a model\n")
    sys.stdout.flush()
    warnings.warn("warned by a model", stacklevel=1)
    return count_rows(task, group)


def unavailable(task: ScoringTask, group: Group) -> TaskResult:
    note_call(task, group)
    raise UnavailableError("the bucket does not answer", hint="try again")


def note_call(task: ScoringTask, group: Group) -> None:
    """Leaves a file per call in the task's staging folder; its content is the process id."""
    name = f"{group[0].path}-{os.getpid()}-{time.monotonic_ns()}"
    Path(task.staging_uri, name).write_text(str(os.getpid()), encoding="utf-8")


def count_batches(_: ScoringTask, batches: Iterator[pa.RecordBatch]) -> TaskResult:
    return result("part", sum(batch.num_rows for batch in batches))


def refuse_batches(_: ScoringTask, batches: Iterator[pa.RecordBatch]) -> TaskResult:
    next(batches)
    raise BadRowsError("3 rows cannot be cast", detail=["id=1"])


def describe(task: ScoringTask, _group: Group, rows: int = 0) -> TaskResult:
    """What a worker sees of its machine, as JSON in the place of a file's name."""
    time.sleep(0.5)  # long enough that each executor gets a share
    folder = Path(task.model.path)
    files = {p.relative_to(folder).as_posix(): p.read_text("latin-1") for p in folder.rglob("*") if p.is_file()}
    seen = {
        "cwd": str(Path.cwd()),
        "package": sys.modules["batchscore.errors"].__file__,
        "path": sys.path,
        "model": str(folder.resolve()),
        "files": files,
        "rows": rows,
    }
    return result(json.dumps(seen), rows)


def describe_batches(task: ScoringTask, batches: Iterator[pa.RecordBatch]) -> TaskResult:
    return describe(task, (), sum(batch.num_rows for batch in batches))


def flaky(task: ScoringTask, _group: Group) -> TaskResult:
    """Storage does not answer the first time."""
    folder = Path(task.staging_uri)
    first = not list(folder.glob("flaky-*"))
    (folder / f"flaky-{time.monotonic_ns()}").touch()
    if first:
        raise UnavailableError("the bucket does not answer")
    return result('"second"', 1)
