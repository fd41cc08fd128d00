"""How S3 is reached, as values: what each library is told, what its errors mean, and what they do not say."""

from __future__ import annotations

import logging

import pytest

from batchscore import s3
from batchscore.arrow.filesystem import open_filesystem
from batchscore.arrow.reach import require_reachable
from batchscore.cli.logs import set_up_logs
from batchscore.errors import BatchscoreError, InputError, SettingsError, UnavailableError
from batchscore.redaction import redact

SECRET = "wJalrXUtnFEMI-CANARY-EXAMPLEKEY"  # noqa: S105  # no real one
TOKEN = "FwoGZXIvYXdz-CANARY-TOKEN"  # noqa: S105  # no real one
REFUSED = (
    '<?xml version="1.0"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>does not match</Message>'
    f"<CanonicalRequest>GET\nx-amz-security-token:{TOKEN}\n</CanonicalRequest></Error>"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in (*s3.SHIPPED_VARIABLES, *s3.FILE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch.setenv


# --- endpoint, region, profile -----------------------------------------------------------------------------


def test_each_library_is_told_the_same(environment):
    environment("AWS_ENDPOINT_URL", "http://store:9000/")
    environment("AWS_REGION", "eu-west-3")
    delta = s3.delta_options("s3://lake/t")
    assert (delta["AWS_ENDPOINT_URL"], delta["AWS_REGION"]) == ("http://store:9000", "eu-west-3")
    assert (delta["AWS_ALLOW_HTTP"], delta["aws_conditional_put"]) == ("true", "etag")
    pointer = s3.obstore_options("s3://lake/t")
    assert pointer["config"]["aws_endpoint"] == "http://store:9000"
    assert pointer["config"]["aws_region"] == "eu-west-3"
    assert pointer["client_options"]["allow_http"] is True
    hadoop = s3.hadoop_conf()
    assert hadoop["spark.hadoop.fs.s3a.endpoint"] == "http://store:9000"
    assert hadoop["spark.hadoop.fs.s3a.endpoint.region"] == "eu-west-3"
    assert hadoop["spark.hadoop.fs.s3a.path.style.access"] == "true"
    filesystem, path = open_filesystem("s3://lake/t/")
    assert (filesystem.type_name, filesystem.region, path) == ("s3", "eu-west-3", "lake/t")


def test_no_key_is_in_what_libraries_are_told(environment):
    environment("AWS_REGION", "eu-west-3")
    environment("AWS_ACCESS_KEY_ID", "AKIA")
    environment("AWS_SECRET_ACCESS_KEY", SECRET)
    told = str((s3.delta_options("s3://lake/t"), s3.obstore_options("s3://lake/t"), s3.hadoop_conf(), s3.access()))
    assert SECRET not in told


def test_plain_http_is_allowed_for_http_endpoints_alone(environment):
    environment("AWS_ENDPOINT_URL", "https://store")
    assert "AWS_ALLOW_HTTP" not in s3.delta_options("s3://lake/t")
    assert s3.obstore_options("s3://lake/t")["client_options"]["allow_http"] is False
    assert s3.access().region == s3.REGION_OF_ENDPOINTS


def test_the_endpoint_of_s3_wins_over_that_of_all_services(environment):
    environment("AWS_ENDPOINT_URL", "http://all")
    environment("AWS_ENDPOINT_URL_S3", "http://s3-alone")
    assert s3.access().host == "s3-alone"


def test_other_locations_need_nothing():
    assert s3.delta_options("/data/t") is None
    assert s3.obstore_options("gs://lake/t") == {}
    assert s3.shipped_environment("/data/t", "gs://lake/t") == {}


def test_a_missing_region_and_a_wrong_endpoint_are_named(environment):
    with pytest.raises(SettingsError, match="AWS_REGION"):
        s3.access()
    environment("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(SettingsError, match=r"no URL[\s\S]*http://host:9000"):
        s3.access()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://minio:9000a",
        "http://[::1",
        "http://:9000",
        "http://minio:99999",
        "http://a..b",
        f"http://u:{SECRET}@h:x",
    ],
)
def test_an_endpoint_that_is_no_url_is_refused_before_it_is_used(environment, endpoint):
    environment("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(SettingsError, match="the endpoint of S3 is no URL") as caught:
        require_reachable("s3://lake/t", "input")
    assert SECRET not in caught.value.text()


def test_a_profile_says_region_endpoint_and_keys(environment, tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[profile lake]\nregion = eu-north-1\nendpoint_url = https://minio\n")
    keys = f"[default]\naws_access_key_id = other\n[lake]\naws_access_key_id = AKIA\naws_secret_access_key = {SECRET}\n"
    (tmp_path / ".aws/credentials").write_text(keys)
    environment("AWS_PROFILE", "lake")
    found = s3.access()
    assert (found.endpoint, found.region) == ("https://minio", "eu-north-1")
    config = s3.obstore_options("s3://lake/t")["config"]
    assert (config["aws_access_key_id"], config["aws_secret_access_key"]) == ("AKIA", SECRET)
    assert SECRET not in repr(found)
    environment("AWS_ACCESS_KEY_ID", "of the environment")  # which the library finds itself
    assert "aws_access_key_id" not in s3.obstore_options("s3://lake/t")["config"]


def test_damaged_files_of_a_profile_say_nothing(environment, tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_bytes(b"\xff\xfe no ini")
    environment("AWS_REGION", "eu-west-3")
    assert s3.access().keys == ()


@pytest.mark.parametrize(
    "uri", ["s3://key:hunter2@lake/t", "s3://lake:9000/t", "s3:///t", "s3://lake/t?region=eu", "s3://lake/a%20b"]
)
def test_a_location_is_a_bucket_and_a_key(uri, environment):
    environment("AWS_REGION", "eu-west-3")
    with pytest.raises(SettingsError) as caught:
        open_filesystem(uri)
    assert "hunter2" not in str(caught.value)


def test_executors_get_what_reaches_the_store_and_nothing_else(environment):
    environment("AWS_ACCESS_KEY_ID", "AKIA")
    environment("AWS_SECRET_ACCESS_KEY", SECRET)
    environment("AWS_REGION", "eu-west-3")
    environment("HOME", "/home/ann")
    shipped = s3.shipped_environment("/data", "s3://lake/t")
    assert shipped == {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-west-3"}


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AWS Error ACCESS_DENIED during HeadBucket operation: No response body.", "denied"),
        ("Server returned non-2xx status code: 403 Forbidden", "denied"),
        (REFUSED, "denied"),
        ("Generic S3 error: <Code>ExpiredToken</Code>", "expired"),
        ("Error performing PUT http://169.254.169.254/latest/api/token", "no_credentials"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2", "no_bucket"),
        ("<Code>NoSuchBucket</Code>", "no_bucket"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadBucket operation", "region"),
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7", "unavailable"),
        ("part-00403-x.parquet: No space left on device", "unavailable"),
    ],
)
def test_what_an_error_means(text, kind):
    assert s3.kind_of(OSError(text)) == kind
    assert s3.advice(kind)


def test_a_quoted_request_is_left_out():
    said = s3.said(OSError(f"Generic S3 error: Error performing GET http://x: {REFUSED}"))
    assert said == "Generic S3 error: Error performing GET http://x: SignatureDoesNotMatch: does not match"


def test_a_chain_of_causes_is_one_line():
    chain = (
        "Generic S3 error\n        \x1b[31m\u21b3\x1b[0m Error performing PUT http://x, after 4 retries, max_retries\n"
        "        \x1b[31m\u21b3\x1b[0m 4, retry_timeout\n        \x1b[31m\u21b3\x1b[0m 30s  - Server returned non-2xx\n"
        "        \x1b[31m\u21b3\x1b[0m 403 Forbidden\n        \x1b[31m\u21b3\x1b[0m " + REFUSED
    )
    said = "Generic S3 error: 30s  - Server returned non-2xx: 403 Forbidden: SignatureDoesNotMatch: does not match"
    assert s3.said(OSError(chain)) == said
    assert s3.said(OSError("Not found: x\n\nDebug source:\nNotFound {\n}")) == "Not found: x"
    assert s3.said(OSError()) == "OSError"
    assert s3.kind_of(OSError(chain)) == "denied"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError("AWS Error SLOW_DOWN"), UnavailableError),
        (OSError("AWS Error ACCESS_DENIED"), SettingsError),
        (OSError("<Code>ExpiredToken</Code>"), UnavailableError),
        (PermissionError(13, "Permission denied", "/data/t"), SettingsError),
        (OSError(28, "No space left on device"), UnavailableError),
        (InputError("as it is"), InputError),
    ],
)
def test_a_failure_says_whether_to_try_again(error, raised):
    assert type(s3.failure("it failed", error)) is raised


def test_an_error_never_holds_a_secret_of_the_environment(environment):
    environment("AWS_SECRET_ACCESS_KEY", SECRET)
    environment("AWS_SESSION_TOKEN", TOKEN)
    error = BatchscoreError(
        f"problem {SECRET}",
        found=f"found {TOKEN}",
        allowed=(SECRET,),
        near=(),
        hint=f"hint {SECRET}",
        detail=(f"line {TOKEN}",),
    )
    assert "CANARY" not in f"{error}{error.as_dict()}{error!r}"
    assert str(error).count("***") == 5


def test_session_tokens_of_quoted_requests_are_masked():
    assert "CANARY" not in redact(REFUSED)


def test_logs_hold_no_secret_either(environment, capsys):
    environment("AWS_SECRET_ACCESS_KEY", SECRET)
    before = logging.getLogger().handlers[:]
    try:
        set_up_logs(verbose=True)
        error = OSError(f"refused {SECRET}")
        logging.getLogger("batchscore").warning("it failed with %s", SECRET, exc_info=error)
    finally:
        logging.getLogger().handlers = before
    written = capsys.readouterr().err
    assert "it failed with ***" in written
    assert SECRET not in written


def test_a_disks_reason_comes_before_the_path():
    where = "/a/long/way/" + 40 * "down/"
    text = f"Failed to open local file '{where}'. Detail: [errno 30] Read-only file system"
    error = s3.failure("no", OSError(30, text))
    assert error.found.startswith("Read-only file system: [Errno 30] Failed to open")
    plain = s3.failure("no", OSError(28, "No space left on device"))
    assert plain.found == "[Errno 28] No space left on device"
