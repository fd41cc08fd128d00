"""The SparkSession, with what users forget.

Nothing here imports Spark before a run needs it: planning, the local runner and ``--help`` start no JVM.
"""

from __future__ import annotations

from batchscore.session.conf import DELTA_EXTENSION, DELTA_PACKAGE, IVY_FOLDER, Use, cores, is_local, session_conf
from batchscore.session.failures import launch_error
from batchscore.session.java import java_problem
from batchscore.session.launch import start
from batchscore.session.s3_jars import S3_PACKAGES, with_s3

__all__ = [
    "DELTA_EXTENSION",
    "DELTA_PACKAGE",
    "IVY_FOLDER",
    "S3_PACKAGES",
    "Use",
    "cores",
    "is_local",
    "java_problem",
    "launch_error",
    "session_conf",
    "start",
    "with_s3",
]
