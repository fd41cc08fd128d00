from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from batchscore.clean import Cleaning
from batchscore.cli import clean_commands
from batchscore.cli.main import main
from batchscore.publish.leftovers import LeftFile, Leftover
from tests.unit.golden_files import assert_golden

DEAD, LIVE = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def file(kind, path, size):
    return LeftFile(kind, DEAD, "s3://user:hunter2@bucket/t", path, size, AT)


FOUND = Cleaning(
    "s3://user:hunter2@bucket/t",
    dry_run=False,
    removed=(
        Leftover(DEAD, "gone", False, (file("data", "ds=1/part.parquet", 12_345), file("manifest", "m.json", 10))),
        Leftover("20260103T000000-cccccccc", "silent", True, (file("heartbeat", "h.json", 7),)),
    ),
    kept=(Leftover(LIVE, "live", False, (file("data", "ds=2/part.parquet", 1),), "it is at work"),),
)


def test_text():
    assert_golden("clean", "\n".join(clean_commands.lines(FOUND)))


def test_nothing_to_remove():
    (line,) = clean_commands.lines(Cleaning("t", False, (), ()))
    assert line == "nothing to remove: no run left anything under t"


def test_json_is_one_document_without_secrets():
    document = clean_commands.document(FOUND)
    text = json.dumps(document)
    assert "hunter2" not in text
    assert (document["files"], document["bytes"]) == (3, 12_362)
    assert document["kept"][0]["reason"] == "it is at work"
    assert document["removed"][0]["files"][0] == {"kind": "data", "path": "ds=1/part.parquet", "bytes": 12_345}


def called(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["clean", *map(str, arguments)])
    return ended.value.code, capsys.readouterr()


def test_a_table_that_is_not_there_ends_with_5(tmp_path, capsys):
    code, said = called(capsys, tmp_path / "none", "--json")
    assert code == 5
    assert json.loads(said.out)["exit_code"] == 5


def test_neither_table_nor_job_is_wrong_usage_and_so_are_both(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert called(capsys)[0] == 2
    code, said = called(capsys, "table", "--model", "fraud/1")
    assert code == 2
    assert "a table and a job are named" in said.err
