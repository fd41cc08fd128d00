"""Daft with a batch UDF, on ONNX Runtime or on a library compiled by tl2cgen; written as Parquet."""

from __future__ import annotations

import sys
from typing import Any

from support import Clock, OnnxModel, main, matrix


def run(job: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Daft's native runner, one thread of the model for each worker that Daft starts."""
    with clock.session():
        import daft

        daft.set_runner_native()
    import pyarrow as pa

    engine = sys.argv[2]
    if engine == "tl2cgen" and job["tl2cgen"] is None:
        raise SystemExit("tl2cgen compiles trees of LightGBM and XGBoost alone, or is not installed")
    names = job["features"]

    @daft.cls(max_concurrency=job["cores"])
    class Scorer:
        def __init__(self) -> None:
            self._predict = _onnx(job) if engine == "onnx" else _tl2cgen(job)

        @daft.method.batch(return_dtype=daft.DataType.float64())
        def score(self, *columns: daft.Series) -> daft.Series:
            arrays = dict(zip(names, (column.to_arrow() for column in columns), strict=True))
            return daft.Series.from_arrow(pa.array(self._predict(arrays.__getitem__), pa.float64()))

    scorer = Scorer()
    kept = [job["key"], *job["partition_by"]]
    frame = daft.read_parquet(job["files"], hive_partitioning=bool(job["partition_by"]))
    scored = frame.select(*kept, scorer.score(*(daft.col(name) for name in names)).alias("prediction"))
    scored.write_parquet(job["output"], partition_cols=job["partition_by"] or None)
    return {"engine": engine, "max_concurrency": job["cores"], "batch": "Daft's own morsels", "output": "parquet"}


def _onnx(job: dict[str, Any]) -> Any:
    return OnnxModel(job).predict


def _tl2cgen(job: dict[str, Any]) -> Any:
    import tl2cgen

    predictor = tl2cgen.Predictor(job["tl2cgen"], nthread=1)
    feed = {**job["feeds"][0], "dtype": job["dtype"]}
    return lambda column: predictor.predict(tl2cgen.DMatrix(matrix(feed, column), dtype=job["dtype"])).reshape(-1)


if __name__ == "__main__":
    main(run)
