"""A part of a source that is pinned already, as if it had been pinned alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from batchscore.contracts import PinnedSource
from batchscore.read.partitions import pruned, wanted_values
from batchscore.read.storage import files_digest


def narrowed(source: PinnedSource, partitions: Mapping[str, Sequence[str | None]]) -> PinnedSource:
    """The files whose partition values are among those named, of the same version; nothing is looked up again.

    Args:
        source: pinned, with files.
        partitions: values by partition column; a column that is none does not narrow.

    Raises:
        SettingsError: a column that the source lacks, or a value that is none of its type.
        InputError: no file has the values.
    """
    wanted = wanted_values([(name, tuple(values)) for name, values in partitions.items()], source.columns)
    files = pruned(source.files, source.partition_columns, wanted)
    return replace(source, files=files, snapshot=files_digest(source.kind, source.root, files), unreadable=())


def only_dates(source: PinnedSource, column: str, dates: Sequence[str]) -> PinnedSource:
    """The files whose value of a partition column is among ``dates``; there may be none."""
    wanted = set(dates)
    files = tuple(file for file in source.files if dict(file.partition)[column] in wanted)
    return replace(source, files=files, snapshot=files_digest(source.kind, source.root, files))
