"""Certificates and measurements as JSON, and whether a certificate still speaks for an engine."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from batchscore.contracts.proof import Certificate, Measurement

FORMAT = 1  # of certificate.json, measurement.json and an artifact's entry.json

Record = TypeVar("Record", Certificate, Measurement)


def to_json(record: Certificate | Measurement) -> str:
    """A record as strict JSON: infinities and NaN, which JSON does not know, are written as text."""
    document = {"format": FORMAT, **dataclasses.asdict(record)}
    return json.dumps({key: _plain(value) for key, value in document.items()}, indent=2, allow_nan=False) + "\n"


def from_json(text: str, kind: type[Record]) -> Record | None:
    """The record that :func:`to_json` wrote; None where the text is damaged, or of another format or kind."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            return None
        types = get_type_hints(kind)
        if set(document) != set(types):
            return None
        return kind(**{key: _typed(value, types[key]) for key, value in document.items()})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def valid(  # noqa: PLR0913  # what a certificate must be about, spelled out
    certificate: Certificate,
    *,
    engine: str,
    model_digest: str,
    artifact_digest: str,
    versions: Mapping[str, str],
    allowed_abs_diff: float,
    allowed_label_flips: int,
) -> str | None:
    """Why a stored certificate does not answer for what is at hand, or None where it does.

    A valid certificate may still be a refusal: see its verdict. A refusal holds until the settings allow more, an
    approval until they allow less.

    Args:
        certificate: as it was stored.
        engine: the engine to use.
        model_digest: of the model's folder.
        artifact_digest: of the artifact to be loaded, '' where there is none.
        versions: of everything that can change a score, here and now.
        allowed_abs_diff: what the settings allow.
        allowed_label_flips: what the settings allow.
    """
    for what, stored, here in (
        ("engine", certificate.engine, engine),
        ("model digest", certificate.model_digest, model_digest),
        ("artifact digest", certificate.artifact_digest, artifact_digest),
    ):
        if stored != here:
            return f"the certificate is for another {what}: {stored or 'none'}, not {here or 'none'}"
    changed = sorted(set(certificate.versions) ^ set(versions.items()))
    if changed:
        return f"the certificate is for other versions: {', '.join(dict.fromkeys(name for name, _ in changed))}"
    asked, issued = (
        (allowed_abs_diff, allowed_label_flips),
        (
            certificate.allowed_abs_diff,
            certificate.allowed_label_flips,
        ),
    )
    if certificate.verdict == "equal":
        return _approval(certificate, asked, issued)
    if any(now > then for now, then in zip(asked, issued, strict=True)):
        return "the settings allow more than when the engine was refused"
    return None


def _approval(certificate: Certificate, asked: tuple[float, int], issued: tuple[float, int]) -> str | None:
    if any(now < then for now, then in zip(asked, issued, strict=True)):
        return "the settings allow less than when the certificate was issued"
    if not certificate.probes:
        return "the certificate compared nothing"
    # Above what is allowed the difference may be rounding of large numbers, which the certificate does not tell.
    limit = math.inf if issued[0] else 0.0
    within = certificate.max_abs_diff <= limit and math.isfinite(certificate.max_abs_diff)
    within = within and certificate.label_flips <= issued[1]
    if not within or certificate.nan_mismatches:
        return "the certificate contradicts itself: it says equal, but its differences are larger than it allowed"
    return None


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _typed(value: Any, kind: Any) -> Any:  # noqa: ANN401  # JSON, and a type of the contracts
    """A JSON value as the field's type.

    Raises:
        TypeError: it is of another type.
        ValueError: a number that is none.
    """
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return float(value)
    if kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(value)
    if isinstance(value, list):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if kind in (str, int) and not isinstance(value, kind):
        raise TypeError(value)
    if kind not in (str, int, float) and value not in getattr(kind, "__args__", ()):
        raise TypeError(value)  # a literal, or a list where none is
    return value
