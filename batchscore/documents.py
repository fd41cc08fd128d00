"""YAML of unknown origin, read within bounds: no tags of Python's, no endless aliases, no endless depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from batchscore.errors import bounded

MAX_NODES = 200_000  # aliases of aliases can make a small file endless
MAX_REASON_CHARS = 200
# What PyYAML lets out beside its own errors: a date like 2026-13-45, a number of 5,000 digits, a thousand brackets.
YAML_FAILURES = (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError)


class DocumentError(Exception):
    """The text is no YAML, or too large or too deep; says why on one line."""


def read_yaml_file(path: Path, max_bytes: int) -> Any:  # noqa: ANN401  # whatever the document holds
    """The document in a file of at most ``max_bytes``; see :func:`read_yaml`.

    Raises:
        OSError: the file cannot be read.
        DocumentError: it is larger, no UTF-8, or no YAML within bounds.
    """
    with path.open("rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DocumentError(f"it is larger than {max_bytes:,} bytes")
    return read_yaml(content)


def read_yaml(text: str | bytes, max_nodes: int = MAX_NODES) -> Any:  # noqa: ANN401  # whatever the document holds
    """The one document in ``text``, plain values alone; None for an empty one.

    Args:
        text: YAML; bytes are UTF-8.
        max_nodes: most values that it may hold, those of aliases counted each time.

    Raises:
        DocumentError: it cannot be read within these bounds.

    >>> read_yaml("a: [1, 2]")
    {'a': [1, 2]}
    >>> read_yaml("a: !!python/object/apply:os.system [ls]")
    Traceback (most recent call last):
    batchscore.documents.DocumentError: could not determine a constructor for the tag ...
    """
    try:
        loader = yaml.SafeLoader(text.decode() if isinstance(text, bytes) else text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _count(node, max_nodes) > max_nodes:
                raise DocumentError(f"it holds more than {max_nodes:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except YAML_FAILURES as error:
        raise DocumentError(why(error)) from error


def why(error: Exception) -> str:
    """What was wrong, on one line and without the text around it."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}" if mark else ""
        return bounded(f"{error.problem or error.context}{where}", MAX_REASON_CHARS)
    return bounded((str(error) or type(error).__name__).splitlines()[0], MAX_REASON_CHARS)


def _count(node: yaml.Node, limit: int) -> int:
    """Nodes below and with ``node``; counting ends beyond ``limit``."""
    count, waiting = 0, [node]
    while waiting and count <= limit:
        count += 1
        value = waiting.pop().value
        if isinstance(value, list):
            waiting.extend(part for item in value for part in (item if isinstance(item, tuple) else (item,)))
    return count
