"""The quarantine table: appended by runs, listed by reason."""

from __future__ import annotations

import dataclasses
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from batchscore.contracts import Column, OutputColumn, RunRecord
from batchscore.errors import FencedOutError, SettingsError, UnavailableError
from batchscore.publish import fence
from batchscore.quarantine import report
from batchscore.record import append as append_record
from batchscore.record import quarantine
from batchscore.score.quarantine import Fault, part
from batchscore.score.writer import QuarantineWriter
from tests.factories import values


def left_out(folder, run_id, ids, reason="cast", *, id_type="long", extra=()):
    """A staged file of rows that a run leaves out."""
    made = values.task(str(folder))
    key = OutputColumn("id", id_type, "source", "id")
    more = tuple(OutputColumn(name, "string", "source", name) for name in extra)
    made = dataclasses.replace(
        made,
        run_id=run_id,
        columns=(key, *more, *made.columns[1:]),
        keys=("id", *extra),
        source_columns=(Column("id", id_type), Column("amount", "double"), *(Column(name, "string") for name in extra)),
        lineage=tuple((name, run_id if name == "_run_id" else value) for name, value in made.lineage),
        quarantine_uri=f"{folder}__quarantine",
    )
    arrays = {
        "id": pa.array(ids),
        "amount": pa.array([0.5] * len(ids)),
        **{name: pa.array(["x"] * len(ids)) for name in extra},
    }
    rows = pa.RecordBatch.from_pydict(arrays)
    fault = Fault(reason, "amount", pa.array([True] * len(ids)), ("amount",), "why")
    writer = QuarantineWriter(made)
    for batch in part([fault], rows, rows, made).left_out:
        writer.write(batch)
    return writer.finish()


def test_rows_are_counted_by_run_and_reason(tmp_path):
    table = tmp_path / "out"
    quarantine.append(str(table), "run-1", left_out(table, "run-1", [1, 2, 3]))
    quarantine.append(str(table), "run-2", left_out(table, "run-2", [4], "required"))
    quarantine.append(str(table), "run-2", left_out(table, "run-2", [5, 6]))
    found = [(count.run_id, count.reason, count.rows) for count in quarantine.counts(str(table))]
    assert found == [("run-2", "cast", 2), ("run-2", "required", 1), ("run-1", "cast", 3)]
    assert [count.rows for count in quarantine.counts(str(table), "run-1")] == [3]
    assert len(quarantine.files_of(str(table), "run-2")) == 2
    (row, _) = quarantine.examples(str(table), "run-1", 2)
    assert (row.row, row.values, row.detail) == ({"id": "1"}, {"amount": "0.5"}, "why")


def test_no_row_makes_no_table(tmp_path):
    quarantine.append(str(tmp_path / "out"), "run-1", ())
    assert quarantine.counts(str(tmp_path / "out")) == []
    assert list(tmp_path.iterdir()) == []


def test_another_reader_reads_it(tmp_path):
    table = tmp_path / "out"
    quarantine.append(str(table), "run-1", left_out(table, "run-1", [1]))
    rows = DeltaTable(tmp_path / "out__quarantine").to_pyarrow_table().to_pylist()
    assert [dict(row["_values"]) for row in rows] == [{"amount": "0.5"}]
    assert rows[0]["_scored_at"].tzinfo is not None


def test_it_takes_new_columns_and_refuses_another_type(tmp_path):
    table = tmp_path / "out"
    quarantine.append(str(table), "run-1", left_out(table, "run-1", [1]))
    quarantine.append(str(table), "run-2", left_out(table, "run-2", [1], extra=("shop",)))
    assert [row.row for row in quarantine.examples(str(table), "run-2", 1)] == [{"id": "1", "shop": "x"}]
    files = left_out(table, "run-3", ["a"], id_type="string")
    with pytest.raises(SettingsError, match="column id of the quarantine"):
        quarantine.append(str(table), "run-3", files)


def test_runs_that_append_at_once_all_succeed(tmp_path):
    table = tmp_path / "out"
    files = {f"run-{n}": left_out(table, f"run-{n}", [n]) for n in range(6)}
    failed = []

    def add(run):
        try:
            quarantine.append(str(table), run, files[run])
        except Exception as error:  # noqa: BLE001  # told to the test
            failed.append(error)

    threads = [threading.Thread(target=add, args=(run,)) for run in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {count.run_id for count in quarantine.counts(str(table))} == set(files)


def test_a_run_whose_files_were_removed_behind_a_fence_commits_none_of_them(tmp_path):
    table = tmp_path / "out"
    quarantine.append(str(table), "run-1", left_out(table, "run-1", [1]))
    files = left_out(table, "run-2", [2], extra=("shop",))  # it would add a column, too
    fence(quarantine.quarantine_uri(str(table)), "run-2", "cleaned up")
    for file in files:
        (tmp_path / "out__quarantine" / file.path).unlink()
    with pytest.raises((FencedOutError, UnavailableError)):
        quarantine.append(str(table), "run-2", files)
    again = left_out(table, "run-2", [2], extra=("shop",))
    with pytest.raises(FencedOutError, match="run-2 was taken over"):
        quarantine.append(str(table), "run-2", again)
    assert [(count.run_id, count.rows) for count in quarantine.counts(str(table))] == [("run-1", 1)]


def test_a_fence_that_comes_between_the_look_and_the_commit_is_seen(tmp_path, monkeypatch):
    table = tmp_path / "out"
    quarantine.append(str(table), "run-1", left_out(table, "run-1", [1]))
    files, extend = left_out(table, "run-2", [2]), quarantine._extend

    def late(*arguments):
        fence(quarantine.quarantine_uri(str(table)), "run-2", "cleaned up")
        extend(*arguments)

    monkeypatch.setattr(quarantine, "_extend", late)
    with pytest.raises(FencedOutError):
        quarantine.append(str(table), "run-2", files)
    assert [count.run_id for count in quarantine.counts(str(table))] == ["run-1"]


def test_units_of_a_run(tmp_path):
    table = tmp_path / "out"
    quarantine.append(str(table), "run-1", left_out(table, "run-1", [1, 2], extra=("shop",)))
    assert quarantine.units_of(str(table), "run-1", ("shop",)) == ((("shop", "x"),),)
    assert quarantine.units_of(str(table), "run-1", ()) == ((),)
    assert quarantine.units_of(str(table), "run-9", ()) == ()


def test_a_damaged_file_is_named(tmp_path):
    table = tmp_path / "out"
    (file,) = left_out(table, "run-1", [1])
    quarantine.append(str(table), "run-1", (file,))
    (tmp_path / "out__quarantine" / file.path).write_bytes(b"PAR1")
    with pytest.raises(UnavailableError, match=file.path):
        quarantine.counts(str(table))


def test_the_report_says_how_each_run_ended(tmp_path):
    table = str(tmp_path / "out")
    quarantine.append(table, "run-1", left_out(table, "run-1", [1, 2]))
    append_record(table, record("run-1", "refused"))
    found = report(table, None, 1)
    assert found.states == {"run-1": "refused"}
    assert len(found.examples) == 1
    assert found.notes == ()
    quarantine.append(table, "run-2", left_out(table, "run-2", [3]))
    append_record(table, record("run-2", "published"))
    found = report(table, None, 1)
    assert found.states == {"run-1": "refused", "run-2": "published"}
    assert "run-2" in found.notes[0]
    assert [count.run_id for count in report(table, "run-1", 1).counts] == ["run-1"]


def record(run_id, state):
    facts = dict.fromkeys(("started_at", "ended_at"), "2026-11-21T00:00:00Z")
    texts = (
        "model_name",
        "model_version",
        "model_digest",
        "source_uri",
        "source_snapshot",
        "table",
        "mode",
        "engine",
        "runner",
    )
    numbers = ("table_version", "units_published", "units_live", "rows_read", "rows", "exit_code")
    return RunRecord(
        run_id=run_id,
        state=state,
        source_version=None,
        seconds=1.0,
        message="",
        **facts,
        **dict.fromkeys(texts, ""),
        **dict.fromkeys(numbers, 0),
    )
