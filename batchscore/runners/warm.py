"""Starts Spark's Python workers beside the session: a worker takes 2 s to start and to load what scoring needs."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from batchscore.contracts import ScoringTask
from batchscore.runners.shipping import give_environment, ship_model, ship_package, with_shipped_model

if TYPE_CHECKING:
    from pyspark import SparkContext

WARM_GROUP = "batchscore-start"
NOTHING: Mapping[str, str] = MappingProxyType({})

Load: TypeAlias = Callable[[ScoringTask], None]


def warming(
    module: str, load: Load | None = None, task: ScoringTask | None = None, environment: Mapping[str, str] = NOTHING
) -> Callable[[SparkContext], None]:
    """What :func:`batchscore.session.start` calls with its new context: every worker imports ``module``.

    Executors elsewhere get the package, and the model of a task, first. A failure shows later, where the workers are
    needed.

    Args:
        module: the worker function's module.
        load: what each worker calls then with ``task``, to load its model.
        task: the run's task, where it is known already.
        environment: variables that workers elsewhere need.
    """
    warm = functools.partial(_warm, module, load if task is not None else None, task)

    def begin(context: SparkContext) -> None:
        give_environment(context, environment)  # a worker with other variables would be started anew
        warm(context)

    return begin


def _warm(module: str, load: Load | None, task: ScoringTask | None, context: SparkContext) -> None:
    from pyspark import InheritableThread  # noqa: PLC0415  # light commands never load it

    master = str(context.master)
    archive = None
    if not (master == "local" or master.startswith("local[")):
        ship_package(context)
        if task is not None and task.loads_model:
            archive = ship_model(context, task.model.path, task.model.digest)

    def work() -> None:
        with contextlib.suppress(Exception):  # of any class; whoever needs the workers meets it again
            context.setJobGroup(WARM_GROUP, f"Python workers import {module}")
            slots = context.defaultParallelism
            ready = functools.partial(_ready, module, load, task, archive)
            context.parallelize(range(slots), slots).mapPartitions(ready).count()

    InheritableThread(target=work, name="warm-workers", daemon=True).start()


def _ready(
    module: str, load: Load | None, task: ScoringTask | None, archive: str | None, _: Iterator[int]
) -> Iterator[int]:
    importlib.import_module(module)
    if load is not None and task is not None:
        with contextlib.suppress(Exception):  # a model's code raises anything; its first task tells of it
            load(with_shipped_model(task, archive))
    yield 1
