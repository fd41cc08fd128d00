"""A run's settings, built again from its manifest: the same model, input and engine by their exact names."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from batchscore import engines
from batchscore.config import JobConfig, load
from batchscore.config.redaction import MASK
from batchscore.contracts import Manifest, ScoringPlan
from batchscore.errors import InputError, SettingsError
from batchscore.plan import PlanInputs
from batchscore.plan.make import settings_digest
from batchscore.recorded import settings_section

# What decides scores, and may look like a secret without being one.
SCORING = (("model", "params"), ("input", "where"), ("quarantine", "rules"))


def rebuilt(
    manifest: Manifest, given: JobConfig | None, *, registry: Mapping[str, object], runner: str, output: str
) -> JobConfig:
    """The settings under which the run is scored again.

    What decides whose programs run is the operator's to say: neither allowed paths nor Spark's properties are taken
    from a manifest, which whoever writes the table may have forged.

    Args:
        manifest: of the run; its secrets are masked.
        given: settings of the job as they are today: what Spark needs comes from there, and of :data:`SCORING` what
            the manifest masks; :func:`check_filled` compares that.
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
    for section, name in filled(manifest) if given is not None else ():
        document[section][name] = getattr(given, section).model_dump(mode="json")[name]
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


def filled(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Those of :data:`SCORING` that the manifest masks: the job's settings of today are taken instead."""
    return tuple(
        (section, name)
        for section, name in SCORING
        if any(_masked(settings_section(manifest, section).get(name), name))
    )


def check_filled(manifest: Manifest, config: JobConfig, plan: ScoringPlan) -> None:
    """Compares what was taken from the job's settings of today with the recorded digest.

    Args:
        manifest: of the run.
        config: as :func:`rebuilt` made them.
        plan: made of them, before its engine is the recorded one.

    Raises:
        SettingsError: they are not the run's any more.
    """
    names = filled(manifest)
    if not names:
        return
    # The digest is of the engine that was asked for, not of the one that was found fastest.
    recorded = settings_section(manifest, "scoring")
    asked = {name: recorded.get(name, "auto") for name in ("engine", "device")}
    inputs = PlanInputs(
        config=config.model_copy(update={"scoring": config.scoring.model_copy(update=asked)}),
        run_id=plan.run_id,
        created_at=plan.created_at,
        scored_at=0,
        model=plan.model,
        source=plan.source,
        restriction=plan.restriction,
        target=plan.target,
        engine=plan.task.engine,
        cores=plan.cores,
    )
    digest = settings_digest(inputs, plan.task)
    if digest != manifest.settings_digest:
        raise SettingsError(
            "the settings that the manifest masks are others than the run's by now",
            found=f"{', '.join(map('.'.join, names))} of today's settings make digest {digest[:12]}",
            allowed=(f"digest {manifest.settings_digest[:12]}",),
            hint="name the settings file as it was when the run was made: --config FILE",
        )


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
