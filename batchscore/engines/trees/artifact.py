"""The files that workers load: the forest, and all else about the model as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscore.engines import features
from batchscore.engines.trees import scores
from batchscore.engines.trees.forest import load_forest
from batchscore.engines.trees.read import Ensemble
from batchscore.errors import ModelError

FOREST = "forest.npz"
DESCRIPTION = "trees.json"
FORMAT = 2


def write(ensemble: Ensemble, folder: Path, **facts: Any) -> None:  # noqa: ANN401  # what an engine adds, as JSON
    """Writes an ensemble, and an engine's own facts beside it, into a folder."""
    ensemble.forest.save(folder / FOREST)
    described = {
        "format": FORMAT,
        "features": ensemble.features.as_json(),
        "scores": ensemble.scores.as_json(),
        **facts,
    }
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[Ensemble, Mapping[str, Any]]:
    """What :func:`write` wrote: the ensemble and the engine's facts.

    Raises:
        ModelError: the files are damaged, or of another version of batchscore.
    """
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ModelError(
                "the converted model is of another version of batchscore",
                found=f"format {found['format']}",
                allowed=(f"format {FORMAT}",),
            )
        described = features.from_json(found["features"]), scores.from_json(found["scores"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError("the converted model is damaged or of another version", found=error) from error
    return Ensemble(described[0], load_forest(folder / FOREST), described[1]), found
