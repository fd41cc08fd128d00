"""The common notebook: ``mlflow.pyfunc.spark_udf`` on a DataFrame, written to Delta."""

from __future__ import annotations

import sys
from typing import Any

import spark_session
from support import Clock, main


def run(job: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Scores in the local environment, the fastest that ``spark_udf`` has, but where the command line names another."""
    manager = sys.argv[2] if len(sys.argv) > 2 else "local"  # noqa: PLR2004  # behind the job
    with clock.session():
        spark = spark_session.start(job)
    import mlflow.pyfunc
    from pyspark.sql import functions as sf

    mlflow.set_tracking_uri(job["tracking_uri"])
    score = mlflow.pyfunc.spark_udf(spark, job["model_uri"], result_type="double", env_manager=manager)
    kept = [job["key"], *job["partition_by"]]
    frame = spark_session.read(spark, job)
    spark_session.write(frame.select(*kept, score(sf.struct(*job["features"])).alias("prediction")), job)
    return {**spark_session.settings(job), "env_manager": manager}


if __name__ == "__main__":
    main(run)
