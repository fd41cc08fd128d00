"""What `batchscore explain` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batchscore.cli.show import DIGEST_CHARS, aligned, as_json_value
from batchscore.errors import bounded, listed

if TYPE_CHECKING:
    from batchscore.contracts import Certificate, Manifest
    from batchscore.engines.contributions import Contributions, OutputContributions
    from batchscore.explain import Explanation
    from batchscore.lookup import Value

LABEL_CHARS = 13
MAX_FEATURES = 20
VALUE_CHARS = 40
# Settings that say what was scored and how; `batchscore show` has all of them.
TOLD = (
    ("output", "mode"),
    ("input", "where"),
    ("input", "partitions"),
    ("scoring", "engine"),
    ("scoring", "outputs"),
    ("model", "params"),
)


def explanation_lines(found: Explanation) -> list[str]:
    """The score first, then what made it, then the inputs and what each feature adds."""
    return [
        *_row_lines(found),
        "",
        *_run_lines(found),
        *_model_lines(found),
        *_input_lines(found),
        *_again_lines(found),
        "",
        *_values_lines(found.input.values),
        *_contribution_lines(found.contributions),
    ]


def as_document(found: Explanation) -> object:
    """The explanation for ``--json``: numbers that JSON does not know are texts."""
    return _plain(as_json_value(found))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_CHARS}} {text}".rstrip()


def _row_lines(found: Explanation) -> list[str]:
    row = found.row
    scores = [value for value in row.values if value.name in row.scores]
    others = [value for value in row.values if value.name not in row.scores]
    newest = ", the newest" if row.newest else ""
    commit = f", committed {row.commit.at}" if row.commit is not None else ", whose commit the log no longer holds"
    return [
        *(_line(value.name, _shown(value.value, 200)) for value in scores),
        _line("row", ", ".join(f"{value.name}={_shown(value.value)}" for value in others)),
        _line("table", f"{row.table}, version {row.version}{newest}{commit}"),
        _line("file", f"{row.file}, row {row.position:,}"),
    ]


def _run_lines(found: Explanation) -> list[str]:
    run = found.run
    lines = []
    if run.record is not None:
        record = run.record
        at = f", as version {record.table_version}" if record.table_version >= 0 else ""
        lines.append(_line("run", f"{run.run_id}, {record.state}{at}, {record.started_at} to {record.ended_at}"))
    elif run.run_id:
        lines.append(_line("run", run.run_id))
    if run.manifest is not None:
        lines.append(_line("settings", _settings(run.manifest)))
        lines.append(_line("engine", _engine(run.manifest)))
        lines += [_line("certificate", _certificate(run.manifest.certificate))] if run.manifest.certificate else []
    return [*lines, *_missing("run", run.problem)]


def _settings(manifest: Manifest) -> str:
    told = []
    for section, name in TOLD:
        values = manifest.settings.get(section)
        value = values.get(name) if isinstance(values, dict) else None
        if value not in (None, "", [], {}):
            told.append(f"{name} {_setting(value)}")
    return f"{', '.join(told)} (digest {manifest.settings_digest[:DIGEST_CHARS]})"


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return listed([f"{name}={_setting(item)}" for name, item in value.items()])
    return "|".join(map(str, value)) if isinstance(value, list) else bounded(value)


def _engine(manifest: Manifest) -> str:
    proved = "" if manifest.certificate is not None else ", the registered model itself"
    return f"{manifest.engine}{proved if manifest.engine == 'pyfunc' else ''}, runner {manifest.runner}"


def _certificate(proof: Certificate) -> str:
    rows = sum(count for _, count in proof.probes)
    versions = ", ".join(f"{name} {version}" for name, version in proof.versions)
    return (
        f"{proof.verdict} to {proof.reference} on {rows:,} probes, largest difference {proof.max_abs_diff:g}, "
        f"{proof.created_at}; {bounded(versions)}"
    )


def _model_lines(found: Explanation) -> list[str]:
    model = found.model
    name = f"{model.name}/{model.version}" if model.version else model.name
    lines = [_line("model", f"{name} (sha256 {model.digest[:DIGEST_CHARS]})" if model.digest else name)]
    facts = model.registry
    if facts is not None:
        stated = [f"stage {facts.stage}" if facts.stage else "", *(f"@{alias}" for alias in facts.aliases)]
        today = ", ".join(text for text in stated if text)
        by = f" by {facts.user}" if facts.user else ", the registry does not say by whom"
        lines.append(_line("registered", f"{facts.created_at}{by}{f'; today {today}' if today else ''}"))
        lines.append(_line("made by", _maker(facts.run_id, facts.run_name, facts.run_user, facts.run_started_at)))
        lines.append(_line("source", facts.source))
        about = facts.description or facts.model_description
        lines += [_line("about", bounded(about.splitlines()[0]))] if about else []
    return [*lines, *_missing("registered", model.registry_problem), *_missing("files", model.files_problem)]


def _maker(run_id: str, name: str, user: str, started: str) -> str:
    if not run_id:
        return "no MLflow run: its files were registered as they were"
    named = f" ({name})" if name else ""
    return f"MLflow run {run_id}{named}{f' of {user}' if user else ''}{f', begun {started}' if started else ''}"


def _input_lines(found: Explanation) -> list[str]:
    given = found.input
    if not given.uri:
        return _missing("input", given.problem)
    at = f", version {given.version}" if given.version is not None else ""
    state = ", as recorded" if given.verified else ""
    lines = [_line("input", f"{given.kind} {given.uri}{at}, snapshot {given.snapshot[:DIGEST_CHARS]}{state}")]
    lines += [_line("", f"file {given.file}")] if given.file else []
    return [*lines, *_missing("input row", given.problem)]


def _again_lines(found: Explanation) -> list[str]:
    again = found.recomputed
    if not again.engine:
        return _missing("scored again", again.problem)
    if again.equal:
        return [_line("scored again", f"by engine {again.engine}: equal to the stored score, bit for bit")]
    scores = ", ".join(f"{value.name} = {_shown(value.value)}" for value in again.scores)
    gap = f", off by {again.difference:g}" if again.difference is not None else ""
    return [
        _line("scored again", f"by engine {again.engine}: DIFFERENT: {scores}{gap}"),
        _line("", "one row alone can be rounded differently: `batchscore reproduce` compares whole batches"),
    ]


def _missing(label: str, problem: str) -> list[str]:
    return [_line(label, f"not available: {bounded(' '.join(problem.split()), 400)}")] if problem else []


# --- tables ------------------------------------------------------------------------------------------------


def _values_lines(values: Sequence[Value]) -> list[str]:
    if not values:
        return []
    rows = [(value.name, value.type, _shown(value.value)) for value in values]
    return ["inputs", *aligned(rows), ""]


def _contribution_lines(given: Contributions) -> list[str]:
    if not given.outputs:
        return [_line("contributions", f"none: {given.reason}")]
    chosen = max(given.outputs, key=lambda output: output.raw)
    lines = [f"contributions by {given.library}'s own SHAP values, the largest first{_chosen(given, chosen)}"]
    shown = chosen.items[:MAX_FEATURES]
    rows = [(item.feature, _shown(item.value), f"{item.amount:+.6f}") for item in shown]
    rest = chosen.items[MAX_FEATURES:]
    if rest:
        rows.append((f"{len(rest)} others", "", f"{sum(item.amount for item in rest):+.6f}"))
    rows.append(("expected value", "", f"{chosen.expected:+.6f}"))
    scale = f" ({given.scale})" if given.scale else ""
    total = "they add up to it" if chosen.adds_up else "THEY DO NOT ADD UP TO IT"
    return [*lines, *_numbers_right(rows), f"  raw score{scale} {chosen.raw:+.6f}: {total}"]


def _chosen(given: Contributions, chosen: OutputContributions) -> str:
    if len(given.outputs) == 1:
        return ""
    return f"; for class {chosen.label}, the most probable of {len(given.outputs)} (--json has all)"


def _numbers_right(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    width = max(len(row[2]) for row in rows)
    return aligned([(name, value, amount.rjust(width)) for name, value, amount in rows])


def _shown(value: Any, limit: int = VALUE_CHARS) -> str:  # noqa: ANN401  # any value of a table
    return "null" if value is None else bounded(" ".join(str(value).split()), limit)
