"""What `batchscore engines` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscore.cli.show import aligned
from batchscore.errors import bounded

if TYPE_CHECKING:
    from batchscore.contracts import Candidate
    from batchscore.proofs import Report

DIGEST_CHARS = 12
REASON_CHARS = 300
_MIB = 1 << 20


def table_lines(report: Report) -> list[str]:
    """The engines, the fastest first, then why the others are out."""
    model = report.model
    name = f"{model.name}/{model.version}" if model.version else model.name
    amount = f"{report.rows:,} rows" if report.rows >= 0 else "rows not counted"
    chosen = next(candidate for candidate in report.candidates if candidate.chosen)
    return [
        f"model      {name} (sha256 {model.digest[:DIGEST_CHARS]})",
        f"input      {report.input}, {amount}, {report.cores} cores",
        "",
        *aligned([_HEAD, *(_cells(candidate) for candidate in report.candidates)], indent=""),
        "",
        *(
            f"{candidate.engine}: {bounded(_on_one_line(candidate.reason), REASON_CHARS)}"
            for candidate in report.candidates
            if candidate.reason
        ),
        "",
        f"auto takes {chosen.engine}: with it this input ends first; scores are equal where a proof says so",
    ]


def as_document(report: Report) -> dict[str, object]:
    """The report for ``--json``."""
    return {
        "model": f"{report.model.name}/{report.model.version}".rstrip("/"),
        "model_digest": report.model.digest,
        "input": report.input,
        "rows": report.rows,
        "cores": report.cores,
        "engines": list(report.candidates),
    }


_HEAD = ("engine", "scores", "rows/s a core", "loads in", "memory", "size", "largest difference", "probes", "")
_STATES = {
    "reference": "the model itself",
    "equal": "equal",
    "refused": "refused",
    "unavailable": "unavailable",
    "unproved": "not proved",
}


def _on_one_line(reason: str) -> str:
    r"""An error's lines as one.

    >>> _on_one_line("no trees\n  found: a Pipeline")
    'no trees; found: a Pipeline'
    """
    return "; ".join(line.strip() for line in reason.splitlines() if line.strip())


def _size(count: int) -> str:
    """Bytes in the unit that shows them.

    >>> _size(22_123), _size(5 << 20)
    ('22 KiB', '5.0 MiB')
    """
    return f"{count / _MIB:,.1f} MiB" if count >= _MIB else f"{count / 1024:,.0f} KiB"


def _cells(candidate: Candidate) -> tuple[str, ...]:
    measured, proof = candidate.measurement, candidate.certificate
    return (
        candidate.engine,
        _STATES[candidate.state],
        f"{measured.rows_per_second:,.0f}" if measured else "",
        f"{measured.load_seconds:.1f} s" if measured else "",
        f"{measured.peak_bytes / _MIB:,.0f} MiB" if measured else "",
        _size(measured.size_bytes) if measured else "",
        f"{proof.max_abs_diff:.1e}" if proof and proof.max_abs_diff else "0" if proof else "",
        f"{sum(rows for _, rows in proof.probes):,}" if proof else "",
        "auto" if candidate.chosen else "",
    )
