"""Which table column feeds which model input, and by which cast."""

from __future__ import annotations

from collections.abc import Iterator

from batchscore.contracts import Binding, Column, ModelInput, PinnedModel, Schema
from batchscore.errors import SchemaMismatchError, SettingsError, nearest
from batchscore.schema import cast_rule

TENSOR_RANK_WITH_ARRAY = 2


def bind(model: PinnedModel, columns: Schema) -> tuple[Binding, ...]:
    """Binds every model input to table columns.

    Raises:
        SchemaMismatchError: naming all inputs that do not fit, not just the first.
    """
    bindings: list[Binding] = []
    problems: list[str] = []
    if not model.inputs:
        raise SchemaMismatchError(
            f"model {model.name!r} has no signature, so its inputs are unknown",
            hint="declare model.signature.inputs in the settings: [{name: amount, type: double}, …]",
        )
    for model_input in model.inputs:
        for source_name in _sources(model_input, columns):
            outcome = _bind_one(model_input, source_name, columns)
            if isinstance(outcome, Binding):
                bindings.append(outcome)
            else:
                problems.append(outcome)
    if problems:
        raise SchemaMismatchError(
            f"model {model.name!r} does not fit the table: {len(problems)} of {len(model.inputs)} inputs",
            detail=problems[:10],
            hint="rename or cast the columns in the table or a view; `batchscore check` shows all of them",
        )
    return tuple(bindings)


def resolve(names: tuple[str, ...], columns: Schema, setting: str) -> tuple[Column, ...]:
    """The table's columns of these names.

    Raises:
        SettingsError: naming the first that is not there, with near names.
    """
    by_name = {column.name: column for column in columns}
    for name in names:
        if name not in by_name:
            raise SettingsError(
                f"{setting} names the column {name!r}, which the input does not have",
                near=nearest(name, by_name),
                allowed=sorted(by_name),
            )
    return tuple(by_name[name] for name in names)


def _sources(model_input: ModelInput, columns: Schema) -> Iterator[str]:
    if model_input.columns:
        yield from model_input.columns
    elif model_input.name:
        yield model_input.name
    else:
        arrays = [column.name for column in columns if column.type.startswith("array<")]
        yield arrays[0] if len(arrays) == 1 else ""


def _bind_one(model_input: ModelInput, name: str, columns: Schema) -> Binding | str:
    model_type = _column_type(model_input)
    column = next((column for column in columns if column.name == name), None)
    if column is None:
        return _absent(model_input, name, model_type, columns)
    if model_type.startswith("unsupported"):
        return f"{name}: the model takes {model_type[12:-1]}, which a table column cannot feed"
    rule = cast_rule(column.type, model_type)
    if rule is None:
        return f"{name}: the table has {column.type}, the model takes {model_type}"
    # An optional whole number, too: MLflow spells its absence by leaving the column out of the whole batch, and a
    # score must not depend on which rows share a batch.
    return Binding(model_input.name, name, column.type, model_type, rule.cast, rule.null_rows_bad)


def _absent(model_input: ModelInput, name: str, model_type: str, columns: Schema) -> Binding | str:
    if not name:
        return (
            "the model takes one unnamed tensor, and the table has no single array column to feed it; "
            "name the column or columns in model.signature.inputs"
        )
    names = [column.name for column in columns]
    same_but_case = [known for known in names if known.casefold() == name.casefold()]
    if same_but_case:
        return f"{name}: missing; the table has {same_but_case[0]!r}, which differs by case only"
    if not model_input.required:
        return Binding(model_input.name, "", model_type, model_type, "absent", null_rows_bad=False)
    near = nearest(name, names)
    return f"{name}: missing" + (f"; did you mean {near[0]!r}?" if near else "")


def _column_type(model_input: ModelInput) -> str:
    """The type one table column must have: a tensor of rank 2 or more takes nested arrays."""
    shape = model_input.shape
    if shape is None or model_input.columns:
        return model_input.type
    kind = model_input.type
    for _ in range(_array_depth(shape)):
        kind = f"array<{kind}>"
    return kind


def _array_depth(shape: tuple[int, ...]) -> int:
    return len(shape) - 1
