"""Ways to damage a file, chosen by a seed, so that a case that fails can be made again."""

from __future__ import annotations

import json
import random
from typing import Any

ODD = (
    None, True, [], {}, "", "x", "../../../etc/passwd", "/etc/passwd", "a\u0000b", "\ud800", -1, 0, 2**63, 2**70, 1.5,
    1e308, float("nan"), "9" * 5_000, [[[]]], {"a": None}, "2026-13-45", "s3://k:v@b/t", "%2e%2e%2f", "x" * 10_000,
)  # fmt: skip
MOST_BYTES = 8


def damaged(content: bytes, seed: int, *, name: str = "") -> bytes:
    """``content`` with bytes flipped, cut off, blanked or repeated, or, of JSON, with a value of another kind."""
    chance = random.Random(seed)  # repeatable, not secret
    ways = [_flip, _flip, _cut, _blank, _repeat, _swap]
    if name.endswith(".json"):
        ways += [_odd_value] * 6
    changed = chance.choice(ways)(content, chance)
    return changed if changed != content else content[:-1]


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, MOST_BYTES)):
        if changed:
            place = _place(len(changed), chance)
            changed[place] ^= chance.randint(1, 255)
    return bytes(changed)


def _place(size: int, chance: random.Random) -> int:
    """Anywhere, and as often near the end: there are the footers."""
    near_end = max(0, size - 1_500)
    return chance.randrange(near_end, size) if chance.random() < 0.5 else chance.randrange(size)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _blank(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.randint(1, 200))
    return content[:start] + bytes(end - start) + content[end:]


def _repeat(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + content[start : start + chance.randint(1, 200)] + content[start:]


def _swap(content: bytes, chance: random.Random) -> bytes:
    middle = chance.randrange(len(content) + 1)
    return content[middle:] + content[:middle]


def _odd_value(content: bytes, chance: random.Random) -> bytes:
    """One value of one JSON document, or of one line of such, becomes something else; or its key."""
    text = content.decode(errors="replace")
    try:
        return json.dumps(_changed(json.loads(text), chance)).encode()
    except ValueError:
        pass
    lines = text.splitlines() or [""]
    place = chance.randrange(len(lines))
    try:
        lines[place] = json.dumps(_changed(json.loads(lines[place]), chance))
    except ValueError:
        return _flip(content, chance)
    return "\n".join(lines).encode()


def _changed(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        changed = {**value, key: _changed(value[key], chance)}
        if chance.random() < 0.1:
            del changed[key]
        return changed
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], _changed(value[place], chance), *value[place + 1 :]]
    return chance.choice(ODD)
