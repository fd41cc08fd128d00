"""Artifacts of converting engines, as a worker gets them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchscore.contracts import ModelFiles, PinnedModel
from batchscore.models.digest import digest_folder
from tests.factories.models import files_of


def converted(module: Any, model: PinnedModel, folder: Path) -> ModelFiles:
    """What a worker gets of a model that an engine's module converts into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    module.convert(model, folder)
    return dataclasses.replace(files_of(model), path=str(folder), digest=digest_folder(str(folder)))


def outputs_of(batch: pa.RecordBatch) -> np.ndarray:
    """The outputs as one array: a column, or columns or lists side by side."""
    columns = [np.array(column.to_pylist()) for column in batch.columns]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
