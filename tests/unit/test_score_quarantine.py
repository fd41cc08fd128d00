"""Rows that a batch leaves out: which, why, what is kept of them, and that none is lost."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.contracts import (
    And,
    Binding,
    Column,
    Compare,
    Constant,
    IsNull,
    ModelInput,
    Not,
    ReasonCount,
    Replay,
    Rule,
    merged,
)
from batchscore.engines.given import PREFIX, behind
from batchscore.engines.isolation import HOPELESS_PROBES, HOPELESS_ROWS, Isolating
from batchscore.errors import BadRowsError, BatchscoreError, ModelError, ModelRaisedError
from batchscore.score.core import scorable_inputs, score_batch
from batchscore.score.quarantine import Fault, part, quarantine_schema, raised_fault, samples
from batchscore.score.worker import known_rows, run_batches_task
from batchscore.score.writer import QuarantineWriter
from tests.factories import values

NAN = float("nan")
POSITIVE = Rule("positive", "out_of_range", ("amount",), Compare("amount", ">=", Constant(0, "integer")))
SMALL_SCORE = Rule(
    "small", "out_of_range", ("prediction",), Compare("prediction", "<=", Constant(100, "integer")), of_output=True
)


class Doubling:
    """Doubles its only input; counts its calls."""

    calls = 0

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        self.calls += 1
        return pa.RecordBatch.from_arrays([pc.multiply(inputs.column(0), 2.0)], names=["prediction"])


class Allergic(Doubling):
    """Raises where one of the amounts is poison; the null output where it is 7."""

    def __init__(self, poison):
        self.poison = poison

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        if set(inputs.column(0).to_pylist()) & set(self.poison):
            raise ValueError("poison among them")
        return super().score(inputs)


def batch(ids, amounts):
    return pa.RecordBatch.from_pydict({"id": pa.array(ids, pa.int64()), "amount": pa.array(amounts, pa.float64())})


def task(folder, *rules, **changes):
    made = values.task(str(folder), **changes)
    return dataclasses.replace(made, rules=tuple(rules), quarantine_uri=f"{folder}__quarantine")


def left_out(scored):
    """(id, reason, column, values) of each row that was left out."""
    rows = [row for part in scored.left_out for row in part.to_pylist()]
    return [(row["id"], row["_reason"], row["_column"], dict(row["_values"])) for row in rows]


def test_a_row_that_breaks_a_rule_is_left_out_with_the_value_at_fault(tmp_path):
    scored = score_batch(batch([1, 2, 3], [1.0, -2.5, None]), task(tmp_path, POSITIVE), Doubling())
    # Null breaks no rule but `required`; the model makes null of it here, which is no prediction.
    assert scored.table.column("id").to_pylist() == [1]
    assert left_out(scored) == [
        (2, "out_of_range", "positive", {"amount": "-2.5"}),
        (3, "not_finite", "prediction", {"prediction": None}),
    ]
    assert merged(scored.counts) == (
        ReasonCount("not_finite", "prediction", 1),
        ReasonCount("out_of_range", "positive", 1),
    )


def test_a_row_with_several_faults_is_left_out_once_for_the_first(tmp_path):
    required = Rule("there", "required", ("amount",), Not(IsNull("amount")))
    both = Rule(
        "between", "out_of_range", ("amount", "id"), And((POSITIVE.holds, Compare("id", ">", Constant(1, "integer"))))
    )
    scored = score_batch(batch([None, 1, 2], [-1.0, -1.0, None]), task(tmp_path, required, POSITIVE, both), Doubling())
    assert left_out(scored) == [
        (None, "null_key", "id", {"id": None}),
        (2, "required", "there", {"amount": None}),
        (1, "out_of_range", "positive", {"amount": "-1"}),
    ]
    assert scored.table.num_rows == 0
    two = score_batch(batch([1], [1.0]), task(tmp_path, both), Doubling())
    assert left_out(two) == [(1, "out_of_range", "between", {"amount": "1", "id": "1"})]


def test_several_values_of_several_rows_stay_with_their_rows(tmp_path):
    both = Rule(
        "between", "out_of_range", ("amount", "id"), And((POSITIVE.holds, Compare("id", ">", Constant(1, "integer"))))
    )
    scored = score_batch(batch([1, 2, 3, 4], [1.0, -2.0, 3.0, -4.0]), task(tmp_path, both), Doubling())
    assert left_out(scored) == [
        (1, "out_of_range", "between", {"amount": "1", "id": "1"}),
        (2, "out_of_range", "between", {"amount": "-2", "id": "2"}),
        (4, "out_of_range", "between", {"amount": "-4", "id": "4"}),
    ]


def test_details_stay_with_their_rows_where_some_are_out_already(tmp_path):
    rows = batch([1, 2, 3], [-1.0, 2.0, 3.0])
    rule = Fault("out_of_range", "positive", pa.array([True, False, False]), ("amount",), "positive")
    (raised,) = raised_fault([(2, "of 3"), (0, "of 1")], 3, ["amount"])
    parted = part([rule, raised], rows, rows, task(tmp_path))
    assert parted.kept.to_pylist() == [False, True, False]
    found = [(row["id"], row["_reason"], row["_detail"]) for piece in parted.left_out for row in piece.to_pylist()]
    assert found == [(1, "out_of_range", "positive"), (3, "model_raised", "of 3")]


@pytest.mark.parametrize("amount", [math.inf, -math.inf, NAN])
def test_a_prediction_that_is_not_finite_is_left_out(tmp_path, amount):
    scored = score_batch(batch([1, 2], [1.0, amount]), task(tmp_path), Doubling())
    assert scored.table.column("id").to_pylist() == [1]
    assert [row[:3] for row in left_out(scored)] == [(2, "not_finite", "prediction")]


def test_a_rule_about_the_prediction(tmp_path):
    scored = score_batch(batch([1, 2], [50.0, 51.0]), task(tmp_path, SMALL_SCORE), Doubling())
    assert scored.table.column("id").to_pylist() == [1]
    assert left_out(scored) == [(2, "out_of_range", "small", {"prediction": "102"})]


def test_a_label_of_no_known_class_is_left_out(tmp_path):
    class Labelling:
        def score(self, inputs):
            return pa.RecordBatch.from_arrays([inputs.column(0).cast(pa.int64())], names=["prediction"])

    made = task(tmp_path)
    columns = tuple(dataclasses.replace(c, type="long") if c.origin == "model" else c for c in made.columns)
    made = dataclasses.replace(made, columns=columns, classes=("0", "1"))
    scored = score_batch(batch([1, 2, 3], [0.0, 2.0, 1.0]), made, Labelling())
    assert scored.table.column("id").to_pylist() == [1, 3]
    assert left_out(scored) == [(2, "unknown_class", "prediction", {"prediction": "2"})]


def test_a_batch_is_halved_until_the_poison_stands_alone(tmp_path):
    amounts = [float(n) for n in range(1, 1001)]
    engine = Allergic({3.0, 500.0, 501.0, 1000.0})
    scored = score_batch(batch(range(1, 1001), amounts), task(tmp_path), engine)
    assert scored.table.column("prediction").to_pylist() == [2 * a for a in amounts if a not in engine.poison]
    assert [row[:2] for row in left_out(scored)] == [(n, "model_raised") for n in (3, 500, 501, 1000)]
    assert left_out(scored)[0][3] == {"amount": "3"}
    assert scored.left_out[0].column("_detail")[0].as_py() == "ValueError: poison among them"
    assert engine.calls < 100, "a call for each row would be a thousand"


def test_poison_keeps_its_place_behind_rows_that_a_rule_left_out(tmp_path):
    scored = score_batch(batch([1, 2, 3, 4], [-1.0, 5.0, 6.0, 7.0]), task(tmp_path, POSITIVE), Allergic({6.0}))
    assert scored.table.column("id").to_pylist() == [2, 4]
    assert [row[:2] for row in left_out(scored)] == [(1, "out_of_range"), (3, "model_raised")]


def test_a_model_that_raises_on_everything_is_an_error_of_the_model():
    isolating = Isolating(Allergic(range(100)))
    with pytest.raises(ModelError, match="raised on each of") as caught:
        isolating.scores(batch(range(100), [float(n) for n in range(100)]).select(["amount"]))
    assert "poison among them" in caught.value.text()


def amounts(rows):
    return batch(range(rows), [float(n) for n in range(rows)]).select(["amount"])


@pytest.mark.parametrize("poison", [range(16), range(40), range(4080, 4096), range(0, 4096, 2), range(4070)])
def test_poison_side_by_side_does_not_hide_the_rows_that_score(poison):
    scores = Isolating(Allergic(poison)).scores(amounts(4096))
    assert [place for place, _ in scores.raised] == list(poison)
    good = [n for n in range(4096) if n not in set(poison)]
    assert scores.outputs.column(0).to_pylist() == [2.0 * n for n in good]


@pytest.mark.parametrize("rows", [2, HOPELESS_ROWS - 1])
def test_a_few_poisoned_rows_before_any_that_scores_are_left_to_the_run_to_judge(rows):
    isolating = Isolating(Allergic(range(rows)))
    scores = isolating.scores(amounts(rows))
    assert scores.outputs is None
    assert [place for place, _ in scores.raised] == list(range(rows))
    assert isolating.scores(batch([1], [99.0]).select(["amount"])).raised == ()


class Counting(Doubling):
    """Raises on everything; counts how often it is asked."""

    def score(self, inputs):
        self.calls += 1
        raise ValueError("poison among them")


@pytest.mark.parametrize("rows", [HOPELESS_ROWS, 100, 4096, 65_536])
def test_a_model_that_raises_on_everything_is_not_asked_for_every_row(rows):
    engine = Counting()
    with pytest.raises(ModelError, match="raised on each of") as caught:
        Isolating(engine).scores(amounts(rows))
    assert "poison among them" in caught.value.text()
    assert engine.calls <= min(2 * rows, 3 * HOPELESS_PROBES + 2)


def test_a_broken_model_on_many_small_batches_ends_with_its_own_error():
    isolating = Isolating(Counting(), max_rows=20)
    for _ in range(4):
        assert len(isolating.scores(amounts(5)).raised) == 5
    with pytest.raises(ModelError, match="raised on each of 25 rows"):
        isolating.scores(amounts(5))


def test_one_poisoned_row_alone_is_left_to_the_run_to_judge():
    scores = Isolating(Allergic({1.0})).scores(batch([1], [1.0]).select(["amount"]))
    assert scores.outputs is None
    assert [place for place, _ in scores.raised] == [0]


def test_more_poison_than_the_run_may_quarantine_ends_it_early():
    rows = HOPELESS_ROWS * 4
    engine = Allergic([float(n) for n in range(1, rows)])  # only row 0 can be scored
    with pytest.raises(BadRowsError, match="more than the 20 rows"):
        Isolating(engine, max_rows=20).scores(batch(range(rows), [float(n) for n in range(rows)]).select(["amount"]))


def test_an_engine_of_ours_that_says_the_model_raised_is_halved_and_other_errors_are_not():
    class Saying(Allergic):
        def score(self, inputs):
            try:
                return super().score(inputs)
            except ValueError as error:
                raise self.kind("the model raised", found=error) from error

    rows = batch(range(10), [float(n) for n in range(10)]).select(["amount"])
    engine = Saying({4.0})
    engine.kind = ModelRaisedError
    assert [place for place, _ in Isolating(engine).scores(rows).raised] == [4]
    engine.kind = ModelError
    with pytest.raises(ModelError):
        Isolating(engine).scores(rows)


class Seeing(Allergic):
    """Remembers which amounts it was given."""

    def __init__(self, poison=(), *, takes_any_row):
        super().__init__(poison)
        self.takes_any_row = takes_any_row
        self.seen = []

    def score(self, inputs: pa.RecordBatch) -> pa.RecordBatch:
        self.seen.append(inputs.column(0).to_pylist())
        return super().score(inputs)


@given(st.lists(st.integers(-3, 9), max_size=HOPELESS_ROWS - 1))
def test_an_engine_that_takes_any_row_leaves_out_what_the_others_do(numbers):
    given_rows = batch(range(len(numbers)), [float(n) for n in numbers])
    made = dataclasses.replace(values.task("unused"), rules=(POSITIVE, SMALL_SCORE))
    scored = [score_batch(given_rows, made, Seeing({7.0}, takes_any_row=takes)) for takes in (True, False)]
    assert scored[0].table.equals(scored[1].table)
    assert scored[0].counts == scored[1].counts
    assert left_out(scored[0]) == left_out(scored[1])


def test_a_model_is_shown_what_a_rule_left_out_only_where_its_engine_takes_any_row_and_few_are_left_out(tmp_path):
    def seen(amounts, engine):
        scored = score_batch(batch(range(len(amounts)), amounts), task(tmp_path, POSITIVE), engine)
        assert scored.table.column("prediction").to_pylist() == [2 * a for a in amounts if a >= 0]
        return engine.seen

    assert seen([1.0, -1.0, 2.0], Seeing(takes_any_row=False)) == [[1.0, 2.0]]
    assert seen([1.0, -1.0, 2.0], Seeing(takes_any_row=True)) == [[1.0, -1.0, 2.0]]
    assert seen([1.0, -1.0, -2.0], Seeing(takes_any_row=True)) == [[1.0]]
    # What it raises on was left out before: nothing is halved for it.
    assert seen([1.0, -1.0, 2.0], Seeing({-1.0}, takes_any_row=True)) == [[1.0, -1.0, 2.0], [1.0, 2.0]]


def test_memory_that_runs_out_is_no_poison():
    class Full(Doubling):
        def score(self, inputs):
            raise MemoryError

    with pytest.raises(MemoryError):
        Isolating(Full()).scores(batch([1, 2], [1.0, 2.0]).select(["amount"]))


def test_values_of_every_type_are_kept_as_text(tmp_path):
    amounts = pa.array([[1.0], None, [2.0, 3.0]], pa.list_(pa.float64()))
    rows = pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), amounts], names=["id", "amount"])
    made = task(
        tmp_path,
        bindings=(Binding("amount", "amount", "array<double>", "array<double>", "same", null_rows_bad=True),),
        source_columns=(Column("id", "long"), Column("amount", "array<double>")),
    )
    made = dataclasses.replace(
        made, model=dataclasses.replace(made.model, inputs=(ModelInput("amount", "double", shape=(-1, 2)),))
    )

    class Sum:
        def score(self, inputs):
            return pa.RecordBatch.from_arrays([pa.array([5.0] * inputs.num_rows)], names=["prediction"])

    scored = score_batch(rows, made, Sum())
    assert {row[0]: row[3]["amount"] for row in left_out(scored)} == {1: "[1.0]", 2: "None"}


def test_a_long_value_is_cut(tmp_path):
    rule = Rule("short", "not_allowed", ("text",), Compare("text", "=", Constant("a", "string")))
    made = task(
        tmp_path, rule, source_columns=(Column("id", "long"), Column("amount", "double"), Column("text", "string"))
    )
    rows = pa.RecordBatch.from_pydict({"id": [1], "amount": [1.0], "text": ["ü" * 5000]})
    ((_, _, _, kept),) = left_out(score_batch(rows, made, Doubling()))
    assert kept == {"text": "ü" * 200}


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(0, 50)),
            st.one_of(st.none(), st.sampled_from([NAN, math.inf, -1.0, 0.0, 7.0, 13.0, 60.0, 2.5])),
        ),
        max_size=40,
    )
)
def test_each_row_is_either_scored_or_left_out_once(tmp_path_factory, rows):
    made = task(tmp_path_factory.getbasetemp(), POSITIVE, SMALL_SCORE)
    isolating = Isolating(Allergic({7.0, 13.0}))
    isolating._has_scored = True  # it scored other batches before
    given_rows = batch([row[0] for row in rows], [row[1] for row in rows])
    scored = score_batch(given_rows, made, isolating)
    gone = [row[0] for row in left_out(scored)]
    assert sorted([*scored.table.column("id").to_pylist(), *gone], key=str) == sorted(
        given_rows.column("id").to_pylist(), key=str
    )
    assert sum(count.rows for count in scored.counts) == len(gone)
    good = [i for i, a in rows if i is not None and a is not None and a in {0.0, 2.5}]
    assert scored.table.column("id").to_pylist() == good


def test_the_file_of_rows_that_were_left_out(tmp_path):
    made = task(tmp_path / "out", POSITIVE)
    writer = QuarantineWriter(made)
    assert writer.finish() == ()
    for start in (0, 2):
        for rows in score_batch(batch([start, start + 1], [-1.0, NAN]), made, Doubling()).left_out:
            writer.write(rows)
    (file,) = writer.finish()
    assert file.rows == 4
    stored = pq.ParquetFile(tmp_path / "out__quarantine" / file.path).read()
    assert stored.schema.names == quarantine_schema(made).names
    assert sorted(stored.column("id").to_pylist()) == [0, 1, 2, 3]
    assert set(stored.column("_run_id").to_pylist()) == {values.RUN_ID}


def test_what_a_failed_task_left_out_is_removed(tmp_path):
    made = task(tmp_path / "out", POSITIVE)
    writer = QuarantineWriter(made)
    writer.write(score_batch(batch([1], [-1.0]), made, Doubling()).left_out[0])
    writer.discard()
    assert list((tmp_path / "out__quarantine").iterdir()) == []


def test_a_key_that_is_an_infinite_time_names_its_row(tmp_path):
    told = pa.table(
        {
            "id": pa.array([2**63 - 1], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "_values": pa.array([[("amount", "-1")]], pa.map_(pa.string(), pa.string())),
            "_detail": ["positive"],
        }
    )
    (row,) = samples(told.to_batches(), task(tmp_path / "out"), 10)
    assert row.keys == (("id", f"<value out of range: {2**63 - 1}>"),)


def test_a_replay_takes_the_rows_of_its_run_alone(tmp_path):
    for name, run, ids in (("a", "r1", [1, None]), ("b", "r2", [2])):
        table = pa.table({"id": pa.array(ids, pa.int64()), "_run_id": [run] * len(ids)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    replay = Replay("r1", (Column("id", "long"),), ("a.parquet", "b.parquet"), str(tmp_path), ((),))
    found = known_rows(replay).among(batch([1, 2, None, 3], np.ones(4)))
    assert found.to_pylist() == [True, False, True, False]


def test_a_replay_counts_all_rows_that_spark_hands_over(tmp_path):
    (tmp_path / "q").mkdir()
    pq.write_table(pa.table({"id": [3], "_run_id": ["r1"]}), tmp_path / "q" / "a.parquet")
    replay = Replay("r1", (Column("id", "long"),), ("a.parquet",), str(tmp_path / "q"), ((),))
    task = behind(values.task(str(tmp_path / "out"), replay=replay))
    handed = [
        batch(ids, np.ones(len(ids))).append_column(f"{PREFIX}output_0", pa.array(np.ones(len(ids))))
        for ids in ([1, 2, 3], [4, 5])
    ]
    result = run_batches_task(task, handed)
    assert (result.rows_read, result.rows_filtered, result.rows_staged) == (5, 4, 1)


def test_a_damaged_quarantine_is_worth_a_retry(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(BatchscoreError, match="cannot be read"):
        known_rows(Replay("r1", (Column("id", "long"),), ("a.parquet",), str(tmp_path), ((),)))


def test_a_null_in_one_of_a_tensors_columns_is_recorded_as_that_columns(tmp_path):
    names = ("a", "b", "c")
    made = task(
        tmp_path,
        bindings=tuple(Binding("", name, "long", "long", "same", null_rows_bad=True) for name in names),
        source_columns=(Column("id", "long"), *(Column(name, "long") for name in names)),
    )
    tensor = ModelInput("", "long", True, (-1, 3), names)
    made = dataclasses.replace(made, model=dataclasses.replace(made.model, inputs=(tensor,)))
    rows = pa.RecordBatch.from_pydict(
        {"id": [1, 2, 3], "a": [10, None, 30], "b": pa.array([None, 2, 3], pa.int64()), "c": [7, 8, 9]}
    )

    class Sum:
        def score(self, inputs):
            return pa.RecordBatch.from_arrays([pa.array([5.0] * inputs.num_rows)], names=["prediction"])

    scored = score_batch(rows, made, Sum())
    assert scored.table.column("id").to_pylist() == [3]
    assert sorted(left_out(scored)) == [(1, "null", "b", {"b": None}), (2, "null", "a", {"a": None})]


def test_a_rule_that_spark_computes_keeps_the_values_of_the_columns_that_it_names(tmp_path):
    computed = "__batchscore_rule_0"
    rule = Rule(
        "loud",
        "rule",
        (computed,),
        Compare(computed, "=", Constant(True, "boolean")),
        sql="upper(text) = text",
        named=("text",),
    )
    columns = (Column("id", "long"), Column("amount", "double"), Column("text", "string"), Column(computed, "boolean"))
    made = task(tmp_path, rule, source_columns=columns)
    rows = pa.RecordBatch.from_pydict({"id": [1, 2], "amount": [1.0, 2.0], "text": ["A", "b"], computed: [True, False]})
    assert left_out(score_batch(rows, made, Doubling())) == [(2, "rule", "loud", {"text": "b"})]


def test_rows_to_measure_on_are_those_that_a_run_gives_to_an_engine(tmp_path):
    rows = batch([1, None, 3, 4], [1.0, 2.0, -3.0, 4.0])
    assert scorable_inputs(rows, task(tmp_path, POSITIVE)).to_pydict() == {"amount": [1.0, 4.0]}
