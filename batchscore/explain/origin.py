"""Where a row comes from: its run, and the recorded model with what the registry says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from batchscore import manifests, models, record
from batchscore.config.redaction import MASK, redact
from batchscore.contracts import Manifest, PinnedModel, RunRecord
from batchscore.errors import BatchscoreError, SettingsError, listed
from batchscore.explain.values import ModelFacts, RunFacts
from batchscore.recorded import registry_of, settings_section


def run_of(table: str, run_id: str) -> RunFacts:
    """The ledger's row and the manifest of a run, as far as they are there."""
    problems = []
    found: RunRecord | None = None
    manifest: Manifest | None = None
    try:
        found, _ = record.show(table, run_id)
    except BatchscoreError as error:
        problems.append(f"the ledger does not tell: {error.problem}")
    try:
        manifest = manifests.read(table, run_id)
        if manifest is None:
            problems.append("its manifest is missing or damaged: settings, input, engine and digest are unknown")
    except BatchscoreError as error:
        problems.append(error.problem)
    return RunFacts(run_id, found, manifest, "; ".join(problems))


def model_of(
    manifest: Manifest, tracking_uri: str | None, allowed_paths: Sequence[str]
) -> tuple[PinnedModel | None, ModelFacts]:
    """The model by its recorded digest, None where it is not at hand, and what its registry says of it.

    Whoever writes the table may have written the manifest, too: what it names is loaded only where the operator's
    registry, an allowed path or this machine's cache vouches for it, or where it holds no code.

    Args:
        manifest: of the run.
        tracking_uri: the operator's registry; None: the recorded one is asked.
        allowed_paths: folders whose models may run code.
    """
    facts = ModelFacts(manifest.model_name, manifest.model_version, manifest.model_uri, manifest.model_digest)
    registry, is_recorded = registry_of(manifest, tracking_uri)
    facts = _with_registry(facts, registry, is_recorded=is_recorded)
    section = settings_section(manifest, "model")
    signature, params = section.get("signature"), section.get("params") or {}
    masked = [str(name) for name, value in params.items() if MASK in str(value)] if isinstance(params, Mapping) else ()
    if masked:
        problem = f"the manifest masks the parameter {listed(masked)}: `batchscore reproduce --config` scores with it"
        return None, replace(facts, files_problem=problem)
    try:
        model = models.recorded(
            manifest.model_digest,
            name=manifest.model_name,
            version=manifest.model_version,
            uri=manifest.model_uri,
            signature=signature,
            params=params,
        ) or models.pin(
            manifest.model_uri,
            tracking_uri=registry,
            signature=signature,
            params=params,
            trust=models.Trust(tuple(allowed_paths), recorded=is_recorded),
            digest=manifest.model_digest,
        )
    except BatchscoreError as error:
        found = f": {error.found}" if error.found else ""
        hint = f"; {error.hint}" if isinstance(error, SettingsError) and error.hint else ""
        return None, replace(facts, files_problem=f"{error.problem}{found}{hint}")
    return model, facts


def _with_registry(facts: ModelFacts, registry: str, *, is_recorded: bool) -> ModelFacts:
    if not facts.version:
        return replace(facts, registry_problem=f"it is no version of a registry: the run named {facts.uri}")
    if MASK in registry or not registry:
        why = "holds a secret that the manifest masks" if registry else "is not recorded"
        return replace(facts, registry_problem=f"the registry's address {why}; name it with --tracking-uri")
    if is_recorded and not models.is_local(registry):
        problem = f"the run's record alone names {redact(registry)}, and it would get this user's credentials"
        return replace(facts, registry_problem=f"{problem}; name it with --tracking-uri, or --config")
    try:
        found = models.describe(facts.name, facts.version, tracking_uri=registry)
    except BatchscoreError as error:
        reason = f" ({error.found})" if error.found else ""
        return replace(facts, registry_problem=f"{error.problem}{reason}")
    if found.state == "registered":
        return replace(facts, registry=found)
    said = "was deleted from the registry" if found.state == "deleted" else "is unknown to the registry"
    return replace(facts, registry_problem=f"version {facts.version} {said}")
