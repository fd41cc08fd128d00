"""The common notebook: mlflow.pyfunc.spark_udf on a DataFrame, written to Delta.

The session is batchscore's own, so that both run on the same settings; Arrow batches are as large as
batchscore's (Spark's default of 10,000 rows was slower here).
"""

from __future__ import annotations

import sys

import mlflow.pyfunc
from pyspark.sql import functions as sf

from batchscore.session import start

MODEL = "models:/fraud_detection@champion"
ARROW_BATCH_ROWS = 65_536


def main(data: str, tracking_uri: str, output: str) -> None:
    """Scores ``data`` with the demo's model into the Delta table ``output``."""
    spark = start(
        "local[*]",
        {"spark.sql.execution.arrow.maxRecordsPerBatch": str(ARROW_BATCH_ROWS)},
        app_name="spark_udf",
        on_notice=lambda _: None,
    )
    mlflow.set_tracking_uri(tracking_uri)
    score = mlflow.pyfunc.spark_udf(spark, MODEL, result_type="double", env_manager="local")
    names = mlflow.models.get_model_info(MODEL).signature.inputs.input_names()
    frame = spark.read.parquet(data)
    scored = frame.select("transaction_id", "ds", score(sf.struct(*names)).alias("prediction"))
    scored.write.format("delta").partitionBy("ds").mode("overwrite").save(output)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
