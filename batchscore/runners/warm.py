"""Starts Spark's Python workers beside the session: a worker takes 2 s to start and to import what scoring needs."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from batchscore.runners.shipping import ship_package

if TYPE_CHECKING:
    from pyspark import SparkContext

WARM_GROUP = "batchscore-start"


def warming(module: str) -> Callable[[SparkContext], None]:
    """What :func:`batchscore.session.start` calls with its new context: every worker imports ``module``.

    Executors elsewhere get the package first. A failure shows later, where the workers are needed.
    """
    return functools.partial(_warm, module)


def _warm(module: str, context: SparkContext) -> None:
    from pyspark import InheritableThread  # noqa: PLC0415  # light commands never load it

    master = str(context.master)
    if not (master == "local" or master.startswith("local[")):
        ship_package(context)

    def work() -> None:
        with contextlib.suppress(Exception):  # of any class; whoever needs the workers meets it again
            context.setJobGroup(WARM_GROUP, f"Python workers import {module}")
            slots = context.defaultParallelism
            context.parallelize(range(slots), slots).mapPartitions(functools.partial(_imported, module)).count()

    InheritableThread(target=work, name="warm-workers", daemon=True).start()


def _imported(module: str, _: Iterator[int]) -> Iterator[int]:
    importlib.import_module(module)
    yield 1
