"""One batch through the core, and one task through the worker's writer."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchscore.arrow.types import from_arrow
from batchscore.contracts import Binding, Column, IsNull, ModelInput, OutputColumn, ReasonCount
from batchscore.engines.isolation import HOPELESS_ROWS
from batchscore.errors import InputError, ModelError
from batchscore.score.core import coded_columns, score_batch
from batchscore.score.quarantine import samples
from batchscore.score.writer import MAX_OPEN_FILES, StagedWriter
from tests.factories import values


class Doubling:
    """An engine that doubles its only input."""

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([pc.multiply(inputs.column(0), 2.0)], names=["prediction"])


class Raising:
    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        raise ValueError("boom" * 1000)


def batch(ids, amounts, **more):
    arrays = {"id": pa.array(ids, pa.int64()), "amount": pa.array(amounts, pa.float64()), **more}
    return pa.RecordBatch.from_pydict(arrays)


def test_a_scored_batch_has_keys_predictions_and_lineage(tmp_path):
    big = 2**53 + 1
    scored = score_batch(batch([1, big], [1.5, 2.5]), values.task(str(tmp_path)), Doubling())
    assert (scored.left_out, scored.counts) == ((), ())
    assert scored.table.schema.names == ["id", "prediction", "_model", "_model_version", "_run_id", "_scored_at"]
    assert scored.table.column("id").to_pylist() == [1, big]
    assert scored.table.column("prediction").to_pylist() == [3.0, 5.0]
    assert scored.table.column("_run_id").to_pylist() == [values.RUN_ID] * 2
    assert scored.table.column("_scored_at").type == pa.timestamp("us", "UTC")


def test_bad_rows_are_left_out_counted_and_named_by_their_keys(tmp_path):
    task = values.task(
        str(tmp_path),
        bindings=(Binding("amount", "amount", "long", "double", "checked", null_rows_bad=False),),
        source_columns=(Column("id", "long"), Column("amount", "long")),
    )
    rows = pa.RecordBatch.from_pydict({"id": pa.array([7, 8, 9]), "amount": pa.array([1, 2**53 + 1, 3])})
    scored = score_batch(rows, task, Doubling())
    assert scored.table.column("id").to_pylist() == [7, 9]
    assert scored.table.column("prediction").to_pylist() == [2.0, 6.0]
    assert scored.counts == (ReasonCount("cast", "amount", 1),)
    (row,) = samples(scored.left_out, task, 10)
    assert row.keys == (("id", "8"),)
    assert (row.column, row.value) == ("amount", str(2**53 + 1))


def test_a_raising_model_is_a_bounded_error_that_names_the_cause(tmp_path):
    rows = HOPELESS_ROWS
    with pytest.raises(ModelError, match=f"raised on each of {rows} rows") as caught:
        score_batch(batch(range(rows), [1.0] * rows), values.task(str(tmp_path)), Raising())
    assert len(str(caught.value)) < 1000


def test_a_column_that_does_not_fit_its_planned_type_is_an_input_error(tmp_path):
    rows = pa.RecordBatch.from_pydict({"id": pa.array(["x"]), "amount": pa.array([1.0])})
    with pytest.raises(InputError, match="column 'id'"):
        score_batch(rows, values.task(str(tmp_path)), Doubling())


def partitioned_task(folder):
    base = values.task(str(folder))
    return values.task(
        str(folder),
        partition_by=("country", "day"),
        source_columns=(*base.source_columns, Column("country", "string"), Column("day", "integer")),
        columns=(
            OutputColumn("id", "long", "source", "id"),
            OutputColumn("country", "string", "source", "country"),
            OutputColumn("day", "integer", "source", "day"),
            *base.columns[1:],
        ),
    )


def test_rows_go_to_the_files_of_their_units(tmp_path):
    task = partitioned_task(tmp_path)
    writer = StagedWriter(task)
    rows = batch(
        range(6),
        [1.0] * 6,
        country=pa.array(["DE", "a b%/", None, "DE", "DE", "a b%/"]),
        day=pa.array([1, 1, 2, 2, 1, 1], pa.int32()),
    )
    writer.write(score_batch(rows, task, Doubling()).table)
    files = {file.unit: file for file in writer.finish()}
    assert set(files) == {
        (("country", "DE"), ("day", "1")),
        (("country", "a b%/"), ("day", "1")),
        (("country", None), ("day", "2")),
        (("country", "DE"), ("day", "2")),
    }
    for unit, ids in {(("country", "DE"), ("day", "1")): [0, 4], (("country", "a b%/"), ("day", "1")): [1, 5]}.items():
        table = pq.read_table(tmp_path / files[unit].path, partitioning=None)
        assert table.column("id").to_pylist() == ids
        assert "country" not in table.column_names
        assert files[unit].rows == 2
        assert files[unit].size == (tmp_path / files[unit].path).stat().st_size


def test_more_units_than_open_files_stay_bounded_and_lose_nothing(tmp_path):
    task = partitioned_task(tmp_path)
    writer = StagedWriter(task)
    days = MAX_OPEN_FILES * 2 + 3
    for _ in range(2):
        rows = batch(range(days), [1.0] * days, country=pa.array(["DE"] * days), day=pa.array(range(days), pa.int32()))
        writer.write(score_batch(rows, task, Doubling()).table)
    files = writer.finish()
    assert sum(file.rows for file in files) == 2 * days
    assert len({file.path for file in files}) == len(files)


def test_pages_have_checksums(tmp_path):
    writer = StagedWriter(values.task(str(tmp_path)))
    writer.write(score_batch(batch(range(1_000), [0.5] * 1_000), writer._task, Doubling()).table)
    (file,) = writer.finish()
    path = tmp_path / file.path
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1  # the last byte of the keys
    path.write_bytes(bytes(data))
    with pytest.raises(OSError, match="CRC checksum"):
        pq.ParquetFile(path, page_checksum_verification=True).read(columns=["id"])


def test_float_columns_have_no_bounds_in_the_footer(tmp_path):
    task = values.task(str(tmp_path))
    writer = StagedWriter(task)
    rows = score_batch(batch([1, 2], [1.0, 2.0]), task, Doubling()).table
    writer.write(rows.set_column(1, rows.schema.field(1), pa.array([2.0, float("nan")])))
    (file,) = writer.finish()
    group = pq.ParquetFile(tmp_path / file.path).metadata.row_group(0)
    by_name = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert by_name["prediction"].statistics is None
    assert by_name["id"].statistics.max == 2
    stats = {column.name: column for column in file.stats}
    assert stats["prediction"].maximum is None
    assert stats["_run_id"].minimum == stats["_run_id"].maximum == values.RUN_ID


def test_a_discarded_writer_leaves_no_file(tmp_path):
    task = values.task(str(tmp_path), file_rows=1)
    writer = StagedWriter(task)
    writer.write(score_batch(batch([1, 2], [1.0, 2.0]), task, Doubling()).table)
    writer.write(score_batch(batch([3], [1.0]), task, Doubling()).table)
    assert list(tmp_path.rglob("*.parquet"))
    writer.discard()
    assert not list(tmp_path.rglob("*.parquet"))


def test_columns_that_repeat_have_dictionaries_and_others_none(tmp_path):
    """Constants are one entry; a dictionary of keys or scores would be built for nothing."""
    base = values.task(str(tmp_path))
    task = dataclasses.replace(
        base,
        source_columns=(*base.source_columns, Column("country", "string")),
        columns=(base.columns[0], OutputColumn("country", "string", "source", "country"), *base.columns[1:]),
    )
    writer = StagedWriter(task)
    for start in (0, 3):
        rows = batch(range(start, start + 3), [1.0] * 3, country=pa.array(["DE", None, "FR"]))
        writer.write(score_batch(rows, task, Doubling(), with_lineage=start > 0).table)
    (file,) = writer.finish()
    group = pq.ParquetFile(tmp_path / file.path).metadata.row_group(0)
    coded = {group.column(i).path_in_schema: group.column(i).has_dictionary_page for i in range(group.num_columns)}
    assert not coded["id"]
    assert not coded["prediction"]
    assert coded["country"]
    assert coded["_run_id"]
    table = pq.read_table(tmp_path / file.path)
    assert table.column("_run_id").to_pylist() == [values.RUN_ID] * 6
    assert table.column("country").to_pylist() == ["DE", None, "FR"] * 2
    stats = {column.name: column for column in file.stats}
    assert (stats["country"].null_count, stats["country"].minimum, stats["country"].maximum) == (2, "DE", "FR")
    assert (stats["_run_id"].null_count, stats["_run_id"].minimum) == (0, values.RUN_ID)


class Coded:
    """An engine that takes dictionaries and gives how long each text is."""

    takes_codes = True

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        assert pa.types.is_dictionary(inputs.column("city").type)
        lengths = pc.utf8_length(inputs.column("city").dictionary_decode()).cast(pa.float64())
        return pa.RecordBatch.from_arrays([lengths], names=["prediction"])


def test_only_text_that_nothing_but_the_engine_reads_stays_a_dictionary(tmp_path):
    names = ("city", "kept", "id", "size")
    columns = (Column("city", "string"), Column("kept", "string"), Column("id", "string"), Column("size", "string"))
    bindings = [Binding(name, name, "string", "string", "same", null_rows_bad=False) for name in names[:3]]
    bindings.append(Binding("size", "size", "string", "double", "checked", null_rows_bad=False))
    task = values.task(str(tmp_path), source_columns=columns, bindings=tuple(bindings))
    kept = OutputColumn("kept", "string", "source", "kept")
    task = dataclasses.replace(task, columns=(*task.columns, kept))
    assert coded_columns(task, Coded()) == {"city"}
    assert coded_columns(task, Doubling()) == frozenset()
    assert coded_columns(dataclasses.replace(task, predicate=IsNull("id")), Coded()) == frozenset()


def test_a_dictionary_reaches_an_engine_that_takes_it_and_no_other_column(tmp_path):
    task = values.task(
        str(tmp_path),
        source_columns=(Column("id", "long"), Column("city", "string")),
        bindings=(Binding("city", "city", "string", "string", "same", null_rows_bad=True),),
    )
    task = dataclasses.replace(
        task,
        columns=(*task.columns, OutputColumn("city", "string", "source", "city")),
        model=dataclasses.replace(task.model, inputs=(ModelInput("city", "string"),)),
    )
    city = pa.array(["Ulm", None, "Bonn"]).dictionary_encode()
    scored = score_batch(pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), city], names=["id", "city"]), task, Coded())
    assert scored.table.column("prediction").to_pylist() == [3.0, 4.0]
    assert scored.table.column("city").type == pa.string()
    assert scored.table.column("city").to_pylist() == ["Ulm", "Bonn"]
    assert [row.keys for row in samples(scored.left_out, task, 10)] == [(("id", "2"),)]


def test_a_parquet_output_has_a_folder_for_the_run_and_the_partition_columns_in_its_files(tmp_path):
    task = dataclasses.replace(partitioned_task(tmp_path), output_format="parquet")
    writer = StagedWriter(task)
    country = pa.array(["DE", "a b%/", None, "DE"])
    rows = batch(range(4), [1.0, 2.0, 3.0, 4.0], country=country, day=pa.array([1, 1, 2, 2], pa.int32()))
    for start in (0, 2):
        writer.write(score_batch(rows.slice(start, 2), task, Doubling(), with_lineage=start > 0).table)
    files = {file.unit: file for file in writer.finish()}
    assert len(files) == 4
    types = {column.name: column.type for column in task.columns}
    for unit, file in files.items():
        assert file.path.startswith(f"_runs/{values.RUN_ID}/country-")
        assert "=" not in file.path
        table = pq.ParquetFile(tmp_path / file.path).read()
        assert table.column_names == [column.name for column in task.columns]
        assert [from_arrow(kind) for kind in table.schema.types] == [types[name] for name in table.column_names]
        assert [str(value) for value in table["country"].to_pylist()] == [str(dict(unit)["country"])] * file.rows
        assert {str(value) for value in table["day"].to_pylist()} == {dict(unit)["day"]}
        assert {stats.name for stats in file.stats} == set(types) - {"country", "day"}
