"""A Spark ML pipeline scored by its own transform, where the rows are: in Spark.

MLflow's wrapper makes a pandas frame a DataFrame again, transforms it, and collects the predictions; in a task of Spark
it starts a second Spark for that. Here the table's DataFrame goes through the pipeline once, each row beside its keys.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchscore.contracts import Binding, ModelFiles, PinnedModel, ScoringTask
from batchscore.engines.arrays import batch_of, empty_batch
from batchscore.engines.embedded import main_with_a_file
from batchscore.engines.given import PREFIX, carried
from batchscore.errors import ModelError, SetupError, listed
from batchscore.models.mlmodel import read_mlmodel
from batchscore.schema import FLOATS, element_of, quoted, spark_type

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame

FLAVOR = "spark"
PREDICTION = "prediction"  # the column that MLflow's wrapper returns
ROW = f"{PREFIX}row"
CONNECT = "pyspark.ml.connect"
# What stands in for a value that the model's type cannot hold: its row is refused behind the pipeline, with its keys.
FILLERS = {"string": "''", "boolean": "false", "binary": "X''", "timestamp_ntz": "TIMESTAMP_NTZ '1970-01-01 00:00:00'"}


class SparkMLEngine:
    """A fitted pipeline in the driver's Spark session.

    Args:
        pipeline: ``pyspark.ml.PipelineModel``, or another transformer.
        files: the model.
    """

    def __init__(self, pipeline: Any, files: ModelFiles) -> None:  # noqa: ANN401  # pyspark's classes have no types
        self._pipeline = pipeline
        self._files = files
        self._label = f"{files.name} {files.version}".strip()
        self._vectors = _vector_inputs(pipeline, files)

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        """Scores a batch through Spark and back, as proofs do; see :class:`batchscore.engines.base.Engine`."""
        from pyspark.sql import functions as F  # noqa: N812, PLC0415  # there is a session, so it is imported

        if inputs.num_rows == 0:
            return empty_batch(self._files.outputs)
        rows = pa.Table.from_batches([inputs]).append_column(ROW, pa.array(range(inputs.num_rows), pa.int64()))
        frame = _session().createDataFrame(rows)
        columns = {item.name: _as_in_pandas(F.col(quoted(item.name)), item.type) for item in self._files.inputs}
        found = self._transformed(frame, [ROW], columns).toArrow().sort_by(ROW)
        outputs = [found.column(name).combine_chunks() for name, _ in carried(self._files)]
        return batch_of(outputs, self._files.outputs, inputs.num_rows, self._label)

    def scored_frame(self, frame: DataFrame, task: ScoringTask) -> DataFrame:
        """``frame`` with the outputs behind its own columns, for the task of :func:`batchscore.engines.given.behind`.

        Args:
            frame: ``task.source_columns``.
            task: the run's task.

        Raises:
            ModelError: the pipeline does not take the model's inputs, or gives no prediction.
        """
        bound = {binding.input: binding for binding in task.bindings}
        columns = {item.name: _cast(bound[item.name]) for item in task.model.inputs}
        return self._transformed(frame, [column.name for column in task.source_columns], columns)

    def _transformed(self, frame: DataFrame, passing: list[str], inputs: dict[str, SparkColumn]) -> DataFrame:
        """The columns that pass by, hidden from the pipeline's own names meanwhile, and the outputs."""
        from pyspark.errors import AnalysisException, IllegalArgumentException  # noqa: PLC0415  # as above
        from pyspark.ml.functions import array_to_vector, vector_to_array  # noqa: PLC0415
        from pyspark.ml.linalg import VectorUDT  # noqa: PLC0415
        from pyspark.sql import functions as F  # noqa: N812, PLC0415

        hidden = [F.col(quoted(name)).alias(f"{PREFIX}{index}") for index, name in enumerate(passing)]
        given = [
            (array_to_vector(column) if name in self._vectors else column).alias(name)
            for name, column in inputs.items()
        ]
        try:
            found = self._pipeline.transform(frame.select(*hidden, *given))
        except (AnalysisException, IllegalArgumentException) as error:
            text = str(error).partition("\n")[0]
            raise ModelError(f"the pipeline of model {self._label} does not take these inputs", found=text) from error
        name = _prediction(self._pipeline, found.columns)
        if name is None:
            raise ModelError(
                f"the pipeline of model {self._label} gives no column {PREDICTION}", found=listed(found.columns)
            )
        is_vector = isinstance(found.schema[name].dataType, VectorUDT)
        value = vector_to_array(F.col(quoted(name))) if is_vector else F.col(quoted(name))
        shown = [F.col(f"{PREFIX}{index}").alias(column) for index, column in enumerate(passing)]
        outputs = [value.cast(spark_type(kind)).alias(column) for column, kind in carried(self._files)]
        scored: DataFrame = found.select(*shown, *outputs)
        return scored


def load(files: ModelFiles, threads: int) -> SparkMLEngine:
    """Loads the pipeline into the running session; Spark's tasks need no threads of their own.

    Raises:
        SetupError: there is no session.
    """
    del threads
    spark = _session()
    master = str(spark.sparkContext.master)
    if master == "local" or master.startswith("local["):
        from pyspark.ml import PipelineModel  # noqa: PLC0415  # there is a session, so it is imported

        folder = Path(files.path, str(_configuration(files)["model_data"])).absolute()
        return SparkMLEngine(PipelineModel.load(folder.as_uri()), files)
    import mlflow.spark  # noqa: PLC0415  # seconds; it copies the files to where executors can read them

    import_connect()
    return SparkMLEngine(mlflow.spark.load_model(str(Path(files.path).absolute())), files)


def import_connect() -> None:
    """Imports ``pyspark.ml.connect``, which MLflow looks at for every pipeline, where that is safe.

    Where its own dependencies are missing, later imports fail at once, as MLflow expects, instead of asking again.
    """
    try:
        with main_with_a_file():
            importlib.import_module(CONNECT)
    except ImportError:
        sys.modules[CONNECT] = None  # type: ignore[assignment]  # Python's own way to say so


def supports(model: PinnedModel) -> str | None:
    """Why Spark's own transform cannot score the model, or None."""
    if FLAVOR not in model.flavors:
        return f"its flavors are {listed(model.flavors)}; a Spark ML pipeline has {FLAVOR}"
    if model.params:
        return f"it takes parameters ({listed([param.name for param in model.params])}), which only pyfunc passes on"
    if len(model.outputs) != 1:
        return f"it declares {len(model.outputs)} outputs; a pipeline gives {PREDICTION}"
    connected = str(_configuration(ModelFiles.of(model)).get("model_class") or "").startswith(f"{CONNECT}.")
    return "it is a model of Spark Connect, which works on pandas frames" if connected else None


def _session() -> Any:  # noqa: ANN401  # pyspark is imported only where a session runs
    from pyspark.sql import SparkSession  # noqa: PLC0415  # see above

    spark = SparkSession.getActiveSession()
    if spark is None:
        raise SetupError("a Spark ML pipeline needs a running Spark session", hint="use --runner spark")
    return spark


def _configuration(files: ModelFiles) -> dict[str, Any]:
    flavors: dict[str, Any] = read_mlmodel(Path(files.path)).get("flavors", {})
    return dict(flavors.get(FLAVOR, {}))


def _prediction(pipeline: Any, names: list[str]) -> str | None:  # noqa: ANN401
    """The column that MLflow's wrapper returns: ``prediction``, or what a transformer at the end gives."""
    if PREDICTION in names:
        return PREDICTION
    last = pipeline.stages[-1] if getattr(pipeline, "stages", None) else pipeline
    if last.hasParam("outputCol"):
        name = str(last.getOrDefault("outputCol"))
        return name if name in names else None
    return None


def _vector_inputs(pipeline: Any, files: ModelFiles) -> set[str]:  # noqa: ANN401
    """The inputs of arrays that the pipeline takes as vectors: those that the signature says, and a features column."""
    declared = {item.name for item in files.inputs if element_of(item.type) == "double"}
    stages = getattr(pipeline, "stages", None) or [pipeline]
    features = {stage.getOrDefault("featuresCol") for stage in stages if stage.hasParam("featuresCol")}
    return declared & features


def _as_in_pandas(column: SparkColumn, kind: str) -> SparkColumn:
    """NaN is null, as in the DataFrame that MLflow's wrapper makes of a pandas frame: pipelines tell them apart."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  # see above

    return F.when(~F.isnan(column), column) if kind in FLOATS else column


def _cast(binding: Binding) -> SparkColumn:
    """A table's column as the model's input. A value that does not fit is filled: its row is refused afterwards."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415  # see above

    kind = spark_type(binding.model_type)
    if binding.cast == "absent":
        return _as_in_pandas(F.lit(None).cast(kind), binding.model_type)
    column = F.col(quoted(binding.source))
    cast = _as_in_pandas(column.try_cast(kind), binding.model_type)
    if binding.cast != "checked" and not binding.null_rows_bad:
        return cast
    empty = "array()" if element_of(binding.model_type) is not None else FILLERS.get(binding.model_type, "0")
    filled = F.coalesce(cast, F.expr(empty).cast(kind))
    return filled if binding.null_rows_bad else F.when(column.isNotNull(), filled)
