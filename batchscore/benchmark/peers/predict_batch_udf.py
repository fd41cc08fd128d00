"""Spark's ``predict_batch_udf`` with ONNX Runtime, written to Delta."""

from __future__ import annotations

import inspect
from typing import Any

import spark_session
from support import Clock, OnnxModel, main

BATCH_ROWS = 16_384


def run(job: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Numbers travel as one array column, which Spark hands over as a matrix; text as columns of their own."""
    with clock.session():
        spark = spark_session.start(job)
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql import functions as sf
    from pyspark.sql.types import DoubleType

    names = job["features"]
    numbers_alone = len(job["feeds"]) == 1 and not any(job["feeds"][0]["vocabularies"])

    def of_matrix() -> Any:
        model = OnnxModel(job)
        dtype = job["feeds"][0]["dtype"]
        return lambda values: model.predict_matrix(values.astype(dtype, copy=False))

    def of_columns() -> Any:
        import pyarrow as pa

        model = OnnxModel(job)

        def predict(*values: Any) -> Any:
            columns = dict(zip(names, values, strict=True))
            return model.predict(lambda name: pa.array(columns[name], from_pandas=True))

        # Spark counts the parameters to know how many columns it may pass one by one.
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
        predict.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
        return predict

    frame = spark_session.read(spark, job)
    if numbers_alone:
        score = predict_batch_udf(
            of_matrix, return_type=DoubleType(), batch_size=BATCH_ROWS, input_tensor_shapes=[[len(names)]]
        )
        prediction = score(sf.array(*job["feeds"][0]["columns"]))
    else:
        score = predict_batch_udf(of_columns, return_type=DoubleType(), batch_size=BATCH_ROWS)
        prediction = score(*names)
    kept = [job["key"], *job["partition_by"]]
    spark_session.write(frame.select(*kept, prediction.alias("prediction")), job)
    return {**spark_session.settings(job), "batch_size": BATCH_ROWS, "threads": 1}


if __name__ == "__main__":
    main(run)
