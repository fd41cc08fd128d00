"""A scored batch as the one column that the caller asked for. Pure Arrow; what MLflow does is said where we differ.

``mlflow.pyfunc.spark_udf`` takes the leftmost column that fits a scalar type, all columns that fit an array type, the
fields by name of a struct, and ``str`` of anything for strings. So does this, but where MLflow would drop an output
without a word it is an error when the UDF is defined, and where it would change a whole number it is an error when
that number comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from batchscore.arrow.types import to_arrow
from batchscore.contracts import PREDICTION, ModelOutput
from batchscore.errors import SettingsError, nearest
from batchscore.schema import FLOATS, INTEGERS, element_of
from batchscore.udf.values import retyped

# A type name of batchscore.schema, or the fields of a struct: (name, type name).
ResultType: TypeAlias = str | tuple[tuple[str, str], ...]

TEXT = "string"
# Asked type -> the declared types whose columns MLflow takes for it.
_TAKES: dict[str, tuple[str, ...]] = {
    "integer": ("byte", "short", "integer"),
    "long": INTEGERS,
    "float": (*INTEGERS, *FLOATS),
    "double": (*INTEGERS, *FLOATS),
    "timestamp": ("timestamp_ntz",),
}
_NUMBERS = (*INTEGERS, *FLOATS)
_DDL = {"integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint"}


@dataclass(frozen=True, slots=True)
class Part:
    """One output in the result: its position and name among the outputs, the type asked for, its name in a struct."""

    output: int
    label: str
    type: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What becomes of a scored batch; pickled to the executors.

    ``value``: its one output. ``array``: its outputs side by side, one array a row. ``struct``: fields by name.
    """

    kind: Literal["value", "array", "struct"]
    parts: tuple[Part, ...]

    @property
    def ddl(self) -> str:
        """The result's type as Spark spells it."""
        if self.kind == "struct":
            return ddl(tuple((part.field, part.type) for part in self.parts))
        return ddl(self.parts[0].type if self.kind == "value" else f"array<{self.parts[0].type}>")

    def convert(self, scored: pa.RecordBatch) -> pa.Array:
        """The result column of a scored batch: one value a row, NaN as null.

        Raises:
            ModelError: a value does not survive in the asked type.
        """
        # MLflow turns numbers in structs and nested arrays into text by another way, which spells floats shorter.
        short = self.kind == "struct" or element_of(element_of(self.parts[0].type) or "") is not None
        arrays = [retyped(scored.column(part.output), part.type, part.label, short=short) for part in self.parts]
        if self.kind == "value":
            return arrays[0]
        if self.kind == "array":
            return _side_by_side(arrays, self.parts[0].type)
        return pa.StructArray.from_arrays(arrays, names=[part.field for part in self.parts])


def conversion(outputs: Sequence[ModelOutput], asked: ResultType) -> Conversion:
    """How the outputs become the asked type.

    Raises:
        SettingsError: an output would be dropped, or none fits.
    """
    if isinstance(asked, tuple):
        return Conversion("struct", tuple(_field(outputs, name, kind) for name, kind in asked))
    element = element_of(asked)
    if element is None or element_of(outputs[0].type) is not None:
        return _value(outputs, asked)
    return _array(outputs, element)


def inferred(outputs: Sequence[ModelOutput], *, tensor: bool) -> ResultType:
    """The result type of a UDF that was given none.

    Args:
        outputs: the model's outputs.
        tensor: whether the model states its one output as a tensor; MLflow gives those as arrays, also of rank 1.

    Returns:
        The one output's type, or a struct of all outputs.
    """
    kinds = [output.type.replace("timestamp_ntz", "timestamp") for output in outputs]
    if len(outputs) > 1:
        return tuple((label(output), kind) for output, kind in zip(outputs, kinds, strict=True))
    return f"array<{kinds[0]}>" if tensor and element_of(kinds[0]) is None else kinds[0]


def declared(asked: ResultType) -> tuple[ModelOutput, ...]:
    """The outputs of a model that states none, taken from the type asked for.

    >>> declared("array<float>"), declared((("id", "long"),))
    ((ModelOutput(name='', type='array<double>'),), (ModelOutput(name='id', type='long'),))
    """
    fields = asked if isinstance(asked, tuple) else (("", asked),)
    # Models compute in doubles; a model's own float is widened to them without loss.
    return tuple(ModelOutput(name, kind.replace("float", "double")) for name, kind in fields)


def label(output: ModelOutput) -> str:
    """The name of an output in messages and structs."""
    return output.name or PREDICTION


def ddl(asked: ResultType) -> str:
    """A result type as Spark spells it.

    >>> ddl((("label", "string"), ("p", "array<double>")))
    'struct<`label`: string, `p`: array<double>>'
    """
    if isinstance(asked, tuple):
        fields = (f"`{name.replace('`', '``')}`: {ddl(kind)}" for name, kind in asked)
        return f"struct<{', '.join(fields)}>"
    element = element_of(asked)
    return f"array<{ddl(element)}>" if element is not None else _DDL.get(asked, asked)


def _side_by_side(arrays: Sequence[pa.Array], kind: str) -> pa.Array:
    rows, width = len(arrays[0]), len(arrays)
    by_row = np.arange(rows * width).reshape(width, rows).T.reshape(-1)
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    values = pa.concat_arrays(arrays).take(pa.array(by_row))
    return pa.ListArray.from_arrays(offsets, values, type=to_arrow(f"array<{kind}>"))


def _value(outputs: Sequence[ModelOutput], asked: str) -> Conversion:
    if len(outputs) > 1:
        raise SettingsError(
            f"result_type {ddl(asked)} is one value, and the model has {len(outputs)} outputs",
            found=_described(outputs),
            allowed=(f"None: {ddl(inferred(outputs, tensor=False))}",),
            hint=f'name what you want: result_type="{_first(outputs)}", then score(...)["{label(outputs[0])}"]',
        )
    if not _fits(outputs[0].type, asked):
        raise _unfit(outputs, asked)
    return Conversion("value", (Part(0, label(outputs[0]), asked),))


def _array(outputs: Sequence[ModelOutput], element: str) -> Conversion:
    unfit = [output for output in outputs if element_of(output.type) or not _fits(output.type, element)]
    if len(unfit) == len(outputs):
        raise _unfit(outputs, f"array<{element}>")
    if unfit:
        raise SettingsError(
            f"result_type array<{ddl(element)}> would leave out {len(unfit)} of the model's {len(outputs)} outputs",
            found=_described(unfit),
            allowed=(f"None: {ddl(inferred(outputs, tensor=False))}",),
            hint=f'name what you want: result_type="{_first(outputs)}"',
        )
    return Conversion("array", tuple(Part(index, label(output), element) for index, output in enumerate(outputs)))


def _field(outputs: Sequence[ModelOutput], name: str, kind: str) -> Part:
    known = [label(output) for output in outputs]
    if name not in known:
        raise SettingsError(
            f"result_type has a field {name!r}, which is no output of the model",
            near=nearest(name, known),
            allowed=known,
        )
    index = known.index(name)
    if not _converts(outputs[index].type, kind):
        raise SettingsError(
            f"output {name} of the model cannot become {ddl(kind)}",
            found=_described([outputs[index]]),
            allowed=_alternatives(outputs[index].type),
        )
    return Part(index, name, kind, name)


def _fits(own: str, asked: str) -> bool:
    """Whether MLflow's choice of columns for ``asked`` takes a column of type ``own``."""
    element, asked_element = element_of(own), element_of(asked)
    if element is not None and asked_element is not None:
        nested = element_of(element) is not None
        return _converts(element, asked_element) if nested else _fits(element, asked_element)
    if element is not None or asked_element is not None:
        return False
    return asked in (own, TEXT) or own in _TAKES.get(asked, ())


def _converts(own: str, asked: str) -> bool:
    """Whether each value may be converted by itself, as in a struct, where the caller named the output."""
    element, asked_element = element_of(own), element_of(asked)
    if element is not None and asked_element is not None:
        return _converts(element, asked_element)
    if element is not None or asked_element is not None:
        return False
    return _fits(own, asked) or (asked in _NUMBERS and own in (*_NUMBERS, "boolean"))


def _alternatives(own: str) -> list[str]:
    element = element_of(own)
    if element is not None:
        return [f"array<{kind}>" for kind in _alternatives(element)]
    named = [kind for kind in ("boolean", *_TAKES, TEXT) if _fits(own, kind)]
    return [ddl(kind) for kind in dict.fromkeys([own, *named])]


def _unfit(outputs: Sequence[ModelOutput], asked: str) -> SettingsError:
    own = outputs[0].type
    hint = None
    if len(outputs) == 1 and element_of(own) is not None and element_of(asked) is None:
        hint = f"ask for {ddl(own)} and take the element you want: score(...)[0]; MLflow takes the first, unasked"
    return SettingsError(
        f"result_type {ddl(asked)} fits no output of the model",
        found=_described(outputs),
        allowed=_alternatives(own) if len(outputs) == 1 else (f"None: {ddl(inferred(outputs, tensor=False))}",),
        hint=hint,
    )


def _described(outputs: Sequence[ModelOutput]) -> str:
    return ", ".join(f"{label(output)} {ddl(output.type)}" for output in outputs)


def _first(outputs: Sequence[ModelOutput]) -> str:
    name = label(outputs[0])
    return f"{name if name.isidentifier() else f'`{name}`'} {ddl(outputs[0].type)}"
