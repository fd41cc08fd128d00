"""Ray Data's ``map_batches`` with ONNX Runtime in as many actors as cores, written as Parquet."""

from __future__ import annotations

import logging
from typing import Any

from support import Clock, OnnxModel, main

BATCH_ROWS = 65_536
# Two actors of a whole core each would leave no core to the reading tasks, which then never start.
ACTOR_CORES = 0.5


def run(job: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Reads the needed columns alone, in Arrow batches."""
    with clock.session():
        import ray

        ray.init(num_cpus=job["cores"], include_dashboard=False, logging_level=logging.ERROR)
    import pyarrow as pa

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    kept = [job["key"], *job["partition_by"]]

    class Scorer:
        def __init__(self) -> None:
            self._model = OnnxModel(job)

        def __call__(self, batch: pa.Table) -> pa.Table:
            scores = pa.array(self._model.predict(batch.column), pa.float64())
            return batch.select(kept).append_column("prediction", scores)

    table = ray.data.read_parquet(job["files"], columns=[*kept, *job["features"]], partitioning=_hive(job))
    scored = table.map_batches(
        Scorer,
        batch_format="pyarrow",
        batch_size=BATCH_ROWS,
        compute=ray.data.ActorPoolStrategy(size=job["cores"]),
        num_cpus=ACTOR_CORES,
        zero_copy_batch=True,
    )
    scored.write_parquet(job["output"], partition_cols=job["partition_by"] or None)
    ray.shutdown()
    return {"actors": job["cores"], "actor_cores": ACTOR_CORES, "batch_size": BATCH_ROWS, "output": "parquet"}


def _hive(job: dict[str, Any]) -> Any:
    from ray.data.datasource.partitioning import Partitioning

    return Partitioning("hive", base_dir=job["input"]) if job["partition_by"] else None


if __name__ == "__main__":
    main(run)
