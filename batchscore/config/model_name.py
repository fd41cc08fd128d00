"""What ``--model`` may say, taken apart without asking a registry."""

from __future__ import annotations

from pathlib import Path

_FOLDER_STARTS = ("/", "./", "../", "~")


def split_model(requested: str) -> tuple[str, str | None]:
    """The name and the version (or stage, or ``@alias``) of a model as a user writes it.

    ``runs:/…``, other URIs and folders come back whole, with no version.

    >>> split_model("fraud_detection/Production"), split_model("models:/fraud_detection@champion")
    (('fraud_detection', 'Production'), ('fraud_detection', '@champion'))
    >>> split_model("runs:/0a1b/model"), split_model("./exported/fraud")
    (('runs:/0a1b/model', None), ('./exported/fraud', None))
    """
    text = requested.removeprefix("models:/") if requested.count("/") > 1 or "@" in requested else requested
    text = text.lstrip("/") if requested.startswith("models:") else text
    if ":" in text or text.startswith(_FOLDER_STARTS) or (Path(text) / "MLmodel").is_file():
        return requested, None
    name, at, alias = text.partition("@")
    if at:
        return name, f"@{alias}"
    name, slash, version = text.partition("/")
    return (name, version) if slash and version else (text, None)
