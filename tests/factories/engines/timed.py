"""Engines whose speed, and whose faults, the model's name chooses: ``slow-0.01`` sleeps for each call."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa

from batchscore.errors import ModelError


class Engine:
    def __init__(self, name):
        self.kind, _, value = name.partition("-")
        self.value = float(value or 0)
        self.held = np.ones(int(self.value) << 17) if self.kind == "large" else None  # value MiB

    def score(self, inputs):
        sys.stdout.write("printed by a model\n")
        FAULTS.get(self.kind, lambda value, rows: None)(self.value, inputs.num_rows)
        return pa.RecordBatch.from_arrays([inputs.column(0)], names=["prediction"])


def _spawn(value, rows):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(3_600)


def _exit(value, rows):
    sys.stdout.write("the last words\n")
    sys.stdout.flush()
    os._exit(3)


def _raise(error):
    raise error


FAULTS = {
    "slow": lambda value, rows: time.sleep(value),
    "rows": lambda value, rows: time.sleep(rows**2 * 1e-9),  # the larger the batch, the slower each row
    "hang": lambda value, rows: time.sleep(3_600),
    "spawn": _spawn,
    "crash": lambda value, rows: ctypes.string_at(0),
    "exit": _exit,
    "raise": lambda value, rows: _raise(ValueError("no such operator")),
    "refuse": lambda value, rows: _raise(ModelError("the model raised", found="a reason")),
}


def supports(model):
    return None


def load(files, threads):
    if files.name.startswith("load"):
        time.sleep(float(files.name.partition("-")[2]))
    return Engine(files.name)
