"""Imports Great Expectations without what a verdict on a pandas frame never uses: 3 s instead of 8.

scipy and altair, which one expectation and the drawing of its result need, are loaded when somebody first looks at
them. SQLAlchemy and pyspark, which the package does without where they are not installed, are hidden from it, but only
in a process that is a command's own: elsewhere somebody may use them with the package later.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

LAZY = ("scipy", "scipy.stats", "altair")
# Other engines of the package: on databases, and on Spark.
SQL, SPARK = "sqlalchemy", "pyspark"


class _Finder:
    """Finds modules for one thread's imports; others are not affected."""

    def __init__(self, hidden: Collection[str]) -> None:
        self._hidden = frozenset(hidden)
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if threading.get_ident() != self._thread:
            return None
        if name in self._hidden:
            raise ModuleNotFoundError(f"{name} is left out here", name=name)
        if name not in LAZY:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


@contextlib.contextmanager
def imports(hidden: Collection[str] = ()) -> Iterator[None]:
    """What this thread imports inside is lean; modules that are loaded already stay as they are.

    Args:
        hidden: modules that count as not installed.
    """
    finder = _Finder(hidden)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
