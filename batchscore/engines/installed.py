"""Versions of the packages that can change an artifact or a score."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib import metadata


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions of those of these packages that are installed."""
    return {name: version for name in names if (version := _version(name)) is not None}


@functools.cache
def _version(name: str) -> str | None:
    """One package's version; finding its metadata takes milliseconds, and engines ask for the same packages."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
