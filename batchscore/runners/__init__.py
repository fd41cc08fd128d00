"""Who calls the one worker function: Spark, or a pool of processes without a JVM."""

from __future__ import annotations

from batchscore.errors import SettingsError, nearest
from batchscore.runners.base import Runner
from batchscore.runners.local import LocalRunner, end_spares, start_ahead
from batchscore.runners.shipping import give_environment
from batchscore.runners.spark import SparkRunner
from batchscore.runners.warm import warming

__all__ = [
    "RUNNERS",
    "LocalRunner",
    "Runner",
    "SparkRunner",
    "end_spares",
    "give_environment",
    "runner_class",
    "start_ahead",
    "warming",
]

RUNNERS: dict[str, type[LocalRunner] | type[SparkRunner]] = {"local": LocalRunner, "spark": SparkRunner}


def runner_class(name: str) -> type[LocalRunner] | type[SparkRunner]:
    """The runner of a name.

    Raises:
        SettingsError: there is none of that name.

    >>> runner_class("local").__name__
    'LocalRunner'
    """
    if name not in RUNNERS:
        raise SettingsError("unknown runner", found=name, allowed=tuple(RUNNERS), near=nearest(name, RUNNERS))
    return RUNNERS[name]
