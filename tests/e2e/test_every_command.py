"""Every command, one after the other, on Delta and Parquet outputs, on the local runner and on Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import batchscore
from tests.e2e.conftest import LONG
from tests.factories.jobs import Oracle, SmallJob, day_frame, end_started, make_job, text_of

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("cores")]

DAYS = 3
BAD = 1e9  # outside of the rule's range
LOST = (2_000, 2_007)  # keys of the second day whose value is out of range at first
RULE = {"column": "f0", "range": [-1e6, 1e6], "name": "sane"}


class Story:
    """A job with a table, what its rows must be, and its commands."""

    def __init__(self, job: SmallJob, oracle: Oracle, output_format: str, runner: str) -> None:
        self.job, self.oracle, self.format = job, oracle, output_format
        settings = yaml.safe_load(job.settings.read_text())
        settings["scoring"]["runner"] = runner
        settings["output"] |= {"format": output_format, "partition_by": ["ds"]}
        settings["quarantine"] = {"rules": [RULE], "max_fraction": 0.5}
        settings["spark"] = {
            "master": "local[2]",
            "conf": {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"},
        }
        job.settings.write_text(yaml.safe_dump(settings))

    def do(self, command: str, *arguments: object, code: int = 0):
        done = self.job.run(*arguments, command=command)
        assert done.code == code, f"{command}: exit {done.code}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        return done.answer

    def spoil(self, day: int, keys: tuple[int, ...]) -> None:
        frame = day_frame(day, 0)
        values = frame["f0"].to_numpy().copy()
        values[[key - day * 1_000 for key in keys]] = BAD
        frame = frame.set_column(frame.schema.names.index("f0"), "f0", pa.array(values.astype(np.float32)))
        pq.write_table(frame, self.job.data / f"ds={text_of(day)}" / "part.parquet")

    def rows(self, variants: dict[int, int], without: tuple[int, ...] = ()) -> dict[int, float]:
        """The scores by key that the days must have, by the model's own library."""
        return {
            key: score
            for day, variant in variants.items()
            for key, score in self.oracle.rows(day, variant)
            if key not in without
        }

    def holds(self, expected: dict[int, float], version: int | None = None) -> None:
        found = batchscore.read_predictions(
            str(self.job.table), columns=["id", "ds", "prediction"], version=version
        ).to_pydict()
        assert len(found["id"]) == len(set(found["id"]))
        assert dict(zip(found["id"], found["prediction"], strict=True)) == expected
        assert all(str(day) == text_of(key // 1_000) for key, day in zip(found["id"], found["ds"], strict=True))


@pytest.fixture(
    params=[
        "delta-spark",
        "parquet-local",
        pytest.param("delta-local", marks=LONG),
        pytest.param("parquet-spark", marks=LONG),
    ]
)
def story(request, tmp_path):
    yield Story(*make_job(tmp_path / "job", DAYS), *request.param.split("-"))
    end_started()


def test_every_command(story):
    story.spoil(2, LOST)
    replayed = first_days_and_replay(story)
    newest = backfill(story)
    look_at(story, newest)
    back_and_forth(story, replayed, newest)
    clean(story)
    forget_and_retain(story)


BEFORE, AFTER = {1: 0, 2: 0, 3: 0}, {1: 0, 2: 0, 3: 1, 4: 0}
ERASED = (2_007,)


def first_days_and_replay(story: Story) -> str:
    planned = story.do("plan")
    assert planned["units_to_score"] == DAYS
    assert not story.job.table.exists()
    first = story.do("run")
    assert (first["rows"], first["rows_quarantined"]) == (DAYS * 40 - len(LOST), len(LOST))
    story.holds(story.rows(BEFORE, LOST))
    counted = story.do("quarantine")
    assert [(count["reason"], count["rows"]) for count in counted["counts"]] == [("out_of_range", len(LOST))]
    story.spoil(2, ())
    replayed = story.do("replay", first["run_id"])
    assert (replayed["state"], replayed["rows"]) == ("published", len(LOST))
    story.holds(story.rows(BEFORE))
    again = story.do("run")  # the input of that day was written again
    assert (again["units_published"], again["units_live"]) == (1, DAYS - 1)
    story.holds(story.rows(BEFORE))
    return str(again["run_id"])


def backfill(story: Story) -> str:
    story.job.change(3, 1)
    story.job.change(4, 0)
    span = ("--from", text_of(1), "--to", text_of(4))
    dry = story.do("backfill", *span, "--dry-run")
    assert (dry["dates_live"], dry["dates_score"]) == (2, 2)
    story.holds(story.rows(BEFORE))
    filled = story.do("backfill", *span)
    assert (filled["dates_published"], filled["dates_skipped"]) == (2, 2)
    story.holds(story.rows(AFTER))
    return str(filled["outcomes"][-1]["run_id"])


def look_at(story: Story, newest: str) -> None:
    runs = story.do("history")["runs"]
    assert (runs[0]["run_id"], runs[0]["state"]) == (newest, "published")
    shown = story.do("show", newest)
    assert [unit["rows"] for unit in shown["manifest"]["units"]] == [40]
    explained = story.do("explain", "--key", "id=4003")
    assert values(explained["row"])["prediction"] == dict(story.oracle.rows(4, 0))[4_003]
    assert explained["recomputed"]["equal"] is True, explained["recomputed"]
    assert values(explained["input"])["f0"] == day_frame(4, 0)["f0"][3].as_py()
    reproduced = story.do("reproduce", newest)
    assert (reproduced["equal"], reproduced["comparison"]["equal"]) == (True, 40)


def values(part) -> dict[str, object]:
    return {item["name"]: item["value"] for item in part["values"]}


def back_and_forth(story: Story, older: str, newest: str) -> None:
    assert not story.do("rollback", "--to", older)["nothing_to_do"]
    story.holds(story.rows(BEFORE))
    assert story.do("run")["state"] == "skipped"  # what was rolled back stays so
    story.do("rollback", "--to", newest)
    story.holds(story.rows(AFTER))


def forget_and_retain(story: Story) -> None:
    forgotten = story.do("forget", "--key", f"id={ERASED[0]}")
    assert (forgotten["keys_found"], forgotten["tables"][0]["rows"]) == (1, 1)
    story.holds(story.rows(AFTER, ERASED))
    assert story.do("run")["state"] == "skipped"  # an erased row does not come back by itself
    kept = story.do("retain", "--days", "0", "--shorter", "--optimize")
    assert kept["tables"][0]["files"]
    story.holds(story.rows(AFTER, ERASED))
    assert story.do("run")["state"] == "skipped"
    forced = story.do("run", "--force", "--partition", f"ds={text_of(1)}")
    assert (forced["state"], forced["rows"]) == ("published", 40)


def clean(story: Story) -> None:
    killed = story.job.run("--force", fault="manifest.end=kill")
    assert killed.code == -9, killed.err
    story.holds(story.rows(AFTER))
    (removed,) = story.do("clean", story.job.table)["removed"]
    assert {file["kind"] for file in removed["files"]} >= {"data", "manifest", "heartbeat"}
    assert not [path for path in story.job.table.rglob("*.parquet") if removed["run_id"] in path.name]
    story.holds(story.rows(AFTER))
