"""The settings of a job: what a settings file may hold, and how it is read, checked and shown without secrets."""

from batchscore.config.loading import load, parse_assignment, settings_file_of
from batchscore.config.model_name import split_model
from batchscore.config.redaction import redact, redacted
from batchscore.config.settings import (
    DriftSettings,
    InputSettings,
    JobConfig,
    ModelSettings,
    OutputSettings,
    ParitySettings,
    QuarantineSettings,
    RegistrySettings,
    ScoringSettings,
    SignatureEntry,
    SignatureSettings,
    SparkSettings,
    ValidationSettings,
)

__all__ = [
    "DriftSettings",
    "InputSettings",
    "JobConfig",
    "ModelSettings",
    "OutputSettings",
    "ParitySettings",
    "QuarantineSettings",
    "RegistrySettings",
    "ScoringSettings",
    "SignatureEntry",
    "SignatureSettings",
    "SparkSettings",
    "ValidationSettings",
    "load",
    "parse_assignment",
    "redact",
    "redacted",
    "settings_file_of",
    "split_model",
]
