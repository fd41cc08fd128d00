"""The limit: processes with pyarrow and an engine, no framework; and the floor: the same without a model.

``python -P limit.py job.json OUTPUT [--no-model]``: each process takes row groups from a common
list, reads the needed columns, scores, and writes key and score. No checks, no commit.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH_ROWS = 65_536
GROUPS_AT_ONCE = 4


def main(document: str, output: str, *flags: str) -> None:
    """Runs as many processes as the job has cores, and waits for them."""
    job = json.loads(Path(document).read_text(encoding="utf-8"))
    Path(output).mkdir(parents=True)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # else each process's BLAS spins on the other's core when it is imported
    context = multiprocessing.get_context("fork")
    position = context.Value("q", 0)
    processes = [
        context.Process(target=_work, args=(job, output, number, position, "--no-model" not in flags))
        for number in range(job["cores"])
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(1)
    settings = {"processes": job["cores"], "batch_rows": BATCH_ROWS, "engine": job["engine"], "output": "parquet"}
    sys.stdout.write(json.dumps({"session_seconds": 0.0, "settings": settings}) + "\n")


def _work(job: dict[str, Any], output: str, number: int, position: Any, with_model: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    score = _engine(job) if with_model else lambda batch: pa.nulls(batch.num_rows, pa.float64())
    schema = None
    writer = None
    for batch, values in _batches(job, position):
        arrays = [batch.column(job["key"]), *values, score(batch)]
        if writer is None:
            names = [job["key"], *job["partition_by"], "prediction"]
            schema = pa.schema([(name, array.type) for name, array in zip(names, arrays, strict=True)])
            writer = pq.ParquetWriter(Path(output) / f"part-{number}.parquet", schema)
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    if writer is not None:
        writer.close()


def _batches(job: dict[str, Any], position: Any) -> Iterator[tuple[Any, list[Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = [(path, index) for path in job["files"] for index in range(pq.read_metadata(path).num_row_groups)]
    while True:
        with position.get_lock():
            start = position.value
            position.value += GROUPS_AT_ONCE
        if start >= len(groups):
            return
        for path in dict.fromkeys(path for path, _ in groups[start : start + GROUPS_AT_ONCE]):
            wanted = [index for name, index in groups[start : start + GROUPS_AT_ONCE] if name == path]
            folder = Path(path).parent.name.partition("=")[2]
            with pq.ParquetFile(path, pre_buffer=True) as file:
                columns = [job["key"], *job["features"]]
                for batch in file.iter_batches(BATCH_ROWS, row_groups=wanted, columns=columns, use_threads=False):
                    yield batch, [pa.repeat(folder, batch.num_rows)] if job["partition_by"] else []


def _engine(job: dict[str, Any]) -> Any:
    from batchscore.engines.cache import loaded

    files = pickle.loads(Path(job["model_files"]).read_bytes())  # noqa: S301  # our own file
    engine = loaded(job["engine"], files, 1)
    return lambda batch: engine.score(batch.select(job["features"])).column(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
