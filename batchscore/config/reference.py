"""Writes ``conf/reference.yaml``: every setting with its meaning and its default.

Run ``python -m batchscore.config.reference > conf/reference.yaml`` after a setting changed.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from batchscore.config.settings import JobConfig

LINE_CHARS = 100
# What has no default has to be shown with something.
_EXAMPLES = {"model.name": "fraud_detection", "input.path": "data/transactions", "output.path": "predictions/out"}
_HEAD = """\
# Every setting of a job, with its default. Copy what you change into conf/<model name>.yaml.
# Written by `python -m batchscore.config.reference`; a test keeps it equal to batchscore/config/settings.py.
"""


def reference_yaml() -> str:
    """The file's text."""
    return _HEAD + "\n".join(_section(JobConfig, "", "")) + "\n"


def _section(settings: type[BaseModel], prefix: str, indent: str) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        if not indent:
            yield ""
        lead = f"{indent}# "
        yield from textwrap.wrap(
            field.description or "",
            LINE_CHARS,
            initial_indent=lead,
            subsequent_indent=lead,
            break_long_words=False,
            break_on_hyphens=False,
        )
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield f"{indent}{name}:"
            yield from _section(below, f"{prefix}{name}.", indent + "  ")
        else:
            yield f"{indent}{name}: {_value(prefix + name, field)}"


def _value(key: str, field: FieldInfo) -> str:
    if field.is_required():
        return f"{_EXAMPLES[key]}  # required"
    value = field.get_default()
    return json.dumps(list(value) if isinstance(value, tuple) else value)  # JSON is YAML


if __name__ == "__main__":
    sys.stdout.write(reference_yaml())
