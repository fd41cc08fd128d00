"""A commit on a stale handle: refused here; with delta-rs's default retries it would duplicate rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, DeltaTable

from batchscore.errors import FencedOutError
from batchscore.plan.units import is_live
from batchscore.publish import commit, inspect, swap
from batchscore.tables import delta
from tests.factories.staging import day, make_plan, offer, publish_run, stage

D1, D2 = day("2026-01-01"), day("2026-01-02")
# Units that nobody has published yet: nothing is removed, so delta-rs sees no conflict between two commits of them.
UNITS = {D1: "new", day(None): "new"}


@pytest.fixture
def table(tmp_path):
    path = str(tmp_path / "t")
    publish_run(path, "first", {D2: "old"}, rows=3)
    return path


def stale_commit(table):
    """The retry publishes while an earlier run still holds the version from before; then that run commits, too."""
    plan = make_plan(inspect(table), "stale", UNITS)
    staged, manifest = offer(plan, [stage(plan, values, range(3)) for values in UNITS], UNITS)
    work = swap._offer(plan, staged, manifest)
    look = swap._look(work)
    publish_run(table, "retry", UNITS, rows=3)
    change = swap._change(work, work.units, work.files, swap._removed(work, look, work.units, {}))
    return plan, staged, manifest, lambda: look.table.write(change)


def duplicates(table):
    """Keys that readers see more than once."""
    rows = pa.table(DeltaTable(table).scan().read_all())
    units = pc.binary_join_element_wise(pc.fill_null(rows["ds"].cast("string"), "null"), rows["id"].cast("string"), "/")
    return len(rows) - pc.count_distinct(units).as_py()


def test_a_stale_handle_cannot_commit(table):
    *_, write = stale_commit(table)
    version = DeltaTable(table).version()
    with pytest.raises(Exception, match=r"(?i)version|conflict|transaction"):
        write()
    assert DeltaTable(table).version() == version
    assert duplicates(table) == 0


def test_with_the_default_retries_of_delta_rs_the_rows_would_be_there_twice(table, monkeypatch):
    """So the test above sees something: this is what it guards against."""
    monkeypatch.setattr(delta, "_properties", lambda metadata: CommitProperties(custom_metadata=dict(metadata)))
    *_, write = stale_commit(table)
    write()
    assert duplicates(table) == 6


def test_the_stale_run_looks_again_and_ends_as_fenced_out_or_finds_its_work_done(table):
    plan, staged, manifest, _ = stale_commit(table)
    receipt = commit(plan, staged, manifest, is_live=is_live)
    assert (receipt.version, len(receipt.dropped)) == (-1, 2)
    publish_run(table, "other", {D2: "x"})
    plan, staged, manifest = _other_content(table)
    with pytest.raises(FencedOutError, match="retry2"):
        commit(plan, staged, manifest, is_live=is_live)
    assert duplicates(table) == 0


def _other_content(table):
    keys = {D1: "mine"}
    plan = make_plan(inspect(table), "late", keys)
    staged, manifest = offer(plan, [stage(plan, D1, range(3))], keys)
    publish_run(table, "retry2", {D1: "theirs"}, rows=3)
    return plan, staged, manifest
