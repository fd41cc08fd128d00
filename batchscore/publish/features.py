"""The allow-list of table features and properties: what delta-rs and batchscore together publish correctly.

delta-rs checks little by itself: it commits rows against a CHECK constraint and wrong values into a generated
column. So whatever is not known to be right is refused before scoring, by name and with the statement that
drops it. Each entry is covered by a test that reads the published table with Spark, or sees it refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.arrow.snapshot import Snapshot

# Features that may be listed in the protocol. Those whose meaning lives in a property or in a column's metadata
# are judged there: the feature alone asks nothing of a writer.
ALLOWED_FEATURES = frozenset(
    {
        "appendOnly",
        "changeDataFeed",
        "checkConstraints",
        "columnMapping",
        "deletionVectors",
        "generatedColumns",
        "invariants",
        "timestampNtz",
        "v2Checkpoint",
    }
)

# How Delta 4.4 drops each other feature (tried one by one). A plain drop of a feature that readers need too
# would leave `checkpointProtection` behind, which delta-rs cannot write either: those truncate the history.
_PLAIN_DROP = (
    "coordinatedCommits-preview",
    "inCommitTimestamp",
    "materializePartitionColumns",
    "rowTracking",
    "domainMetadata",  # the others above depend on it
)
_TRUNCATING_DROP = (
    "geospatial",
    "geospatial-dev",
    "typeWidening",
    "typeWidening-preview",
    "vacuumProtocolCheck",
    "checkpointProtection",
)

# For what Delta cannot drop: a copy is free of it.
_REWRITE = "it cannot be dropped; copy the table (CREATE TABLE delta.`<new>` USING delta AS SELECT * FROM {table})"

ANY = None
# delta.* properties that change nothing for a writer of whole files, and the values for which that is so.
ALLOWED_PROPERTIES: Mapping[str, frozenset[str] | None] = {
    "delta.appendOnly": frozenset({"false"}),
    "delta.autoOptimize": ANY,
    "delta.autoOptimize.autoCompact": ANY,
    "delta.autoOptimize.optimizeWrite": ANY,
    "delta.castIcebergTimeType": frozenset({"false"}),
    "delta.checkpoint.writeStatsAsJson": ANY,
    "delta.checkpoint.writeStatsAsStruct": ANY,
    "delta.checkpointInterval": ANY,
    "delta.checkpointPolicy": frozenset({"classic", "v2"}),
    "delta.checkpointRetentionDuration": ANY,
    "delta.columnMapping.maxColumnId": ANY,
    "delta.columnMapping.mode": frozenset({"none"}),
    "delta.dataSkippingNumIndexedCols": ANY,
    "delta.dataSkippingStatsColumns": ANY,
    "delta.dataSkippingStringPrefixLength": ANY,
    "delta.deletedFileRetentionDuration": ANY,
    "delta.dropFeatureTruncateHistory.retentionDuration": ANY,
    "delta.enableChangeDataCapture": frozenset({"false"}),
    "delta.enableChangeDataFeed": frozenset({"true", "false"}),
    "delta.enableDeletionVectors": ANY,
    "delta.enableExpiredLogCleanup": ANY,
    "delta.enableFullRetentionRollback": ANY,
    "delta.enableIcebergCompatV1": frozenset({"false"}),
    "delta.enableIcebergCompatV2": frozenset({"false"}),
    "delta.enableIcebergCompatV3": frozenset({"false"}),
    "delta.enableInCommitTimestamps": frozenset({"false"}),
    "delta.enableMaterializePartitionColumnsFeature": frozenset({"false"}),
    "delta.enableRowTracking": frozenset({"false"}),
    "delta.enableTypeWidening": frozenset({"false"}),
    "delta.enableVariantShredding": frozenset({"false"}),
    "delta.ignoreIcebergBucketPartition": frozenset({"false"}),
    "delta.ignoreProtocolDefaults": ANY,
    "delta.inCommitTimestampEnablementTimestamp": ANY,
    "delta.inCommitTimestampEnablementVersion": ANY,
    "delta.isolationLevel": ANY,
    "delta.logRetentionDuration": ANY,
    "delta.minReaderVersion": ANY,
    "delta.minWriterVersion": ANY,
    "delta.parquet.format.version": ANY,
    "delta.randomPrefixLength": ANY,
    "delta.randomizeFilePrefixes": frozenset({"false"}),
    "delta.requireCheckpointProtectionBeforeVersion": frozenset({"0"}),
    "delta.rowTracking.materializedRowIdColumnName": ANY,
    "delta.rowTracking.materializedRowCommitVersionColumnName": ANY,
    "delta.rowTrackingSuspended": ANY,
    "delta.sampleRetentionDuration": ANY,
    # A retention for transaction ids would let a fence expire.
    "delta.universalFormat.enabledFormats": frozenset({""}),
    "delta.universalFormat.iceberg.atomicConversion.supported": ANY,
    "delta.writePartitionColumnsToParquet": frozenset({"false"}),
    "delta.compatibility.symlinkFormatManifest.enabled": frozenset({"false"}),
}

CONSTRAINT_PREFIX = "delta.constraints."
# Column metadata that demands something of a writer, by prefix, and the statement that drops it.
REFUSED_METADATA: Mapping[str, tuple[str, str]] = {
    "delta.generationExpression": ("a generated column", _REWRITE),
    "delta.identity.": ("an identity column", _REWRITE),
    "delta.invariants": ("a column invariant", _REWRITE),
    "delta.typeChanges": ("a column of a changed type", _REWRITE),
    "CURRENT_DEFAULT": ("a column default", "ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT"),
    "__CHAR_VARCHAR_TYPE_STRING": ("a char or varchar column", "ALTER TABLE {table} ALTER COLUMN {column} TYPE STRING"),
    "__COLLATIONS": ("a collated column", "ALTER TABLE {table} ALTER COLUMN {column} TYPE STRING"),
}


def refusal(snapshot: Snapshot, uri: str) -> str | None:
    """Why batchscore will not write this table: the first offending name and the statement that drops it.

    Args:
        snapshot: the table's protocol, properties and column metadata.
        uri: the table, for the statement.

    Returns:
        One sentence, or None where the table may be written.
    """
    table = f"delta.`{uri}`"
    return (
        _refused_feature(snapshot.features, table)
        or _refused_property(snapshot.properties, table)
        or _refused_column(snapshot.field_metadata, table)
    )


def _refused_feature(features: tuple[str, ...], table: str) -> str | None:
    refused = [name for name in features if name not in ALLOWED_FEATURES]
    if not refused:
        return None
    order = (*_PLAIN_DROP, *_TRUNCATING_DROP)
    lasting = sorted(name for name in refused if name not in order)
    names = [*lasting, *sorted(set(refused) - set(lasting), key=order.index)]
    drop = _REWRITE.format(table=table) if lasting else "; ".join(_drop(name, table) for name in names)
    return f"table feature {', '.join(names)}; drop it: {drop}"


def _drop(name: str, table: str) -> str:
    truncate = " TRUNCATE HISTORY" if name in _TRUNCATING_DROP else ""
    return f"ALTER TABLE {table} DROP FEATURE `{name}`{truncate}"


def _refused_property(properties: Mapping[str, str], table: str) -> str | None:
    for name, value in sorted(properties.items()):
        if name.startswith(CONSTRAINT_PREFIX):
            constraint = name.removeprefix(CONSTRAINT_PREFIX)
            return f"CHECK constraint {constraint} ({value}); drop it: ALTER TABLE {table} DROP CONSTRAINT {constraint}"
        if not name.startswith("delta.") or name.startswith("delta.feature."):
            continue
        allowed = ALLOWED_PROPERTIES.get(name, frozenset())
        if allowed is not ANY and value.lower() not in allowed:
            return f"table property {name}={value}; drop it: {_unset(name, table)}"
    return None


def _unset(name: str, table: str) -> str:
    if name == "delta.columnMapping.mode":  # cannot be unset, and going back rewrites the files
        return f"ALTER TABLE {table} SET TBLPROPERTIES ('{name}'='none')"
    return f"ALTER TABLE {table} UNSET TBLPROPERTIES ('{name}')"


def _refused_column(metadata: Mapping[str, Mapping[str, Any]], table: str) -> str | None:
    for column, entries in sorted(metadata.items()):
        for key in sorted(entries):
            for prefix, (what, drop) in REFUSED_METADATA.items():
                if key.startswith(prefix):
                    return f"{what}, {column}; drop it: {drop.format(table=table, column=column)}"
    return None
