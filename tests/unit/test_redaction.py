"""What a secret looks like, and what was learned to be one."""

from __future__ import annotations

import logging
import time

import pytest

from batchscore import redaction
from batchscore.cli.logs import set_up_logs
from batchscore.config import load
from batchscore.errors import InputError, bounded
from batchscore.redaction import MASK, learn, learn_environment, redact, redact_setting

SECRET = "hunter2"  # noqa: S105  # to be masked


@pytest.fixture(autouse=True)
def nothing_learned():
    redaction.forget()
    yield
    redaction.forget()


@pytest.mark.parametrize(
    "text",
    [
        f"spark.hadoop.fs.s3a.secret.key={SECRET}",
        f"--conf spark.hadoop.fs.azure.account.key.lake={SECRET} --x",
        f'{{"password": "{SECRET}"}}',
        f"('api_key', '{SECRET}')",
        f"password: {SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"Max retries exceeded with url: /api?token={SECRET}&page=2",
        f"/c/t?sv=2024&sig={SECRET}",
        f"AWSAccessKeyId={SECRET}",
        f"https://h/x?X-Amz-Signature={SECRET}&X-Amz-Date=2026",
    ],
)
def test_patterns(text):
    assert SECRET not in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "auth_token: missing",
        "column token_count = 5: not finite",
        "write under model: signature: {inputs: [{name: amount, type: double}]}",
        "Invalid expression / Unexpected token. Line 1, Col: 5",
        "the key transaction_id=42 is there twice",
        "basic checks passed, 3 tokens left",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_values_that_were_learned_are_masked_whatever_stands_around_them():
    learn_environment(
        {
            "AWS_SECRET_ACCESS_KEY": "abc/def+ghi",
            "DATABASE_URL": "postgresql://app:s3cr3tpw@h/x?sslmode=require",
            "SOME_TOKEN": "short",
            "HOME_PASSWORD": "/",
            "AUTHOR": "Ann Author",
            "PLAIN": "visible",
        }
    )
    text = "'abc/def+ghi' abc%2Fdef%2Bghi s3cr3tpw Ann Author short require visible xs3cr3tpwx"
    assert redact(text) == f"'{MASK}' {MASK} {MASK} Ann Author short require visible xs3cr3tpwx"
    learn(["a-long-secret-of-many-characters"])
    assert redact("xa-long-secret-of-many-charactersx") == f"x{MASK}x"
    longer = [f"a-long-secret-of-many-characters{end}" for end in ("-and-more", "/9", "-and")]
    learn(longer)  # none leaves its end behind, whatever the order in which they were learned
    assert redact(" ".join(longer)) == " ".join([MASK] * 3)


@pytest.mark.parametrize(
    "password",
    [
        "it's-me99",
        'pa"ssw0rd',
        "abc def12",
        "a<b>cdef",
        "12345/67890",
        "se?cret99",
        "p@ssw/rd99",
        "a#b&c=d",
        "a%40b99",
    ],
)
def test_a_password_may_hold_any_character(password):
    uri = f"postgresql+psycopg2://ml:{password}@db:5432/mlflow?sslmode=require"
    shown = redact_setting("registry.tracking_uri", uri)
    assert password not in shown
    assert "db:5432/mlflow" in shown
    learn(redaction.secrets_of("MLFLOW_TRACKING_URI", uri))
    assert password not in redact(f"could not connect as ml with {password} to db")


@pytest.mark.parametrize(
    "uri",
    [
        "http://tracking:5000/runs@home",
        "s3://bucket/day:1@night",
        "abfss://container@account.dfs.core.windows.net/a:b@c",
        "sqlite:////data/a:b@c.db",
        "hdfs://namenode:8020/user@home",
    ],
)
def test_an_address_without_a_password_stays_as_it_is(uri):
    assert redact_setting("uri", uri) == uri
    assert redaction.secrets_of("uri", uri) == []


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD_PROD", "spark.executorEnv.DB_PASSWORD_PROD", "db.password.prod", "passwords", "PASSPHRASE_X",
     "DB_PWD_OLD", "ADMIN_PASS", "api-key"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert redaction.is_secret_name(name)


@pytest.mark.parametrize("name", ["passenger_count", "spark.sql.shuffle.partitions", "output.path", "author"])
def test_names_of_other_things(name):
    assert not redaction.is_secret_name(name)


def test_settings_are_learned_before_they_are_checked():
    least = {"model.name": "m", "input.path": "i", "output.path": "o"}
    load(None, {**least, "registry.tracking_uri": f"https://ann:{SECRET}@h", "spark.conf.my.token": "topsecret"})
    assert redact(f"no luck with {SECRET} and topsecret") == f"no luck with {MASK} and {MASK}"


def test_containers_and_users_without_a_password_are_no_secrets():
    learn(redaction.secrets_of("path", "abfss://container@account.dfs.core.windows.net/t"))
    learn(redaction.secrets_of("path", "hdfs://hadoop@namenode/t"))
    assert redact("the container of hadoop") == "the container of hadoop"
    learn(redaction.secrets_of("uri", "https://glpat-1234567@registry/"))
    assert redact("glpat-1234567") == MASK


def test_half_a_secret_is_not_shown():
    learn(["a" * 40])
    text = "x" * 180 + "a" * 40 + "y" * 50
    assert "aaa" not in bounded(text)
    uri = "x" * 150 + f" postgresql://ann:{'s' * 60}@host/db"
    error = InputError("it failed", found=uri, hint=uri, detail=(uri,), allowed=(uri,), near=(uri,))
    assert "sss" not in error.text()
    assert "sss" not in str(error.as_dict())


def test_long_texts_take_no_time():
    started = time.monotonic()
    for text in ("a" * 50_000, "secret" * 8_000, "://" * 15_000, "a.b-" * 12_000, "?key" * 12_000):
        redact(text)
    assert time.monotonic() - started < 60  # patterns that go back and forth would take hours


def test_logs_of_every_library_are_masked(capsys):
    learn(["topsecret-value"])
    set_up_logs(verbose=True)
    logger = logging.getLogger("some.library")
    handler = logging.StreamHandler()  # one of the library's own, as MLflow's
    logger.addHandler(handler)
    error = ValueError("cannot reach postgresql://ann:hunter2@db")
    try:
        logger.error("with %s", "topsecret-value", exc_info=error)
    finally:
        logger.removeHandler(handler)
    logger.warning("odd %d", "text")  # what cannot be formatted is logging's own affair
    said = capsys.readouterr().err
    assert said.count(MASK) >= 4
    assert "topsecret" not in said
    assert "hunter2" not in said.partition("Logging error")[0]
