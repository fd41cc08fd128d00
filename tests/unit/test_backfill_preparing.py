"""What a backfill finds before its first run: damaged files count where they are asked for, however that is spelled."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batchscore import backfill
from batchscore.config import JobConfig
from batchscore.contracts import BackfillRequest, RunOptions
from batchscore.errors import SettingsError
from tests.factories.models import save_estimator, train_trees
from tests.factories.sources import write

DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")
REQUEST = BackfillRequest(DAYS[0], DAYS[-1])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backfill") / "model"
    estimator, frame, _ = train_trees("sklearn_tree_regressor", "float32")
    save_estimator(folder, estimator, frame, estimator.predict(frame))
    return folder, pa.Table.from_pandas(frame.head(20), preserve_index=False)


@pytest.fixture
def job(model, tmp_path):
    """``job(layout, **sections)``: settings over three days of one file each in folders ``layout``, and the folder."""

    def make(layout: str, **sections) -> tuple[JobConfig, object]:
        folder, frame = model
        rows = frame.append_column("id", pa.array(range(len(frame)))).append_column(
            "country", pa.array(["DE", "FR"] * (len(frame) // 2))
        )
        for day in DAYS:
            write(rows, tmp_path / "data" / f"ds={day}" / layout / "part-0.parquet")
        settings = {
            "model": {"name": str(folder)},
            "input": {"path": str(tmp_path / "data")},
            "output": {"path": str(tmp_path / "out"), "keys": ["id"]},
            "scoring": {"runner": "local", "engine": "compiled"},
            "registry": {"allowed_paths": [str(folder)]},
        }
        for section, values in sections.items():
            settings[section] |= values
        return JobConfig.model_validate(settings), tmp_path / "data"

    return make


def states(config: JobConfig) -> dict[str, str]:
    prepared = backfill.prepare(config, REQUEST, RunOptions())
    return {date.date: date.state for date in prepared.plan.dates}


@pytest.mark.parametrize(
    ("layout", "partitions", "mode"),
    [
        ("shop=1", {"shop": ["1"]}, "partitions"),
        ("shop=1", {"shop": ["01"]}, "partitions"),
        ("shop=1", {"Shop": ["1"]}, "partitions"),
        ("shop=__HIVE_DEFAULT_PARTITION__", {"shop": ["__HIVE_DEFAULT_PARTITION__"]}, "partitions"),
        ("", {"country": ["DE"]}, "append"),
        ("", {}, "partitions"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_damaged_file_that_is_asked_for_fails_its_date(job, layout, partitions, mode, alone):
    config, data = job(layout, input={"partitions": partitions}, output={"mode": mode})
    damaged = data / f"ds={DAYS[1]}" / layout / "part-1.parquet"
    whole = damaged.with_name("part-0.parquet")
    if alone:
        whole.rename(damaged)
        damaged.write_bytes(damaged.read_bytes()[:-8])
    else:
        damaged.write_bytes(whole.read_bytes()[:-8])
    assert states(config) == {DAYS[0]: "score", DAYS[1]: "unreadable", DAYS[2]: "score"}


def test_a_damaged_file_of_another_partition_does_not_count(job):
    config, data = job("shop=1", input={"partitions": {"Shop": ["01"]}})
    other = data / f"ds={DAYS[1]}" / "shop=2" / "part-0.parquet"
    other.parent.mkdir()
    other.write_bytes(b"PAR1")
    assert set(states(config).values()) == {"score"}


@pytest.mark.parametrize(("layout", "partitions"), [("shop=1", {"Shop": ["01"]}), ("", {"country": ["DE"]})])
def test_a_first_backfill_of_parts_of_units_is_refused_as_a_later_one_would_be(job, layout, partitions):
    config, data = job(layout, input={"partitions": partitions}, output={"partition_by": ["ds"]})
    with pytest.raises(SettingsError, match="would replace whole units of the output by some of their rows"):
        states(config)
    assert not (data.parent / "out").exists()
    added = config.model_copy(update={"output": config.output.model_copy(update={"mode": "append"})})
    assert set(states(added).values()) == {"score"}
