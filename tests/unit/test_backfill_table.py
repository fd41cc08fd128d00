"""What `batchscore backfill` prints: golden files, and documents that a machine reads."""

from __future__ import annotations

import json
from dataclasses import replace

from batchscore.cli import backfill_table
from batchscore.contracts import (
    BackfillPlan,
    BackfillReport,
    BackfillRequest,
    ChunkOutcome,
    DateState,
    PlannedDate,
)
from batchscore.plan.backfill import chunked
from tests.unit.golden_files import assert_golden


def date(day: int, state: DateState, reason: str, **facts: object) -> PlannedDate:
    return PlannedDate(f"2026-11-{day:02d}", state, reason, **facts)  # type: ignore[arg-type]


DATES = (
    date(1, "live", "already published by run 20261102T010000-0a1b2c3d", units=1, rows=1_200_000),
    date(2, "score", "new", units=1, rows=1_300_000, seconds=1.25, core_seconds=2.5, version="7"),
    date(3, "missing", "the input has no such date"),
    date(4, "unreadable", "data/t/ds=2026-11-04/a.parquet is not a Parquet file, or it is truncated"),
    date(5, "score", "changed since it was published", units=1, rows=900, seconds=0.0, core_seconds=0.0, version="7"),
)
PLAN = BackfillPlan(
    backfill_id="backfill-20261121T031500-0a1b2c3d",
    request=BackfillRequest("2026-11-01", "2026-11-05"),
    date_column="ds",
    model="fraud/Production",
    models=(("7", "d" * 64),),
    input="data/t",
    table="/data/predictions",
    table_version=3,
    engine="compiled",
    runner="local",
    cores=2,
    dates=DATES,
    chunks=chunked(DATES, 1),
    notices=("MLflow deprecates stages",),
)
OUTCOMES = (
    ChunkOutcome(("2026-11-01",), "skipped", "already published by run 20261102T010000-0a1b2c3d"),
    ChunkOutcome(
        ("2026-11-02",), "published", "1,300,000 rows as version 4", 0, "20261121T031501-00000001", 1_300_000, 1.5, "7"
    ),
    ChunkOutcome(("2026-11-04",), "failed", DATES[3].reason, 5),
    ChunkOutcome(("2026-11-05",), "failed", "2 of 3 checks failed", 4, "20261121T031503-00000002", 0, 0.4, "7"),
)
REPORT = BackfillReport(PLAN, OUTCOMES, 2.34, 5)


def as_of(plan: BackfillPlan) -> BackfillPlan:
    whys = {
        2: ("6", "ledger: run 20261102T010000-0a1b2c3d was given it"),
        5: ("7", "registry: in Production since 2026-11-05 at the latest"),
    }
    dates = tuple(
        replace(each, version=whys[int(each.date[-2:])][0], version_why=whys[int(each.date[-2:])][1])
        if each.state == "score"
        else each
        for each in plan.dates
    )
    request = replace(plan.request, model_as_of=True, chunk_dates=7, at_a_time=2)
    models = (("6", "e" * 64), ("7", "d" * 64))
    return replace(plan, request=request, dates=dates, models=models, chunks=chunked(dates, 7))


def test_the_plan():
    assert_golden("backfill_plan", "\n".join(backfill_table.plan_lines(PLAN)))


def test_the_plan_says_which_version_scores_which_date_and_why():
    assert_golden("backfill_plan_as_of", "\n".join(backfill_table.plan_lines(as_of(PLAN))))


def test_the_report():
    assert_golden("backfill_report", "\n".join(backfill_table.report_lines(REPORT)))


def test_a_first_backfill_does_not_know_its_time():
    unknown = tuple(replace(each, seconds=-1.0, core_seconds=-1.0) for each in DATES if each.state == "score")
    lines = backfill_table.plan_lines(replace(PLAN, dates=unknown, table_version=-1))
    assert "output     /data/predictions, a new table" in lines
    assert "?" in lines[-2]
    assert "time unknown" in lines[-2]


def test_nothing_to_do_is_said():
    lines = backfill_table.plan_lines(replace(PLAN, dates=DATES[:1], chunks=()))
    assert lines[-1] == "nothing to do: every date that has input is published already"


def test_a_long_range_stays_bounded():
    many = tuple(PlannedDate(f"2026-{number}", "missing", "no") for number in range(1_000))
    lines = backfill_table.plan_lines(replace(PLAN, dates=many))
    assert len(lines) < backfill_table.MAX_DATES + 20
    assert "  and 600 more" in lines


def test_the_documents_are_json_with_the_counts_that_a_reader_wants():
    document = json.loads(json.dumps(backfill_table.plan_document(PLAN)))
    assert (document["dates_score"], document["dates_live"], document["dates_missing"]) == (2, 1, 1)
    assert document["dates_unreadable"] == 1
    assert (document["rows"], document["estimated_seconds"], document["nothing_to_do"]) == (1_300_900, 1.25, False)
    assert document["models"] == [{"version": "7", "digest": "d" * 64}]
    assert document["chunks"][0]["dates"] == ["2026-11-02"]
    report = json.loads(json.dumps(backfill_table.report_document(REPORT)))
    assert (report["exit_code"], report["dates_published"], report["dates_failed"]) == (5, 1, 2)
    assert report["outcomes"][1]["dates"] == ["2026-11-02"]
    assert report["plan"]["backfill_id"] == report["backfill_id"]
