"""A model, pinned to exact files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a model's signature.

    A tensor input has a ``shape`` (its first dimension, the rows, is -1) and the element type in ``type``;
    ``columns`` are the table columns that feed it, where that is not the one column of its own name.
    """

    name: str
    type: str
    required: bool = True
    shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """One output of a model's signature; ``name`` is '' for a model with a single unnamed output."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class ModelParam:
    """An inference parameter: its MLflow type name and the value to use."""

    name: str
    type: str
    value: object


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A model name resolved, once, to exact files.

    Attributes:
        requested: what the user wrote, for example ``fraud_detection/Production``.
        name: registered name, or the folder's name for a model without a registry entry.
        version: registry version, or '' where there is none.
        uri: ``models:/name/7``, ``runs:/…`` or a folder.
        digest: SHA-256 over the model folder's relative paths and contents, hex.
        path: local folder with the files, on the driver.
        size_bytes: sum of the files' sizes.
        flavors: flavor names in the MLmodel file, sorted.
        inputs: signature inputs in order; for a model without a signature those that the settings declare.
        outputs: signature outputs in order.
        params: inference parameters with the values to use.
        run_id: the MLflow run that logged the model, or ''.
        python_version: Python that logged the model, or ''.
        requirements: the model's own pip requirements, as recorded.
        classes: known class labels of a classifier as text, where the model states them.
        notices: warnings for the user, for example that stages are deprecated.
    """

    requested: str
    name: str
    version: str
    uri: str
    digest: str
    path: str
    size_bytes: int
    flavors: tuple[str, ...]
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    params: tuple[ModelParam, ...] = ()
    run_id: str = ""
    python_version: str = ""
    requirements: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
