from __future__ import annotations

import datetime as dt
import itertools
import json
import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from batchscore.config import JobConfig, load, parse_assignment, redact, redacted, settings_file_of, split_model
from batchscore.config.problems import all_keys
from batchscore.config.redaction import MASK
from batchscore.config.reference import reference_yaml
from batchscore.errors import MAX_TEXT_CHARS, SettingsError
from tests.unit.golden_files import assert_golden

ROOT = Path(__file__).resolve().parents[2]
LEAST = {"model.name": "fraud", "input.path": "data", "output.path": "out"}


def refused(path: Path | str | None, overrides: dict[str, object] | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(path, overrides)
    return caught.value


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes ``job.yaml`` into a folder that is the working directory, and gives its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = Path("job.yaml")
        path.write_text(text, encoding="utf-8")
        return path

    return write


BASE = "model: {name: fraud}\ninput: {path: data}\noutput: {path: out}\n"


# --- what the repository ships -----------------------------------------------------------------------------


def test_the_reference_file_is_what_the_models_say():
    assert (ROOT / "conf/reference.yaml").read_text(encoding="utf-8") == reference_yaml()


def test_the_reference_file_holds_every_key_with_its_default():
    path = ROOT / "conf/reference.yaml"
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in all_keys():
        place = given
        for part in key.split("."):
            assert part in place, key
            place = place[part]
    shown = load(path)
    assert shown == load(None, {name: key for name, key in flat(shown).items() if name in LEAST}), (
        "a default in the file is not the model's"
    )


def flat(config: JobConfig) -> dict[str, object]:
    return {key: get(config, key) for key in all_keys()}


def get(config: BaseModel, key: str) -> object:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_every_key_is_documented():
    def walk(settings: type[BaseModel]) -> None:
        for name, field in settings.model_fields.items():
            assert field.description, f"{settings.__name__}.{name}"
            assert field.description.endswith("."), f"{settings.__name__}.{name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation)

    walk(JobConfig)


def test_the_demo_ships_the_repository_s_own_settings():
    for name in ("fraud_detection.yaml", "expectations/fraud_detection.json"):
        assert (ROOT / "conf" / name).read_bytes() == (ROOT / "batchscore/demo/conf" / name).read_bytes()


def test_the_settings_file_of_product_md_loads():
    config = load(ROOT / "conf/fraud_detection.yaml")
    assert config.model.requested == "fraud_detection/Production"
    assert config.output.keys == ("transaction_id",)
    assert config.output.partition_by == ("ds",)
    assert config.start_date == dt.date(2026, 11, 1)
    suite = json.loads((ROOT / str(config.validation.suite)).read_text())
    assert {item["type"] for item in suite["expectations"]} >= {"expect_column_values_to_not_be_null"}


# --- values ------------------------------------------------------------------------------------------------


def test_the_sections_that_may_be_left_out(job):
    config = load(job(BASE + "spark:\n"))
    assert config == load(None, LEAST)
    assert (config.scoring.runner, config.scoring.engine, config.output.retention_days) == ("spark", "auto", 30)


def test_overrides_win_over_the_file(job):
    config = load(job(BASE + "scoring: {runner: spark, engine: onnx}\n"), {"scoring.runner": "local"})
    assert (config.scoring.runner, config.scoring.engine) == ("local", "onnx")


def test_partition_values_keep_their_text(job):
    text = BASE.replace("{path: data}", "{path: data, partitions: {ds: 2026-11-02, code: [01, NO, 1e3, null, 0x1f]}}")
    config = load(job(text))
    assert config.input.partitions == {
        "ds": ("2026-11-02",),
        "code": ("01", "NO", "1e3", "__HIVE_DEFAULT_PARTITION__", "0x1f"),
    }
    assert parse_assignment("input.partitions.code=[01, NO]") == ("input.partitions.code", ["01", "NO"])


def test_spark_properties_have_dots_and_stay_text(job):
    config = load(job(BASE + "spark: {conf: {spark.sql.ansi.enabled: true, a.b: 010}}\n"), {"spark.conf.c.d": "x"})
    assert config.spark.conf == {"spark.sql.ansi.enabled": "true", "a.b": "010", "c.d": "x"}


@pytest.mark.parametrize(
    ("text", "version"),
    [("latest", "latest"), ("7", 7), ("2026-11-21T06:00:00Z", "2026-11-21T06:00:00Z"), ("2026-11-21", "2026-11-21")],
)
def test_input_versions(job, text, version):
    assert load(job(BASE.replace("{path: data}", f"{{path: data, version: {text}}}"))).input.version == version
    assert load(None, {**LEAST, "input.version": text}).input.version == version


@pytest.mark.parametrize("text", ["7", "7.10", "@champion", "Production"])
def test_a_model_version_is_text(job, text):
    assert load(job(BASE.replace("{name: fraud}", f"{{name: fraud, version: '{text}'}}"))).model.version == text


def test_one_key_needs_no_list(job):
    assert load(job(BASE.replace("{path: out}", "{path: out, keys: id, partition_by: 2}"))).output.keys == ("id",)


@pytest.mark.parametrize("text", ["@daily", "0 6 * * 1-5", "*/15 * * * *"])
def test_schedules(text):
    assert load(None, {**LEAST, "schedule": text}).schedule == text


@pytest.mark.parametrize("text", ["daily", "@dayly", "* * *", "0 6 * * * *", "rm -rf / ; x y"])
def test_schedules_that_airflow_would_refuse(text):
    assert "schedule should be a cron expression" in refused(None, {**LEAST, "schedule": text}).problem


def test_settings_are_frozen_and_pickle():
    config = load(None, LEAST)
    with pytest.raises(ValueError, match="frozen"):
        config.input.path = "other"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unknown_key", "model: {name: fraud}\ninput:\n  path: data\n  formt: delta\noutput: {path: out}\n"),
        ("unknown_section", BASE + "scorring: {engine: onnx}\n"),
        ("key_of_another_section", BASE + "batch_rows: 10\n"),
        ("wrong_type", BASE.replace("{path: out}", "{path: out,\n  retention_days: a month}")),
        ("not_allowed", BASE + "scoring:\n  runner: sparc\n"),
        ("section_is_a_list", BASE + "scoring: [local]\n"),
        ("missing", "model: {name: fraud}\ninput: {path: data}\n"),
        ("duplicate", BASE + "scoring:\n  engine: onnx\n  runner: local\n  engine: pyfunc\n"),
        ("not_yaml", BASE + "scoring: {engine: onnx\nspark: 1\n"),
        ("tab", BASE + "scoring:\n\tengine: onnx\n"),
        ("not_settings", "- a\n- b\n"),
        ("not_built", BASE + "scoring:\n  outputs: [leaf]\n"),
        ("rule_of_nothing", BASE + "quarantine:\n  rules: [{column: amount}]\n"),
        ("rule_as_text", BASE + "quarantine:\n  rules: [amount > 0]\n"),
        ("rule_with_unknown_key", BASE + "quarantine:\n  rules: [{column: amount, rang: [0, 1]}]\n"),
        (
            "several",
            "model: {nam: fraud}\ninput: {path: [a]}\noutput: {path: out, mode: all}\nscoring: {batch_rows: 0}\n",
        ),
    ],
)
def test_error_texts(job, name, text):
    assert_golden(f"config_{name}", refused(job(text)).text())


def test_an_unknown_key_names_file_line_and_near_key(job):
    error = refused(job(BASE + "scoring:\n  engine: onnx\n  runer: local\n"))
    assert "job.yaml line 6" in error.problem
    assert error.near == ("runner",)


def test_a_wrong_override_names_the_command_line(job):
    error = refused(job(BASE), {"scoring.engine": "onx"})
    assert error.problem.startswith("command line: scoring.engine")
    assert error.near == ("onnx",)
    assert error.allowed == ("auto", "pyfunc", "native", "onnx", "compiled", "onedal", "sparkml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.challengers", ["other/1"]),
        ("model.environment", "virtualenv"),
        ("validation.drift.psi_max", 0.3),
        ("validation.drift.reference", "run"),
        ("scoring.outputs", ["prediction", "leaf"]),
    ],
)
def test_a_setting_whose_feature_is_not_built_is_refused(key, value):
    assert f"{key} is not built yet" in refused(None, {**LEAST, key: value}).problem


@pytest.mark.parametrize("value", ["auto", "cpu", "cuda"])
def test_the_devices(value):
    assert load(None, {**LEAST, "scoring.device": value}).scoring.device == value


def test_what_is_built_of_a_setting_to_come_is_accepted():
    assert load(None, {**LEAST, "model.environment": "uv"}).model.environment == "uv"


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many", None])
def test_batch_rows_is_auto_or_a_count(value):
    assert "batch_rows should be" in refused(None, {**LEAST, "scoring.batch_rows": value}).problem


def test_an_error_stays_bounded(job):
    lines = "\n".join(f"key_{number}_{'x' * 500}: {'y' * 500}" for number in range(500))
    text = refused(job(BASE + lines)).text()
    assert len(text) <= MAX_TEXT_CHARS
    assert "and 490 more" in text


def test_aliases_of_aliases_end(job):
    letters = "abcdefghijklmnopqr"
    doubling = [f"{new}: &{new} [*{old}, *{old}]\n" for old, new in itertools.pairwise(letters)]
    assert "unfold the YAML aliases" in refused(job("a: &a [x, x]\n" + "".join(doubling))).text()


def test_a_missing_file_names_near_ones(tmp_path):
    (tmp_path / "fraud.yaml").write_text(BASE)
    assert refused(tmp_path / "fruad.yaml").near == (str(tmp_path / "fraud.yaml"),)


def test_files_that_cannot_be_settings(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_text("#" * 1_000_001)
    (tmp_path / "empty.yaml").write_text("")
    assert "cannot be read" in refused(tmp_path / "binary.yaml").problem
    assert "cannot be read" in refused(tmp_path).problem
    assert "larger than" in refused(tmp_path / "large.yaml").problem
    assert "model.name (--model) is missing" in refused(tmp_path / "empty.yaml").text()


@pytest.mark.parametrize("text", ["engine", "=onnx", "a..b=1", ".a=1", "scoring.engine=[", "model.params={a: 1, a: 2}"])
def test_assignments_that_are_none(text):
    with pytest.raises(SettingsError, match="--set"):
        parse_assignment(text)


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested", "parts"),
    [
        ("fraud", ("fraud", None)),
        ("fraud/7", ("fraud", "7")),
        ("fraud@champion", ("fraud", "@champion")),
        ("models:/fraud/7", ("fraud", "7")),
        ("models:/fraud@champion", ("fraud", "@champion")),
        ("models:/m-0a1b2c", ("models:/m-0a1b2c", None)),
        ("runs:/0a1b/model", ("runs:/0a1b/model", None)),
        ("s3://bucket/model", ("s3://bucket/model", None)),
        ("./fraud/7", ("./fraud/7", None)),
        ("/models/fraud", ("/models/fraud", None)),
    ],
)
def test_split_model(requested, parts):
    assert split_model(requested) == parts


def test_a_folder_with_a_model_in_it_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fraud/7").mkdir(parents=True)
    assert split_model("fraud/7") == ("fraud", "7")
    (tmp_path / "fraud/7/MLmodel").touch()
    assert split_model("fraud/7") == ("fraud/7", None)


def test_the_settings_file_of_a_model(tmp_path):
    (tmp_path / "fraud.yaml").write_text(BASE)
    assert settings_file_of("fraud/Production", tmp_path) == tmp_path / "fraud.yaml"
    assert settings_file_of("models:/fraud@champion", tmp_path) == tmp_path / "fraud.yaml"
    assert settings_file_of("churn/1", tmp_path) is None
    assert settings_file_of("../fraud", tmp_path) is None


# --- secrets -----------------------------------------------------------------------------------------------

SECRET = "hunter2hunter2"  # noqa: S105


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://ml:{SECRET}@db/mlflow",
        f"https://{SECRET}@registry:5000/",
        f"s3://bucket/table?secret_key={SECRET}&region=eu",
        f"https://account.blob.core.windows.net/c/t?sv=2024&sig={SECRET}",
        f"jdbc:sqlserver://db:1433;user=ml;password={SECRET}",
        f"could not open s3://key:{SECRET}@bucket/x: denied",
        f"abfss://container:{SECRET}@account.dfs.core.windows.net/t",
        f"https://host/?{SECRET}",
        f"postgresql://ml:a/{SECRET}@db/mlflow",
        f"https://host/x?region=eu&{SECRET}",
    ],
)
def test_secrets_are_masked_in_text(text):
    shown = redact(text)
    assert SECRET not in shown
    assert MASK in shown
    assert redact(shown) == shown


def test_text_without_secrets_stays():
    for text in (
        "sqlite:///mlruns.db",
        "abfss://lake@account.dfs.core.windows.net/t",
        "s3://b/t?region=eu",
        "a=b, 12:30",
    ):
        assert redact(text) == text


def test_secrets_are_masked_in_settings():
    config = load(
        None,
        {
            **LEAST,
            "registry.tracking_uri": f"postgresql://ml:{SECRET}@db/x",
            "input.path": f"s3://key:{SECRET}@bucket/t",
            "spark.conf.spark.hadoop.fs.s3a.secret.key": SECRET,
            "spark.conf.fs.azure.account.key.account.dfs.core.windows.net": SECRET,
            "spark.conf.spark.driver.extraJavaOptions": f"-Dpassword={SECRET}",
            "model.params": {"api_token": SECRET, "nested": [{"password": SECRET}]},
        },
    )
    shown = redacted(config)
    assert SECRET not in json.dumps(shown)
    assert shown["spark"]["conf"]["spark.hadoop.fs.s3a.secret.key"] == MASK  # type: ignore[index]
    assert shown["output"]["path"] == "out"  # type: ignore[index]


def test_numbers_are_no_secrets():
    params = {"max_new_tokens": 64, "use_auth": False, "token": "abc", "token_weights": [0.5, 1]}
    shown = redacted(load(None, {**LEAST, "model.params": params}))
    assert shown["model"]["params"] == {**params, "token": MASK}  # type: ignore[index]


def test_a_secret_of_a_wrong_setting_is_not_shown():
    error = refused(None, {**LEAST, "spark.conf.fs.s3a.secret.key": [SECRET], "schedule": f"https://u:{SECRET}@h"})
    assert SECRET not in error.text()
    assert SECRET not in str(error.__cause__)


@given(st.text(max_size=200))
def test_redaction_takes_any_text(text):
    redact(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(all_keys())),
)
def test_any_value_of_any_setting_is_taken_or_refused_with_its_name(value, key):
    try:
        load(None, {**LEAST, key: value})
    except SettingsError as error:
        assert key.split(".")[-1] in error.text()  # noqa: PT017
