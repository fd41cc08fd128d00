"""Models of every flavor through the whole job: what is published is what the model gives in one process."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from batchscore import engines, models, pipeline
from batchscore.config import JobConfig
from batchscore.contracts import RunOptions
from batchscore.engines.cache import loaded
from batchscore.errors import ModelError
from tests.factories import models as factory

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return factory.make_registry(tmp_path_factory.mktemp("registry"))


def job(registry, folder, name, sample, **scoring):
    """Settings that score a table of the sample's rows with version 1 of a model."""
    table = pa.Table.from_pandas(sample, preserve_index=False).append_column("row", pa.array(range(len(sample))))
    (folder / "source").mkdir()
    pq.write_table(table, folder / "source" / "a.parquet", row_group_size=max(1, len(table) // 5))
    return JobConfig.model_validate(
        {
            "model": {"name": name, "version": "1"},
            "input": {"path": str(folder / "source")},
            "output": {"path": str(folder / "out"), "keys": ["row"]},
            "scoring": {"runner": "local", **scoring},
            "registry": {"tracking_uri": registry.tracking_uri},
        }
    )


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (factory.register_sklearn, ()),
        (factory.register_probabilities, ()),
        (factory.register_lightgbm, ("classifier",)),
        (factory.register_xgboost, ("classifier",)),
        (factory.register_onnx, ()),
        (factory.register_onnx_tensor, ()),
        (factory.register_onnx_mixed, ()),
        (factory.register_params, ()),
        (factory.register_outputs, ("frame",)),
        (factory.register_types, ()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_published_is_what_the_model_gives(registry, tmp_path, make, arguments):
    name, sample = make(registry, *arguments)
    if make in (factory.register_params, factory.register_types):
        sample = sample.dropna().reset_index(drop=True)  # null gives NaN, or has no cast: refused
    # Seven rows at a time: batches that hold only some of the categories.
    record = pipeline.run(job(registry, tmp_path, name, sample, batch_rows=7), RunOptions())
    assert record.rows == len(sample)
    published = DeltaTable(tmp_path / "out").to_pyarrow_table().sort_by("row")
    model = models.pin(f"{name}/1", tracking_uri=registry.tracking_uri)
    engine, rows = loaded(engines.choose("auto", model), factory.files_of(model), 1), factory.batch_of(model, sample)
    # In the same batches: a matrix product may round a row that is alone in its batch otherwise.
    parts = [engine.score(rows.slice(start, 7)) for start in range(0, rows.num_rows, 7)]
    own = pa.Table.from_batches(parts).combine_chunks()
    columns = [column for column in published.column_names if column.startswith("prediction")]
    assert len(columns) == own.num_columns
    for column, values in zip(columns, own.columns, strict=True):
        assert published[column].combine_chunks().to_pylist() == values.to_pylist(), column


@pytest.mark.parametrize("engine", ["compiled", "onnx", "native", "pyfunc"])
def test_an_engine_that_is_named_scores_the_run(registry, tmp_path, engine):
    name, sample = factory.register_lightgbm(registry, "classifier")
    record = pipeline.run(job(registry, tmp_path, name, sample, engine=engine), RunOptions())
    assert record.engine == engine
    published = DeltaTable(tmp_path / "out").to_pyarrow_table().sort_by("row")
    model = models.pin(f"{name}/1", tracking_uri=registry.tracking_uri)
    own = loaded("pyfunc", factory.files_of(model), 1).score(factory.batch_of(model, sample))
    assert published["prediction"].to_pylist() == own.column(0).to_pylist()


def test_a_model_whose_files_change_after_it_was_resolved_is_not_loaded(registry, tmp_path, monkeypatch):
    name, sample = factory.register_sklearn(registry, "changing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    planned = pipeline.make_plan

    def plan_then_damage(*arguments):
        plan = planned(*arguments)
        path = next(Path(plan.model.path).rglob("*.pkl"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        return plan

    monkeypatch.setattr(pipeline, "make_plan", plan_then_damage)
    config = job(registry, tmp_path, name, sample)
    with pytest.raises(ModelError, match="digest"):
        pipeline.run(config, RunOptions())
    assert not DeltaTable.is_deltatable(str(tmp_path / "out"))
    monkeypatch.setattr(pipeline, "make_plan", planned)
    assert pipeline.run(config, RunOptions()).rows == len(sample)  # the damaged copy was replaced
