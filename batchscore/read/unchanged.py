"""Whether a source's files are still those that were pinned, after Spark has read them."""

from __future__ import annotations

from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.stamps import check_listed
from batchscore.contracts import PinnedSource


def check_unchanged(source: PinnedSource) -> None:
    """Compares each file of a Parquet source with its size and time at planning.

    Spark reads by the plan's list of files, but nothing tells it that one of them is another file by now. A Delta
    table's files never change by its own rules, and a catalog's table has none that we know.

    Raises:
        InputError: naming a file that changed or vanished.
        UnavailableError: the storage did not answer.
    """
    if source.kind != "parquet":
        return
    filesystem, _ = open_filesystem(source.uri)
    check_listed(filesystem, ((file.path, file.size, file.stamp) for file in source.files))
