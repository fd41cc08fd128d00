"""Which settings files are to be scheduled, and what Airflow needs to know of each.

Airflow's environment does not hold batchscore, and a DAG file is parsed every few seconds: this reads YAML and
the handful of keys that decide when a job runs. `batchscore run` checks the whole file.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from airflow.sdk import CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowTimetableInvalid

CONF_DIR_VARIABLE = "BATCHSCORE_CONF_DIR"
COMMAND_VARIABLE = "BATCHSCORE_COMMAND"
PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
CRON_FIELDS = 5  # batchscore's settings know no seconds
MAX_FILE_BYTES = 1_000_000
MAX_PROBLEM_CHARS = 500
DAG_ID = re.compile(r"[\w.-]{1,250}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """One settings file with a ``schedule``.

    Attributes:
        dag_id: the file's name without ``.yaml``.
        settings: the file, absolute.
        timetable: the schedule, in UTC; the logical date is the start of the interval that has just ended.
        start_date: first day to score, or None for the newest interval alone.
        partition_column: column that gets the interval's first day; None scores the whole table.
        max_active_runs: dates that are scored at once.
        retries: how often a run that is worth a retry is tried again.
        retry_delay: wait before the first retry; each further one waits twice as long.
    """

    dag_id: str
    settings: Path
    timetable: CronDataIntervalTimetable
    start_date: dt.datetime | None
    partition_column: str | None
    max_active_runs: int
    retries: int
    retry_delay: dt.timedelta


class SettingsProblem(Exception):  # noqa: N818  # a finding about a file; all of them are reported in one ImportError
    """A settings file cannot be scheduled; the text says why and what to do."""


def conf_dir() -> Path:
    """Folder of the settings files: ``$BATCHSCORE_CONF_DIR``, or ``conf`` beside the folder of this file."""
    default = Path(__file__).resolve().parent.parent / "conf"
    return Path(os.environ.get(CONF_DIR_VARIABLE) or default).absolute()


def command() -> list[str]:
    """The batchscore executable and its leading arguments: ``$BATCHSCORE_COMMAND``, or ``batchscore``."""
    return shlex.split(os.environ.get(COMMAND_VARIABLE, "")) or ["batchscore"]


def scheduled_jobs(folder: Path) -> tuple[list[ScheduledJob], list[str]]:
    """The jobs of all ``*.yaml`` files of a folder that have a schedule, and the problems of the other ones.

    Args:
        folder: where the settings files are.

    Returns:
        jobs by file name, and one text for each file that cannot be scheduled; the text names the file.
    """
    if not folder.is_dir():
        return [], [f"{folder}: no such folder; set {CONF_DIR_VARIABLE} to the folder of the settings files"]
    jobs, problems = [], []
    for path in sorted(folder.glob("*.yaml")):
        try:
            document = _document(path)
            if document.get("schedule") is not None:
                jobs.append(_job(path, document))
        except SettingsProblem as problem:
            problems.append(f"{path}: {str(problem)[:MAX_PROBLEM_CHARS]}")
    return jobs, problems


def _document(path: Path) -> Mapping[str, object]:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise SettingsProblem(f"{size} bytes are too many for settings; at most {MAX_FILE_BYTES}")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    # ValueError: not UTF-8, or a date such as 2026-02-30. RecursionError: nested too deep.
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsProblem(f"cannot be read: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsProblem(f"holds a {type(document).__name__} where settings by name are expected")
    return document


def _job(path: Path, document: Mapping[str, object]) -> ScheduledJob:
    if not DAG_ID.fullmatch(path.stem):
        raise SettingsProblem(
            "the file's name becomes the DAG's: up to 250 letters, digits, dashes, dots and underscores"
        )
    return ScheduledJob(
        dag_id=path.stem,
        settings=path,
        timetable=_timetable(document["schedule"]),
        start_date=_start_date(document.get("start_date")),
        partition_column=_partition_column(document.get("output")),
        max_active_runs=int(_number(document, "max_active_runs", default=1, least=1)),
        retries=int(_number(document, "retries", default=3, least=0)),
        retry_delay=dt.timedelta(minutes=_number(document, "retry_delay_minutes", default=5.0, least=0.0)),
    )


def _timetable(schedule: object) -> CronDataIntervalTimetable:
    """`schedule="@daily"` itself would name the day that begins, and its data is not there yet."""
    allowed = f"a cron expression of five fields or one of {', '.join(PRESETS)}"
    if not isinstance(schedule, str) or not (schedule in PRESETS or len(schedule.split()) == CRON_FIELDS):
        raise SettingsProblem(f"schedule is {schedule!r}; allowed: {allowed}")
    timetable = CronDataIntervalTimetable(schedule, timezone="UTC")
    try:
        timetable.validate()
    except AirflowTimetableInvalid as error:
        raise SettingsProblem(f"schedule is {schedule!r}: {error}; allowed: {allowed}") from error
    return timetable


def _start_date(value: object) -> dt.datetime | None:
    if value is None:
        return None
    try:
        day = value if isinstance(value, dt.date) else dt.date.fromisoformat(str(value))
    except ValueError as error:
        raise SettingsProblem(f"start_date is {value!r}; allowed: a day such as 2026-11-01") from error
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def _partition_column(output: object) -> str | None:
    """The first of ``output.partition_by``; an empty list is a table without partitions."""
    columns = output.get("partition_by") if isinstance(output, dict) else None
    columns = [columns] if isinstance(columns, str) else columns
    if not isinstance(columns, list) or not all(isinstance(name, str) and name for name in columns):
        raise SettingsProblem(
            "a scheduled job names its partitions: set output.partition_by to a list whose first column holds the "
            "day, such as [ds], or to [] to score the whole table at each run"
        )
    return columns[0] if columns else None


def _number(document: Mapping[str, object], key: str, *, default: float, least: float) -> float:
    value = document.get(key, default)
    kinds = (int,) if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
        raise SettingsProblem(f"{key} is {value!r}; allowed: a number of at least {least}")
    return value
