"""A run's settings, built again from its manifest: the same model, input and engine by their exact names."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from batchscore import engines
from batchscore.config import JobConfig, load
from batchscore.config.redaction import MASK
from batchscore.contracts import Manifest
from batchscore.errors import InputError, SettingsError


def rebuilt(
    manifest: Manifest, given: JobConfig | None, *, registry: Mapping[str, object], runner: str, output: str
) -> JobConfig:
    """The settings under which the run is scored again.

    What decides whose programs run is the operator's to say: neither allowed paths nor Spark's properties are taken
    from a manifest, which whoever writes the table may have forged.

    Args:
        manifest: of the run; its secrets are masked.
        given: settings of the job as they are today: what Spark needs comes from there.
        registry: the section of that name: where the model is, and the folders whose models may run code.
        runner: ``local`` or ``spark``.
        output: where the scores go.

    Raises:
        SettingsError: a setting that is needed is masked in the manifest, or this release does not know one.
        InputError: the input has no version that could be read again.
    """
    if manifest.source_kind == "catalog":
        raise InputError(
            "the run's input cannot be read again as it was",
            found=f"{manifest.source_uri}: a view or table of Spark's catalog has no versions",
        )
    document: dict[str, Any] = copy.deepcopy(dict(manifest.settings))
    document["registry"] = dict(registry)
    document["spark"] = given.spark.model_dump() if given is not None and runner == "spark" else {}
    engine, device = ("onnx", "cuda") if manifest.engine == engines.CUDA else (manifest.engine, "cpu")
    _put(document, "model", name=manifest.model_uri, version=None)
    _put(
        document,
        "input",
        path=manifest.source_uri,
        format=manifest.source_kind,
        version="latest" if manifest.source_version is None else manifest.source_version,
    )
    _put(document, "output", path=output, mode="partitions")
    _put(document, "scoring", runner=runner, engine=engine, device=device)
    document["validation"] = {}
    masked = list(_masked(document, ""))
    if masked:
        raise SettingsError(
            "the manifest masks settings that are needed to score the run again",
            found=", ".join(masked),
            hint="name the registry with --tracking-uri, or the job's settings with --config",
        )
    return load(None, document)


def _put(document: dict[str, Any], section: str, **values: object) -> None:
    known = document.get(section)
    document[section] = {**(known if isinstance(known, Mapping) else {}), **values}


def _masked(value: object, name: str) -> Iterator[str]:
    """The dotted names of the settings that hold a mask."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _masked(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _masked(item, name)
    elif isinstance(value, str) and MASK in value:
        yield name
