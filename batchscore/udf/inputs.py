"""The columns that a UDF was called with, as the inputs of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from batchscore.arrow.types import from_arrow
from batchscore.contracts import ModelInput
from batchscore.errors import SchemaMismatchError, SettingsError

MATRIX = 2  # rank


def column_names(inputs: Sequence[ModelInput]) -> list[str]:
    """The columns that feed the inputs, in order."""
    return [name for item in inputs for name in (item.columns or (item.name,))]


def are_named(inputs: Sequence[ModelInput]) -> bool:
    """Whether it is known which columns the model takes: it has a signature, which names its inputs."""
    return bool(inputs) and all(item.name or item.columns for item in inputs)


def by_position(count: int, inputs: Sequence[ModelInput]) -> list[str]:
    """The names of ``count`` columns that were given in the signature's order; optional inputs at its end may lack.

    Raises:
        SettingsError: there are too many or too few of them. MLflow drops surplus ones.
    """
    names = column_names(inputs)
    required = [item.required for item in inputs for _ in (item.columns or (item.name,))]
    if 0 < count <= len(names) and not any(required[count:]):
        return names[:count]
    missing = [name for name, needed in zip(names[count:], required[count:], strict=True) if needed]
    raise SettingsError(
        f"the model takes {len(names)} columns, the UDF was given {count}",
        found=f"nothing for {', '.join(missing)}" if missing else None,
        allowed=names,
        hint="pass the columns in this order, one struct of them, or no argument at all",
    )


def arrived(columns: Sequence[pa.Array], inputs: Sequence[ModelInput]) -> tuple[pa.RecordBatch, tuple[ModelInput, ...]]:
    """The columns of one call under their names, and the inputs, all named.

    Args:
        columns: one struct, whose fields are taken by name, or columns in the signature's order.
        inputs: the model's inputs. Without a signature (none at all) the columns are the inputs; unnamed ones are
            taken in order; an unnamed tensor is fed by one array column, or by as many columns as it is wide.

    Raises:
        SettingsError: too many or too few columns.
        SchemaMismatchError: an unnamed tensor of another width.
    """
    names: list[str] | None = None
    arrays = list(columns)
    if len(columns) == 1 and pa.types.is_struct(columns[0].type):
        names = [field.name for field in columns[0].type]
        arrays = columns[0].flatten()
        if len(set(names)) < len(names):
            raise SettingsError("two fields of the UDF's struct have one name", found=", ".join(names))
    if are_named(inputs):
        names = names or by_position(len(arrays), inputs)
    else:
        names = names or [str(index) for index in range(len(arrays))]
        inputs = _named(inputs, names, arrays)
    batch = pa.RecordBatch.from_arrays(arrays, names=names)
    return batch, tuple(_fed_by_array(item, batch) for item in inputs)


def as_flat(inputs: Sequence[ModelInput], batch: pa.RecordBatch) -> tuple[ModelInput, ...]:
    """The inputs as they are bound to columns: a tensor of rank 3 and more takes flat arrays, in C order.

    A table's column has one dimension beside the rows (MLflow takes no other), and an engine gives the values the
    tensor's shape. A tensor of shape (-1, 1) takes a scalar column, too.
    """
    return tuple(_as_flat(item, batch) for item in inputs)


def _as_flat(item: ModelInput, batch: pa.RecordBatch) -> ModelInput:
    shape = item.shape
    if shape is None or item.columns or item.name not in batch.schema.names:
        return item
    kind = batch.schema.field(item.name).type
    if not pa.types.is_list(kind):
        return replace(item, columns=(item.name,)) if shape == (-1, 1) else item
    if len(shape) <= MATRIX or pa.types.is_list(kind.value_type):
        return item
    width = -1 if -1 in shape[1:] else math.prod(shape[1:])
    return replace(item, shape=(-1, width))


def _named(inputs: Sequence[ModelInput], names: Sequence[str], arrays: Sequence[pa.Array]) -> tuple[ModelInput, ...]:
    if not inputs:
        return tuple(ModelInput(name, _own_type(array)) for name, array in zip(names, arrays, strict=True))
    if len(inputs) == 1 and inputs[0].shape is not None:
        return (_tensor(inputs[0], tuple(names), arrays),)
    by_position(len(names), [replace(item, name=str(index)) for index, item in enumerate(inputs)])
    return tuple(replace(item, name=name) for item, name in zip(inputs, names, strict=False))


def _own_type(array: pa.Array) -> str:
    kind = from_arrow(array.type)
    # An instant reaches a model as UTC wall-clock time, as for models with a signature.
    return "timestamp_ntz" if kind == "timestamp" else kind


def _tensor(item: ModelInput, names: tuple[str, ...], arrays: Sequence[pa.Array]) -> ModelInput:
    shape = item.shape or (-1,)
    if len(names) == 1 and (pa.types.is_list(arrays[0].type) or len(shape) == 1):
        return replace(item, name=names[0])
    if len(shape) != MATRIX or shape[1] not in (-1, len(names)):
        raise SchemaMismatchError(
            f"the UDF was given {len(names)} column(s) for the model's tensor of shape {list(shape)}",
            allowed=(f"one column of type array<{item.type}>", f"a struct of {shape[-1]} columns"),
        )
    return replace(item, columns=names, shape=(-1, len(names)))


def _fed_by_array(item: ModelInput, batch: pa.RecordBatch) -> ModelInput:
    """A tensor whose one column holds arrays takes them as they are; its name is of no account to the model."""
    if len(item.columns) != 1 or item.columns[0] not in batch.schema.names:
        return item
    [name] = item.columns
    return replace(item, name=name, columns=()) if pa.types.is_list(batch.schema.field(name).type) else item
