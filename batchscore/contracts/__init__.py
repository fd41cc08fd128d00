"""The frozen values that pass between stages.

No third-party object is in here: paths are URI strings, types are the names of :mod:`batchscore.schema`, predicates
are trees of the classes in :mod:`batchscore.contracts.columns`. Everything pickles and is comparable; what goes into
a manifest is turned into JSON by :mod:`batchscore.record`.
"""

from __future__ import annotations

from batchscore.contracts.columns import (
    And,
    Column,
    Compare,
    Constant,
    IsIn,
    IsNull,
    Not,
    Or,
    Predicate,
    Schema,
    UnitValues,
    predicate_columns,
)
from batchscore.contracts.models import ModelInput, ModelOutput, ModelParam, PinnedModel
from batchscore.contracts.names import (
    LINEAGE_COLUMNS,
    MAX_RUN_ID_CHARS,
    METADATA_FOLDER,
    MODEL_COLUMN,
    PREDICTION,
    RUN_COLUMN,
    TIME_COLUMN,
    VERSION,
    VERSION_COLUMN,
)
from batchscore.contracts.plans import (
    Binding,
    Mode,
    ModelFiles,
    OutputColumn,
    PlannedUnit,
    Route,
    RunOptions,
    ScoringPlan,
    ScoringTask,
    UnitAction,
)
from batchscore.contracts.proof import Artifact, Certificate, Measurement, ParityVerdict
from batchscore.contracts.results import (
    BadRow,
    Check,
    ColumnStats,
    Manifest,
    Receipt,
    RunRecord,
    RunState,
    StagedFile,
    StagedOutput,
    TaskResult,
    Verdict,
)
from batchscore.contracts.sources import PinnedSource, Restriction, SourceFile, Split
from batchscore.contracts.targets import ManifestHead, ManifestUnit, TargetState, UnitState

__all__ = [
    "LINEAGE_COLUMNS",
    "MAX_RUN_ID_CHARS",
    "METADATA_FOLDER",
    "MODEL_COLUMN",
    "PREDICTION",
    "RUN_COLUMN",
    "TIME_COLUMN",
    "VERSION",
    "VERSION_COLUMN",
    "And",
    "Artifact",
    "BadRow",
    "Binding",
    "Certificate",
    "Check",
    "Column",
    "ColumnStats",
    "Compare",
    "Constant",
    "IsIn",
    "IsNull",
    "Manifest",
    "ManifestHead",
    "ManifestUnit",
    "Measurement",
    "Mode",
    "ModelFiles",
    "ModelInput",
    "ModelOutput",
    "ModelParam",
    "Not",
    "Or",
    "OutputColumn",
    "ParityVerdict",
    "PinnedModel",
    "PinnedSource",
    "PlannedUnit",
    "Predicate",
    "Receipt",
    "Restriction",
    "Route",
    "RunOptions",
    "RunRecord",
    "RunState",
    "Schema",
    "ScoringPlan",
    "ScoringTask",
    "SourceFile",
    "Split",
    "StagedFile",
    "StagedOutput",
    "TargetState",
    "TaskResult",
    "UnitAction",
    "UnitState",
    "UnitValues",
    "Verdict",
    "predicate_columns",
]
