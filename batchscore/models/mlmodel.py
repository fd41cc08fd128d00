"""The MLmodel file: the YAML in which MLflow describes a model. Read here without MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from batchscore.documents import DocumentError, read_yaml_file
from batchscore.errors import ModelError
from batchscore.models.reference import MODEL_FILE

Document: TypeAlias = Mapping[str, Any]

MAX_MLMODEL_BYTES = 4_000_000  # the signature of a model with 10,000 columns takes a tenth of it
# Keys of a flavor's section that name a file or folder of the model.
PATH_KEYS = ("data", "model_data", "model_path", "pickled_model", "python_model", "code")


def read_mlmodel(folder: Path) -> Document:
    """The parsed MLmodel file of a model folder.

    Raises:
        ModelError: it is missing, not YAML, or not a description of a model.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ModelError(f"the folder holds no {MODEL_FILE} file", found=folder, hint="name a folder that MLflow saved")
    try:
        document = read_yaml_file(path, MAX_MLMODEL_BYTES)
    except (OSError, DocumentError) as error:
        raise ModelError(f"the {MODEL_FILE} file cannot be read", found=error, hint="log the model again") from error
    flavors = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavors, dict) or not flavors or not all(isinstance(value, dict) for value in flavors.values()):
        raise ModelError(f"the {MODEL_FILE} file names no flavors", found=path, hint="log the model again")
    return document  # type: ignore[no-any-return]  # checked to be a mapping above


def flavors_of(document: Document) -> tuple[str, ...]:
    """The names of the model's flavors, sorted."""
    return tuple(sorted(document["flavors"]))


def referenced_file(folder: Path, relative: str) -> Path:
    """A file that the MLmodel file names, inside the model folder.

    Raises:
        ModelError: it is missing, or outside the folder.
    """
    path = folder / relative
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"the {MODEL_FILE} file names a file outside the model's folder", found=relative)
    if not path.exists():
        raise ModelError("a file of the model is missing", found=relative, hint="log the model again")
    return path


def check_files(folder: Path, document: Document) -> None:
    """Checks that the files named in the MLmodel file are there.

    Raises:
        ModelError: one is missing or outside the folder.
    """
    for flavor in document["flavors"].values():
        for key in PATH_KEYS:
            value = flavor.get(key)
            if isinstance(value, str):
                referenced_file(folder, value)
        artifacts = flavor.get("artifacts")
        if isinstance(artifacts, dict):
            for artifact in artifacts.values():
                if isinstance(artifact, dict) and isinstance(artifact.get("path"), str):
                    referenced_file(folder, artifact["path"])


def python_version(document: Document) -> str:
    """Python that logged the model, or ''."""
    return str(document["flavors"].get("python_function", {}).get("python_version") or "")


def classes_of(document: Document) -> tuple[str, ...]:
    """Class labels that the model's author recorded under ``metadata: {classes: [...]}``, as text, or ()."""
    metadata = document.get("metadata")
    classes = metadata.get("classes") if isinstance(metadata, dict) else None
    return tuple(str(label) for label in classes) if isinstance(classes, list) else ()


def requirements_of(folder: Path) -> tuple[str, ...]:
    """The model's recorded pip requirements, without comments."""
    path = folder / "requirements.txt"
    if not path.is_file():
        return ()
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
