"""Scores that come with the rows: what a worker does where somebody else has scored already."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from batchscore.contracts import Binding, Column, ModelFiles, ModelInput, ScoringTask
from batchscore.engines.arrays import batch_of
from batchscore.schema import FLOATS, INTEGERS

PREFIX = "__batchscore_"


class GivenEngine:
    """Stands for the engine of such a task.

    Args:
        files: the model as :func:`behind` gives it.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """The outputs, which are the last inputs; see :class:`batchscore.engines.base.Engine`."""
        count = len(self._files.outputs)
        label = f"{self._files.name} {self._files.version}".strip()
        return batch_of(inputs.columns[-count:], self._files.outputs, inputs.num_rows, label)


def behind(task: ScoringTask) -> ScoringTask:
    """The task of a worker that gets each row with its scores: they are the last columns, and the last inputs.

    The model's own inputs stay: a row of which one cannot be cast is refused by the same rules as everywhere.
    """
    columns = carried(task.model)
    inputs = (*task.model.inputs, *(ModelInput(name, kind) for name, kind in columns))
    bindings = tuple(Binding(name, name, kind, kind, "same", null_rows_bad=False) for name, kind in columns)
    return replace(
        task,
        model=replace(task.model, inputs=inputs),
        bindings=(*task.bindings, *bindings),
        source_columns=(*task.source_columns, *(Column(name, kind) for name, kind in columns)),
        loads_model=False,
    )


def carried(files: ModelFiles) -> list[tuple[str, str]]:
    """The column, and its type, in which each output travels: numbers as doubles, whatever the signature says."""
    numbers = (*INTEGERS, *FLOATS, "boolean")
    return [
        (f"{PREFIX}output_{index}", "double" if output.type in numbers else output.type)
        for index, output in enumerate(files.outputs)
    ]
