from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from batchscore.cli import progress, show
from batchscore.cli.app import app
from batchscore.cli.flags import JobFlags, job_config
from batchscore.cli.main import main
from batchscore.contracts import (
    Binding,
    Check,
    Column,
    Manifest,
    ManifestUnit,
    ModelFiles,
    PinnedModel,
    PinnedSource,
    PlannedUnit,
    Restriction,
    RunRecord,
    ScoringPlan,
    ScoringTask,
    Split,
    TargetState,
    UnitState,
)
from batchscore.doctor import Finding
from batchscore.errors import SettingsError
from tests.unit.golden_files import assert_golden

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "run",
    "plan",
    "check",
    "engines",
    "benchmark",
    "demo",
    "history",
    "show",
    "doctor",
    "backfill",
    "clean",
    "explain",
    "reproduce",
    "quarantine",
    "replay",
    "rollback",
    "retain",
    "forget",
)
HEAVY = ("pyspark", "mlflow", "pandas", "numpy", "pyarrow", "deltalake", "great_expectations", "lightgbm", "sklearn")
SETTINGS = "model: {name: fraud}\ninput: {path: data}\noutput: {path: out, keys: id}\n"


@pytest.fixture(autouse=True)
def _process_state():
    """``main`` is the process's own: it sets a signal handler and logging."""
    handler, level = signal.getsignal(signal.SIGTERM), logging.getLogger().level
    yield
    signal.signal(signal.SIGTERM, handler)
    logging.getLogger().setLevel(level)


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return run


@pytest.fixture
def conf(tmp_path):
    """``conf/fraud.yaml`` in the folder that commands run in."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/fraud.yaml").write_text(SETTINGS)


def in_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


# --- help and usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_json(command, name):
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert f"Example: batchscore {name}" in out
    assert "--json" in out
    assert "--verbose" in out


def test_help_lists_every_command_whole(command):
    code, out, _ = command("--help")
    assert code == 0
    assert [line.split()[0] for line in out.partition("Commands:")[2].splitlines()[1:]] == list(COMMANDS)
    assert "..." not in out.partition("Commands:")[2], "a command's first line is too long to be shown"


def test_version(command):
    assert command("--version")[:2] == (0, "batchscore 0.1.0\n")


def test_no_command_shows_the_help(command):
    assert "Commands:" in "".join(command()[1:])


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("rnu",), "'run'"),
        (("histroy",), "'history'"),
        (("run", "--modle", "x"), "--model"),
        (("plan", "--inputt", "x"), "--input"),
    ],
)
def test_a_mistyped_name_is_answered_with_near_ones(command, arguments, near):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: no such ")
    assert near in err
    assert "--help" in err


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("no_model", ("run",)),
        ("unknown_model", ("plan", "--model", "fruad/3")),
        ("no_such_file", ("plan", "--config", "conf/fruad.yaml")),
        ("bad_set", ("plan", "--model", "fraud", "--set", "engine")),
        ("unknown_set", ("plan", "--model", "fraud", "--set", "scoring.engin=onnx")),
        ("bad_partition", ("plan", "--model", "fraud", "--partition", "2026-11-21")),
        ("bad_engine", ("plan", "--model", "fraud", "--engine", "onx")),
        ("bad_batch_rows", ("plan", "--model", "fraud", "--batch-rows", "none")),
        ("not_a_number", ("demo", "--rows", "many")),
        ("too_few_rows", ("demo", "--rows", "3")),
        ("no_run_named", ("show",)),
        ("no_dates", ("backfill", "--model", "fraud", "--to", "2026-01-31")),
    ],
)
@pytest.mark.usefixtures("conf")
def test_usage_errors(command, name, arguments):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert_golden(f"cli_{name}", err.rstrip("\n"))


@pytest.mark.usefixtures("conf")
def test_engines_takes_the_model_as_an_argument_but_not_two(command):
    code, _, err = command("engines", "fraud/1", "--model", "fraud/2")
    assert code == 2
    assert "two models are named" in err
    code, _, err = command("engines", "unknown/1")
    assert code == 2
    assert "no settings for model unknown:" in err


@pytest.mark.usefixtures("conf")
def test_an_error_as_json(command):
    code, out, err = command("plan", "--model", "fraud", "--engine", "onx", "--json")
    answer = json.loads(out)
    assert code == answer["exit_code"] == 2
    assert answer["near"] == ["onnx"]
    assert err.startswith("error: command line: scoring.engine")
    code, out, _ = command("plan", "--nothing", "--json")
    assert (code, json.loads(out)["exit_code"]) == (2, 2)


@pytest.mark.usefixtures("conf")
def test_a_trace_only_when_verbose(command):
    assert "Traceback" not in command("plan", "--model", "fraud", "--engine", "onx")[2]
    assert "Traceback" in command("plan", "--model", "fraud", "--engine", "onx", "--verbose")[2]


def test_what_is_unforeseen_is_a_bug(command, monkeypatch):
    def broken(self: Path, *_args: object, **_named: object) -> bool:
        raise ZeroDivisionError("a bug, planted")

    monkeypatch.setattr("pathlib.Path.is_file", broken)
    code, out, err = command("plan", "--model", "fraud", "--json")
    assert (code, json.loads(out)["exit_code"]) == (1, 1)
    assert "unforeseen ZeroDivisionError: a bug, planted" in err
    assert "this is a bug" in err


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for item in app.registered_commands:
        assert item.callback is not None
        assert f"batchscore {item.name or item.callback.__name__}" in text


# --- flags become settings ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("conf")
def test_every_flag_reaches_its_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = job_config(
        JobFlags(
            model="fraud@champion",
            input="i",
            input_format="delta",
            input_version="3",
            output="o",
            mode="append",
            keys="a, b",
            carry="c",
            partition=["ds=2026-11-01", "ds=2026-11-02", "country=NO"],
            where="x > 1",
            runner="local",
            engine="onnx",
            batch_rows="512",
            suite="s.json",
            on_new_model="all",
            tracking_uri="http://r",
            set_=["output.retention_days=7", "spark.conf.spark.x.y=true"],
        )
    )
    assert config.model.requested == "fraud@champion"
    assert (config.input.path, config.input.format, config.input.version, config.input.where) == (
        "i",
        "delta",
        3,
        "x > 1",
    )
    assert config.input.partitions == {"ds": ("2026-11-01", "2026-11-02"), "country": ("NO",)}
    output = config.output
    assert (output.path, output.mode, output.keys, output.carry, output.retention_days) == (
        "o",
        "append",
        ("a", "b"),
        ("c",),
        7,
    )
    scoring = config.scoring
    assert (scoring.runner, scoring.engine, scoring.batch_rows, scoring.on_new_model) == ("local", "onnx", 512, "all")
    assert (config.validation.suite, config.registry.tracking_uri) == ("s.json", "http://r")
    assert config.spark.conf == {"spark.x.y": "true"}


@pytest.mark.usefixtures("conf")
def test_flags_left_out_leave_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = job_config(JobFlags(model="fraud/7"))
    assert (config.model.requested, config.input.path, config.output.keys) == ("fraud/7", "data", ("id",))


def test_a_model_alone_needs_no_file_when_input_and_output_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = job_config(JobFlags(model="churn/2", input="i", output="o"))
    assert (config.model.requested, config.input.path) == ("churn/2", "i")
    with pytest.raises(SettingsError, match=r"no file conf/churn\.yaml"):
        job_config(JobFlags(model="churn/2", input="i"))


def test_a_model_folder_has_no_version(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(SETTINGS.replace("{name: fraud}", "{name: fraud, version: Production}"))
    assert job_config(JobFlags(model="./exported", config=Path("job.yaml"))).model.requested == "./exported"
    assert job_config(JobFlags(model="fraud", config=Path("job.yaml"))).model.requested == "fraud/Production"


# --- start-up ----------------------------------------------------------------------------------------------


def loaded(*arguments: str, cwd: Path) -> set[str]:
    """Top-level modules that a Python process has loaded when it ends."""
    done = in_process("-X", "importtime", *arguments, cwd=cwd)
    assert done.returncode in (0, 2), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_importing_the_package_loads_nothing_heavy(tmp_path):
    assert not loaded("-c", "import batchscore", cwd=tmp_path) & {*HEAVY, "pydantic", "typer", "rich", "yaml"}


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_loads_neither_pydantic_nor_rich(tmp_path, argument):
    assert not loaded("-m", "batchscore", argument, cwd=tmp_path) & {*HEAVY, "pydantic", "rich", "yaml"}


def test_a_command_s_help_loads_nothing_heavy(tmp_path):
    assert not loaded("-m", "batchscore", "run", "--help", cwd=tmp_path) & {*HEAVY, "rich", "yaml"}


@pytest.mark.usefixtures("conf")
def test_a_settings_error_loads_nothing_heavy(tmp_path):
    assert not loaded("-m", "batchscore", "plan", "--model", "fraud", "--engine", "onx", cwd=tmp_path) & {*HEAVY}


# --- interruption ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(tmp_path, number):
    demo = subprocess.Popen(
        [sys.executable, "-m", "batchscore", "demo", "--rows", "50000000", "--dir", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stderr is not None
        assert demo.stderr.readline().startswith("data: 50,000,000 transactions")
        demo.send_signal(number)
        out, err = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert out == ""
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    assert not (tmp_path / "demo/data/transactions").exists(), "half-made data must not look whole"


def test_a_reader_that_has_seen_enough_is_no_bug(tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "batchscore", "run", "--help"],
        cwd=tmp_path, env=environment, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


def test_logs_of_libraries_stay_quiet(tmp_path):
    code = (
        "import logging; from batchscore.cli.logs import set_up_logs; set_up_logs(verbose={}); "
        "other = logging.getLogger('great_expectations.data'); other.setLevel(logging.INFO); other.info('chatter'); "
        "logging.getLogger('batchscore').warning('heed')"
    )
    assert in_process("-c", code.format(False), cwd=tmp_path).stderr == "WARNING: heed\n"
    assert "chatter" in in_process("-c", code.format(True), cwd=tmp_path).stderr


# --- progress ----------------------------------------------------------------------------------------------


def test_plain_progress_prints_a_line_at_most_every_five_seconds():
    stream, now = io.StringIO(), [0.0]
    on_event = progress.PlainProgress(stream, clock=lambda: now[0])
    on_event({"event": "stage", "stage": "score", "text": "14 tasks"})
    for second in range(1, 13):
        now[0] = float(second)
        on_event({"event": "progress", "rows": second * 1000, "total": 20_000, "seconds": float(second)})
    on_event({"event": "something new"})
    assert stream.getvalue().splitlines() == [
        "score: 14 tasks",
        "score: 5,000 of 20,000 rows (25 %), 1,000 rows/s, 15 s left",
        "score: 10,000 of 20,000 rows (50 %), 1,000 rows/s, 10 s left",
    ]


def test_parts_of_a_backfill_are_told_as_they_end():
    stream = io.StringIO()
    on_event = progress.PlainProgress(stream)
    on_event({"event": "chunk", "number": 1, "of": 2, "text": "2026-11-01 published: 5 rows", "left": 61.2})
    on_event({"event": "chunk", "number": 2, "of": 2, "text": "2026-11-02 failed: no", "left": 0.0})
    assert stream.getvalue().splitlines() == [
        "1 of 2: 2026-11-01 published: 5 rows; about 61 s left",
        "2 of 2: 2026-11-02 failed: no",
    ]


def test_progress_with_an_unknown_total():
    assert progress.progress_text({"rows": 10, "total": -1, "seconds": 2.0}) == "score: 10 rows, 5 rows/s"
    assert progress.progress_text({"rows": 0, "total": -1, "seconds": 0}) == "score: 0 rows, 0 rows/s"
    assert progress.progress_text({"rows": 0, "total": 40, "seconds": 0}) == "score: 0 of 40 rows"


def test_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with progress.reporting(stream) as on_event:
        on_event({"event": "stage", "stage": "score", "text": "[14] tasks"})
        on_event({"event": "progress", "rows": 10, "total": -1, "seconds": 1.0})
        on_event({"event": "progress", "rows": 20, "total": 40, "seconds": 2.0})
        on_event({"event": "stage", "stage": "publish", "text": "t"})
    assert "score: [14] tasks\n" in stream.getvalue()
    assert "20 of 40 rows (50 %), 10 rows/s, 2 s left" in stream.getvalue()
    assert "publish: t\n" in stream.getvalue()


# --- rendering ---------------------------------------------------------------------------------------------


def unit(day: int, action: str = "score") -> PlannedUnit:
    reason = {"score": "not published yet", "live": "published by run r1", "older_model": "scored by version 1"}[action]
    values = (("ds", f"2026-11-{day:02d}"),)
    return PlannedUnit(values, f"k{day}", action, reason, 1_000 * day, 1, UnitState())  # type: ignore[arg-type]


def a_plan(*units: PlannedUnit) -> ScoringPlan:
    model = PinnedModel(
        "fraud/Production", "fraud", "7", "models:/fraud/7", "d" * 64, "/m", 10, ("sklearn",), (), (),
        notices=("stages are deprecated in MLflow",),
    )  # fmt: skip
    source = PinnedSource(
        "delta", "data/t", 12, "s" * 64, (Column("id", "long"),), ("ds",), (), missing_ok=frozenset({"b", "a"})
    )
    files = ModelFiles("/m", "d" * 64, "fraud", "7", ("sklearn",), (), (), ())
    task = ScoringTask(
        run_id="r2", model=files, engine="pyfunc", batch_rows=16_384, threads=1, source_uri="data/t",
        source_columns=(Column("id", "long"),), predicate=None,
        bindings=(Binding("x", "x", "double", "double", "same", null_rows_bad=False),), columns=(),
        partition_by=("ds",), keys=("id",), lineage=(("_scored_at", 1),), staging_uri="out", file_rows=1,
    )  # fmt: skip
    return ScoringPlan(
        run_id="r2", created_at="2026-11-21T06:00:00Z", model=model, source=source,
        restriction=Restriction((("ds", ("2026-11-01", None)),), "amount > 1"),
        target=TargetState("out", 3, units={(("ds", "2026-11-01"),): UnitState((("r1", 5),))}), mode="partitions",
        route="splits", route_reason=None, units_known=True, units=units,
        tasks=((Split("f", 5, (0,), (("ds", "2026-11-01"),), 9),),), task=task, settings_digest="e" * 64,
        source_key="k", expected_rows=3_000, keys_unique=True, evolve_schema=False, force=False, retention_days=30,
        notices=("3 units were scored by version 6", "stages are deprecated in MLflow"),
    )  # fmt: skip


def test_plan_text():
    assert_golden("plan", "\n".join(show.plan_lines(a_plan(unit(1, "live"), unit(2), unit(3, "older_model")), "local")))


def test_plan_text_of_a_finished_job_and_of_the_other_route():
    done = replace(a_plan(unit(1, "live")), route="dataframe", route_reason="the input has deletion vectors")
    lines = show.plan_lines(done, "spark")
    assert lines[-1] == "nothing to do: all is published already"
    assert "route      dataframe: the input has deletion vectors" in lines
    unknown = replace(a_plan(), units_known=False, expected_rows=-1, target=TargetState("out"))
    text = "\n".join(show.plan_lines(unknown, "spark"))
    assert "found while scoring" in text
    assert "an unknown number of rows" in text
    assert "a new table" in text


def test_plan_text_stays_bounded():
    lines = show.plan_lines(a_plan(*(unit(day) for day in range(1, 29))), "local")
    assert sum(line.startswith("  ds=") for line in lines) == show.MAX_UNITS
    assert "  and 8 more" in lines


def test_plan_json_is_complete():
    units = [unit(day, "live" if day % 2 else "score") for day in range(1, 29)]
    document = json.loads(json.dumps(show.plan_json(a_plan(*units), "local")))
    assert (document["runner"], document["engine"], document["units_to_score"], document["units_live"]) == (
        "local",
        "pyfunc",
        14,
        14,
    )
    assert len(document["units"]) == 28
    assert document["units"][0]["values"] == {"ds": "2026-11-01"}
    assert document["source"]["missing_ok"] == ["a", "b"]
    assert document["target"]["units"][0]["key"] == {"ds": "2026-11-01"}
    assert document["restriction"]["partitions"] == [["ds", ["2026-11-01", None]]]
    assert document["tasks"][0][0]["partition"] == {"ds": "2026-11-01"}
    assert document["nothing_to_do"] is False


RECORD = RunRecord(
    "r2", "published", "2026-11-21T06:00:00Z", "2026-11-21T06:00:10Z", "fraud", "7", "d" * 64, "data/t", 12, "s" * 64,
    "out", 4, "partitions", 2, 1, 3_000, 3_000, "pyfunc", "local", 10.0, 0, "2 units published", "first\nsecond",
)  # fmt: skip


def test_run_text():
    manifest = Manifest(
        1, "r2", "2026-11-21T06:00:00Z", "0.1.0", "fraud", "7", "models:/fraud/7", "d" * 64, "data/t", "delta", 12,
        "s" * 64, "k", "e" * 64, {"output": {"path": "out"}}, "pyfunc", "local", "partitions", 3_000, 3_000,
        tuple(ManifestUnit((("ds", f"2026-11-{day:02d}"),), "f" * 64, 100) for day in range(1, 25)),
        (Check("rows", passed=True, observed="3,000"), Check("finite", False, "2 NaN", 2, ("id=1", "id=2"))),
    )  # fmt: skip
    assert_golden("run", "\n".join(show.run_lines(RECORD, manifest)))
    assert show.run_lines(RECORD, None)[-1].startswith("no manifest")


def test_history_text(capsys):
    show.print_history("out", [])
    show.print_history("out", [RECORD, replace(RECORD, run_id="r1", state="refused", message="bad\nmore")])
    assert_golden("history", capsys.readouterr().out.rstrip("\n"))


def test_on_a_terminal_units_and_runs_are_tables(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    show.print_plan(a_plan(unit(1, "live"), unit(2)), "local")
    show.print_history("out", [replace(RECORD, message="[bold]not markup[/bold]")])
    out = capsys.readouterr().out
    assert "unit" in out
    assert "why" in out
    assert "[bold]not markup[/bold]" in out


def test_findings_say_how_to_mend():
    findings = [Finding("java", fine=True, found="17"), Finding("registry", fine=False, found="gone", mend="start it")]
    assert show.finding_lines(findings) == ["ok      java: 17", "FAILED  registry: gone", "        next: start it"]
