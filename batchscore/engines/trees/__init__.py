"""Ensembles of trees: read from any library, walked exactly, and where their decisions change."""

from batchscore.engines.trees.of_lightgbm import rewritten
from batchscore.engines.trees.read import Ensemble, read_ensemble, read_forest
from batchscore.engines.trees.thresholds import thresholds

__all__ = ["Ensemble", "read_ensemble", "read_forest", "rewritten", "thresholds"]
