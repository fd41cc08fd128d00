"""Names and bounds that batchscore adds to what it writes."""

from __future__ import annotations

VERSION = "0.1.0"  # of batchscore; the build reads it from here

MODEL_COLUMN = "_model"
VERSION_COLUMN = "_model_version"
RUN_COLUMN = "_run_id"
TIME_COLUMN = "_scored_at"
LINEAGE_COLUMNS = (MODEL_COLUMN, VERSION_COLUMN, RUN_COLUMN, TIME_COLUMN)
PREDICTION = "prediction"
METADATA_FOLDER = "_batchscore"
RUNS_FOLDER = "_runs"  # of a Parquet table: the folder of each run's data files
RUN_KEY = "batchscore.run_id"  # in the metadata of the commit that publishes a run
MAX_RUN_ID_CHARS = 32  # Delta truncates string statistics there; a whole run id proves min = max
FENCED_KEY = "batchscore.fenced"  # in the metadata of the commit that fences a run
FENCED_BY_KEY = "batchscore.fenced_by"
