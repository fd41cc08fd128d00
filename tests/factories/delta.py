"""Delta commits written by hand: what other engines leave in a table's log."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def newest(table: str | Path) -> int:
    return max(int(path.stem) for path in (Path(table) / "_delta_log").glob("*.json"))


def actions(table: str | Path, version: int) -> list[dict[str, Any]]:
    text = (Path(table) / "_delta_log" / f"{version:020d}.json").read_text()
    return [json.loads(line) for line in text.splitlines()]


def commit_by_hand(table: str | Path, entries: list[dict[str, Any]]) -> int:
    version = newest(table) + 1
    path = Path(table) / "_delta_log" / f"{version:020d}.json"
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    return version


def active_adds(table: str | Path) -> dict[str, dict[str, Any]]:
    adds: dict[str, dict[str, Any]] = {}
    for version in range(newest(table) + 1):
        for action in actions(table, version):
            if "remove" in action:
                adds.pop(action["remove"]["path"], None)
            if "add" in action:
                adds[action["add"]["path"]] = action["add"]
    return adds


def set_properties(table: str | Path, features: tuple[str, ...] = (), **properties: str) -> int:
    """Adds table properties, and features to the protocol where any are named."""
    metadata = next(entry["metaData"] for entry in actions(table, 0) if "metaData" in entry)
    metadata["configuration"] |= {name.replace("__", "."): value for name, value in properties.items()}
    entries: list[dict[str, Any]] = [{"metaData": metadata}]
    if features:
        readers = [name for name in features if name in ("deletionVectors", "v2Checkpoint", "columnMapping")]
        entries.append(
            {
                "protocol": {
                    "minReaderVersion": 3,
                    "minWriterVersion": 7,
                    "readerFeatures": readers,
                    "writerFeatures": list(features),
                }
            }
        )
    return commit_by_hand(table, entries)


def delete_rows(table: str | Path, path: str, rows: list[int]) -> int:
    """Deletes rows of one file with an inline deletion vector, as Spark's DELETE does."""
    add = active_adds(table)[path]
    data = _bitmap(rows)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": _z85(data),
        "sizeInBytes": len(data),
        "cardinality": len(rows),
    }
    stats = {**json.loads(add["stats"]), "tightBounds": False}
    removed = {"path": path, "dataChange": True, "deletionTimestamp": 1, "size": add["size"],
               "extendedFileMetadata": True, "partitionValues": add["partitionValues"]}  # fmt: skip
    kept = {key: value for key, value in add.items() if value is not None}
    return commit_by_hand(
        table, [{"remove": removed}, {"add": {**kept, "stats": json.dumps(stats), "deletionVector": vector}}]
    )


def _bitmap(rows: list[int]) -> bytes:
    """Delta's portable bitmap array with one array container (rows below 65,536)."""
    container = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *sorted(rows))
    data = struct.pack("<iqi", 1681511377, 1, 0) + container
    return data + b"\0" * (-len(data) % 4)


def _z85(data: bytes) -> str:
    return base64.b85encode(data).decode().translate(str.maketrans(_B85, _Z85))
