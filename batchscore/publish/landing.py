"""What an exception from a commit meant: that it landed all the same, that it never will, or that nobody knows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from deltalake.exceptions import DeltaError

from batchscore import s3, tables
from batchscore.arrow.filesystem import has_folders, open_filesystem
from batchscore.errors import BatchscoreError, UnavailableError, UnsureError
from batchscore.publish.cleanup import ITSELF, fence
from batchscore.tables import Table

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tried:
    """A commit that raised.

    Attributes:
        uri: root of the table.
        commit_id: unlike any other id of the table; it is fenced where the commit may yet land.
        what: the commit in messages: "the commit of run r1".
        since: the version that it was to follow, -1 where there was no table.
        landed: finds the version of the commit in a table; None where it is not there.
    """

    uri: str
    commit_id: str
    what: str
    since: int
    landed: Callable[[Table], int | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: ``version`` is None where it did not land, and then never will.

    ``came_first``: another commit has the version that it was to be.
    """

    version: int | None
    came_first: bool


def outcome_of(tried: Tried, error: Exception) -> Outcome:
    """Looks at the table afresh; where the put may still be under way, something else is put in its place first.

    Only behind this may be deleted what the commit would have named.

    Args:
        tried: the commit.
        error: what it raised.

    Raises:
        UnsureError: it cannot be found out, or nothing could take its place: nothing may be deleted.
    """
    try:
        table = tables.open_table(tried.uri)
        version = None if table is None else tried.landed(table)
        came_first = table is not None and table.version > tried.since
        if version is None and not came_first and not has_folders(open_filesystem(tried.uri)[0]):
            version = _barred(tried)
    except (BatchscoreError, DeltaError, OSError) as unknown:
        raise UnsureError(
            f"whether {tried.what} landed is not known: the storage failed meanwhile; nothing was deleted",
            found=s3.said(error),
            hint="run again: what is there by then is not done twice",
        ) from unknown
    if version is not None:
        _LOG.warning("%s landed as version %d and then failed: %s", tried.what, version, error)
    elif came_first:
        _LOG.info("another commit came before %s: %s", tried.what, error)
    return Outcome(version, came_first)


def _barred(tried: Tried) -> int | None:
    """Keeps a put that the store may still be carrying out from landing: a fence takes its place in the table.

    A first commit has no table yet in which something could take its place.

    Returns:
        The version of the commit where its put was quicker.

    Raises:
        UnavailableError: nothing could take its place.
    """
    fenced = fence(tried.uri, tried.commit_id, ITSELF)
    table = tables.open_table(tried.uri)
    version = None if table is None else tried.landed(table)
    if version is None and not fenced:
        raise UnavailableError("the table is not there yet")
    return version
