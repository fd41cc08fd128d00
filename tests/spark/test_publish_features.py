"""Every table property and feature that Delta 4.4 offers: published correctly as Spark reads it, or refused."""

from __future__ import annotations

import re

import pytest

from batchscore.errors import SettingsError
from batchscore.publish import check_target, inspect
from batchscore.publish.features import ALLOWED_FEATURES, ALLOWED_PROPERTIES
from tests.factories.staging import BY_DAY, COLUMNS, day, live_units, publish_run

pytestmark = pytest.mark.spark

D1, D2 = day("2026-01-01"), day("2026-01-02")
PLAIN = "id BIGINT, ds DATE, prediction DOUBLE, `_run_id` STRING"

# Properties that change nothing for batchscore, in groups that one table can hold.
PUBLISHED = {
    "defaults": {},
    "autotune": {
        "delta.autoOptimize": "true",
        "delta.autoOptimize.autoCompact": "true",
        "delta.autoOptimize.optimizeWrite": "true",
        "delta.isolationLevel": "Serializable",
        "delta.parquet.format.version": "2.12.0",
        "delta.randomPrefixLength": "3",
    },
    "checkpoints": {
        "delta.checkpoint.writeStatsAsJson": "false",
        "delta.checkpoint.writeStatsAsStruct": "true",
        "delta.checkpointInterval": "1",
        "delta.checkpointRetentionDuration": "interval 5 days",
        "delta.enableExpiredLogCleanup": "true",
    },
    "no statistics in checkpoints": {
        "delta.checkpoint.writeStatsAsJson": "false",
        "delta.checkpoint.writeStatsAsStruct": "false",
        "delta.checkpointInterval": "1",
    },
    "v2 checkpoints": {"delta.checkpointPolicy": "v2", "delta.checkpointInterval": "1"},
    "retention": {
        "delta.deletedFileRetentionDuration": "interval 9 days",
        "delta.logRetentionDuration": "interval 9 days",
        "delta.enableFullRetentionRollback": "false",
        "delta.sampleRetentionDuration": "interval 9 days",
        "delta.dropFeatureTruncateHistory.retentionDuration": "interval 2 hours",
        "delta.ignoreProtocolDefaults": "true",
    },
    "few statistics": {"delta.dataSkippingNumIndexedCols": "1", "delta.dataSkippingStringPrefixLength": "4"},
    "statistics of one column": {"delta.dataSkippingStatsColumns": "id"},
    "change data feed": {"delta.enableChangeDataFeed": "true"},
    "deletion vectors": {"delta.enableDeletionVectors": "true"},
    "versions": {"delta.minReaderVersion": "3", "delta.minWriterVersion": "7"},
    "leftovers": {
        "delta.inCommitTimestampEnablementTimestamp": "3",
        "delta.inCommitTimestampEnablementVersion": "3",
        "delta.rowTrackingSuspended": "false",
    },
    "features in name only": {
        f"delta.feature.{name}": "supported"
        for name in (
            "appendOnly",
            "invariants",
            "checkConstraints",
            "generatedColumns",
            "timestampNtz",
            "columnMapping",
        )
    },
    "the user's own": {"note": "x", "user.note": "y"},
}
# Refused; the statements in the refusal are run and the table is then published to.
DROPPED_BY_STATEMENT = {
    "delta.appendOnly": "true",
    "delta.castIcebergTimeType": "true",
    "delta.columnMapping.mode": "name",
    "delta.compatibility.symlinkFormatManifest.enabled": "true",
    "delta.enableChangeDataCapture": "true",
    "delta.enableInCommitTimestamps": "true",
    "delta.enableMaterializePartitionColumnsFeature": "true",
    "delta.enableRowTracking": "true",
    "delta.enableTypeWidening": "true",
    "delta.ignoreIcebergBucketPartition": "true",
    "delta.randomizeFilePrefixes": "true",
    "delta.redirectReaderWriter-preview": "{}",
    "delta.redirectWriterOnly-preview": "{}",
    "delta.requireCheckpointProtectionBeforeVersion": "3",
    "delta.setTransactionRetentionDuration": "interval 9 days",
    "delta.writePartitionColumnsToParquet": "true",
    "delta.feature.checkpointProtection": "supported",
    "delta.feature.domainMetadata": "supported",
    "delta.feature.vacuumProtocolCheck": "supported",
    "delta.feature.geospatial": "supported",
}
# Refused; Delta itself cannot take these out of a table again.
LASTING = {
    "delta.enableIcebergCompatV1": "true",
    "delta.enableIcebergCompatV2": "true",
    "delta.enableIcebergCompatV3": "true",
    "delta.enableVariantShredding": "true",
    "delta.feature.adaptiveMetadata-preview": "supported",
    "delta.feature.allowColumnDefaults": "supported",
    "delta.feature.identityColumns": "supported",
    "delta.feature.variantType": "supported",
}
# Spark makes no table of its own with these.
NOT_OFFERED = {
    "delta.columnMapping.maxColumnId",
    "delta.coordinatedCommits.commitCoordinator-preview",
    "delta.coordinatedCommits.commitCoordinatorConf-preview",
    "delta.coordinatedCommits.tableConf-preview",
    "delta.universalFormat.enabledFormats",
    "delta.universalFormat.iceberg.atomicConversion.supported",
}
COLUMN_CASES = {
    "NOT NULL": (PLAIN.replace("id BIGINT", "id BIGINT NOT NULL"), "", None),
    "comment": (PLAIN.replace("id BIGINT", "id BIGINT COMMENT 'the key'"), "", None),
    "CHECK": (PLAIN, "ALTER TABLE {table} ADD CONSTRAINT positive CHECK (id >= 0)", "CHECK constraint positive"),
    "generated": (f"{PLAIN}, g BIGINT GENERATED ALWAYS AS (id + 1)", "", "generated column, g"),
    "identity": (f"{PLAIN}, g BIGINT GENERATED BY DEFAULT AS IDENTITY", "", "identityColumns"),
    "varchar": (f"{PLAIN}, g VARCHAR(3)", "", "varchar column, g"),
    "variant": (f"{PLAIN}, g VARIANT", "", "variantType"),
    "default": (PLAIN, "ALTER TABLE {table} SET TBLPROPERTIES('delta.feature.allowColumnDefaults'='supported');"
                "ALTER TABLE {table} ALTER COLUMN id SET DEFAULT 7", "allowColumnDefaults"),
}  # fmt: skip


def create(spark, path, columns=PLAIN, properties=None, layout="PARTITIONED BY (ds)"):
    listed = ", ".join(f"'{name}'='{value}'" for name, value in (properties or {}).items())
    suffix = f"TBLPROPERTIES({listed})" if listed else ""
    spark.sql(f"CREATE TABLE delta.`{path}` ({columns}) USING delta {layout} {suffix}")


def spark_rows(spark, path):
    rows = spark.read.format("delta").load(str(path)).collect()
    return sorted((row["id"], str(row["ds"]), row["_run_id"]) for row in rows)


def assert_published(spark, path):
    """A unit written by Spark is replaced, one is added, Spark reads both and skips right."""
    spark.sql(f"INSERT INTO delta.`{path}` VALUES (7, DATE'2026-01-01', 0.1, NULL), (8, DATE'2026-01-03', 0.1, NULL)")
    publish_run(path, "r1", {D1: "k1", D2: "k2"})
    mine = [(i, f"2026-01-0{d}", "r1") for i in range(2) for d in (1, 2)]
    assert spark_rows(spark, path) == sorted([*mine, (8, "2026-01-03", None)])
    assert spark.sql(f"SELECT id FROM delta.`{path}` WHERE `_run_id` = 'r1' AND id > 0").count() == 2
    assert live_units(path, {D1: "k1", D2: "k2"}) == {D1: True, D2: True}


def refusal_of(path):
    with pytest.raises(SettingsError) as caught:
        check_target(inspect(str(path)), COLUMNS, BY_DAY, False)
    return caught.value


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(spark, tmp_path, name):
    create(spark, tmp_path / "t", properties=PUBLISHED[name])
    assert_published(spark, str(tmp_path / "t"))


@pytest.mark.parametrize("name", DROPPED_BY_STATEMENT)
def test_refused_with_the_statement_that_drops_it(spark, tmp_path, name):
    path = tmp_path / "t"
    create(spark, path, properties={name: DROPPED_BY_STATEMENT[name]})
    error = refusal_of(path)
    words = re.sub(r"delta\.(feature\.|enable)?|Feature$|s$|-preview", "", name).split(".")[0]
    assert words.lower() in str(error).lower()
    for statement in error.hint.removeprefix("drop it: ").split("; "):
        spark.sql(statement)
    check_target(inspect(str(path)), COLUMNS, BY_DAY, False)
    publish_run(path, "r1", {D1: "k1"})
    assert len(spark_rows(spark, path)) == 2


@pytest.mark.parametrize("name", LASTING)
def test_refused_where_only_a_copy_helps(spark, tmp_path, name):
    create(spark, tmp_path / "t", properties={name: LASTING[name]})
    assert "copy the table" in refusal_of(tmp_path / "t").hint


@pytest.mark.parametrize("name", COLUMN_CASES)
def test_columns_that_demand_something(spark, tmp_path, name):
    columns, then, words = COLUMN_CASES[name]
    path = tmp_path / "t"
    create(spark, path, columns)
    for statement in filter(None, then.split(";")):
        spark.sql(statement.format(table=f"delta.`{path}`"))
    if words is None:
        assert_published(spark, str(path))
    else:
        assert words in str(refusal_of(path))


def test_liquid_clustering(spark, tmp_path):
    """Delta 4.4 cannot drop the feature, not even after CLUSTER BY NONE."""
    create(spark, tmp_path / "t", layout="CLUSTER BY (id)")
    error = refusal_of(tmp_path / "t")
    assert "clustering" in str(error)
    assert "copy the table" in error.hint


def test_a_widened_column(spark, tmp_path):
    path = tmp_path / "t"
    create(spark, path, f"{PLAIN}, g INT", {"delta.enableTypeWidening": "true"})
    spark.sql(f"ALTER TABLE delta.`{path}` ALTER COLUMN g TYPE BIGINT")
    assert "typeWidening" in str(refusal_of(path))


def test_change_data_feed_tells_what_was_published(spark, tmp_path):
    path = tmp_path / "t"
    create(spark, path, properties={"delta.enableChangeDataFeed": "true"})
    publish_run(path, "r1", {D1: "k1"})
    publish_run(path, "r2", {D1: "k2"})
    changes = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0).load(str(path))
    found = sorted((row["_change_type"], row["_run_id"], row["_commit_version"]) for row in changes.collect())
    assert found == sorted([("insert", "r1", 1), ("delete", "r1", 2), ("insert", "r2", 2)] * 2)


def test_every_property_of_this_delta_is_decided(spark):
    configs = spark._jvm.org.apache.spark.sql.delta.DeltaConfigs.getAllConfigs().valuesIterator()
    offered = set()
    while configs.hasNext():
        offered.add(configs.next().key())
    tried = {name for group in PUBLISHED.values() for name in group}
    tried |= {*DROPPED_BY_STATEMENT, *LASTING, *NOT_OFFERED}
    assert offered - tried == set()
    assert {
        name for group in PUBLISHED.values() for name in group if name.startswith("delta.") and "feature" not in name
    } <= set(ALLOWED_PROPERTIES)


def test_every_feature_of_this_delta_is_decided(spark):
    features = spark._jvm.org.apache.spark.sql.delta.TableFeature.allSupportedFeaturesMap().valuesIterator()
    offered = set()
    while features.hasNext():
        offered.add(features.next().name())
    refused = {
        "adaptiveMetadata-preview", "allowColumnDefaults", "catalogManaged", "checkpointProtection", "clustering",
        "coordinatedCommits-preview", "domainMetadata", "geospatial", "geospatial-dev", "icebergCompatV1",
        "icebergCompatV2", "icebergCompatV3", "identityColumns", "inCommitTimestamp", "materializePartitionColumns",
        "rowTracking", "typeWidening", "typeWidening-preview", "vacuumProtocolCheck", "variantShredding",
        "variantShredding-preview", "variantType", "variantType-preview",
    }  # fmt: skip
    assert offered == refused | ALLOWED_FEATURES
