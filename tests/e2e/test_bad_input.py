"""What a tired user would do: a clear message, its exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tests.e2e.bad_models import bad_model
from tests.e2e.conftest import ROWS, Job
from tests.factories.delta import active_adds, delete_rows, set_properties

pytestmark = pytest.mark.e2e
NO_QUARANTINE = ("--set", "quarantine.max_fraction=0")


def refused(job: Job, code: int, *words: str, arguments: tuple[object, ...] = (), **environment: str) -> dict:
    """Runs the job: it must end with ``code``, say ``words``, and leave everything as it was."""
    before = job.files()
    done = job.run(*arguments, **environment)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    text = json.dumps(document, ensure_ascii=False)
    for word in words:
        assert word in text, f"{word!r} is not in {text}"
    assert len(text) < 10_000
    beside = ("__runs", "__quarantine", "_batchscore/")
    visible = {name for name in job.files() - before if not any(part in name for part in beside)}
    assert not visible, f"left behind: {visible}"
    return document


def rewrite(job: Job, change, *, day: str | None = None) -> None:
    """Changes the files of one day (the last by default)."""
    folder = sorted(job.data.iterdir())[-1] if day is None else job.data / f"ds={day}"
    for path in folder.glob("*.parquet"):
        pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def rewrite_all(job: Job, change) -> None:
    for folder in job.data.iterdir():
        rewrite(job, change, day=folder.name.removeprefix("ds="))


# --- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("fraud_detektion/1", ["fraud_detektion", "fraud_detection"]),
        ("fraud_detection/99", ["99", "1"]),
        ("fraud_detection@champoin", ["champoin", "champion"]),
        ("fraud_detection/Producton", ["Producton", "Production"]),
        ("models:/nothing/1", ["nothing"]),
        ("runs:/0123456789abcdef0123456789abcdef/model", ["0123456789abcdef"]),
        ("./no/such/folder", ["no/such/folder"]),
    ],
)
def test_an_unknown_model(unscored, model, words):
    settings = ("--config", unscored.settings)
    # No Java: what planning finds wrong must start no JVM, or this would end with another message.
    refused(unscored, 3, *words, arguments=(*settings, "--model", model, "--runner", "spark"), JAVA_HOME="/nowhere")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/mlruns.db"])
def test_a_registry_that_cannot_be_reached(unscored, uri):
    started = time.monotonic()
    refused(unscored, 7, "registry", arguments=("--tracking-uri", uri))
    assert time.monotonic() - started < 60


def test_a_damaged_model_file(job):
    (path,) = (job.folder / "models").rglob("MLmodel")
    path.write_text("flavors: [")
    folder = path.parent
    refused(job, 3, "MLmodel", arguments=("--config", job.settings, "--model", folder))


def test_a_model_file_that_is_gone(job):
    (path,) = (job.folder / "models").rglob("*.pkl")
    path.unlink()
    refused(job, 3, path.name, arguments=("--config", job.settings, "--model", path.parent))


# --- the input ---------------------------------------------------------------------------------------------


def test_a_model_folder_that_nobody_allowed(job):
    (path,) = (job.folder / "models").rglob("*.pkl")
    arguments = ("--config", job.settings, "--model", path.parent)
    refused(job, 2, "would run code", "--allow-path", "registry.allowed_paths", arguments=arguments)
    allowed = ("--set", f"registry.allowed_paths=[{job.folder / 'models'}]", "--set", "validation.suite=null")
    assert job.run(*arguments, *allowed).returncode == 0


def test_an_input_that_is_not_there(unscored):
    refused(unscored, 5, "data/transactionz", arguments=("--input", "data/transactionz"))


def test_an_empty_folder(job):
    (job.folder / "nothing").mkdir()
    refused(job, 5, "nothing", arguments=("--input", "nothing"))


def test_no_row_after_the_filter(unscored):
    refused(unscored, 5, "no row", arguments=("--where", "amount < -1"))


def test_a_file_that_is_not_parquet_names_it(job):
    folder = sorted(job.data.iterdir())[0]
    (folder / "zz.parquet").write_text("transaction_id,amount\n1,2\n")
    refused(job, 5, "zz.parquet")


def test_a_truncated_file_among_good_ones_is_named(job):
    path = sorted(sorted(job.data.iterdir())[3].glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-100])
    refused(job, 5, path.parent.name, path.name)


def test_a_damaged_page_is_found_while_reading_and_names_its_file(job):
    path = sorted(sorted(job.data.iterdir())[3].glob("*.parquet"))[0]
    content = bytearray(path.read_bytes())
    content[8 : len(content) // 2] = bytes(len(content) // 2 - 8)
    path.write_bytes(bytes(content))
    refused(job, 5, path.name)


def test_types_that_widen_are_read_and_types_that_conflict_are_refused(job):
    def narrow(table):
        return table.set_column(table.schema.get_field_index("amount"), "amount", table["amount"].cast(pa.float32()))

    rewrite(job, narrow)
    assert job.run().returncode == 0

    def conflicting(table):
        return table.set_column(table.schema.get_field_index("amount"), "amount", table["amount"].cast(pa.string()))

    rewrite(job, conflicting)
    refused(job, 5, "amount", "string", "double")


def test_a_partition_that_does_not_exist(unscored):
    refused(unscored, 5, "ds=1999-01-01", arguments=("--partition", "ds=1999-01-01"))


@pytest.mark.parametrize("where", ["amount >", "amonut > 1", "amount > 1; drop table x", "exists (select 1)"])
def test_a_condition_with_an_error(unscored, where):
    refused(unscored, 2, arguments=("--where", where))


# --- columns -----------------------------------------------------------------------------------------------


def test_a_column_that_the_model_needs_is_missing(job):
    rewrite_all(job, lambda table: table.drop_columns(["amount"]))
    refused(job, 3, "amount: missing")


def test_a_column_of_another_type(job):
    rewrite_all(
        job, lambda t: t.set_column(t.schema.get_field_index("amount"), "amount", t["amount"].cast(pa.string()))
    )
    refused(job, 3, "amount", "string", "double")


def test_a_column_renamed_by_case_only(job):
    rewrite_all(job, lambda t: t.rename_columns([{"amount": "Amount"}.get(name, name) for name in t.column_names]))
    refused(job, 3, "'Amount'", "case")


def test_a_key_column_that_is_not_there(unscored):
    refused(unscored, 2, "transaction_idd", "transaction_id", arguments=("--keys", "transaction_idd"))


def test_a_null_key(job):
    def blank(table):
        ids = table["transaction_id"].combine_chunks()
        last = pa.array([True] * (len(ids) - 1) + [False])
        return table.set_column(
            table.schema.get_field_index("transaction_id"), "transaction_id", pc.if_else(last, ids, None)
        )

    rewrite(job, blank)
    refused(job, 4, "transaction_id", "null", arguments=NO_QUARANTINE)


def test_a_duplicate_key_in_the_last_row_of_the_last_file(job):
    first = pq.read_table(sorted(sorted(job.data.iterdir())[0].glob("*.parquet"))[0], partitioning=None)

    def repeated(table):
        ids = table["transaction_id"].to_pylist()
        ids[-1] = first["transaction_id"][0].as_py()
        return table.set_column(
            table.schema.get_field_index("transaction_id"), "transaction_id", pa.array(ids, pa.int64())
        )

    rewrite(job, repeated)
    refused(job, 4, "unique", str(first["transaction_id"][0].as_py()))


@pytest.mark.parametrize("name", ["prediction", "_RUN_ID"])
def test_an_input_column_named_like_ours(job, name):
    rewrite_all(job, lambda table: table.append_column(name, pa.nulls(len(table), pa.string())))
    refused(job, 2, name, "rename")


def test_a_row_that_cannot_be_cast_is_named_by_its_key(job):
    def without_hour(table):
        hours = table["hour"].to_pylist()
        hours[-1] = None
        return table.set_column(table.schema.get_field_index("hour"), "hour", pa.array(hours, table["hour"].type))

    rewrite(job, without_hour)
    last = pq.read_table(sorted(sorted(job.data.iterdir())[-1].glob("*.parquet"))[-1], partitioning=None)
    refused(job, 4, "hour", str(last["transaction_id"][-1].as_py()), arguments=NO_QUARANTINE)


# --- settings ----------------------------------------------------------------------------------------------


def test_an_unknown_key_names_the_near_one_with_file_and_line(job):
    text = job.settings.read_text().replace("  keys: [", "  kees: [")
    job.settings.write_text(text)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "kees" in each)
    refused(job, 2, "kees", "keys", "fraud_detection.yaml", str(line))


def test_a_setting_of_the_wrong_type(unscored):
    refused(unscored, 2, "retention_days", arguments=("--set", "output.retention_days=soon"))


def test_an_unknown_flag_names_the_near_one(unscored):
    done = unscored.batchscore("run", "--modell", "fraud_detection/1")
    assert done.returncode == 2
    assert "--model" in done.stderr


@pytest.mark.parametrize("output", ["data/transactions", "data/transactions/out", "data"])
def test_an_output_inside_the_input(unscored, output):
    refused(unscored, 2, "inside", arguments=("--output", output))


def test_an_output_that_cannot_be_written(job):
    (job.folder / "occupied").write_text("a file")
    refused(job, 2, "occupied", arguments=("--output", "occupied/table"))


def test_a_suite_that_is_not_there(unscored):
    refused(unscored, 2, "nosuite.json", arguments=("--suite", "nosuite.json"))


def test_an_expectation_that_does_not_exist(job):
    path = job.folder / "suite.json"
    path.write_text(json.dumps({"name": "s", "expectations": [{"type": "expect_the_best", "kwargs": {}}]}))
    refused(job, 2, "expect_the_best", arguments=("--suite", path))


# --- the target --------------------------------------------------------------------------------------------


def test_a_new_column_needs_evolve_schema(scored):
    refused(scored, 2, "amount", "--evolve-schema", arguments=("--carry", "amount"))
    done = scored.run("--carry", "amount", "--evolve-schema")
    assert done.returncode == 0, done.stderr
    assert "amount" in DeltaTable(scored.table).to_pyarrow_table().column_names


def test_other_partition_columns_than_the_tables(scored):
    refused(scored, 2, "partitioned by", arguments=("--set", "output.partition_by=[country]"))


def test_a_folder_in_the_way_that_is_no_table(job):
    folder = job.folder / "predictions" / "notes"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    refused(job, 2, "notes", arguments=("--output", folder))


# --- the machine -------------------------------------------------------------------------------------------


def test_no_java(unscored):
    refused(unscored, 2, "Java", "doctor", arguments=("--runner", "spark"), JAVA_HOME="/nowhere")


def test_an_old_java(job):
    java = job.folder / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    refused(job, 2, "Java 11", "17", arguments=("--runner", "spark"), JAVA_HOME=str(job.folder / "jdk"))


# --- models that misbehave ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("return [0.5] * (rows - 1)", 3, ["rows"]),
        ("return ['high'] * rows", 3, ["double"]),
        ("return [float('nan')] * rows", 4, ["finite"]),
        ("raise RuntimeError('no luck')", 3, ["RuntimeError", "no luck"]),
        ("return [0.05] * rows", 0, []),
    ],
    ids=["too few rows", "strings", "NaN", "raises", "good"],
)
def test_a_model_that_misbehaves(job, body, code, words):
    arguments = ("--config", job.settings, *bad_model(job, body))
    if code:
        refused(job, code, *words, arguments=arguments)
    else:
        assert job.run(*arguments).returncode == 0


def test_memory_that_runs_out_halves_the_batch_once(job):
    body = "if rows > 120: raise MemoryError('no room')\n        return [0.05] * rows"
    arguments = ("--config", job.settings, *bad_model(job, body))
    done = job.run(*arguments, "--set", "scoring.batch_rows=200")
    assert done.returncode == 0, done.stderr
    assert "once more, with 100" in done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS
    assert len(list(job.table.rglob("part-*.parquet"))) == len(active_adds(job.table)), "the first try left a file"


def test_memory_that_runs_out_again_names_both_sizes(job):
    model = bad_model(job, "if rows > 10: raise MemoryError('no room')\n        return [0.05] * rows")
    arguments = ("--config", job.settings, *model, "--set", "scoring.batch_rows=80")
    refused(job, 7, "batches of 40 rows", "before with 80", "scoring.batch_rows", arguments=arguments)


def test_units_that_cannot_be_replaced_together_are_refused_before_scoring(job):
    first, second, *_ = sorted(folder.name for folder in job.data.iterdir())
    (job.data / first).rename(job.data / "ds=__HIVE_DEFAULT_PARTITION__")
    assert job.run().returncode == 0
    set_properties(job.table, ("deletionVectors",), delta__enableDeletionVectors="true")
    delete_rows(job.table, next(path for path in active_adds(job.table) if second in path), [0])
    units = ("--partition", "ds=__HIVE_DEFAULT_PARTITION__", "--partition", second, "--force")
    refused(job, 2, "deletion vectors", second, "REORG TABLE", arguments=units)
    assert len(job.history()["runs"]) == 1, "found while planning, so it is no run"
    assert job.run(*units[2:]).returncode == 0


@pytest.mark.parametrize("runner", ["local", "spark"])
def test_ctrl_c_leaves_nothing_visible_and_no_process(job, cores, runner):
    # Once a worker scores there are a command and its workers, or a driver, its JVM, a daemon and a worker.
    alive = 1 + cores if runner == "local" else 4
    model = bad_model(job, "import pathlib; pathlib.Path('/proc/self/comm').write_text('scoring'); time.sleep(60)")
    command = [sys.executable, "-m", "batchscore", "run", "--config", job.settings, *model]
    running = subprocess.Popen(
        [*command, "--runner", runner],
        cwd=job.folder,
        env=job.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while "scoring" not in processes(running.pid) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(processes(running.pid)) >= alive
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of the foreground group
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert errors.decode().endswith("interrupted\n")
    assert b"Traceback" not in errors
    deadline = time.monotonic() + 10
    while processes(running.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(running.pid) == []
    assert not DeltaTable.is_deltatable(str(job.table))
    assert not list(job.table.rglob("*.parquet"))
    assert [run["state"] for run in job.history()["runs"]] == ["interrupted"]


def processes(session: int) -> list[str]:
    """Names of the processes of this session that are alive; Spark's workers have a process group of their own."""
    done = subprocess.run(["ps", "-eo", "sid,stat,comm"], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()[1:]]
    return [name for sid, state, name in rows if int(sid) == session and not state.startswith("Z")]
