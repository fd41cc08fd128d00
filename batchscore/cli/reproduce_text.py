"""What `batchscore reproduce` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscore.cli.show import aligned, as_json_value
from batchscore.errors import bounded

if TYPE_CHECKING:
    from batchscore.reproduce import Comparison, Reproduction

LABEL_CHARS = 10


def reproduction_lines(found: Reproduction) -> list[str]:
    """The verdict first, then what was compared by what, and the rows that differ."""
    counts = found.comparison
    own = "" if found.own_version else ": the version that the run made is gone"
    drawn = f"; {found.sample:,} rows asked for, drawn by seed {found.seed}" if found.sample else ""
    total = counts.equal + counts.different + counts.missing + counts.surplus
    return [
        _line("verdict", _verdict(found)),
        _line("rows", f"{total:,} compared of {found.rows_published:,} published, in {found.units:,} units{drawn}"),
        *_counts(counts),
        _line("run", found.run_id),
        _line("table", f"{found.table}, version {found.version}{own}"),
        _line("model", found.model),
        _line("engine", f"{found.engine}{_artifact(found)}, runner {found.runner}"),
        *_versions(found),
        *(_line("missing", f"not available: {bounded(text)}") for text in found.not_available[:10]),
        *(_line("note", bounded(text)) for text in found.notes[:10]),
        *_differences(counts),
        _line("took", f"{found.seconds:.1f} s"),
    ]


def as_document(found: Reproduction) -> object:
    """The answer for ``--json``, with its verdict."""
    document = as_json_value(found)
    assert isinstance(document, dict)  # noqa: S101  # a dataclass gives an object
    # A largest difference may be infinite, which JSON does not know.
    document["comparison"]["largest"] = {name: str(gap) for name, gap in found.comparison.largest}
    return {"equal": found.exit_code == 0, "exit_code": found.exit_code, **document}


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_CHARS}} {text}"


def _verdict(found: Reproduction) -> str:
    if not found.comparison.is_equal:
        return "DIFFERENT from what was published"
    if found.not_available:
        return "equal bit for bit, as far as it could be compared"
    return "equal bit for bit"


def _counts(counts: Comparison) -> list[str]:
    if counts.is_equal:
        return []
    lines = [_line("equal", f"{counts.equal:,}"), _line("different", f"{counts.different:,}")]
    lines += [_line("", f"largest difference of {name}: {gap:g}") for name, gap in counts.largest]
    if counts.missing:
        lines.append(_line("", f"{counts.missing:,} rows scored again are not in the table"))
    if counts.surplus:
        lines.append(_line("", f"{counts.surplus:,} rows of the table were not scored again"))
    return lines


def _artifact(found: Reproduction) -> str:
    if found.same_artifact is None:
        return ""
    return (
        " (what it made of the model is the same)" if found.same_artifact else " (made of the model anew: other bytes)"
    )


def _versions(found: Reproduction) -> list[str]:
    moved = [f"{name} {then}, now {now or 'not installed'}" for name, then, now in found.versions if then != now]
    if not found.versions:
        return []
    return [_line("versions", "; ".join(moved) if moved else f"the same {len(found.versions)} libraries as then")]


def _differences(counts: Comparison) -> list[str]:
    if not counts.samples:
        return []
    head = ("row", "column", "published", "now")
    rows = [
        (", ".join(f"{key}={value}" for key, value in sample.keys), sample.column, sample.published, sample.again)
        for sample in counts.samples
    ]
    return aligned([head, *rows])
