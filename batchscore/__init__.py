"""A registered MLflow model and a table go in; a validated, versioned prediction table comes out, exactly once.

Importing this package imports nothing heavy; the names below are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscore.contracts import VERSION

if TYPE_CHECKING:
    from batchscore.predictions import read_predictions
    from batchscore.udf import spark_udf

__version__ = VERSION
__all__ = ["__version__", "read_predictions", "spark_udf"]


def __getattr__(name: str) -> object:
    """Loads ``read_predictions`` and ``spark_udf`` when they are first asked for."""
    if name == "spark_udf":
        from batchscore.udf import spark_udf  # noqa: PLC0415  # pyspark and mlflow load only when asked for

        return spark_udf
    if name == "read_predictions":
        from batchscore.predictions import read_predictions  # noqa: PLC0415  # pyarrow and delta-rs, too

        return read_predictions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
