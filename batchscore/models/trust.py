"""Whose model files are loaded: a pickle is a program, so where it comes from decides, not what it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscore.errors import SettingsError, listed
from batchscore.models.mlmodel import Document
from batchscore.models.reference import local_path

# Loaders that read a file format and run nothing of the folder's, for the classes that have such a format.
DATA_LOADERS = {"lightgbm": "mlflow.lightgbm", "onnx": "mlflow.onnx", "xgboost": "mlflow.xgboost"}
DATA_CLASSES = {
    "lightgbm": re.compile(r"lightgbm\.basic\.Booster"),
    "xgboost": re.compile(r"xgboost\.core\.Booster|xgboost\.sklearn\.XGB[A-Za-z]+"),
}
PYFUNC = "python_function"
METHODS = (None, "predict", "predict_proba")


@dataclass(frozen=True, slots=True)
class Trust:
    """Where model files may come from, beside the registry.

    Attributes:
        allowed_paths: folders whose models, and the folders below, are loaded whatever they are.
        installs: the model's own requirements are installed before it is loaded, which runs code of theirs.
        recorded: the model, or its registry, is named by a record that whoever writes the table may forge: then a
            registry vouches for nothing.
    """

    allowed_paths: tuple[str, ...] = ()
    installs: bool = False
    recorded: bool = False

    def check(self, folder: Path, document: Document) -> None:
        """Refuses a model from a folder that nobody allowed, where loading it would run code.

        Args:
            folder: where the user said the model is, links resolved.
            document: its MLmodel file.

        Raises:
            SettingsError: saying what would run, and how to allow it.
        """
        why = self._why_not(folder, document)
        if why is None:
            return
        raise SettingsError(
            f"the model in {folder} would run code of its own, and no allowed path holds it",
            found=why,
            allowed=("models of the registry", *self.allowed_paths),
            hint=f"if you trust who writes there: --allow-path {folder}, or registry.allowed_paths in the settings",
        )

    def check_registered(self, uri: str, folder: Path | None, document: Document) -> None:
        """Refuses a model of a registry that only a record names, where loading it would run code.

        Args:
            uri: the model's.
            folder: where its files are, links resolved; None where they are not on this machine.
            document: its MLmodel file.

        Raises:
            SettingsError: saying what would run, and how to name the registry oneself.
        """
        why = self._why_not(folder, document)
        if why is None:
            return
        allow = "" if folder is None else f"; or allow its folder: --allow-path {folder}"
        raise SettingsError(
            f"the model {uri} would run code of its own, and only a file under the table says where it is registered",
            found=why,
            hint=f"name the registry with --tracking-uri, or the job's settings with --config{allow}",
        )

    def _why_not(self, folder: Path | None, document: Document) -> str | None:
        if folder is not None and any(folder.is_relative_to(_resolved(path)) for path in self.allowed_paths):
            return None
        return "its own requirements would be installed" if self.installs else code_in(document)


def code_in(document: Document) -> str | None:
    """What of a model's folder would run as code when it is loaded; None where all of it is data.

    Only formats that are known to hold no code count as data; whatever is not known is code.

    >>> code_in({"flavors": {"python_function": {"loader_module": "mlflow.sklearn"}, "sklearn": {}}})
    'flavor sklearn is loaded by unpickling'
    """
    flavors: Mapping[str, Mapping[str, Any]] = document["flavors"]
    unknown = sorted(str(name) for name in flavors if name not in (PYFUNC, *DATA_LOADERS))
    if unknown:
        return f"flavor {listed(unknown)} is loaded by unpickling"
    own = [name for name in DATA_LOADERS if name in flavors]
    if len(own) != 1:
        return "it is loaded by unpickling: it names no single format that holds data alone"
    return _of_sections([document, *flavors.values()]) or _of_flavor(own[0], flavors)


def _of_sections(sections: Sequence[Mapping[str, Any]]) -> str | None:
    keys = {str(key) for section in sections for key, value in section.items() if value and "code" in str(key)}
    return f"it brings modules ({listed(sorted(keys))})" if keys else None


def _of_flavor(name: str, flavors: Mapping[str, Mapping[str, Any]]) -> str | None:
    pyfunc, section = flavors.get(PYFUNC, {}), flavors[name]
    loader = pyfunc.get("loader_module", DATA_LOADERS[name])
    if loader != DATA_LOADERS[name]:
        return f"it is loaded by module {loader}"
    if pyfunc.get("predict_fn") not in METHODS:
        return f"its method {pyfunc.get('predict_fn')} is called"
    kind = section.get("model_class")
    known = DATA_CLASSES.get(name)
    if kind is None or (known is not None and known.fullmatch(str(kind))):
        return None
    return f"class {kind} is unpickled"


def _resolved(path: str) -> Path:
    local = local_path(path) if path.startswith("file:") else path
    return Path(local).expanduser().resolve()
