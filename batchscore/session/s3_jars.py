"""What Spark needs to read S3 by itself; workers that read and write splits need none of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from batchscore import s3
from batchscore.session.conf import IVY_FOLDER, conf_of_installation, joined, spark_home

S3_CLASS = "org.apache.hadoop.fs.s3a.S3AFileSystem"
_HADOOP_AWS = "org.apache.hadoop:hadoop-aws:3.5.0"
# hadoop-aws asks for all of AWS' SDK in one jar of 686 MB; these parts of it are 19 MB.
S3_EXCLUDED = "software.amazon.awssdk:bundle"
S3_PACKAGES = (
    _HADOOP_AWS,
    "software.amazon.awssdk:s3:2.35.4",
    "software.amazon.awssdk:sts:2.35.4",
    "software.amazon.awssdk:s3-transfer-manager:2.35.4",
    "software.amazon.awssdk:apache-client:2.35.4",
)


def with_s3(conf: Mapping[str, str], on_notice: Callable[[str], None]) -> dict[str, str]:
    """Spark's properties with what reading from S3 takes; the user's own win, lists are joined.

    Args:
        conf: the job's properties.
        on_notice: told when jars are to be fetched.

    Raises:
        SettingsError: the environment does not say how S3 is reached.
    """
    home = spark_home()
    given = {**conf_of_installation(home), **conf}
    found = {**s3.hadoop_conf(), **given}
    if _has_jars(given, home):
        return found
    if not _are_cached(given):
        on_notice("first use of S3 by Spark: fetching its jars (19 MB), which takes a minute")
    found["spark.jars.packages"] = joined(given.get("spark.jars.packages"), *S3_PACKAGES)
    found["spark.jars.excludes"] = joined(given.get("spark.jars.excludes"), S3_EXCLUDED)
    return found


def needs_s3(conf: Mapping[str, str]) -> bool:
    """Whether :func:`with_s3` found that jars are to be added.

    >>> needs_s3({"spark.jars.packages": "org.apache.hadoop:hadoop-aws:3.5.0"}), needs_s3({})
    (True, False)
    """
    return _HADOOP_AWS in conf.get("spark.jars.packages", "")


def _has_jars(given: Mapping[str, str], home: Path) -> bool:
    places = ("spark.jars", "spark.jars.packages", "spark.driver.extraClassPath")
    return any("hadoop-aws" in given.get(place, "") for place in places) or any((home / "jars").glob("hadoop-aws*.jar"))


def _are_cached(given: Mapping[str, str]) -> bool:
    group, name, version = _HADOOP_AWS.split(":")
    folder = Path(given.get("spark.jars.ivy") or IVY_FOLDER).expanduser()
    return (folder / "jars" / f"{group}_{name}-{version}.jar").is_file()
