"""A model's signature, read from the MLmodel file into the types of :mod:`batchscore.contracts`.

The rules, where MLflow leaves a choice:

* A tensor output of shape (-1,) or (-1, 1) holds one value a row and becomes a scalar column; (-1, k) becomes
  ``array<T>``. ``mlflow.pyfunc.spark_udf`` gives arrays for all three; one-element arrays serve nobody.
* A model without declared outputs has one output '' of type double, which is ``spark_udf``'s default too.
* Several unnamed outputs are named by their position, as in ``spark_udf``.
* Settings name what the model leaves open (no signature, unnamed inputs) and may redeclare the outputs, because
  a signature is often inferred from ``predict`` while the model was logged to call ``predict_proba``. Named
  inputs of the model cannot be redeclared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchscore.contracts import ModelInput, ModelOutput
from batchscore.errors import ModelError, SchemaMismatchError, SettingsError, nearest
from batchscore.models.mlmodel import Document
from batchscore.schema import FROM_MLFLOW, SCALARS, element_of, is_supported

# numpy's dtype names, as a TensorSpec spells them; unsigned ones take the next signed type that holds them all.
FROM_NUMPY = {
    "bool": "boolean",
    "int8": "byte",
    "uint8": "short",
    "int16": "short",
    "uint16": "integer",
    "int32": "integer",
    "uint32": "long",
    "int64": "long",
    "float16": "float",
    "float32": "float",
    "float64": "double",
    "str": "string",
    "object": "string",
    "bytes": "binary",
}
ENTRY_KEYS = ("name", "type", "required", "shape")
EXAMPLE = "signature: {inputs: [{name: amount, type: double}, ...], outputs: [{type: double}]}"
ROWS_BY_COLUMNS = 2  # rank of a matrix


def declared_type(entry: Mapping[str, Any]) -> str:
    """The type name of a column entry of a signature; ``unsupported(<type>)`` where there is none.

    >>> declared_type({"type": "array", "items": {"type": "double"}})
    'array<double>'
    >>> declared_type({"type": "object", "properties": {}})
    'unsupported(object)'
    """
    kind = str(entry.get("type"))
    if kind == "array" and isinstance(entry.get("items"), Mapping):
        element = declared_type(entry["items"])
        return element if element.startswith("unsupported") else f"array<{element}>"
    return FROM_MLFLOW.get(kind, f"unsupported({kind})")


def tensor_type(dtype: str) -> str:
    """The type name of a tensor's elements.

    >>> tensor_type("float32"), tensor_type("datetime64[ns]"), tensor_type("complex64")
    ('float', 'timestamp_ntz', 'unsupported(complex64)')
    """
    if dtype.startswith("datetime64"):
        return "timestamp_ntz"
    if dtype.startswith("<U"):
        return "string"
    return FROM_NUMPY.get(dtype, f"unsupported({dtype})")


def read_inputs(document: Document) -> tuple[ModelInput, ...]:
    """The inputs that the model itself states, in order; () for a model without a signature.

    An unnamed input is called ''.
    """
    return tuple(_input(entry) for entry in _entries(document, "inputs"))


def read_outputs(document: Document) -> tuple[ModelOutput, ...]:
    """The outputs that the model itself states, in order; () where it states none."""
    entries = _entries(document, "outputs")
    return tuple(
        ModelOutput(str(entry.get("name") or ("" if len(entries) == 1 else index)), _output_type(entry))
        for index, entry in enumerate(entries)
    )


def resolve_inputs(
    document: Document, settings: Mapping[str, Any] | None, *, may_be_open: bool = False
) -> tuple[ModelInput, ...]:
    """The inputs to use: the model's own, with what it leaves open taken from the settings.

    Args:
        document: the MLmodel file.
        settings: ``{inputs: [{name, type, required?, shape?}], outputs: [...]}`` or None.
        may_be_open: give the model's own inputs, unnamed or none, where neither names them.

    Raises:
        SchemaMismatchError: neither the model nor the settings name the inputs, or both do and differ.
        SettingsError: an entry of the settings has an unknown key or type.
    """
    stated = read_inputs(document)
    given = _given(settings, "inputs")
    if may_be_open and not given:
        return stated
    if not stated:
        if not given:
            raise _nothing_declared("the model has no signature, so its input columns are unknown")
        return tuple(_given_input(entry) for entry in given)
    unnamed = [item for item in stated if not item.name]
    if not unnamed:
        _refuse_redeclared(stated, given)
        return stated
    if not given:
        raise _nothing_declared(f"the model's signature does not name its {len(unnamed)} input(s)", stated)
    if len(stated) == 1 and stated[0].shape is not None:
        return (_named_tensor(stated[0], given),)
    if len(given) != len(stated):
        raise SchemaMismatchError(
            f"the settings name {len(given)} inputs, the model has {len(stated)} unnamed ones",
            allowed=[item.type for item in stated],
        )
    return tuple(_named_column(item, entry) for item, entry in zip(stated, given, strict=True))


def resolve_outputs(document: Document, settings: Mapping[str, Any] | None) -> tuple[ModelOutput, ...]:
    """The outputs to use: those of the settings, else the model's own, else one unnamed double.

    Raises:
        SettingsError: an entry has an unknown key or type, or two outputs have one name.
    """
    given = _given(settings, "outputs")
    if not given:
        return read_outputs(document) or (ModelOutput("", "double"),)
    outputs = tuple(
        ModelOutput(str(entry.get("name") or ("" if len(given) == 1 else index)), _given_type(entry))
        for index, entry in enumerate(given)
    )
    names = [output.name.casefold() for output in outputs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SettingsError("two outputs in signature.outputs have one name", found=", ".join(doubled))
    return outputs


def signature_part(document: Document, part: str) -> Any:  # noqa: ANN401  # JSON
    """One part (``inputs``, ``outputs``, ``params``) of the signature, parsed from its JSON; None if absent.

    Raises:
        ModelError: it is not JSON.
    """
    signature = document.get("signature")
    text = signature.get(part) if isinstance(signature, Mapping) else None
    if text is None:
        return None
    try:
        return json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError as error:
        raise ModelError(f"the model's signature is damaged: {part} is not JSON", found=text) from error


def _entries(document: Document, part: str) -> list[Mapping[str, Any]]:
    entries = signature_part(document, part) or []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ModelError(f"the model's signature is damaged: {part} is not a list", found=entries)
    return entries


def _tensor(entry: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    spec = entry.get("tensor-spec")
    if not isinstance(spec, Mapping) or not isinstance(spec.get("shape"), list):
        raise ModelError("the model's signature is damaged: a tensor without shape", found=entry)
    return tensor_type(str(spec.get("dtype"))), tuple(int(size) for size in spec["shape"])


def _input(entry: Mapping[str, Any]) -> ModelInput:
    name = str(entry.get("name") or "")
    if entry.get("type") == "tensor":
        element, shape = _tensor(entry)
        return ModelInput(name, element, shape=shape)
    required = entry.get("required")
    if required is None:
        required = not entry.get("optional", False)  # how MLflow before 2.9 wrote it
    return ModelInput(name, declared_type(entry), required=bool(required))


def _output_type(entry: Mapping[str, Any]) -> str:
    if entry.get("type") != "tensor":
        return declared_type(entry)
    element, shape = _tensor(entry)
    if element.startswith("unsupported") or len(shape) <= 1 or shape[1:] == (1,):
        return element
    if len(shape) == ROWS_BY_COLUMNS:
        return f"array<{element}>"
    return f"unsupported(tensor{list(shape)})"


def _given(settings: Mapping[str, Any] | None, part: str) -> list[Mapping[str, Any]]:
    entries = (settings or {}).get(part) or []
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise SettingsError(f"signature.{part} is a list of entries", found=entries, hint=f"for example {EXAMPLE}")
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise SettingsError(
                f"an entry of signature.{part} is a mapping", found=entry, hint=f"for example {EXAMPLE}"
            )
        for key in entry:
            if key not in ENTRY_KEYS:
                raise SettingsError(
                    f"unknown key in signature.{part}",
                    found=key,
                    allowed=ENTRY_KEYS,
                    near=nearest(str(key), ENTRY_KEYS),
                )
    return list(entries)


def _given_type(entry: Mapping[str, Any]) -> str:
    text = str(entry.get("type") or "").strip()
    name = FROM_MLFLOW.get(text, text)
    if not is_supported(name):
        raise SettingsError(
            f"unknown type in the signature of the settings, entry {entry.get('name') or '(unnamed)'}",
            found=text or "no type",
            allowed=(*SCALARS[1:], "array<double>"),
            near=nearest(text, SCALARS),
        )
    return name


def _given_name(entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if not name:
        raise SettingsError(
            "an entry of signature.inputs has no name", found=dict(entry), hint=f"for example {EXAMPLE}"
        )
    return str(name)


def _given_input(entry: Mapping[str, Any]) -> ModelInput:
    shape = entry.get("shape")
    if shape is not None and (not isinstance(shape, Sequence) or not shape or shape[0] != -1):
        raise SettingsError("the shape of an input begins with -1, the rows", found=shape, allowed=("[-1]", "[-1, 30]"))
    kind = _given_type(entry)
    if shape is not None:
        kind = element_of(kind) or kind
    sizes = None if shape is None else tuple(int(size) for size in shape)
    return ModelInput(_given_name(entry), kind, required=bool(entry.get("required", True)), shape=sizes)


def _named_column(item: ModelInput, entry: Mapping[str, Any]) -> ModelInput:
    name = _given_name(entry)
    _same_type(item.type, entry)
    return replace(item, name=name, columns=(name,) if item.shape is not None else ())


def _named_tensor(item: ModelInput, given: list[Mapping[str, Any]]) -> ModelInput:
    """An unnamed tensor, fed by one array column or by as many scalar columns as it is wide."""
    names = tuple(_given_name(entry) for entry in given)
    shape = item.shape or (-1,)
    types = [_given_type(entry) if entry.get("type") else item.type for entry in given]
    for entry in given:
        _same_type(item.type, entry)
    if len(names) == 1 and (len(shape) == 1 or element_of(types[0]) or shape[1:] == (1,) or not given[0].get("type")):
        return replace(item, columns=names)
    if len(shape) != ROWS_BY_COLUMNS or shape[1] not in (-1, len(names)) or any(element_of(kind) for kind in types):
        raise SchemaMismatchError(
            f"the settings name {len(names)} column(s) for the model's tensor of shape {list(shape)}",
            allowed=[f"one column of type array<{item.type}>", f"{shape[-1]} columns of type {item.type}"],
        )
    return replace(item, columns=names, shape=(-1, len(names)))


def _same_type(model: str, entry: Mapping[str, Any]) -> None:
    if not entry.get("type"):
        return
    given = _given_type(entry)
    if (element_of(given) or given) != (element_of(model) or model):
        raise SchemaMismatchError(
            f"signature.inputs gives {entry.get('name')} another type than the model does",
            found=given,
            allowed=(model, f"array<{model}>") if not element_of(model) else (model,),
        )


def _refuse_redeclared(stated: tuple[ModelInput, ...], given: list[Mapping[str, Any]]) -> None:
    if given and [(_given_name(entry), _given_type(entry)) for entry in given] != [(i.name, i.type) for i in stated]:
        raise SchemaMismatchError(
            "the model states its own inputs; the settings cannot redeclare them",
            found=", ".join(f"{_given_name(entry)} {_given_type(entry)}" for entry in given),
            allowed=[f"{item.name} {item.type}" for item in stated],
            hint="remove signature.inputs from the settings, or log the model again with another signature",
        )


def _nothing_declared(problem: str, stated: tuple[ModelInput, ...] = ()) -> SchemaMismatchError:
    kinds = [item.type if item.shape is None else f"{item.type}, tensor of shape {list(item.shape)}" for item in stated]
    return SchemaMismatchError(
        problem,
        found="; ".join(kinds) if kinds else None,
        hint=f"write in the settings, under model, the columns in the order the model takes them: {EXAMPLE}",
    )
