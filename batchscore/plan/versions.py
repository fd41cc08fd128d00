"""Which model version carried an alias or a stage on a date; pure.

MLflow keeps no history of aliases and stages. What is certain are single instants: what a run of this table was given
(the ledger), what the registry says now, and that a version that is in a stage now has been since it was last changed.
Between two instants that agree the version is taken to be the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from batchscore.contracts import DateVersion, Observation, VersionHistory
from batchscore.errors import SettingsError, listed


def versions_as_of(
    dates: Sequence[str], history: VersionHistory, runs: Iterable[Observation], now: dt.datetime
) -> dict[str, DateVersion]:
    """The version of each date: the one that carried the alias or stage when the date ended, at midnight UTC.

    Args:
        dates: ``YYYY-MM-DD``.
        history: what the registry tells.
        runs: what earlier runs of the table were given for the same reference.
        now: this moment.

    Raises:
        SettingsError: naming the dates for which nothing tells it, and the way out.
    """
    observed = sorted([*runs, *_of_registry(history, now)], key=lambda item: _instant(item.at))
    found = {date: _version(_end_of(date), history, observed, now) for date in dates}
    unknown = [date for date, version in found.items() if version is None]
    if unknown:
        named = " ".join(filter(None, (history.kind, history.value)))
        raise SettingsError(
            f"nothing tells which version was the {named} on {len(unknown)} of {len(dates)} dates",
            found=f"{listed(unknown)}; {_told(history, observed)}",
            hint="name the version that is to score them (--model name/7, without --model-as-of), "
            "or backfill the other dates alone",
        )
    return {date: version for date, version in found.items() if version is not None}


def _version(
    end: dt.datetime, history: VersionHistory, observed: Sequence[Observation], now: dt.datetime
) -> DateVersion | None:
    if history.kind == "latest":
        return _newest(end, history)
    before = [item for item in observed if _instant(item.at) < end]
    after = [item for item in observed if _instant(item.at) >= end]
    last, following = before[-1:] or None, after[:1] or None
    if last and _instant(last[0].at) >= min(end, now) - dt.timedelta(days=1):
        return DateVersion(last[0].version, last[0].said_by)
    if last and following and last[0].version == following[0].version:
        return DateVersion(last[0].version, f"{last[0].said_by}, and {following[0].said_by}")
    return _only_one(end, history)


def _newest(end: dt.datetime, history: VersionHistory) -> DateVersion | None:
    there = [version for version in history.versions if _instant(version.created_at) < end]
    if not there:
        return None
    newest = max(there, key=lambda version: int(version.version))
    return DateVersion(newest.version, f"registry: the newest version then, of {_day(newest.created_at)}")


def _only_one(end: dt.datetime, history: VersionHistory) -> DateVersion | None:
    """The first version, where there was no other yet that could have carried the alias or stage."""
    there = [version for version in history.versions if _instant(version.created_at) < end]
    # A missing number below is a version that was deleted; it may have carried it.
    if len(there) != 1 or int(there[0].version) != 1:
        return None
    return DateVersion(there[0].version, "registry: the only version there was")


def _of_registry(history: VersionHistory, now: dt.datetime) -> list[Observation]:
    current = next((version for version in history.versions if version.version == history.current), None)
    if current is None or history.kind == "latest":
        return []
    found = [Observation(now.isoformat(), current.version, "registry: it does now")]
    if history.kind == "stage":
        since = f"registry: in {history.value} since {_day(current.updated_at)} at the latest"
        found.append(Observation(current.updated_at, current.version, since))
    return found


def _told(history: VersionHistory, observed: Sequence[Observation]) -> str:
    """What is known at all, for the error."""
    if history.kind == "latest":
        return "the registry has no version that old"
    if not observed:
        return "no run of this table was given it, and no version carries it now"
    return f"the oldest that is known is version {observed[0].version} on {_day(observed[0].at)}"


def _end_of(date: str) -> dt.datetime:
    try:
        following = dt.date.fromisoformat(date) + dt.timedelta(days=1)
    except OverflowError:  # the last day of the calendar
        return dt.datetime.max.replace(tzinfo=dt.UTC)
    return dt.datetime.combine(following, dt.time(), dt.UTC)


def _instant(text: str) -> dt.datetime:
    at = dt.datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)


def _day(text: str) -> str:
    return _instant(text).astimezone(dt.UTC).date().isoformat()
