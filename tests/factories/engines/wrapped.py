"""The compiled engine with a fault that an environment variable names; importable by the processes that tests start."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.engines import compiled
from batchscore.engines.compiled import convert, supports, versions  # noqa: F401  # an engine's functions

FAULT = "WRAPPED_ENGINE_FAULT"


class Wrapped:
    def __init__(self, engine):
        self._engine = engine

    def score(self, inputs):
        scored = self._engine.score(inputs)
        fault = os.environ.get(FAULT, "")
        if fault == "slow":
            time.sleep(inputs.num_rows / 5_000)
        if fault == "wrong":
            moved = pc.add(scored.column(0), 1e-3)
            return pa.RecordBatch.from_arrays([moved], schema=scored.schema)
        return scored


def load(files, threads):
    return Wrapped(compiled.load(files, threads))
