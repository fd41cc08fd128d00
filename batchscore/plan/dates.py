"""Dates of partitions: ranges, windows and the column that holds them. All of it is in UTC."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence

from batchscore.contracts import PinnedSource, SourceFile
from batchscore.errors import SettingsError, bounded, listed, nearest

MAX_DATES = 36_525  # a century: more is a mistyped year
MAX_HOURS = MAX_DATES * 24
HOURS = {"h": 1, "d": 24, "w": 168}

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_AGE = re.compile(r"(\d{1,9})\s*([hdw])", re.ASCII)


def parsed(text: str | None) -> dt.date | None:
    """The date that ``YYYY-MM-DD`` names; None for any other text.

    >>> parsed("2028-02-29"), parsed("2027-02-29"), parsed("20270228"), parsed(None)
    (datetime.date(2028, 2, 29), None, None, None)
    """
    if text is None or not text.isascii() or not _DATE.fullmatch(text):
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def days(first: str, last: str) -> tuple[str, ...]:
    """Every date from ``first`` to ``last``, both included, oldest first.

    Raises:
        SettingsError: one is no date, they are the wrong way round, or more than a century apart.

    >>> days("2028-02-28", "2028-03-01")
    ('2028-02-28', '2028-02-29', '2028-03-01')
    """
    begin, end = _flag("--from", first), _flag("--to", last)
    if begin > end:
        raise SettingsError("--from lies after --to", found=f"--from {first} --to {last}", hint="exchange them")
    count = (end - begin).days + 1
    if count > MAX_DATES:
        raise SettingsError(
            f"--from and --to are {count:,} dates apart", found=f"{first} to {last}", allowed=(f"up to {MAX_DATES:,}",)
        )
    return tuple((begin + dt.timedelta(days=number)).isoformat() for number in range(count))


def _flag(flag: str, text: str) -> dt.date:
    date = parsed(text)
    if date is None:
        raise SettingsError(
            f"{flag} takes a date", found=text, allowed=("YYYY-MM-DD",), hint=f"for example {flag} 2026-01-31"
        )
    return date


def hours(text: str) -> int:
    """The hours that ``12h``, ``7d`` or ``4w`` name.

    Raises:
        SettingsError: the text is none of these, or names no time at all.

    >>> hours("7d"), hours("2w"), hours("36h")
    (168, 336, 36)
    """
    found = _AGE.fullmatch(text.strip())
    count = int(found[1]) * HOURS[found[2]] if found else 0
    if not 0 < count <= MAX_HOURS:
        raise SettingsError(
            "--changed-since takes a number of hours, days or weeks",
            found=text,
            allowed=("12h", "7d", "4w"),
            hint="for example --changed-since 7d",
        )
    return count


def first_recent(hours_ago: int, now: dt.datetime) -> str:
    """The oldest date of which some part lies within the last hours, in UTC.

    >>> first_recent(168, dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC))
    '2026-11-14'
    """
    return (now.astimezone(dt.UTC) - dt.timedelta(hours=hours_ago)).date().isoformat()


def refuse_replace(mode: str) -> None:
    """Refuses to look at recent units alone where the run would replace the whole table by them.

    Raises:
        SettingsError: the mode is ``replace``.
    """
    if mode == "replace":
        raise SettingsError(
            "--changed-since with mode replace would remove every unit that it does not look at",
            found="output.mode replace",
            allowed=("partitions", "append"),
        )


def date_column(source: PinnedSource, partition_by: Sequence[str], named: str | None) -> str:
    """The partition column of the output whose values are dates.

    That is a column of type date, or of text where every value of the input is a date, ``YYYY-MM-DD``; nulls do not
    count.

    Args:
        source: the input, with all its files.
        partition_by: the output's partition columns.
        named: what ``--date-column`` says.

    Raises:
        SettingsError: there is no such column, there are several, the one that is named is none, or the input is not
            laid out by the output's partition columns.
    """
    unknown = [name for name in partition_by if name not in source.partition_columns]
    if not partition_by:
        raise SettingsError(
            "the output is not partitioned, so it has no dates to go by",
            hint="partition it by the column that holds the dates (output.partition_by)",
        )
    if unknown or not source.files:
        raise SettingsError(
            "the input is not laid out by the output's partition columns, so its dates are not known before it is read",
            found=f"input by {listed(source.partition_columns) or 'nothing'}, output by {listed(partition_by)}",
            hint=f"write the input partitioned by {listed(unknown or partition_by)}; or use --where for one date",
        )
    if named is not None:
        return _named(source, partition_by, named)
    found = [name for name in partition_by if _other_value(source, name) is None]
    if len(found) == 1:
        return found[0]
    problem = "several partition columns hold dates" if found else "no partition column of the output holds dates"
    raise SettingsError(
        problem,
        found=listed(found) if found else listed(_seen(source, name) for name in partition_by),
        hint="say which with --date-column" if found else "dates are of type date, or text spelled YYYY-MM-DD",
    )


def _named(source: PinnedSource, partition_by: Sequence[str], named: str) -> str:
    if named not in partition_by:
        raise SettingsError(
            "--date-column names no partition column of the output",
            found=named,
            near=nearest(named, partition_by),
            allowed=tuple(partition_by),
        )
    other = _other_value(source, named)
    if other is not None:
        raise SettingsError(
            f"--date-column {named} does not hold dates", found=other, allowed=("type date", "text spelled YYYY-MM-DD")
        )
    return named


def _other_value(source: PinnedSource, name: str) -> str | None:
    """What of a column is no date: a value, or its type; None where all is."""
    kind = next(column.type for column in source.columns if column.name == name)
    if kind == "date":
        return None
    if kind != "string":
        return f"type {kind}"
    values = [value for value in _values(source.files, name) if value is not None]
    if not values:
        return "no value but null"
    return next((f"{name}={bounded(value)}" for value in values if parsed(value) is None), None)


def _seen(source: PinnedSource, name: str) -> str:
    return f"{name} ({_other_value(source, name)})"


def _values(files: Iterable[SourceFile], name: str) -> list[str | None]:
    return list(dict.fromkeys(dict(file.partition)[name] for file in files))


def dates_of(source: PinnedSource, column: str) -> tuple[str, ...]:
    """The dates that the input's files have, oldest first; a null, or the empty text, is none."""
    values = [value for value in _values(source.files, column) if value is not None]
    return tuple(sorted(value for value in values if parsed(value) is not None))


def units_outside(source: PinnedSource, partition_by: Sequence[str], column: str, kept: Iterable[str]) -> int:
    """How many units of the input have a date that is not among those kept."""
    inside = set(kept)
    return len(
        {
            tuple(values[name] for name in partition_by)
            for values in (dict(file.partition) for file in source.files)
            if values[column] not in inside
        }
    )
