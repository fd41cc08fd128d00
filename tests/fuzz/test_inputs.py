"""Settings files, command lines, partition values and conditions that hypothesis makes up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.arrow.layout import partition_path
from batchscore.config.problems import all_keys
from batchscore.contracts import Column
from batchscore.errors import SettingsError
from batchscore.read.partitions import hive_values
from batchscore.read.where import parse_where
from tests.fuzz.arena import MOST_CHARS, called, check_answer

SHORT, LONG = 30, 400
CASES = pytest.mark.parametrize("cases", [SHORT, pytest.param(LONG, marks=pytest.mark.torture)])
COLUMNS = (Column("id", "long"), Column("amount", "double"), Column("name", "string"), Column("ds", "date"))

texts = st.text(max_size=30)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.sampled_from(
        ["../..", "/", "~", "[a", "{a: b", "!!python/name:os.system", "*a", "&a [*a]", "2026-13-45", "\t", "-"]
    ),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def yaml_line(key: str, value: object) -> str:
    """A setting as somebody may write it: not always YAML."""
    section, _, name = key.partition(".")
    return f"{section}: {{{name}: {value}}}\n" if name else f"{section}: {value}\n"


@CASES
def test_settings_files(arena, tally, cases):
    before = arena.published()
    lines = st.builds(yaml_line, st.sampled_from(sorted(all_keys())) | texts, values)

    @settings(settings.get_profile("fuzz"), max_examples=cases)
    @given(st.lists(lines | texts, max_size=6), st.booleans())
    def check(made, beside):
        text = "".join(made)
        good = Path("job.yaml").read_text() if beside else ""
        Path("made.yaml").write_bytes((good + text).encode("utf-8", "surrogatepass"))
        answer = called("plan", "--config", "made.yaml", "--runner", "local", "--tracking-uri", "none")
        with tally.case("made up: settings files"):
            check_answer(answer, text)

    check()
    assert arena.published() == before


FLAGS = (
    "--model", "--config", "--input", "--input-format", "--input-version", "--output", "--mode", "--keys", "--carry",
    "--partition", "--where", "--engine", "--batch-rows", "--suite", "--on-new-model", "--allow-path", "--set",
    "--json", "--force", "--table", "--limit",
)  # fmt: skip
SENSIBLE = (
    "job.yaml", "in", "out", "parquet", "./model", "delta", "auto", "1", "id", "amount", "ds=2026-11-01", "ds=x", "=",
    "amount > 1", "id in (1, 2)", "pyfunc", "partitions", "replace", "a.b=c", "model.params={a: 1}", "input.where=1",
    "output.keys=[id, id]", "output.partition_by=[]", "scoring.batch_rows=-1", "spark.conf.a=b",
)  # fmt: skip


@CASES
def test_command_lines(arena, tally, cases):
    before = arena.published()
    values = st.sampled_from(SENSIBLE) | st.text(
        st.characters(exclude_characters="\x00", exclude_categories=()), max_size=20
    )
    parts = st.tuples(st.sampled_from(FLAGS), values) | st.tuples(values)

    @settings(settings.get_profile("fuzz"), max_examples=cases)
    @given(st.sampled_from(["plan", "check", "history", "show"]), st.lists(parts, max_size=5))
    def check(command, made):
        given_parts = [text for part in made for text in part]
        # Another runner would start Spark for a name that could be a table's.
        local = ["--config", "job.yaml", "--runner", "local"] if command in {"plan", "check"} else []
        answer = called(command, *local, *given_parts)
        with tally.case("made up: command lines"):
            check_answer(answer, (command, *given_parts))

    check()
    assert arena.published() == before


WORDS = (
    "id", "amount", "name", "ds", "nope", "and", "or", "not", "in", "between", "is", "null", "like", "case", "when",
    "then", "else", "end", "(", ")", ",", "=", "<>", "<=>", ">", "+", "-", "*", "/", "%", "||", "::", "->", "[", "]",
    "{", "}", ";", "--", "/*", "*/", "'a'", "'it''s'", '"b"', "`id`", "`", "'", "1", "1.5", "1e9", "5L", "X'41'",
    "9" * 40, "upper(", "rand()", "reflect(", "select", "from", "exists", "date", "timestamp", "interval", "1 day",
    "array(", "cast(", "as", "decimal(10,2)", ":a", "?", "@a", "${a}", "{{a}}", "\\", "\n", "true", "false", "over",
    "lateral",
)  # fmt: skip


@CASES
def test_conditions(tally, cases):
    """Parsed, left to Spark with a reason, or refused as a setting: nothing else."""

    @settings(settings.get_profile("fuzz"), max_examples=5 * cases)
    @given(st.lists(st.sampled_from(WORDS) | texts, max_size=14).map(" ".join) | st.text(max_size=60))
    def check(sql):
        with tally.case("made up: conditions"):
            try:
                parse_where(sql, COLUMNS)
            except SettingsError as error:
                assert len(str(error)) <= MOST_CHARS  # noqa: PT017

    check()


@CASES
def test_partition_values_stay_in_their_folder(tally, cases):
    @settings(settings.get_profile("fuzz"), max_examples=5 * cases)
    @given(
        st.text(min_size=1, max_size=300), st.text(max_size=300) | st.sampled_from(["..", ".", "/", "a/../..", "%2f"])
    )
    def check(name, value):
        with tally.case("made up: partition values"):
            path = partition_path(((name, value),))
            assert "/" not in path
            assert "\\" not in path
            assert path not in {"", ".", ".."}
            assert not path.startswith(("_", "."))
            assert len(path.encode()) <= 255
            if "~" not in path and value:
                assert hive_values(f"{path}/file") == ((name, value),)

    check()


@CASES
def test_partitions_that_are_asked_for(arena, tally, cases):
    @settings(settings.get_profile("fuzz"), max_examples=cases)
    @given(texts | st.sampled_from(["ds", "DS", "id", "amount"]), texts | st.sampled_from(["2026-11-01", "..", "null"]))
    def check(column, value):
        answer = called("plan", "--config", "job.yaml", "--runner", "local", "--partition", f"{column}={value}")
        with tally.case("made up: partitions that are asked for"):
            check_answer(answer, (column, value))

    check()
