"""What a backfill plans for each date, decided without a clock, a file or Spark."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchscore.contracts import BackfillRequest, ChunkOutcome, Column, DateVersion, PlannedDate, SourceFile
from batchscore.errors import SettingsError
from batchscore.plan import backfill, make
from tests.factories import values
from tests.unit.test_plan import published

REQUEST = BackfillRequest("2026-11-19", "2026-11-22")


def planned(**changes):
    return make(values.plan_inputs(**changes))


def test_each_date_has_its_state_and_its_share_of_time_and_cost():
    plan = replace(planned(), estimated_seconds=30.0)
    first, second = backfill.planned_dates(plan, "ds")
    assert (first.date, first.state, first.rows, first.units, first.reason) == ("2026-11-20", "score", 100, 1, "new")
    assert (first.seconds, second.seconds) == (10.0, 20.0)
    assert (first.core_seconds, second.core_seconds) == (10.0, 20.0), "one file of one row group keeps one core busy"
    assert first.version == "7"


def test_a_date_of_many_row_groups_costs_every_core():
    file = SourceFile(
        "/data/transactions/ds=2026-11-20/a.parquet", 10, "t", 100_000, (25_000,) * 4, (("ds", "2026-11-20"),)
    )
    plan = replace(planned(source=values.source(files=(file,))), estimated_seconds=10.0)
    (date,) = backfill.planned_dates(plan, "ds")
    assert (date.seconds, date.core_seconds) == (10.0, 20.0)


def test_what_is_published_takes_no_time():
    target = published(planned(), drop=((("ds", "2026-11-21"),),))
    plan = replace(planned(target=target), estimated_seconds=20.0)
    live, to_score = backfill.planned_dates(plan, "ds")
    assert (live.state, live.seconds, live.core_seconds, live.version) == ("live", 0.0, 0.0, "")
    assert (to_score.state, to_score.seconds) == ("score", 20.0)


def test_time_is_unknown_without_an_earlier_run():
    (first, _) = backfill.planned_dates(planned(), "ds")
    assert (first.seconds, first.core_seconds) == (-1.0, -1.0)


def test_a_date_of_several_units_is_scored_when_one_of_them_is():
    def file(country, stamp="t"):
        partition = (("ds", "2026-11-20"), ("country", country))
        return SourceFile(f"/data/transactions/{country}.parquet", 10, stamp, 100, (100,), partition)

    columns = (*values.source().columns, Column("country", "string"))
    given = values.source(columns=columns, partition_columns=("ds", "country"), files=(file("NO"), file("SE")))
    target = published(planned(source=given), rows=(100, 100))
    changed = replace(given, files=(file("NO"), file("SE", "t2")))
    (date,) = backfill.planned_dates(planned(source=changed, target=target), "ds")
    assert (date.state, date.units, date.rows) == ("score", 1, 100)
    assert date.reason == "1 of 2 units: changed since it was published"


def test_dates_without_input_are_listed_and_are_no_error():
    missing = backfill.missing_dates(("2026-11-19", "2026-11-20"), ["2026-11-20"])
    assert [(date.date, date.state) for date in missing] == [("2026-11-19", "missing")]


def test_the_version_of_each_date_comes_with_its_reason():
    versions = {date: DateVersion("7", f"run of {date}") for date in ("2026-11-20", "2026-11-21")}
    assert [date.version_why for date in backfill.planned_dates(planned(), "ds", versions)] == [
        "run of 2026-11-20",
        "run of 2026-11-21",
    ]


# --- chunks ------------------------------------------------------------------------------------------------


def dated(day, state="score", version="7", rows=10):
    return PlannedDate(f"2026-11-{day:02d}", state, "", 1, rows, version=version)


def spans(chunks):
    return [tuple(int(date[-2:]) for date in chunk.dates) for chunk in chunks]


def test_chunks_are_oldest_first_and_hold_only_what_is_scored():
    given = [dated(3), dated(1), dated(2, "live"), dated(4, "missing"), dated(5, "unreadable"), dated(6)]
    assert spans(backfill.chunked(given, 1)) == [(1,), (3,), (6,)]
    assert spans(backfill.chunked(given, 2)) == [(1, 3), (6,)]
    assert [chunk.rows for chunk in backfill.chunked([dated(1), dated(2, rows=-1), dated(3)], 3)] == [-1]


def test_a_chunk_has_one_model_version():
    given = [dated(1, version="1"), dated(2, version="1"), dated(3, version="2"), dated(4, version="1")]
    chunks = backfill.chunked(given, 3)
    assert spans(chunks) == [(1, 2), (3,), (4,)]
    assert [chunk.version for chunk in chunks] == ["1", "2", "1"]


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"first": "2026-11-23"}, "--from lies after --to"),
        ({"at_a_time": 0}, "--parallel takes"),
        ({"chunk_dates": 0}, "--chunk takes"),
    ],
)
def test_a_request_that_is_none(changes, says):
    with pytest.raises(SettingsError, match=says):
        backfill.range_of(replace(REQUEST, **changes))


def test_settings_under_which_dates_get_in_each_others_way():
    backfill.refuse_mode("partitions", ["country"], "ds")
    backfill.refuse_mode("append", [], "ds")
    with pytest.raises(SettingsError, match="replace the whole table"):
        backfill.refuse_mode("replace", [], "ds")
    with pytest.raises(SettingsError, match="named twice"):
        backfill.refuse_mode("partitions", ["DS"], "ds")


# --- exit codes --------------------------------------------------------------------------------------------


def ended(*codes, state="failed"):
    return [ChunkOutcome((f"2026-11-{day + 1:02d}",), state, "", code) for day, code in enumerate(codes)]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        (ended(0, 0, state="published") + ended(0, state="skipped"), 0),
        (ended(7, 7), 7),
        (ended(7, 6, 4), 4),
        (ended(4, 5), 5),
        (ended(5, 3), 3),
        (ended(3, 2), 2),
        (ended(2, 1), 1),
        (ended(0, state="not_started"), 0),
        (ended(5) + ended(130, state="interrupted"), 130),
    ],
)
def test_the_exit_code_is_that_of_the_gravest_failure(outcomes, code):
    assert backfill.exit_code(outcomes) == code
    assert backfill.exit_code(reversed(outcomes)) == code


def test_dates_that_are_not_attempted_have_ended_all_the_same():
    found = backfill.foregone([dated(1), dated(2, "live"), dated(3, "missing"), dated(4, "unreadable")])
    assert [(outcome.dates[0][-2:], outcome.state, outcome.exit_code) for outcome in found] == [
        ("02", "skipped", 0),
        ("04", "failed", 5),
    ]
