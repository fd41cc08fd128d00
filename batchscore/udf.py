"""A user-defined function for people's own Spark code and SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from batchscore import engines, models
from batchscore.arrow.types import columns_of, to_arrow
from batchscore.contracts import ModelFiles, ModelOutput, PinnedModel
from batchscore.engines.cache import loaded
from batchscore.errors import SettingsError
from batchscore.plan.binding import bind
from batchscore.runners.shipping import ship_model, ship_package, with_shipped_files
from batchscore.schema import cast_rule, element_of, is_supported
from batchscore.score.core import model_inputs
from batchscore.session import is_local

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession


def spark_udf(  # noqa: PLR0913  # the first five are those of mlflow.pyfunc.spark_udf, in its order
    spark: SparkSession,
    model_uri: str,
    result_type: str | None = None,
    env_manager: str | None = None,
    params: Mapping[str, object] | None = None,
    *,
    engine: str = "auto",
    tracking_uri: str | None = None,
    signature: Mapping[str, Mapping[str, str]] | None = None,
) -> Callable[..., Column]:
    """A vectorised UDF that scores like ``batchscore run``: same model resolution, casts, engine and scores.

    The model is resolved once, here, and sent to each executor once; a Python worker loads it once, however
    many actions and UDFs use it. It can be registered for SQL with ``spark.udf.register``.

    Args:
        spark: the session that will use the UDF.
        model_uri: as ``batchscore run --model`` takes it, for example ``fraud_detection/Production``.
        result_type: ``None`` for what the signature says (a struct of all outputs where there are several), or
            the DDL name of a type that the single output casts to without loss, for example ``float``.
        env_manager: ``None`` or ``local``: the environment that the executors run in.
        params: inference parameters that the model's signature declares.
        engine: ``auto``, or the name of an engine.
        tracking_uri: MLflow tracking URI of the registry; the one that MLflow uses otherwise.
        signature: inputs and outputs of a model without one, as in the settings file.

    Returns:
        A UDF. Called without arguments it takes the columns that the signature names; with
        one struct column its fields are bound by name; with several columns they are bound by position.

    Raises:
        ModelError: the model is unknown or damaged.
        SettingsError: an argument that is not supported.

    Example:
        >>> udf = spark_udf(spark, "fraud_detection@champion")  # doctest: +SKIP
        >>> frame.withColumn("score", udf())  # doctest: +SKIP
    """
    import mlflow  # noqa: PLC0415  # executors unpickle what is below and never need it
    from pyspark.sql import functions as sf  # noqa: PLC0415
    from pyspark.sql.pandas.functions import arrow_udf  # noqa: PLC0415

    if env_manager not in (None, "local"):
        raise SettingsError("env_manager is not supported", found=env_manager, allowed=("local",))
    model = models.pin(
        model_uri, tracking_uri=tracking_uri or mlflow.get_tracking_uri(), signature=signature, params=params
    )
    scorer = _ColumnScorer(
        files=ModelFiles.of(model),
        engine=engines.choose(engine, model),
        archive=_shipped(spark, model),
        result=_result_type(model, result_type),
    )
    udf = cast("Callable[..., Column]", arrow_udf(scorer.score, _spark_type(scorer.outputs, scorer.result)))  # type: ignore[call-overload]  # Spark's stub demands functionType, its code infers it
    names = [name for model_input in model.inputs for name in (model_input.columns or (model_input.name,))]

    @wraps(udf)  # spark.udf.register reads the attributes of Spark's own UDF
    def call(*columns: Column | str) -> Column:
        if columns:
            return udf(*columns)
        return udf(sf.struct(*(sf.col(f"`{name}`") for name in names)))

    return call


@dataclass(frozen=True)
class _ColumnScorer:
    """Arrow columns in, one Arrow column out; pickled to the executors.

    ``result`` is the type name of the single output, or None for a struct of all outputs.
    """

    files: ModelFiles
    engine: str
    archive: str | None
    result: str | None

    @property
    def outputs(self) -> tuple[ModelOutput, ...]:
        return self.files.outputs

    def score(self, *columns: pa.Array) -> pa.Array:
        batch = self._batch(columns)
        table = columns_of(batch.schema)
        inputs = model_inputs(batch, table, bind(self._pinned(), table), self.files.inputs)
        files = with_shipped_files(self.files, self.archive)
        scored = loaded(self.engine, files, threads=1).score(inputs)
        if self.result is None:
            names = [output.name for output in self.outputs]
            return pa.StructArray.from_arrays(scored.columns, names=names)
        return scored.column(0).cast(to_arrow(self.result))

    def _batch(self, columns: tuple[pa.Array, ...]) -> pa.RecordBatch:
        names = [name for item in self.files.inputs for name in (item.columns or (item.name,))]
        if len(columns) == 1 and pa.types.is_struct(columns[0].type):
            return pa.RecordBatch.from_struct_array(columns[0])
        if len(columns) != len(names):
            raise SettingsError(
                f"the model takes {len(names)} columns, the UDF was given {len(columns)}",
                allowed=names,
                hint="pass the columns in this order, one struct of them, or no argument at all",
            )
        return pa.RecordBatch.from_arrays(list(columns), names=names)

    def _pinned(self) -> PinnedModel:
        files = self.files
        return PinnedModel(
            requested=files.name,
            name=files.name,
            version=files.version,
            uri="",
            digest=files.digest,
            path=files.path,
            size_bytes=0,
            flavors=files.flavors,
            inputs=files.inputs,
            outputs=files.outputs,
        )


def _shipped(spark: SparkSession, model: PinnedModel) -> str | None:
    context = spark.sparkContext
    if is_local(str(context.master)):
        return None
    ship_package(context)
    return ship_model(context, model.path, model.digest)


def _result_type(model: PinnedModel, asked: str | None) -> str | None:
    if len(model.outputs) > 1:
        if asked is not None:
            raise SettingsError(
                f"result_type names one type, and the model has {len(model.outputs)} outputs",
                found=asked,
                allowed=("None: a struct of all outputs",),
            )
        return None
    own = model.outputs[0].type
    if asked is None:
        return own
    name = _DDL_NAMES.get(asked.casefold(), asked.casefold())
    if not is_supported(name) or cast_rule(own, name) is None:
        raise SettingsError(f"the model's output is {own}, which does not cast to {asked!r} without loss")
    return name


# Spark's DDL knows several names for some types.
_DDL_NAMES = {"int": "integer", "bigint": "long", "smallint": "short", "tinyint": "byte", "real": "float"}


def _spark_type(outputs: tuple[ModelOutput, ...], result: str | None) -> str:
    if result is not None:
        return _ddl(result)
    return "struct<" + ", ".join(f"`{output.name}`: {_ddl(output.type)}" for output in outputs) + ">"


def _ddl(name: str) -> str:
    element = element_of(name)
    if element is not None:
        return f"array<{_ddl(element)}>"
    return {"integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint"}.get(name, name)
