"""docs/architecture.md and the contract that import-linter checks say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_layers_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [item["layers"] for item in contracts if item["name"] == "layers"]
    checked = {name.strip(): number for number, layer in enumerate(layers, 1) for name in re.split(r"[|:]", layer)}
    documented = {
        name.removesuffix("/").removesuffix(".py"): int(number)
        for number, names in re.findall(
            r"^\| (\d+) \| (.+?) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
        )
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert documented == checked
