"""What is scored in a comparison: a kind of model over a made-up table. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

ModelKind: TypeAlias = Literal["lightgbm", "xgboost", "pipeline", "mlp"]
Dtype: TypeAlias = Literal["float32", "float64"]

KEY = "id"
PARTITION = "day"


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes:
        name: as it is asked for and printed.
        model: kind of model; a ``pipeline`` has its own columns, text and nulls among them, instead of ``columns``.
        trees: trees of the model, 0 for a network.
        size: leaves of a tree (LightGBM, pipeline), its depth (XGBoost), or units of the first layer (MLP).
        dtype: type of the feature columns.
        columns: feature columns.
        rows: rows of the table.
        files: files it lies in.
        format: ``parquet`` or ``delta``.
        days: partitions of input and output; 0 for none.
    """

    name: str
    model: ModelKind
    trees: int
    size: int
    dtype: Dtype = "float32"
    columns: int = 30
    rows: int = 8_000_000
    files: int = 16
    format: Literal["parquet", "delta"] = "parquet"
    days: int = 0

    @property
    def model_name(self) -> str:
        """The registered model: cases that differ in their table alone share it."""
        return f"{self.model}_{self.trees}x{self.size}_{self.columns}_{self.dtype}"

    @property
    def data_name(self) -> str:
        """The table: cases that differ in their model alone share it."""
        layout = f"{self.rows}_{self.files}_{self.format}" + (f"_{self.days}d" if self.days else "")
        return f"pipeline_{layout}" if self.model == "pipeline" else f"{self.dtype}_{self.columns}_{layout}"

    def of(self, rows: int) -> Case:
        """The same with another number of rows."""
        return replace(self, rows=rows, files=min(self.files, max(1, rows // 1_000)))


HEADLINE = (
    Case("lightgbm-50x31", "lightgbm", 50, 31),
    Case("lightgbm-200x63", "lightgbm", 200, 63),
    Case("xgboost-200x6", "xgboost", 200, 6),
    Case("pipeline", "pipeline", 60, 31, days=14),
    Case("mlp", "mlp", 0, 128),
)

_SMALL = HEADLINE[0]
FULL = (
    *HEADLINE,
    replace(_SMALL, name="lightgbm-50x31-float64", dtype="float64"),
    replace(_SMALL, name="lightgbm-50x31-300-columns", columns=300, rows=1_000_000),
    replace(_SMALL, name="lightgbm-50x31-one-file", files=1),
    replace(_SMALL, name="lightgbm-50x31-4-GB-file", files=1, rows=32_000_000),
    replace(_SMALL, name="lightgbm-50x31-2000-files", files=2_000),
    replace(_SMALL, name="lightgbm-50x31-delta", format="delta"),
    replace(_SMALL, name="lightgbm-50x31-partitioned", days=14),
    replace(_SMALL, name="lightgbm-50x31-100k", rows=100_000),
    replace(_SMALL, name="lightgbm-50x31-1M", rows=1_000_000),
    replace(_SMALL, name="lightgbm-50x31-3M", rows=3_000_000),
    replace(_SMALL, name="lightgbm-50x31-30M", rows=30_000_000),
)

CASES = {case.name: case for case in FULL}
