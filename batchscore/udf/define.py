"""``spark_udf``: everything that is decided once, on the driver, before a row is seen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from batchscore import engines, models
from batchscore.config.settings import ParitySettings
from batchscore.contracts import ModelFiles, ModelInput, PinnedModel
from batchscore.errors import ModelError, SettingsError
from batchscore.models.mlmodel import Document, read_mlmodel
from batchscore.models.signature import read_outputs, signature_part
from batchscore.runners.shipping import ship_model, ship_package
from batchscore.selection import Allowed, Prover, Selection, known
from batchscore.session import is_local
from batchscore.udf.arguments import LOCAL, config_of, environment_of, variables_of
from batchscore.udf.inputs import are_named, by_position, column_names
from batchscore.udf.results import Conversion, conversion, declared, inferred
from batchscore.udf.scorer import ColumnScorer, environment
from batchscore.udf.types import result_type_of

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession
    from pyspark.sql.types import DataType

    from batchscore.udf.results import ResultType


def spark_udf(  # noqa: PLR0913, PLR0917  # the first eight are those of mlflow.pyfunc.spark_udf, in its order
    spark: SparkSession,
    model_uri: str,
    result_type: DataType | str | None = None,
    env_manager: str | None = None,
    params: Mapping[str, object] | None = None,
    extra_env: Mapping[str, str] | None = None,
    prebuilt_env_uri: str | None = None,
    model_config: str | Path | Mapping[str, Any] | None = None,
    *,
    engine: str = engines.AUTO,
    tracking_uri: str | None = None,
    signature: Mapping[str, Any] | None = None,
) -> Callable[..., Column]:
    """A vectorised UDF in the place of ``mlflow.pyfunc.spark_udf``, with the scores of ``batchscore run``.

    The model is resolved once, here, and sent to each executor once; a Python worker loads it once, however
    many actions and UDFs use it. It can be registered for SQL with ``spark.udf.register``.

    Results are as MLflow's: the one output of a scalar type, all outputs of an array type, the fields by name of a
    struct; strings are what ``str`` makes of a value; NaN is null. What MLflow does without a word is an error here:

    * surplus columns are not dropped, and a type that would leave out an output, or that none fits, is refused when
      the UDF is defined; fields of a struct are chosen by name, so they may be some of the outputs;
    * a whole number that the type cannot hold is not wrapped or rounded, a fraction is not cut;
    * a null text stays null and does not become the text ``None``.

    And where MLflow's fails, this one does not: several outputs without names (called 0, 1, …), tensors with several
    values a row (an array), a model without outputs in its signature (``result_type`` declares them).

    Args:
        spark: the session that will use the UDF.
        model_uri: as ``batchscore run --model`` takes it: ``fraud_detection/Production``, ``models:/…``, ``runs:/…``,
            or a folder.
        result_type: a Spark type or its DDL (``double``, ``array<int>``, ``label string, p array<double>``), or
            ``None`` for what the signature says: the type of the one output (a tensor's is an array), a struct of
            several outputs, ``double`` where it says nothing.
        env_manager: ``None`` or ``local``: the environment that the executors run in; ``uv``: the model's own
            requirements, restored once on each host.
        params: inference parameters that the model's signature declares.
        extra_env: environment variables to set while the model is loaded and scores.
        prebuilt_env_uri: not supported.
        model_config: overrides of the configuration that the model was logged with, or the path of a YAML file.
        engine: the name of an engine; or ``auto``: the fastest that a run or ``batchscore engines`` has proved for this
            model, the registered model itself where none was.
        tracking_uri: MLflow tracking URI of the registry; the one that MLflow uses otherwise.
        signature: ``{"inputs": […], "outputs": […]}`` of a model without one, as in the settings file. Without it the
            inputs of such a model are the UDF's columns, called 0, 1, … or as the fields of a struct.

    Returns:
        A UDF. Called without arguments it takes the columns that the signature names, optional ones too; with one
        struct column its fields are bound by name; with several columns they are bound in the signature's order, in
        which optional ones at the end may be left out.

    Raises:
        ModelError: the model is unknown or damaged.
        SettingsError: an argument that is not supported.
        SetupError: the model's environment cannot be restored here.

    Example:
        >>> udf = spark_udf(spark, "fraud_detection@champion")  # doctest: +SKIP
        >>> frame.withColumn("score", udf())  # doctest: +SKIP
    """
    import mlflow  # noqa: PLC0415  # executors unpickle the scorer and never need it

    manager = environment_of(env_manager, prebuilt_env_uri)
    variables = variables_of(extra_env)
    asked = None if result_type is None else result_type_of(result_type)
    _refuse_connect(spark)
    found = models.pin(
        model_uri,
        tracking_uri=tracking_uri or mlflow.get_tracking_uri(),
        signature=signature,
        params=params,
        open_inputs=True,
    )
    document = read_mlmodel(Path(found.path))
    config = config_of(model_config, document)
    model, result = _settled(found, document, asked, redeclared=bool((signature or {}).get("outputs")))
    selected = _selected(engine, model, manager, by_reference=bool(config) or not model.inputs)
    files = replace(selected.files, config=config, variables=variables)
    scorer = ColumnScorer(
        files=files,
        engine=selected.engine,
        archive=_prepared(spark, files),
        result=result,
    )
    return _callable(scorer, model.inputs)


def _settled(
    model: PinnedModel, document: Document, asked: ResultType | None, *, redeclared: bool
) -> tuple[PinnedModel, Conversion]:
    """The model with the outputs to use, and what becomes of them."""
    stated = () if redeclared else read_outputs(document)
    # A tensor of rank 3 has no type in a table, but the asked type may say what its arrays are.
    unknown = not stated or (len(stated) == 1 and stated[0].type.startswith("unsupported"))
    if asked is not None and unknown and not redeclared:
        model = replace(model, outputs=declared(asked))
    tensor = len(stated) == 1 and signature_part(document, "outputs")[0].get("type") == "tensor"
    return model, conversion(model.outputs, inferred(model.outputs, tensor=tensor) if asked is None else asked)


def _selected(asked: str, model: PinnedModel, manager: str, *, by_reference: bool) -> Selection:
    if engines.scores_in_spark(model):
        raise ModelError(
            "a Spark ML pipeline is no function of columns: MLflow would start a Spark of its own in each worker",
            hint="call the pipeline's transform (mlflow.spark.load_model), or score the table with `batchscore run`",
        )
    if by_reference:
        if asked not in (engines.AUTO, engines.REFERENCE):
            engines.engine_module(asked)  # is there one of this name at all?
            raise SettingsError(
                f"engine {asked} needs the model's signature and takes no model_config",
                allowed=(engines.AUTO, engines.REFERENCE),
                hint=None if model.inputs else "name the inputs: signature={...}",
            )
        return Selection(engines.choose(engines.REFERENCE, model), ModelFiles.of(model, manager))
    allowed = ParitySettings()
    prover = Prover(
        model,
        Allowed(allowed.max_abs_diff, allowed.label_flips),
        sample=lambda: None,
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
    )
    return known(asked, prover, environment=manager)


def _refuse_connect(spark: SparkSession) -> None:
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise SettingsError(
            "spark_udf sends the model through the driver's Spark context, which Spark Connect does not have",
            hint="run this in the driver, or score the table with `batchscore run`",
        )


def _prepared(spark: SparkSession, files: ModelFiles) -> str | None:
    """Sends the model to executors elsewhere; makes its environment where the driver's host runs them."""
    context = spark.sparkContext
    if is_local(str(context.master)):
        if files.environment != LOCAL:
            from batchscore.engines.environment import restored  # noqa: PLC0415  # the exception, not the rule

            with environment(dict(files.variables)):
                restored(files.path, files.digest)
        return None
    ship_package(context)
    return ship_model(context, files.path, files.digest)


def _callable(scorer: ColumnScorer, inputs: tuple[ModelInput, ...]) -> Callable[..., Column]:
    from pyspark.sql import functions as sf  # noqa: PLC0415
    from pyspark.sql.pandas.functions import arrow_udf  # noqa: PLC0415

    udf = cast("Callable[..., Column]", arrow_udf(scorer.score, scorer.result.ddl))  # type: ignore[call-overload]  # Spark's stub demands functionType, its code infers it

    @wraps(udf)  # spark.udf.register reads the attributes of Spark's own UDF
    def call(*columns: Column | str) -> Column:
        if not columns:
            return udf(sf.struct(*(sf.col(_quoted(name)) for name in _own_columns(inputs))))
        if len(columns) > 1 and are_named(inputs):
            by_position(len(columns), inputs)
        return udf(*columns)

    return call


def _own_columns(inputs: tuple[ModelInput, ...]) -> list[str]:
    if are_named(inputs):
        return column_names(inputs)
    raise SettingsError(
        "the model does not name its inputs, so the UDF must be given columns",
        hint="pass columns or a struct of them, or name the inputs: "
        'spark_udf(..., signature={"inputs": [{"name": "amount", "type": "double"}]})',
    )


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
