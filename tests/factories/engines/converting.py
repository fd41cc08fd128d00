"""An engine that converts: it copies one file, and keeps a diary of its conversions beside the model."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa

from batchscore.errors import ModelError

DIARY = "DIARY"  # environment variable: where each conversion is noted
BEHAVIOUR = "BEHAVIOUR"  # environment variable: what goes wrong
VERSION = {"copier": "1"}


class Engine:
    def score(self, inputs):
        return pa.RecordBatch.from_arrays([inputs.column(0)], names=["prediction"])


def convert(model, folder):
    with Path(os.environ[DIARY]).open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    behaviour = os.environ.get(BEHAVIOUR, "")
    (folder / "weights.bin").write_bytes(b"half")
    time.sleep(float(os.environ.get("SLEEP", "0")))
    if behaviour == "raise":
        raise RuntimeError("operator Frobnicate is unknown")
    if behaviour == "refuse":
        raise ModelError("this model has a custom objective")
    if behaviour == "full":
        raise OSError(28, "No space left on device")
    if behaviour == "compiler":
        raise FileNotFoundError(2, "No such file or directory", "cc")
    if behaviour == "die":
        os._exit(9)
    if behaviour == "nothing":
        (folder / "weights.bin").unlink()
        return
    (folder / "sub").mkdir()
    (folder / "sub" / "graph.txt").write_text("graph " * 1_000)
    (folder / "weights.bin").write_bytes(model.digest.encode())


def versions():
    return dict(VERSION)


def supports(model):
    return None


def load(files, threads):
    if not Path(files.path, "weights.bin").is_file():
        raise ModelError("not an artifact")
    return Engine()
