"""The session of the peers on Spark: the same settings as batchscore's own, with Delta for the write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Spark's default of 10,000 rows was slower here.
ARROW_BATCH_ROWS = 65_536


def start(job: dict[str, Any]) -> SparkSession:
    """A session on as many cores as every candidate gets."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{job['cores']}]")
    for key, value in {**job["spark_conf"], "spark.sql.execution.arrow.maxRecordsPerBatch": ARROW_BATCH_ROWS}.items():
        builder = builder.config(key, str(value))
    return builder.getOrCreate()


def read(spark: SparkSession, job: dict[str, Any]) -> Any:
    """The table to score."""
    return spark.read.format(job["format"]).load(job["input"])


def write(frame: Any, job: dict[str, Any]) -> None:
    """The prediction table, as Delta."""
    writer = frame.write.format("delta").mode("overwrite")
    if job["partition_by"]:
        writer = writer.partitionBy(*job["partition_by"])
    writer.save(job["output"])


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """What was chosen."""
    return {"master": f"local[{job['cores']}]", "arrow.maxRecordsPerBatch": ARROW_BATCH_ROWS, "output": "delta"}
