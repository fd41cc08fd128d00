"""What runs in a Python worker: Arrow columns in, one Arrow column out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from batchscore.arrow.types import columns_of
from batchscore.contracts import ModelFiles, ModelInput, PinnedModel
from batchscore.engines.cache import loaded
from batchscore.plan.binding import bind
from batchscore.runners.shipping import with_shipped_files
from batchscore.score.core import model_inputs
from batchscore.udf.inputs import arrived, as_flat
from batchscore.udf.results import Conversion


@dataclass(frozen=True)
class ColumnScorer:
    """Pickled to the executors; a worker process loads the model once, whatever number of UDFs and tasks use it.

    Attributes:
        files: the model.
        engine: name of the engine.
        archive: name under which the model's files were sent, or None where executors share the driver's disk.
        result: what becomes of the outputs.
    """

    files: ModelFiles
    engine: str
    archive: str | None
    result: Conversion

    def score(self, *columns: pa.Array) -> pa.Array:
        """One value a row, of the Arrow type of the result."""
        batch, inputs = arrived(columns, self.files.inputs)
        table = columns_of(batch.schema)
        files = replace(with_shipped_files(self.files, self.archive), inputs=inputs)
        flat = as_flat(inputs, batch)
        rows = model_inputs(batch, table, bind(_pinned(files, flat), table), flat)
        with environment(dict(files.variables)):
            scored = loaded(self.engine, files, threads=1).score(rows)
        return self.result.convert(scored)


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables, and puts back what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _pinned(files: ModelFiles, inputs: tuple[ModelInput, ...]) -> PinnedModel:
    """What binding looks at: the name and the inputs."""
    return PinnedModel(
        requested=files.name,
        name=files.name,
        version=files.version,
        uri="",
        digest=files.digest,
        path=files.path,
        size_bytes=0,
        flavors=files.flavors,
        inputs=inputs,
        outputs=files.outputs,
    )
