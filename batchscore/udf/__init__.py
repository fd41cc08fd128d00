"""A user-defined function for people's own Spark code and SQL."""

from batchscore.udf.define import spark_udf

__all__ = ["spark_udf"]
