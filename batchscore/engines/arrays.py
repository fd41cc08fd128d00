"""Arrays that a model returned, as Arrow arrays of exactly the declared types. No pandas here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.types import to_arrow
from batchscore.contracts import PREDICTION, ModelOutput
from batchscore.errors import ModelError
from batchscore.schema import element_of

MATRIX = 2  # rank

HINT = "declare what the model returns: log it with its signature, or write signature.outputs in the settings"


def output_name(output: ModelOutput) -> str:
    """The column name of an output in a scored batch."""
    return output.name or PREDICTION


def output_schema(outputs: Sequence[ModelOutput]) -> pa.Schema:
    """The schema of a scored batch."""
    return pa.schema([pa.field(output_name(output), to_arrow(output.type)) for output in outputs])


def empty_batch(outputs: Sequence[ModelOutput]) -> pa.RecordBatch:
    """The scored batch of no rows, which many models cannot be asked for."""
    schema = output_schema(outputs)
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def batch_of(columns: Sequence[Any], outputs: Sequence[ModelOutput], rows: int, model: str) -> pa.RecordBatch:
    """A batch from one array (numpy, Arrow or a list) per output.

    Raises:
        ModelError: an array has another length, or values that the declared type does not hold exactly. NaN and
            infinities where a whole number is declared are null.
    """
    arrays = []
    for values, output in zip(columns, outputs, strict=True):
        array = _exact(values, output, model)
        if len(array) != rows:
            raise ModelError(
                f"model {model} returned {len(array)} rows for {rows}",
                found=f"output {output_name(output)}",
                hint="a model must return one row for each row it is given, in the same order",
            )
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=output_schema(outputs))


def _exact(values: Any, output: ModelOutput, model: str) -> pa.Array:  # noqa: ANN401  # a model returns anything
    wanted = to_arrow(output.type)
    try:
        array = _arrow(values, is_list=element_of(output.type) is not None, is_text=output.type == "string")
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _wrong(output, model, error) from error
    if array.type == wanted:
        return array
    if not _same_kind(array.type, wanted):
        raise _wrong(output, model, f"{array.type}, for example {_sample(array)}")
    if pa.types.is_integer(wanted) and pa.types.is_floating(array.type):
        # A whole number has no NaN and no infinity: such a row has no prediction, which is no reason to end a run.
        array = pc.if_else(pc.is_finite(array), array, pa.nulls(1, array.type)[0])
    try:
        cast = array.cast(wanted)
    except pa.ArrowException as error:
        raise _wrong(output, model, f"{array.type}: {error}") from error
    if _loses(array, cast):
        raise _wrong(output, model, f"{array.type} with digits that {output.type} does not hold, like {_sample(array)}")
    return cast


def _arrow(values: Any, *, is_list: bool, is_text: bool) -> pa.Array:  # noqa: ANN401
    """Values as Arrow infers them. NaN stays NaN, but for text, where it is how pandas spells a missing one."""
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, list):
        matrix = _matrix(values) if is_list else None
        if matrix is None:
            return pa.array(values, from_pandas=is_text)
        values = matrix
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{type(values).__name__} is neither an array nor a list")
    if values.ndim >= MATRIX and is_list:
        return _nested(values)
    if values.ndim == MATRIX and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"an array of shape {values.shape}")
    return pa.array(values.astype(object) if values.dtype.kind == "U" else values, from_pandas=is_text)


def _nested(values: np.ndarray[Any, Any]) -> pa.Array:
    nested = pa.array(np.ascontiguousarray(values).reshape(-1))
    for width in reversed(values.shape[1:]):
        nested = pa.FixedSizeListArray.from_arrays(nested, width)
    return nested


def _matrix(values: list[Any]) -> np.ndarray[Any, Any] | None:
    """Rows of one shape as an array; None where they differ, or are no lists."""
    lengths = {len(row) if isinstance(row, list | tuple | np.ndarray) else -1 for row in values}
    if len(lengths) != 1 or -1 in lengths:
        return None
    try:
        return np.asarray(values)
    except ValueError:  # lists in the rows differ in length
        return None


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether an exact cast may be tried: a number never becomes text or a boolean, nor text a number."""
    types = pa.types
    if types.is_null(found):
        return True
    if _is_list(found) and _is_list(wanted):
        return _same_kind(found.value_type, wanted.value_type)
    if types.is_integer(wanted) or types.is_floating(wanted):
        return bool(types.is_integer(found) or types.is_floating(found) or types.is_boolean(found))
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(found) or types.is_date(found))
    if types.is_string(wanted):
        return bool(types.is_string(found) or types.is_large_string(found))
    return bool(types.is_binary(wanted) and types.is_large_binary(found))


def _is_list(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))


def _loses(before: pa.Array, after: pa.Array) -> bool:
    """Whether a cast changed a value. Arrow checks its casts itself, but for floats that become narrower."""
    if _is_list(before.type):
        return _loses(before.flatten(), after.flatten())
    if not (pa.types.is_floating(after.type) and pa.types.is_floating(before.type)):
        return False
    if before.type.bit_width <= after.type.bit_width:
        return False
    back = after.cast(before.type)
    same = pc.or_(pc.equal(before, back), pc.and_(pc.is_nan(before), pc.is_nan(back)))
    return not pc.all(same, min_count=0).as_py()


def _sample(array: pa.Array) -> str:
    return repr(next((value.as_py() for value in array.drop_null()[:1]), None))


def _wrong(output: ModelOutput, model: str, found: object) -> ModelError:
    return ModelError(
        f"model {model} returned values of another type for output {output_name(output)}",
        found=found,
        allowed=(output.type,),
        hint=HINT,
    )
